// Convolutions by 3x3 kernels in fewer multiplications: F(2x2, 3x3) of Winograd (1980),
// as Lavin and Gray (2016, "Fast Algorithms for Convolutional Neural Networks") use it.
//
// A tile of 2x2 results takes 36 multiplications for each pair of channels. Of its 4x4
// pixels d and the kernel g, transformed, it takes 16: A' [(G g G') * (B' d B)] A. Each of
// the 16 places of all tiles together is a matrix product. The transforms add and
// subtract, and halve twice: whole numbers stay exact, and others lose some two bits.
// Larger tiles would take fewer multiplications still, F(4x4, 3x3) or F(2x2, 5x5) a
// quarter and a third of those of a plain sum, but with 4 to 8 times its rounding error,
// even with the best of points (Barabasz et al. 2020): the price is not paid here.
//
// The gradient of the pixels is such a convolution too, by the kernel turned round; that
// of the kernel is G' [(A y A') * (B' d B)] G, summed over the tiles, y being the gradient
// of the results.

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "alone.h"
#include "convolution.h"
#include "sgemm.h"

namespace jaxdl {
namespace {

constexpr int64_t kPlaces = 16;
constexpr int64_t kChunk = 4 << 20;  // bytes of transformed tiles, in cache at a time
constexpr int64_t kApart = 64;       // floats between places, lest they share cache sets
constexpr int64_t kLeast = 128;      // tiles at a time: fewer rows make slow products
constexpr int64_t kUnit = 8;         // channels come in multiples of it
constexpr int64_t kGrain = 16;       // tiles in a piece of a transform

// One register of AVX-512, or two of AVX2; and what may be left over.
typedef float Vector __attribute__((vector_size(2 * kUnit * sizeof(float))));
typedef float HalfVector __attribute__((vector_size(kUnit * sizeof(float))));

// The transforms of one row or column; applied to all rows and then to all columns.
struct Pixels {  // B'
  static constexpr int kFrom = 4, kTo = 4;
  template <typename V>
  INLINE static void Apply(const V* d, int step, V* t, int to_step) {
    t[0 * to_step] = d[0 * step] - d[2 * step];
    t[1 * to_step] = d[1 * step] + d[2 * step];
    t[2 * to_step] = d[2 * step] - d[1 * step];
    t[3 * to_step] = d[1 * step] - d[3 * step];
  }
};
struct Kernel {  // G
  static constexpr int kFrom = 3, kTo = 4;
  template <typename V>
  INLINE static void Apply(const V* g, int step, V* t, int to_step) {
    const V outer = (g[0] + g[2 * step]) * 0.5f, inner = g[step] * 0.5f;
    t[0 * to_step] = g[0];
    t[1 * to_step] = outer + inner;
    t[2 * to_step] = outer - inner;
    t[3 * to_step] = g[2 * step];
  }
};
struct Results {  // A'
  static constexpr int kFrom = 4, kTo = 2;
  template <typename V>
  INLINE static void Apply(const V* m, int step, V* y, int to_step) {
    y[0 * to_step] = m[0 * step] + m[1 * step] + m[2 * step];
    y[1 * to_step] = m[1 * step] - m[2 * step] - m[3 * step];
  }
};
struct Gradients {  // A
  static constexpr int kFrom = 2, kTo = 4;
  template <typename V>
  INLINE static void Apply(const V* y, int step, V* t, int to_step) {
    t[0 * to_step] = y[0];
    t[1 * to_step] = y[0] + y[step];
    t[2 * to_step] = y[0] - y[step];
    t[3 * to_step] = -y[step];
  }
};
struct KernelGradient {  // G'
  static constexpr int kFrom = 4, kTo = 3;
  template <typename V>
  INLINE static void Apply(const V* u, int step, V* g, int to_step) {
    g[0 * to_step] = u[0] + (u[step] + u[2 * step]) * 0.5f;
    g[1 * to_step] = (u[step] - u[2 * step]) * 0.5f;
    g[2 * to_step] = (u[step] + u[2 * step]) * 0.5f + u[3 * step];
  }
};

// Transforms a vector at each of kFrom x kFrom places, `at` floats on, to kTo x kTo.
template <typename Rule, typename V>
INLINE void TransformVector(const float* const* from, float* const* to, int64_t at) {
  constexpr int n = Rule::kFrom, m = Rule::kTo;
  V in[n * n], half[m * n], out[m * m];
  for (int i = 0; i < n * n; ++i) std::memcpy(&in[i], from[i] + at, sizeof(V));
  for (int j = 0; j < n; ++j) Rule::Apply(in + j, n, half + j, n);
  for (int i = 0; i < m; ++i) Rule::Apply(half + i * n, 1, out + i * m, 1);
  for (int i = 0; i < m * m; ++i) std::memcpy(to[i] + at, &out[i], sizeof(V));
}

// The same of `count` floats at each place, a multiple of kUnit.
template <typename Rule>
INLINE void Transform(const float* const* from, float* const* to, int64_t count) {
  int64_t at = 0;
  for (; at + 2 * kUnit <= count; at += 2 * kUnit) {
    TransformVector<Rule, Vector>(from, to, at);
  }
  if (at < count) TransformVector<Rule, HalfVector>(from, to, at);
}

FOR_EACH_MACHINE void TransformPixels(const float* const* from, float* const* to,
                                      int64_t count) {
  Transform<Pixels>(from, to, count);
}
FOR_EACH_MACHINE void TransformKernel(const float* const* from, float* const* to,
                                      int64_t count) {
  Transform<Kernel>(from, to, count);
}
FOR_EACH_MACHINE void TransformResults(const float* const* from, float* const* to,
                                       int64_t count) {
  Transform<Results>(from, to, count);
}
FOR_EACH_MACHINE void TransformGradients(const float* const* from, float* const* to,
                                         int64_t count) {
  Transform<Gradients>(from, to, count);
}
FOR_EACH_MACHINE void TransformKernelGradient(const float* const* from,
                                              float* const* to, int64_t count) {
  Transform<KernelGradient>(from, to, count);
}

// Images [height, width, channels], of which tiles see side x side pixels, the first of
// them at (2 y - top, 2 x - left).
struct Image {
  int64_t height, width, channels, top, left;
};

class Winograd : public Convolution {
 public:
  explicit Winograd(const Geometry& g)
      : g_(g),
        seen_{g.height, g.width, g.channels, g.top, g.left},
        made_{g.rows, g.columns, g.outputs, 0, 0} {
    if (g.direction == kInputGradient) {
      seen_ = {g.rows, g.columns, g.outputs, 2 - g.top, 2 - g.left};
      made_ = {g.height, g.width, g.channels, 0, 0};
    }
    if (g.kernel_height != 3 || g.kernel_width != 3 || g.stride_h != 1 ||
        g.stride_w != 1 || g.dilation_h != 1 || g.dilation_w != 1) {
      throw std::invalid_argument("winograd: not a 3x3 kernel with stride 1");
    }
    if (g.operand_bf16 || g.result_bf16) {
      throw std::invalid_argument("winograd: not float32");
    }
    if (g.channels % kUnit || g.outputs % kUnit) {
      throw std::invalid_argument("winograd: channels are no multiples of 8");
    }
    if (g.swapped && g.direction == kWeightGradient) {
      throw std::invalid_argument("winograd: a swapped result");
    }
    tall_ = (made_.height + 1) / 2;
    wide_ = (made_.width + 1) / 2;
    tiles_ = g.images * tall_ * wide_;
    const int64_t bytes = kPlaces * (seen_.channels + made_.channels) * 4;
    chunk_ = std::min(tiles_, std::max(kLeast, kChunk / bytes / kGrain * kGrain));
  }

