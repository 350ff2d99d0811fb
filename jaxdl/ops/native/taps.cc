// Convolutions of small maps, as sums of matrix products over the taps of the kernel.
//
// With the batch moved behind the pixels, what a tap sees of a row of pixels is one
// matrix, and its weights are another; what it would see of the padding is never
// computed. A 3x3 convolution of a 2x2 map so takes 4/9 of the arithmetic, and oneDNN's
// products, unlike its convolutions, keep their speed there.

#include <algorithm>
#include <cstring>
#include <map>

#include "convolution.h"

namespace jaxdl {
namespace {

using dnnl::memory;

constexpr int64_t kGrain = 32768;  // numbers in a piece of a copy

class Taps : public Convolution {
 public:
  explicit Taps(const Geometry& g) : g_(g) {
    ForEachProduct([this](int64_t, int64_t, int64_t, int64_t columns) {
      if (products_.count(columns) == 0) products_.emplace(columns, Product(columns));
    });
    for (const auto& [columns, product] : products_) {
      scratch_ = std::max(scratch_, product.scratch.get_size());
    }
  }

  const char* implementation() const override { return "taps"; }

  size_t workspace() const override {
    return Aligned(input_items() * item()) + Aligned(output_items() * item()) +
           Aligned(sum_items() * 4) + Aligned(scratch_) + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    char* const inputs = parts.Take(input_items() * item());
    char* const outputs = parts.Take(output_items() * item());
    char* sums = parts.Take(sum_items() * 4);
    void* const scratch = parts.Take(scratch_);
    const int64_t in_pixels = g_.height * g_.width, out_pixels = g_.rows * g_.columns;
    switch (g_.direction) {
      case kForward:
        BatchInside(pool, left, inputs, in_pixels, g_.channels);
        break;
      case kInputGradient:
        BatchInside(pool, left, outputs, out_pixels, g_.outputs);
        break;
      default:
        BatchInside(pool, left, inputs, in_pixels, g_.channels);
        BatchInside(pool, right, outputs, out_pixels, g_.outputs);
        if (!g_.result_bf16) sums = static_cast<char*>(result);
    }
    Zero(pool, sums, result_items() * 4);
    dnnl::stream stream(Cpu());
    ForEachProduct([&](int64_t tap, int64_t in, int64_t out, int64_t columns) {
      const Prepared& product = products_.at(columns);
      char* const x = inputs + in * g_.images * g_.channels * item();
      char* const y = outputs + out * g_.images * g_.outputs * item();
      const int64_t weights = tap * g_.channels * g_.outputs;
      void *a = x, *b = static_cast<char*>(right) + weights * item(), *c;
      if (g_.direction == kForward) {
        c = sums + out * g_.images * g_.outputs * 4;
      } else if (g_.direction == kInputGradient) {
        a = y;
        c = sums + in * g_.images * g_.channels * 4;
      } else {
        b = y;
        c = sums + weights * 4;
      }
      product.matmul.execute(
          stream, {{DNNL_ARG_SRC, memory(product.a, Cpu(), a)},
                   {DNNL_ARG_WEIGHTS, memory(product.b, Cpu(), b)},
                   {DNNL_ARG_DST, memory(product.c, Cpu(), c)},
                   {DNNL_ARG_SCRATCHPAD, memory(product.scratch, Cpu(), scratch)}});
    });
    stream.wait();
    const auto* const sum = reinterpret_cast<const float*>(sums);
    if (g_.direction == kForward) {
      BatchOutside(pool, sum, result, out_pixels, g_.outputs);
    } else if (g_.direction == kInputGradient) {
      BatchOutside(pool, sum, result, in_pixels, g_.channels);
    } else if (g_.result_bf16) {
      Round(pool, sum, static_cast<uint16_t*>(result), result_items());
    }
  }

 private:
  struct Prepared {
    memory::desc a, b, c, scratch;
    dnnl::matmul matmul;
  };

  // Calls visit(tap, first input pixel, first output pixel, pixels in a row).
  template <typename Visit>
  void ForEachProduct(Visit visit) const {
    for (int64_t oy = 0; oy < g_.rows; ++oy) {
      for (int64_t ky = 0; ky < g_.kernel_height; ++ky) {
        const int64_t iy = oy * g_.stride_h + ky * g_.dilation_h - g_.top;
        if (iy < 0 || iy >= g_.height) continue;
        for (int64_t kx = 0; kx < g_.kernel_width; ++kx) {
          const int64_t shift = kx * g_.dilation_w - g_.left;
          const auto seen = [&](int64_t ox) {
            const int64_t ix = ox * g_.stride_w + shift;
            return ix >= 0 && ix < g_.width;
          };
          for (int64_t ox = 0; ox < g_.columns;) {
            if (!seen(ox)) {
              ++ox;
              continue;
            }
            int64_t end = ox + 1;
            while (g_.stride_w == 1 && end < g_.columns && seen(end)) ++end;
            visit(ky * g_.kernel_width + kx, iy * g_.width + ox * g_.stride_w + shift,
                  oy * g_.columns + ox, end - ox);
            ox = end;
          }
        }
      }
    }
  }

