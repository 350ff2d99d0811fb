// Sums over all axes but the last, for batch normalisation, as targets of XLA's FFI.
//
// XLA's reductions over the rows of [rows, channels] reach a tenth of the memory's
// speed on the CPU; these read each array once. Rows are cut into pieces by the shape
// alone and the pieces' results joined in their order: the same shapes give the same
// bits whatever the number of threads. Inside a piece sums are float32, of at most 128
// terms after four were added; across pieces they are double.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "errors.h"
#include "parallel.h"

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;

INLINE float Load(const float* p) { return *p; }

INLINE float Load(const uint16_t* p) {  // bfloat16: the upper half of a float
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A tile is as many rows, laid side by side, as make the loops over few channels long.
constexpr int64_t kTile = 64;
constexpr int64_t kPiece = 32768;
constexpr int64_t kFewestRows = 128;
constexpr int64_t kMostTiles = 512;

struct Cut {
  int64_t rows, channels;
  int64_t width;  // of a tile
  int64_t piece;  // rows
  int64_t pieces;

  Cut(int64_t rows, int64_t channels) : rows(rows), channels(channels) {
    const int64_t side = (kTile + channels - 1) / channels;
    width = side * channels;
    piece = std::clamp(kPiece / channels, kFewestRows, kMostTiles * side);
    piece = (piece + 4 * side - 1) / (4 * side) * (4 * side);
    pieces = (rows + piece - 1) / piece;
  }
  int64_t begin(int64_t i) const { return i * piece * channels; }
  int64_t size(int64_t i) const {
    return (std::min(rows, (i + 1) * piece) - i * piece) * channels;
  }
};

// lanes0 += sum of g, lanes1 += sum of g * (x - centre), over tiles; n elements.
template <typename G, typename X>
INLINE void AddSums(const G* __restrict g, const X* __restrict x,
                    const float* __restrict centre, int64_t n, int64_t width,
                    float* __restrict lanes0, float* __restrict lanes1) {
  for (; n >= 4 * width; n -= 4 * width, g += 4 * width, x += 4 * width) {
    for (int64_t i = 0; i < width; ++i) {
      const float c = centre[i];
      const float g0 = Load(g + i), g1 = Load(g + width + i);
      const float g2 = Load(g + 2 * width + i), g3 = Load(g + 3 * width + i);
      lanes0[i] += (g0 + g1) + (g2 + g3);
      lanes1[i] +=
          (g0 * (Load(x + i) - c) + g1 * (Load(x + width + i) - c)) +
          (g2 * (Load(x + 2 * width + i) - c) + g3 * (Load(x + 3 * width + i) - c));
    }
  }
  for (; n > 0; n -= width, g += width, x += width) {
    for (int64_t i = 0; i < std::min(n, width); ++i) {
      const float g0 = Load(g + i);
      lanes0[i] += g0;
      lanes1[i] += g0 * (Load(x + i) - centre[i]);
    }
  }
}

template <typename X>
INLINE void AddValues(const X* __restrict x, int64_t n, int64_t width,
                      float* __restrict lanes) {
  for (; n >= 4 * width; n -= 4 * width, x += 4 * width) {
    for (int64_t i = 0; i < width; ++i) {
      lanes[i] += (Load(x + i) + Load(x + width + i)) +
                  (Load(x + 2 * width + i) + Load(x + 3 * width + i));
    }
  }
  for (; n > 0; n -= width, x += width) {
    for (int64_t i = 0; i < std::min(n, width); ++i) lanes[i] += Load(x + i);
  }
}

template <typename X>
INLINE void AddSquares(const X* __restrict x, const float* __restrict centre, int64_t n,
                       int64_t width, float* __restrict lanes0,
                       float* __restrict lanes1) {
  for (; n >= 4 * width; n -= 4 * width, x += 4 * width) {
    for (int64_t i = 0; i < width; ++i) {
      const float c = centre[i];
      const float d0 = Load(x + i) - c, d1 = Load(x + width + i) - c;
      const float d2 = Load(x + 2 * width + i) - c, d3 = Load(x + 3 * width + i) - c;
      lanes0[i] += (d0 + d1) + (d2 + d3);
      lanes1[i] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
    }
  }
  for (; n > 0; n -= width, x += width) {
    for (int64_t i = 0; i < std::min(n, width); ++i) {
      const float d = Load(x + i) - centre[i];
      lanes0[i] += d;
      lanes1[i] += d * d;
    }
  }
}

#define DEFINE_SUMS(NAME, G, X)                                                      \
  FOR_EACH_MACHINE void NAME(const G* g, const X* x, const float* centre, int64_t n, \
                             int64_t width, float* lanes0, float* lanes1) {          \
    AddSums(g, x, centre, n, width, lanes0, lanes1);                                 \
  }
DEFINE_SUMS(Sums, float, float)
DEFINE_SUMS(Sums, uint16_t, float)
DEFINE_SUMS(Sums, float, uint16_t)
DEFINE_SUMS(Sums, uint16_t, uint16_t)

#define DEFINE_MOMENTS(X)                                                            \
  FOR_EACH_MACHINE void Values(const X* x, int64_t n, int64_t width, float* lanes) { \
    AddValues(x, n, width, lanes);                                                   \
  }                                                                                  \
  FOR_EACH_MACHINE void Squares(const X* x, const float* centre, int64_t n,          \
                                int64_t width, float* lanes0, float* lanes1) {       \
    AddSquares(x, centre, n, width, lanes0, lanes1);                                 \
  }
DEFINE_MOMENTS(float)
DEFINE_MOMENTS(uint16_t)

// The lanes of each channel, added up.
void Fold(const float* lanes, const Cut& cut, double* sums) {
  for (int64_t c = 0; c < cut.channels; ++c) {
    double sum = 0;
    for (int64_t i = c; i < cut.width; i += cut.channels) sum += lanes[i];
    sums[c] = sum;
  }
}

void Repeat(const float* values, const Cut& cut, float* tile) {
  for (int64_t i = 0; i < cut.width; i += cut.channels) {
    std::copy(values, values + cut.channels, tile + i);
  }
}
template <typename G, typename X>
void ChannelSums(ffi::ThreadPool& pool, const G* g, const X* x, const float* centre,
                 const Cut& cut, float* sums0, float* sums1) {
  const int64_t channels = cut.channels;
  std::vector<float> tile(cut.width);
  Repeat(centre, cut, tile.data());
  std::vector<double> parts(2 * channels * cut.pieces);
  ForEachPiece(pool, cut.pieces, [&](int64_t i) {
    std::vector<float> lanes(2 * cut.width, 0.0f);
    float* second = lanes.data() + cut.width;
    Sums(g + cut.begin(i), x + cut.begin(i), tile.data(), cut.size(i), cut.width,
         lanes.data(), second);
    Fold(lanes.data(), cut, &parts[2 * channels * i]);
    Fold(second, cut, &parts[2 * channels * i + channels]);
  });
  std::vector<double> totals(2 * channels, 0.0);
  for (int64_t i = 0; i < cut.pieces; ++i) {
    const double* part = &parts[2 * channels * i];
    for (int64_t c = 0; c < 2 * channels; ++c) totals[c] += part[c];
  }
  std::copy_n(totals.data(), channels, sums0);
  std::copy_n(totals.data() + channels, channels, sums1);
}

template <typename X>
void Sum(ffi::ThreadPool& pool, const X* x, const Cut& cut, float* sums) {
  const int64_t channels = cut.channels;
  std::vector<double> parts(channels * cut.pieces);
  ForEachPiece(pool, cut.pieces, [&](int64_t i) {
    std::vector<float> lanes(cut.width, 0.0f);
    Values(x + cut.begin(i), cut.size(i), cut.width, lanes.data());
    Fold(lanes.data(), cut, &parts[channels * i]);
  });
  for (int64_t c = 0; c < channels; ++c) {
    double total = 0;
    for (int64_t i = 0; i < cut.pieces; ++i) total += parts[channels * i + c];
    sums[c] = total;
  }
}

// Each piece gives its mean and its sum of squared distances from it, in a second look
// at what the cache still holds; they are joined as Chan, Golub and LeVeque (1979) do.
template <typename X>
void Moments(ffi::ThreadPool& pool, const X* x, const Cut& cut, float* mean,
             float* variance) {
  const int64_t channels = cut.channels;
  std::vector<double> parts(2 * channels * cut.pieces);
  ForEachPiece(pool, cut.pieces, [&](int64_t i) {
    const X* begin = x + cut.begin(i);
    const double count = static_cast<double>(cut.size(i) / channels);
    double* means = &parts[2 * channels * i];
    double* squares = means + channels;
    std::vector<float> lanes(2 * cut.width, 0.0f), tile(cut.width), rough(channels);
    float* second = lanes.data() + cut.width;
    Values(begin, cut.size(i), cut.width, lanes.data());
    Fold(lanes.data(), cut, means);
    for (int64_t c = 0; c < channels; ++c) rough[c] = means[c] / count;
    Repeat(rough.data(), cut, tile.data());
    std::fill_n(lanes.data(), cut.width, 0.0f);
    Squares(begin, tile.data(), cut.size(i), cut.width, lanes.data(), second);
    Fold(lanes.data(), cut, means);
    Fold(second, cut, squares);
    for (int64_t c = 0; c < channels; ++c) {
      const double off = means[c] / count;  // what rounding left in the rough mean
      squares[c] -= off * means[c];
      // An infinity leaves NaN, and is the mean all the same.
      means[c] = std::isfinite(off) ? rough[c] + off : rough[c];
    }
  });
  double* means = parts.data();  // of the pieces so far
  double* squares = means + channels;
  double count = static_cast<double>(cut.size(0) / channels);
  for (int64_t i = 1; i < cut.pieces; ++i) {
    const double* part = &parts[2 * channels * i];
    const double more = static_cast<double>(cut.size(i) / channels);
    const double share = more / (count + more);
    for (int64_t c = 0; c < channels; ++c) {
      const double apart = part[c] - means[c];
      means[c] += std::isfinite(means[c]) ? apart * share : part[c];
      squares[c] += part[channels + c] + apart * apart * count * share;
    }
    count += more;
  }
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = means[c];
    variance[c] = squares[c] / count;
  }
}

