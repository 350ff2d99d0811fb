// Convolutions of few channels, such as LeNet-5's, for processors with AVX-512.
//
// Libraries make vectors of channels, and with three or six of them leave most of each
// vector empty. Here a vector holds one number of each of 16 images: always full, and
// neighbouring pixels, padding and strides are but addresses. The images are turned
// into such lanes [rows, columns, channels, 16] some rows at a time, in the cache, and
// the result is turned back.
//
// A thread takes 16 images at a time. What it computes does not depend on which thread
// it is, and weights' gradients are summed over the images in a fixed order.

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>

#include "convolution.h"

// The file is compiled for any x86-64; these functions are reached where AVX-512 is.
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma")))
#define AVX512_INLINE AVX512 __attribute__((always_inline)) inline

namespace jaxdl {
namespace {

constexpr int64_t kLanes = 16;           // images side by side
constexpr int64_t kSlots = 32;           // threads for which there is room to work
constexpr int64_t kWidest = 8;           // outputs in a tile of registers
constexpr int64_t kStrip = 512 << 10;    // bytes of rows in cache at a time
constexpr int64_t kMostBytes = 1 << 20;  // of one such strip, or of the weights' lanes
constexpr int64_t kMostChannels = 64;

// Second extent of a tile of registers that is `outputs` wide: 32 registers hold its
// sums, a column of one operand and a number of the other.
constexpr int Depth(int outputs) {
  return outputs >= 7 ? 3 : outputs >= 5 ? 4 : outputs == 4 ? 6 : outputs == 3 ? 7 : 8;
}

AVX512_INLINE __m512 LowPairs(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

AVX512_INLINE __m512 HighPairs(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

// Transposes 16 rows of 16 numbers.
AVX512_INLINE void Transpose(__m512* r) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = LowPairs(t[i], t[i + 2]);
    r[i + 1] = HighPairs(t[i], t[i + 2]);
    r[i + 2] = LowPairs(t[i + 1], t[i + 3]);
    r[i + 3] = HighPairs(t[i + 1], t[i + 3]);
  }
  // Now each holds 4x4 blocks; what remains is to transpose those.
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    t[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    t[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    t[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

constexpr __mmask16 First(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
}

// `count` numbers of each of `images` images that lie `stride` apart -> [count, 16].
AVX512 void ToLanes(const float* from, int64_t stride, int64_t images, int64_t count,
                    float* to) {
  for (int64_t j = 0; j < count; j += 16, to += 256) {
    __m512 r[16];
    const __mmask16 mask = First(count - j);
    for (int64_t n = 0; n < 16; ++n) {
      r[n] = _mm512_maskz_loadu_ps(n < images ? mask : 0, from + n * stride + j);
    }
    Transpose(r);
    const int64_t rows = std::min<int64_t>(16, count - j);
    for (int64_t k = 0; k < 16; ++k) {
      if (k < rows) _mm512_store_ps(to + k * 16, r[k]);
    }
  }
}

// The reverse.
AVX512 void FromLanes(const float* from, int64_t stride, int64_t images, int64_t count,
                      float* to) {
  for (int64_t j = 0; j < count; j += 16, from += 256) {
    __m512 r[16];
    const int64_t rows = std::min<int64_t>(16, count - j);
    for (int64_t k = 0; k < 16; ++k) {
      r[k] = _mm512_maskz_load_ps(k < rows ? 0xffff : 0, from + k * 16);
    }
    Transpose(r);
    const __mmask16 mask = First(count - j);
    for (int64_t n = 0; n < 16; ++n) {
      _mm512_mask_storeu_ps(to + n * stride + j, n < images ? mask : 0, r[n]);
    }
  }
}

// [count, 16] -> [count], sums over the lanes; `count` is a multiple of 16.
AVX512 void SumLanes(const float* from, int64_t count, float* to) {
  for (int64_t j = 0; j < count; j += 16, from += 256) {
    __m512 r[16];
    for (int64_t k = 0; k < 16; ++k) r[k] = _mm512_load_ps(from + k * 16);
    Transpose(r);
    for (int half = 8; half > 0; half /= 2) {
      for (int n = 0; n < half; ++n) r[n] = _mm512_add_ps(r[n], r[n + half]);
    }
    _mm512_store_ps(to + j, r[0]);
  }
}

// A forward convolution, or the one that an input gradient is, or the one whose
// weights' gradient is wanted: [height, width, in] -> [rows, columns, out].
struct Map {
  int64_t height, width, in, rows, columns, out;
  int64_t kernel_height, kernel_width, stride_h, stride_w, top, left;

  int64_t taps() const { return kernel_height * kernel_width * in; }
  int64_t padded() const { return (columns - 1) * stride_w + kernel_width; }
  int64_t line() const { return padded() * in * kLanes; }  // floats, padding included
  int64_t result_line() const { return columns * out * kLanes; }
  int64_t tiles() const { return (out + kWidest - 1) / kWidest; }
  int64_t widest() const { return (out + tiles() - 1) / tiles(); }
  int64_t wide() const { return out - tiles() * (widest() - 1); }  // tiles that are so
};

// One row of outputs [columns, out, 16] from the lines of images from `x` on; `weights`
// are [kernel_height, kernel_width, in, out], of which rows from `first` to `last` see
// the image.
struct RowTask {
  const Map& map;
  const float *x, *weights;
  int64_t first, last;
  float* y;
};

template <int pixels, int outputs>
AVX512_INLINE void Tile(const RowTask& task, int64_t column, int64_t output) {
  const Map& m = task.map;
  const int64_t start = column * m.stride_w, end = start + (pixels - 1) * m.stride_w;
  // Columns of the kernel that see nothing but padding add nothing.
  const int64_t first = std::max<int64_t>(0, m.left - end) * m.in;
  const int64_t last = std::min(m.kernel_width, m.width + m.left - start) * m.in;
  const int64_t step = m.stride_w * m.in * kLanes;
  __m512 sum[pixels][outputs];
  for (int p = 0; p < pixels; ++p) {
    for (int o = 0; o < outputs; ++o) sum[p][o] = _mm512_setzero_ps();
  }
  for (int64_t row = task.first; row < task.last; ++row) {
    const float* x = task.x + row * m.line() + (start * m.in + first) * kLanes;
    const float* w =
        task.weights + (row * m.kernel_width * m.in + first) * m.out + output;
    for (int64_t q = first; q < last; ++q, x += kLanes, w += m.out) {
      __m512 seen[pixels];
      for (int p = 0; p < pixels; ++p) seen[p] = _mm512_load_ps(x + p * step);
      for (int o = 0; o < outputs; ++o) {
        const __m512 weight = _mm512_set1_ps(w[o]);
        for (int p = 0; p < pixels; ++p) {
          sum[p][o] = _mm512_fmadd_ps(seen[p], weight, sum[p][o]);
        }
      }
    }
  }
  float* const y = task.y + (column * m.out + output) * kLanes;
  for (int p = 0; p < pixels; ++p) {
    for (int o = 0; o < outputs; ++o) {
      _mm512_store_ps(y + (p * m.out + o) * kLanes, sum[p][o]);
    }
  }
}

template <int outputs>
AVX512 void Row(const RowTask& task) {
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

// Adds to sums [taps, out, 16] what `rows` rows give: lines x, and gradients y.
struct WeightsTask {
  const Map& map;
  const float *x, *y;
  int64_t rows;
  float* sums;
};

template <int depth, int outputs>
AVX512_INLINE void WeightsTile(const WeightsTask& task, int64_t tap, int64_t output) {
  const Map& m = task.map;
  const int64_t in_row = m.kernel_width * m.in;
  const float* seen[depth];
  float* const sums = task.sums + (tap * m.out + output) * kLanes;
  __m512 sum[depth][outputs];
  for (int k = 0; k < depth; ++k) {
    const int64_t t = tap + k;
    seen[k] = task.x + t / in_row * m.line() + t % in_row * kLanes;
    for (int o = 0; o < outputs; ++o) {
      sum[k][o] = _mm512_load_ps(sums + (k * m.out + o) * kLanes);
    }
  }
  const float* y = task.y + output * kLanes;
  for (int64_t row = 0; row < task.rows; ++row) {
    int64_t place = row * m.stride_h * m.line();
    for (int64_t column = 0; column < m.columns; ++column) {
      __m512 x[depth];
      for (int k = 0; k < depth; ++k) x[k] = _mm512_load_ps(seen[k] + place);
      for (int o = 0; o < outputs; ++o) {
        __m512 gradient = _mm512_load_ps(y + o * kLanes);
        __asm__("" : "+v"(gradient));  // else it is loaded anew for each product
        for (int k = 0; k < depth; ++k) {
          sum[k][o] = _mm512_fmadd_ps(x[k], gradient, sum[k][o]);
        }
      }
      place += m.stride_w * m.in * kLanes;
      y += m.out * kLanes;
    }
  }
  for (int k = 0; k < depth; ++k) {
    for (int o = 0; o < outputs; ++o) {
      _mm512_store_ps(sums + (k * m.out + o) * kLanes, sum[k][o]);
    }
  }
}

template <int outputs>
AVX512 void Weights(const WeightsTask& task) {
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

constexpr decltype(&Row<1>) kRow[] = {Row<1>, Row<2>, Row<3>, Row<4>,
                                      Row<5>, Row<6>, Row<7>, Row<8>};
constexpr decltype(&Weights<1>) kWeights[] = {Weights<1>, Weights<2>, Weights<3>,
                                              Weights<4>, Weights<5>, Weights<6>,
                                              Weights<7>, Weights<8>};

class Small : public Convolution {
 public:
  explicit Small(const Geometry& g)
      : g_(g), map_{g.height,   g.width,    g.channels,      g.rows,
                    g.columns,  g.outputs,  g.kernel_height, g.kernel_width,
                    g.stride_h, g.stride_w, g.top,           g.left} {
    // The gradient of each input is a convolution too, of the outputs' gradient with
    // the kernel turned round.
    if (g.direction == kInputGradient) {
      map_ = {g.rows,
              g.columns,
              g.outputs,
              g.height,
              g.width,
              g.channels,
              g.kernel_height,
              g.kernel_width,
              1,
              1,
              g.kernel_height - 1 - g.top,
              g.kernel_width - 1 - g.left};
    }
    weights_ = map_.taps() * map_.out;
    while (strip_ < map_.rows && StripFloats(strip_ + 1) * 4 <= kStrip) ++strip_;
    const auto refuse = [](bool met, const char* reason) {
      if (met) throw std::invalid_argument(reason);
    };
    const bool weights = g.direction == kWeightGradient;
    refuse(!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
               !__builtin_cpu_supports("avx512bw") ||
               !__builtin_cpu_supports("avx512vl"),
           "small: a processor without AVX-512");
    refuse(g.operand_bf16 || g.result_bf16, "small: not float32");
    refuse(g.dilation_h > 1 || g.dilation_w > 1, "small: dilated");
    refuse(g.direction == kInputGradient && (g.stride_h > 1 || g.stride_w > 1),
           "small: the input gradient of a strided convolution");
    refuse(g.swapped && weights, "small: a swapped result");
    refuse(std::max(map_.in, map_.out) > kMostChannels, "small: too many channels");
    refuse(std::max(StripFloats(1), weights_ * kLanes) * 4 > kMostBytes,
           "small: more than the cache holds");
  }

  const char* implementation() const override { return "small"; }

  size_t workspace() const override {
    return slots() * SlotBytes() + Aligned(SharedFloats() * 4) + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    auto* const shared = reinterpret_cast<float*>(parts.Take(SharedFloats() * 4));
    char* const slots_at = parts.Take(slots() * SlotBytes());
    const auto* const x = static_cast<const float*>(left);
    const auto* const y = static_cast<const float*>(right);
    auto* const out = static_cast<float*>(result);
    if (g_.direction != kWeightGradient) Pack(y, shared);
    // Each worker keeps to its own part of the workspace, for the sake of its cache.
    std::atomic<int64_t> next{0};
    const int64_t workers = std::min<int64_t>(slots(), pool.num_threads());
    ForEachPiece(pool, std::max<int64_t>(1, workers), [&](int64_t worker) {
      char* const slot = slots_at + worker * SlotBytes();
      for (int64_t b; (b = next.fetch_add(1)) < blocks();) {
        if (g_.direction == kWeightGradient) {
          WeightsOfBlock(b, x, y, slot, shared + b * PartialFloats());
        } else {
          Block(b, x, shared, slot, out);
        }
      }
    });
    if (g_.direction != kWeightGradient) return;
    std::copy(shared, shared + weights_, out);
    for (int64_t b = 1; b < blocks(); ++b) {
      const float* const partial = shared + b * PartialFloats();
      for (int64_t i = 0; i < weights_; ++i) out[i] += partial[i];
    }
  }

 private:
  int64_t blocks() const { return (g_.images + kLanes - 1) / kLanes; }
  int64_t slots() const { return std::min(blocks(), kSlots); }
  int64_t PartialFloats() const { return (weights_ + 15) / 16 * 16; }
  int64_t SharedFloats() const {
    return g_.direction == kWeightGradient ? blocks() * PartialFloats() : weights_;
  }
  int64_t Lines(int64_t rows) const {
    return (rows - 1) * map_.stride_h + map_.kernel_height;
  }
  int64_t StripFloats(int64_t rows) const {
    return Lines(rows) * map_.line() +
           (g_.direction == kWeightGradient ? rows : 1) * map_.result_line();
  }
  size_t SlotBytes() const {
    const bool sums = g_.direction == kWeightGradient;
    return (StripFloats(strip_) + (sums ? PartialFloats() * kLanes : 0)) * 4;
  }
  int64_t Images(int64_t block) const {
    return std::min(kLanes, g_.images - block * kLanes);
  }

  // The kernel as the map's [kernel_height, kernel_width, in, out].
  void Pack(const float* kernel, float* packed) const {
    const bool turned = g_.direction == kInputGradient;
    const int64_t taps = g_.taps();
    const int64_t by_in = turned ? g_.by_output() : g_.by_input();
    const int64_t by_out = turned ? g_.by_input() : g_.by_output();
    for (int64_t t = 0; t < taps; ++t) {
      const float* const tap =
          kernel + (turned ? taps - 1 - t : t) * map_.in * map_.out;
      for (int64_t i = 0; i < map_.in; ++i) {
        for (int64_t o = 0; o < map_.out; ++o) *packed++ = tap[i * by_in + o * by_out];
      }
    }
  }

  // Padded lines from `line` on, of a block's images, as lanes.
  void LoadLines(int64_t block, const float* images, int64_t line, int64_t count,
                 float* to) const {
    const int64_t size = map_.height * map_.width * map_.in;
    const float* const from = images + block * kLanes * size;
    const int64_t first = std::max<int64_t>(0, -map_.left);
    const int64_t last =
        std::max(first, std::min(map_.width, map_.padded() - map_.left));
    float* const end = to + count * map_.line();
    for (int64_t row = line - map_.top; to < end; ++row, to += map_.line()) {
      const bool inside = row >= 0 && row < map_.height && last > first;
      float* const seen = to + (inside ? first + map_.left : 0) * map_.in * kLanes;
      float* const after = seen + (inside ? last - first : 0) * map_.in * kLanes;
      std::fill(to, seen, 0.0f);
      std::fill(after, to + map_.line(), 0.0f);
      if (!inside) continue;
      ToLanes(from + (row * map_.width + first) * map_.in, size, Images(block),
              (last - first) * map_.in, seen);
    }
  }

  void Block(int64_t block, const float* images, const float* weights, char* slot,
             float* result) const {
    auto* const lines = reinterpret_cast<float*>(slot);
    float* const row_lanes = lines + Lines(strip_) * map_.line();
    const int64_t row_size = map_.columns * map_.out, size = map_.rows * row_size;
    for (int64_t start = 0; start < map_.rows; start += strip_) {
      const int64_t end = std::min(map_.rows, start + strip_);
      LoadLines(block, images, start * map_.stride_h, Lines(end - start), lines);
      for (int64_t row = start; row < end; ++row) {
        const int64_t line = row * map_.stride_h;
        const int64_t first = std::max<int64_t>(0, map_.top - line);
        const int64_t last =
            std::min(map_.kernel_height, map_.height + map_.top - line);
        kRow[map_.widest() - 1]({map_,
                                 lines + (row - start) * map_.stride_h * map_.line(),
                                 weights, first, last, row_lanes});
        FromLanes(row_lanes, size, Images(block), row_size,
                  result + block * kLanes * size + row * row_size);
      }
    }
  }

  void WeightsOfBlock(int64_t block, const float* images, const float* gradients,
                      char* slot, float* partial) const {
    auto* const lines = reinterpret_cast<float*>(slot);
    float* const rows = lines + Lines(strip_) * map_.line();
    float* const sums = rows + strip_ * map_.result_line();
    const int64_t row_size = map_.columns * map_.out, size = map_.rows * row_size;
    std::fill(sums, sums + PartialFloats() * kLanes, 0.0f);
    for (int64_t start = 0; start < map_.rows; start += strip_) {
      const int64_t count = std::min(strip_, map_.rows - start);
      LoadLines(block, images, start * map_.stride_h, Lines(count), lines);
      ToLanes(gradients + block * kLanes * size + start * row_size, size, Images(block),
              count * row_size, rows);
      kWeights[map_.widest() - 1]({map_, lines, rows, count, sums});
    }
    SumLanes(sums, PartialFloats(), partial);
  }

  Geometry g_;
  Map map_;
  int64_t weights_ = 0, strip_ = 1;
};

}  // namespace

// Throws std::invalid_argument where the convolution is none for it: not float32,
// dilated, an input gradient with strides, more than kMostChannels channels or outputs,
// or more than kMostBytes of weights' sums or of the lines that a row of outputs sees.
std::unique_ptr<Convolution> MakeSmall(const Geometry& g) {
  return std::make_unique<Small>(g);
}

}  // namespace jaxdl
