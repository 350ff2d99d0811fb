// Products of float32 matrices that are in a processor's own caches, with AVX-512. Copies
// of the operands, as oneDNN makes them, would only cost time there. Where they come from
// memory, its are faster.

#include <algorithm>

#include "avx512.h"
#include "sgemm.h"
#include "small.h"

namespace jaxdl {
namespace {

constexpr int64_t kLanes = 16, kRows = 12, kColumns = 2 * kLanes;  // of a tile of sums
constexpr int64_t kDeep = 256;  // rows of `b`, whose columns of a tile stay nearest
constexpr int64_t kRight = 1 << 16;  // numbers of `b`, which stay in the next cache

template <bool whole>
TARGET_INLINE __m512 Load(const float* from, __mmask16 mask) {
  return whole ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(mask, from);
}

template <bool whole>
TARGET_INLINE void Store(float* to, __mmask16 mask, __m512 v) {
  whole ? _mm512_storeu_ps(to, v) : _mm512_mask_storeu_ps(to, mask, v);
}

// c [rows, columns] = or += a x b; `whole` if there are kColumns or more.
template <int rows, bool transposed, bool whole>
TARGET void Tile(int64_t depth, int64_t columns, const float* a, int64_t a_leading,
                 const float* b, int64_t b_leading, bool add, float* c,
                 int64_t c_leading) {
  const int64_t row = transposed ? 1 : a_leading, column = transposed ? a_leading : 1;
  const __mmask16 masks[2] = {First(columns), First(columns - kLanes)};
  __m512 sums[rows][2];
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < depth; ++p) {
    const __m512 first = Load<whole>(b + p * b_leading, masks[0]);
    const __m512 second = Load<whole>(b + p * b_leading + kLanes, masks[1]);
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
      const __m512 same = _mm512_set1_ps(a[i * row + p * column]);
      sums[i][0] = _mm512_fmadd_ps(same, first, sums[i][0]);
      sums[i][1] = _mm512_fmadd_ps(same, second, sums[i][1]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      float* const to = c + i * c_leading + half * kLanes;
      __m512 sum = sums[i][half];
      if (add) sum = _mm512_add_ps(Load<whole>(to, masks[half]), sum);
      Store<whole>(to, masks[half], sum);
    }
  }
}

using TileFunction = decltype(&Tile<1, false, true>);
template <bool transposed, bool whole>
constexpr TileFunction kTiles[kRows] = {
    Tile<1, transposed, whole>,  Tile<2, transposed, whole>,
    Tile<3, transposed, whole>,  Tile<4, transposed, whole>,
    Tile<5, transposed, whole>,  Tile<6, transposed, whole>,
    Tile<7, transposed, whole>,  Tile<8, transposed, whole>,
    Tile<9, transposed, whole>,  Tile<10, transposed, whole>,
    Tile<11, transposed, whole>, Tile<12, transposed, whole>,
};

template <bool transposed>
void Multiply(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b,
              bool add, float* c, int64_t c_leading) {
  // Equal parts, none much shorter than the rest.
  const int64_t blocks = (k + kDeep - 1) / kDeep, deep = (k + blocks - 1) / blocks;
  const int64_t tiles = (m + kRows - 1) / kRows, high = (m + tiles - 1) / tiles;
  for (int64_t p = 0; p < k; p += deep) {
    const int64_t depth = std::min(deep, k - p);
    for (int64_t j = 0; j < n; j += kColumns) {
      const bool whole = j + kColumns <= n;
      for (int64_t i = 0; i < m; i += high) {
        const int64_t rows = std::min(high, m - i);
        const TileFunction tile = whole ? kTiles<transposed, true>[rows - 1]
                                        : kTiles<transposed, false>[rows - 1];
        tile(depth, n - j,
             a.data + (transposed ? p * a.leading + i : i * a.leading + p), a.leading,
             b.data + p * b.leading + j, b.leading, add || p > 0, c + i * c_leading + j,
             c_leading);
      }
    }
  }
}

}  // namespace

bool SgemmInCache(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b,
                  bool add, float* c, int64_t c_leading) {
  static const bool reached = SmallAvx512() != nullptr;
  if (!reached || b.transposed || m < kRows || n < kLanes || k * n > kRight) {
    return false;
  }
  (a.transposed ? Multiply<true> : Multiply<false>)(m, n, k, a, b, add, c, c_leading);
  return true;
}

}  // namespace jaxdl