  const char* implementation() const override { return "winograd"; }

  size_t workspace() const override {
    return Aligned(kPlaces * Apart(weights()) * 4) +
           Aligned(kPlaces * Apart(chunk_ * seen_.channels) * 4) +
           Aligned(kPlaces * Apart(chunk_ * made_.channels) * 4) +
           Aligned(std::max(seen_.channels, made_.channels) * 4) + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    const auto take = [&](int64_t floats) {
      return reinterpret_cast<float*>(parts.Take(floats * 4));
    };
    float* const kernel = take(kPlaces * Apart(weights()));
    float* const seen = take(kPlaces * Apart(chunk_ * seen_.channels));
    float* const made = take(kPlaces * Apart(chunk_ * made_.channels));
    float* const zeros = take(std::max(seen_.channels, made_.channels));
    std::fill(zeros, zeros + std::max(seen_.channels, made_.channels), 0.0f);
    const auto* const x = static_cast<const float*>(left);
    if (g_.direction == kWeightGradient) {
      const auto* const y = static_cast<const float*>(right);
      for (int64_t start = 0; start < tiles_; start += chunk_) {
        const int64_t count = std::min(chunk_, tiles_ - start);
        FromImages<4>(pool, TransformPixels, seen_, start, count, x, zeros, seen);
        FromImages<2>(pool, TransformGradients, made_, start, count, y, zeros, made);
        Products(pool, [&](int64_t place) {
          return Sgemm(
              g_.channels, g_.outputs, count,
              {seen + place * Apart(chunk_ * seen_.channels), true, g_.channels},
              {made + place * Apart(chunk_ * made_.channels), false, g_.outputs},
              start > 0, kernel + place * Apart(weights()), g_.outputs);
        });
      }
      OfKernel<4, 3>(pool, TransformKernelGradient, kernel, Apart(weights()),
                     static_cast<float*>(result), weights());
      return;
    }
    const auto* given = static_cast<const float*>(right);
    OfKernel<3, 4>(pool, TransformKernel, given, weights(), kernel, Apart(weights()),
                   g_.direction == kInputGradient);
    const int64_t by_in =
        g_.direction == kInputGradient ? g_.by_output() : g_.by_input();
    const int64_t leading = std::max(g_.by_input(), g_.by_output());
    for (int64_t start = 0; start < tiles_; start += chunk_) {
      const int64_t count = std::min(chunk_, tiles_ - start);
      FromImages<4>(pool, TransformPixels, seen_, start, count, x, zeros, seen);
      Products(pool, [&](int64_t place) {
        return Sgemm(
            count, made_.channels, seen_.channels,
            {seen + place * Apart(chunk_ * seen_.channels), false, seen_.channels},
            {kernel + place * Apart(weights()), by_in == 1, leading}, false,
            made + place * Apart(chunk_ * made_.channels), made_.channels);
      });
      ToImages(pool, start, count, made, static_cast<float*>(result));
    }
  }