// [*stack, *axes, channels], with `stack` leading axes that are not summed over.
struct Shape {
  int64_t stack = 1, rows = 1, channels = 1;

  Shape(ffi::AnyBuffer::Dimensions sizes, int64_t stacked) {
    const int64_t last = static_cast<int64_t>(sizes.size()) - 1;
    for (int64_t i = 0; i < last; ++i) (i < stacked ? stack : rows) *= sizes[i];
    channels = sizes[last];
  }
};

using Vectors = ffi::Result<ffi::Buffer<ffi::F32>>;

// Calls `use` with the array's elements as what they are.
template <typename Use>
ffi::Error As(ffi::AnyBuffer array, const Use& use) {
  switch (array.element_type()) {
    case ffi::F32:
      use(static_cast<const float*>(array.untyped_data()));
      return ffi::Error::Success();
    case ffi::BF16:
      use(static_cast<const uint16_t*>(array.untyped_data()));
      return ffi::Error::Success();
    default:
      return ffi::Error::InvalidArgument("jaxdl sums float32 and bfloat16 only");
  }
}

ffi::Error SumTarget(ffi::ThreadPool pool, ffi::AnyBuffer x, Vectors sums) {
  const Shape shape(x.dimensions(), 0);
  const Cut cut(shape.rows, shape.channels);
  return As(x, [&](auto* xs) { Sum(pool, xs, cut, sums->typed_data()); });
}

