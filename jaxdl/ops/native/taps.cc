// Convolutions of small maps, as sums of matrix products over the taps of the kernel.
//
// With the batch moved behind the pixels, and those that a stride parts side by side,
// what a tap sees of a row of pixels is one matrix, and its weights are another; what it
// would see of the padding is never computed. A 3x3 convolution of a 2x2 map so takes 4/9 of the arithmetic, and oneDNN's
// products, unlike its convolutions, keep their speed there.

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <vector>

#include "convolution.h"

namespace jaxdl {
namespace {

using dnnl::memory;

constexpr int64_t kGrain = 32768;  // numbers in a piece of a copy

class Taps : public Convolution {
 public:
  explicit Taps(const Geometry& g) : g_(g) {
    SortPixels();
    FindLines();
    for (const Line& line : lines_) {
      if (products_.count(line.pixels) != 0) continue;
      const auto& made = products_.emplace(line.pixels, Product(line.pixels)).first;
      scratch_ = std::max(scratch_, made->second.scratch.get_size());
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
    switch (g_.direction) {
      case kForward:
        BatchInside(pool, left, inputs, in_places_, g_.channels);
        break;
      case kInputGradient:
        BatchInside(pool, left, outputs, out_places_, g_.outputs);
        break;
      default:
        BatchInside(pool, left, inputs, in_places_, g_.channels);
        BatchInside(pool, right, outputs, out_places_, g_.outputs);
        if (!g_.result_bf16) sums = static_cast<char*>(result);
    }
    Zero(pool, sums, result_items() * 4);
    dnnl::stream stream(Cpu());
    for (const auto& [tap, in, out, pixels] : lines_) {
      const Prepared& product = products_.at(pixels);
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
    }
    stream.wait();
    const auto* const sum = reinterpret_cast<const float*>(sums);
    if (g_.direction == kForward) {
      BatchOutside(pool, sum, result, out_places_, g_.outputs);
    } else if (g_.direction == kInputGradient) {
      BatchOutside(pool, sum, result, in_places_, g_.channels);
    } else if (g_.result_bf16) {
      Round(pool, sum, static_cast<uint16_t*>(result), result_items());
    }
  }

 private:
  struct Prepared {
    memory::desc a, b, c, scratch;
    dnnl::matmul matmul;
  };

  using Places = std::vector<int64_t>;

  // What a tap sees in a row of the map: where it lies among the pixels that are seen,
  // and the results that it adds to; several rows where they lie behind each other.
  struct Line {
    int64_t tap, in, out, pixels;
  };

  // Whether a tap sees any of the pixels phase, phase + stride, ... along an axis.
  static bool IsSeen(int64_t phase, int64_t taps, int64_t stride, int64_t dilation,
                     int64_t low) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      if ((tap * dilation - low - phase) % stride == 0) return true;
    }
    return false;
  }

  // Pixels that lie a stride apart come one after the other.
  void SortPixels() {
    in_places_.assign(g_.height * g_.width, -1);
    for (int64_t top = 0; top < std::min(g_.stride_h, g_.height); ++top) {
      if (!IsSeen(top, g_.kernel_height, g_.stride_h, g_.dilation_h, g_.top)) continue;
      for (int64_t left = 0; left < std::min(g_.stride_w, g_.width); ++left) {
        if (!IsSeen(left, g_.kernel_width, g_.stride_w, g_.dilation_w, g_.left)) {
          continue;
        }
        for (int64_t y = top; y < g_.height; y += g_.stride_h) {
          for (int64_t x = left; x < g_.width; x += g_.stride_w) {
            in_places_[y * g_.width + x] = seen_++;
          }
        }
      }
    }
    out_places_.resize(g_.rows * g_.columns);
    std::iota(out_places_.begin(), out_places_.end(), 0);
  }

  void FindLines() {
    for (int64_t tap = 0; tap < g_.taps(); ++tap) {
      const int64_t down = tap / g_.kernel_width * g_.dilation_h - g_.top;
      const int64_t across = tap % g_.kernel_width * g_.dilation_w - g_.left;
      for (int64_t oy = 0; oy < g_.rows; ++oy) {
        const int64_t iy = oy * g_.stride_h + down;
        if (iy < 0 || iy >= g_.height) continue;
        for (int64_t ox = 0; ox < g_.columns; ++ox) {
          const int64_t ix = ox * g_.stride_w + across;
          if (ix < 0 || ix >= g_.width) continue;
          const int64_t in = in_places_[iy * g_.width + ix], out = oy * g_.columns + ox;
          if (!lines_.empty()) {
            Line& last = lines_.back();
            if (last.tap == tap && last.in + last.pixels == in &&
                last.out + last.pixels == out) {
              ++last.pixels;
              continue;
            }
          }
          lines_.push_back({tap, in, out, 1});
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
  size_t image_items() const { return g_.images * seen_ * g_.channels; }
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

  // [N, pixels, channels] -> [places, N, channels].
  void BatchInside(Pool& pool, const void* from, char* to, const Places& places,
                   int64_t channels) const {
    const size_t row = channels * item();
    ForEachRow(pool, places, channels, [&](int64_t r, int64_t place) {
      if (place < 0) return;
      std::memcpy(to + place * row, static_cast<const char*>(from) + r * row, row);
    });
  }

  // float [places, N, channels] -> [N, pixels, channels], rounded where it is bfloat16.
  void BatchOutside(Pool& pool, const float* from, void* to, const Places& places,
                    int64_t channels) const {
    const size_t row = channels * (g_.result_bf16 ? 2 : 4);
    ForEachRow(pool, places, channels, [&](int64_t r, int64_t place) {
      char* const out = static_cast<char*>(to) + r * row;
      if (place < 0) {
        std::memset(out, 0, row);
      } else if (g_.result_bf16) {
        const float* const sums = from + place * channels;
        auto* const rounded = reinterpret_cast<uint16_t*>(out);
        for (int64_t c = 0; c < channels; ++c) rounded[c] = Rounded(sums[c]);
      } else {
        std::memcpy(out, from + place * channels, row);
      }
    });
  }

  // Calls move(row in [N, pixels], row in [places, N] or a negative number).
  template <typename Move>
  void ForEachRow(Pool& pool, const Places& places, int64_t channels,
                  const Move& move) const {
    const auto pixels = static_cast<int64_t>(places.size());
    const int64_t rows = pixels * g_.images;
    ForEachRange(pool, rows, kGrain / channels, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t n = r / pixels, place = places[r % pixels];
        move(r, place < 0 ? place : place * g_.images + n);
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
  Places in_places_, out_places_;  // of each pixel; -1 where no tap sees it
  int64_t seen_ = 0;
  std::vector<Line> lines_;
  std::map<int64_t, Prepared> products_;  // by the pixels of a line
  size_t scratch_ = 0;
};

}  // namespace

std::unique_ptr<Convolution> MakeTaps(const Geometry& g) {
  return std::make_unique<Taps>(g);
}

}  // namespace jaxdl
