// The kernels of small.cc, written once for each instruction set: the file that includes
// this one has said what a vector is and how it computes (small_avx512.cc, small_avx2.cc).

#include <algorithm>
#include <utility>

#include "small.h"

namespace jaxdl {
namespace {

TARGET void ToLanes(const float* from, int64_t stride, int64_t images, int64_t count,
                    float* to) {
  for (int64_t j = 0; j < count; j += kLanes, to += kLanes * kLanes) {
    Vector r[kLanes];
    for (int64_t n = 0; n < kLanes; ++n) {
      r[n] = n < images ? LoadFirst(from + n * stride + j, count - j) : Zero();
    }
    Transpose(r);
    const int64_t rows = std::min<int64_t>(kLanes, count - j);
    for (int64_t k = 0; k < kLanes; ++k) {
      if (k < rows) Store(to + k * kLanes, r[k]);
    }
  }
}

TARGET void FromLanes(const float* from, int64_t stride, int64_t images, int64_t count,
                      float* to) {
  for (int64_t j = 0; j < count; j += kLanes, from += kLanes * kLanes) {
    Vector r[kLanes];
    const int64_t rows = std::min<int64_t>(kLanes, count - j);
    for (int64_t k = 0; k < kLanes; ++k) {
      r[k] = k < rows ? Load(from + k * kLanes) : Zero();
    }
    Transpose(r);
    for (int64_t n = 0; n < kLanes; ++n) {
      if (n < images) StoreFirst(to + n * stride + j, count - j, r[n]);
    }
  }
}

TARGET void SumLanes(const float* from, int64_t count, float* to) {
  for (int64_t j = 0; j < count; j += kLanes, from += kLanes * kLanes) {
    Vector r[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) r[k] = Load(from + k * kLanes);
    Transpose(r);
    for (int half = kLanes / 2; half > 0; half /= 2) {
      for (int n = 0; n < half; ++n) r[n] = Add(r[n], r[n + half]);
    }
    Store(to + j, r[0]);
  }
}

template <int pixels, int outputs>
TARGET_INLINE void Tile(const RowTask& task, int64_t column, int64_t output) {
  const Map& m = task.map;
  const int64_t start = column * m.stride_w, end = start + (pixels - 1) * m.stride_w;
  // Columns of the kernel that see nothing but padding add nothing.
  const int64_t first = std::max<int64_t>(0, m.left - end) * m.in;
  const int64_t last = std::min(m.kernel_width, m.width + m.left - start) * m.in;
  const int64_t step = m.stride_w * m.in * kLanes;
  Vector sum[pixels][outputs];
  for (int p = 0; p < pixels; ++p) {
    for (int o = 0; o < outputs; ++o) sum[p][o] = Zero();
  }
  for (int64_t row = task.first; row < task.last; ++row) {
    const float* x = task.x + row * m.line() + (start * m.in + first) * kLanes;
    const float* w =
        task.weights + (row * m.kernel_width * m.in + first) * m.out + output;
    for (int64_t q = first; q < last; ++q, x += kLanes, w += m.out) {
      Vector seen[pixels];
      for (int p = 0; p < pixels; ++p) seen[p] = Load(x + p * step);
      for (int o = 0; o < outputs; ++o) {
        const Vector weight = Same(w[o]);
        for (int p = 0; p < pixels; ++p) {
          sum[p][o] = MultiplyAdd(seen[p], weight, sum[p][o]);
        }
      }
    }
  }
  float* const y = task.y + (column * m.out + output) * kLanes;
  for (int p = 0; p < pixels; ++p) {
    for (int o = 0; o < outputs; ++o) Store(y + (p * m.out + o) * kLanes, sum[p][o]);
  }
}

template <int outputs>
TARGET void Row(const RowTask& task) {
  constexpr int pixels = Depth(outputs), narrow = std::max(1, outputs - 1);
  const Map& m = task.map;
  const int64_t switched = m.wide() * outputs;
  int64_t column = 0;
  for (; column + pixels <= m.columns; column += pixels) {
    int64_t o = 0;
    for (; o < switched; o += outputs) Tile<pixels, outputs>(task, column, o);
    for (; o < m.out; o += narrow) Tile<pixels, narrow>(task, column, o);
  }
  for (; column < m.columns; ++column) {
    int64_t o = 0;
    for (; o < switched; o += outputs) Tile<1, outputs>(task, column, o);
    for (; o < m.out; o += narrow) Tile<1, narrow>(task, column, o);
  }
}

template <int depth, int outputs>
TARGET_INLINE void WeightsTile(const WeightsTask& task, int64_t tap, int64_t output) {
  const Map& m = task.map;
  const int64_t in_row = m.kernel_width * m.in;
  const float* seen[depth];
  float* const sums = task.sums + (tap * m.out + output) * kLanes;
  Vector sum[depth][outputs];
  for (int k = 0; k < depth; ++k) {
    const int64_t t = tap + k;
    seen[k] = task.x + t / in_row * m.line() + t % in_row * kLanes;
    for (int o = 0; o < outputs; ++o) {
      sum[k][o] = Load(sums + (k * m.out + o) * kLanes);
    }
  }
  const float* y = task.y + output * kLanes;
  for (int64_t row = 0; row < task.rows; ++row) {
    int64_t place = row * m.stride_h * m.line();
    for (int64_t column = 0; column < m.columns; ++column) {
      Vector x[depth];
      for (int k = 0; k < depth; ++k) x[k] = Load(seen[k] + place);
      for (int o = 0; o < outputs; ++o) {
        Vector gradient = Load(y + o * kLanes);
        __asm__("" : "+v"(gradient));  // else it is loaded anew for each product
        for (int k = 0; k < depth; ++k) {
          sum[k][o] = MultiplyAdd(x[k], gradient, sum[k][o]);
        }
      }
      place += m.stride_w * m.in * kLanes;
      y += m.out * kLanes;
    }
  }
  for (int k = 0; k < depth; ++k) {
    for (int o = 0; o < outputs; ++o) {
      Store(sums + (k * m.out + o) * kLanes, sum[k][o]);
    }
  }
}

template <int outputs>
TARGET void Weights(const WeightsTask& task) {
  constexpr int depth = Depth(outputs), narrow = std::max(1, outputs - 1);
  const Map& m = task.map;
  const int64_t switched = m.wide() * outputs, taps = m.taps();
  int64_t tap = 0;
  for (; tap + depth <= taps; tap += depth) {
    int64_t o = 0;
    for (; o < switched; o += outputs) WeightsTile<depth, outputs>(task, tap, o);
    for (; o < m.out; o += narrow) WeightsTile<depth, narrow>(task, tap, o);
  }
  for (; tap < taps; ++tap) {
    int64_t o = 0;
    for (; o < switched; o += outputs) WeightsTile<1, outputs>(task, tap, o);
    for (; o < m.out; o += narrow) WeightsTile<1, narrow>(task, tap, o);
  }
}

template <int... less>
struct Table {
  static constexpr void (*row[])(const RowTask&) = {Row<less + 1>...};
  static constexpr void (*weights[])(const WeightsTask&) = {Weights<less + 1>...};
};

template <int... less>
constexpr Table<less...> TableOf(std::integer_sequence<int, less...>) {
  return {};
}

using Tiles = decltype(TableOf(std::make_integer_sequence<int, kWidest>()));

constexpr SmallKernels kKernels = {kLanes,    kWidest,  ToLanes,
                                   FromLanes, SumLanes, Tiles::row,
                                   Tiles::weights};

}  // namespace
}  // namespace jaxdl