ffi::Error SumsTarget(ffi::ThreadPool pool, ffi::AnyBuffer g, ffi::AnyBuffer x,
                      ffi::Buffer<ffi::F32> centre, Vectors sums0, Vectors sums1,
                      int64_t stacked) {
  const Shape shape(x.dimensions(), stacked);
  const Cut cut(shape.rows, shape.channels);
  ffi::Error inner;
  ffi::Error outer = As(g, [&](auto* gs) {
    inner = As(x, [&](auto* xs) {
      for (int64_t i = 0; i < shape.stack; ++i) {
        const int64_t at = i * shape.rows * shape.channels, to = i * shape.channels;
        ChannelSums(pool, gs + at, xs + at, centre.typed_data() + to, cut,
                    sums0->typed_data() + to, sums1->typed_data() + to);
      }
    });
  });
  return outer.failure() ? outer : inner;
}

ffi::Error MomentsTarget(ffi::ThreadPool pool, ffi::AnyBuffer x, Vectors mean,
                         Vectors variance, int64_t stacked) {
  const Shape shape(x.dimensions(), stacked);
  const Cut cut(shape.rows, shape.channels);
  return As(x, [&](auto* xs) {
    for (int64_t i = 0; i < shape.stack; ++i) {
      Moments(pool, xs + i * shape.rows * shape.channels, cut,
              mean->typed_data() + i * shape.channels,
              variance->typed_data() + i * shape.channels);
    }
  });
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_sum, jaxdl::Guarded("jaxdl_sum", jaxdl::SumTarget),
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_channel_sums,
                              jaxdl::Guarded("jaxdl_channel_sums", jaxdl::SumsTarget),
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<int64_t>("stacked"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_moments,
                              jaxdl::Guarded("jaxdl_moments", jaxdl::MomentsTarget),
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<int64_t>("stacked"));

#pragma GCC visibility pop