  Prepared Product(int64_t columns) const {
    using type = memory::data_type;
    const type operand = g_.operand_bf16 ? type::bf16 : type::f32;
    const int64_t m = columns * g_.images, c = g_.channels, o = g_.outputs;
    Prepared made;
    const memory::dims kernel{g_.by_input(), g_.by_output()};
    if (g_.direction == kForward) {
      made.a = memory::desc({m, c}, operand, memory::dims{c, 1});
      made.b = memory::desc({c, o}, operand, kernel);
      made.c = memory::desc({m, o}, type::f32, memory::dims{o, 1});
    } else if (g_.direction == kInputGradient) {
      made.a = memory::desc({m, o}, operand, memory::dims{o, 1});
      made.b = memory::desc({o, c}, operand, memory::dims{kernel[1], kernel[0]});
      made.c = memory::desc({m, c}, type::f32, memory::dims{c, 1});
    } else {
      made.a = memory::desc({c, m}, operand, memory::dims{1, c});
      made.b = memory::desc({m, o}, operand, memory::dims{o, 1});
      made.c = memory::desc({c, o}, type::f32, kernel);
    }
    dnnl::post_ops add;
    add.append_sum(1.0f);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(add);
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);
    const dnnl::matmul::primitive_desc desc(Cpu(), made.a, made.b, made.c, attributes);
    made.scratch = desc.scratchpad_desc();
    made.matmul = dnnl::matmul(desc);
    return made;
  }

  size_t item() const { return g_.operand_bf16 ? 2 : 4; }
  size_t image_items() const { return g_.images * g_.height * g_.width * g_.channels; }
  size_t map_items() const { return g_.images * g_.rows * g_.columns * g_.outputs; }
  size_t input_items() const {
    return g_.direction == kInputGradient ? 0 : image_items();
  }
  size_t output_items() const { return g_.direction == kForward ? 0 : map_items(); }
  size_t result_items() const {
    if (g_.direction == kForward) return map_items();
    if (g_.direction == kInputGradient) return image_items();
    return g_.taps() * g_.channels * g_.outputs;
  }
  size_t sum_items() const {
    return g_.direction == kWeightGradient && !g_.result_bf16 ? 0 : result_items();
  }

  // [N, pixels, channels] -> [pixels, N, channels].
  void BatchInside(Pool& pool, const void* from, char* to, int64_t pixels,
                   int64_t channels) const {
    const size_t row = channels * item();
    const int64_t rows = pixels * g_.images;
    ForEachRange(pool, rows, kGrain / channels, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t p = r / g_.images, n = r % g_.images;
        std::memcpy(to + r * row,
                    static_cast<const char*>(from) + (n * pixels + p) * row, row);
      }
    });
  }

  // float [pixels, N, channels] -> [N, pixels, channels], rounded where it is bfloat16.
  void BatchOutside(Pool& pool, const float* from, void* to, int64_t pixels,
                    int64_t channels) const {
    const int64_t rows = pixels * g_.images;
    ForEachRange(pool, rows, kGrain / channels, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t n = r / pixels, p = r % pixels;
        const float* const row = from + (p * g_.images + n) * channels;
        if (g_.result_bf16) {
          uint16_t* const place = static_cast<uint16_t*>(to) + r * channels;
          for (int64_t c = 0; c < channels; ++c) place[c] = Rounded(row[c]);
        } else {
          std::memcpy(static_cast<float*>(to) + r * channels, row, channels * 4);
        }
      }
    });
  }

  static void Round(Pool& pool, const float* from, uint16_t* to, int64_t items) {
    ForEachRange(pool, items, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = Rounded(from[i]);
    });
  }

  // To nearest, ties to even; NaN stays NaN.
  static uint16_t Rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<uint16_t>(value != value ? bits >> 16 | 0x40 : rounded);
  }

  static void Zero(Pool& pool, char* place, size_t bytes) {
    ForEachRange(pool, bytes, 4 * kGrain, [&](int64_t begin, int64_t end) {
      std::memset(place + begin, 0, end - begin);
    });
  }

  Geometry g_;
  std::map<int64_t, Prepared> products_;
  size_t scratch_ = 0;
};

}  // namespace

std::unique_ptr<Convolution> MakeTaps(const Geometry& g) {
  return std::make_unique<Taps>(g);
}

}  // namespace jaxdl