 private:
  using Rule = void (*)(const float* const*, float* const*, int64_t);

  int64_t weights() const { return g_.channels * g_.outputs; }
  static int64_t Apart(int64_t floats) { return floats + kApart; }

  // Pixel i of a tile in its image, and whether it is there and no padding.
  template <int side>
  int64_t Offset(const Image& image, int64_t tile, int i, bool* inside) const {
    const int64_t n = tile / (tall_ * wide_), at = tile % (tall_ * wide_);
    const int64_t y = at / wide_ * 2 - image.top + i / side;
    const int64_t x = at % wide_ * 2 - image.left + i % side;
    *inside = y >= 0 && y < image.height && x >= 0 && x < image.width;
    return ((n * image.height + y) * image.width + x) * image.channels;
  }

  // Tiles of side x side pixels -> [places, tiles, channels].
  template <int side>
  void FromImages(Pool& pool, Rule rule, const Image& image, int64_t start,
                  int64_t count, const float* images, const float* zeros,
                  float* transformed) const {
    ForEachRange(pool, count, kGrain, [&](int64_t begin, int64_t end) {
      const float* from[side * side];
      float* to[kPlaces];
      for (int64_t t = begin; t < end; ++t) {
        for (int i = 0; i < side * side; ++i) {
          bool inside;
          const int64_t offset = Offset<side>(image, start + t, i, &inside);
          from[i] = inside ? images + offset : zeros;
        }
        for (int64_t p = 0; p < kPlaces; ++p) {
          to[p] = transformed + p * Apart(chunk_ * image.channels) + t * image.channels;
        }
        rule(from, to, image.channels);
      }
    });
  }

  // The reverse, for results.
  void ToImages(Pool& pool, int64_t start, int64_t count, const float* transformed,
                float* images) const {
    ForEachRange(pool, count, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> lost(made_.channels);  // what lies outside
      const float* from[kPlaces];
      float* to[4];
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t p = 0; p < kPlaces; ++p) {
          from[p] =
              transformed + p * Apart(chunk_ * made_.channels) + t * made_.channels;
        }
        for (int i = 0; i < 4; ++i) {
          bool inside;
          const int64_t offset = Offset<2>(made_, start + t, i, &inside);
          to[i] = inside ? images + offset : lost.data();
        }
        TransformResults(from, to, made_.channels);
      }
    });
  }

  // Kernels [side, side, channels * outputs], their planes so far apart.
  template <int side, int to_side>
  void OfKernel(Pool& pool, Rule rule, const float* kernel, int64_t apart, float* result,
                int64_t result_apart, bool turned = false) const {
    ForEachRange(pool, weights() / kUnit, 256, [&](int64_t begin, int64_t end) {
      const float* from[side * side];
      float* to[to_side * to_side];
      for (int i = 0; i < side * side; ++i) {
        from[i] = kernel + (turned ? side * side - 1 - i : i) * apart + begin * kUnit;
      }
      for (int i = 0; i < to_side * to_side; ++i) {
        to[i] = result + i * result_apart + begin * kUnit;
      }
      rule(from, to, (end - begin) * kUnit);
    });
  }

  // Calls multiply(place) for each place, on all threads.
  template <typename Work>
  static void Products(Pool& pool, const Work& multiply) {
    std::atomic<bool> failed{false};
    ForEachPiece(pool, kPlaces, [&](int64_t place) {
      Alone([&] {
        if (!multiply(place)) failed = true;
      });
    });
    if (failed) throw std::runtime_error("a product failed");
  }

  Geometry g_;
  Image seen_, made_;
  int64_t tall_, wide_, tiles_, chunk_;
};

}  // namespace

// Throws std::invalid_argument where the convolution is none for it: other kernels than
// 3x3, strides, dilation, not float32, or channels that are no multiples of 8.
std::unique_ptr<Convolution> MakeWinograd(const Geometry& g) {
  return std::make_unique<Winograd>(g);
}

}  // namespace jaxdl
