// oneDNN's product of float32 matrices, and one of our own where oneDNN's is slow.
//
// With AVX2, and for results with a side of a few hundred, oneDNN 3.2 reads its operands
// where they lie, at half its speed where rows are far apart. Here both are copied to
// where they are read in order, a block at a time (Goto and van de Geijn 2008, "Anatomy
// of High-Performance Matrix Multiplication"): 320 x 16 of the right one stay in the
// nearest cache, 96 x 320 of the left one in the next.

#include "sgemm.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "oneapi/dnnl/dnnl.h"
#include "small.h"

// The file is compiled for any x86-64; these functions are reached where AVX2 is.
#define TARGET __attribute__((target("avx2,fma")))

namespace jaxdl {
namespace {

constexpr int64_t kRows = 6, kColumns = 16;  // of a tile, whose sums fill 12 registers
constexpr int64_t kHigh = 96, kDeep = 320, kBroad = 256;  // of a block
constexpr int64_t kLeastRows = 24;  // below which a copy of `b` does not pay
constexpr int64_t kApart = kDeep + 16;  // between rows, lest they share cache sets

struct Blocks {
  alignas(64) float left[kHigh * kApart];
  alignas(64) float right[kDeep * kBroad];
};

Blocks& OfThisThread() {
  thread_local const auto blocks = std::make_unique<Blocks>();
  return *blocks;
}

// c [rows, 16] = or += a x b. Of `a`, a row follows a row at kApart, or, where it is
// transposed, a column a column at kRows.
template <int rows, bool transposed>
TARGET void Tile(int64_t depth, const float* a, const float* b, bool add, float* c,
                 int64_t c_leading) {
  constexpr int64_t row = transposed ? 1 : kApart, column = transposed ? kRows : 1;
  __m256 sums[rows][2];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  for (int64_t p = 0; p < depth; ++p) {
    const __m256 first = _mm256_load_ps(b + p * kColumns);
    const __m256 second = _mm256_load_ps(b + p * kColumns + 8);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const __m256 same = _mm256_broadcast_ss(a + i * row + p * column);
      sums[i][0] = _mm256_fmadd_ps(same, first, sums[i][0]);
      sums[i][1] = _mm256_fmadd_ps(same, second, sums[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      float* const to = c + i * c_leading + half * 8;
      __m256 sum = sums[i][half];
      if (add) sum = _mm256_add_ps(_mm256_loadu_ps(to), sum);
      _mm256_storeu_ps(to, sum);
    }
  }
}

using TileFunction = decltype(&Tile<1, false>);
template <bool transposed>
constexpr TileFunction kTiles[kRows] = {Tile<1, transposed>, Tile<2, transposed>,
                                        Tile<3, transposed>, Tile<4, transposed>,
                                        Tile<5, transposed>, Tile<6, transposed>};

// A tile at the right edge, of fewer columns than it computes.
void Edge(TileFunction tile, int64_t rows, int64_t columns, int64_t depth,
          const float* a, const float* b, bool add, float* c, int64_t c_leading) {
  float whole[kRows * kColumns];
  tile(depth, a, b, false, whole, kColumns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      float& to = c[i * c_leading + j];
      to = add ? to + whole[i * kColumns + j] : whole[i * kColumns + j];
    }
  }
}

// [rows, depth] -> rows at kApart, or panels [depth, kRows].
void CopyLeft(int64_t rows, int64_t depth, const Operand& a, float* to) {
  if (!a.transposed) {
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(to + i * kApart, a.data + i * a.leading, depth * sizeof(float));
    }
    return;
  }
  for (int64_t p = 0; p < depth; ++p) {
    const float* const from = a.data + p * a.leading;
    float* const column = to + p * kRows;
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) {
      std::memcpy(column + i * depth, from + i, kRows * sizeof(float));
    }
    std::copy(from + i, from + rows, column + i * depth);
  }
}

// [depth, columns] -> panels [depth, kColumns], the last one filled up with zeros.
TARGET void CopyRight(int64_t depth, int64_t columns, const float* b, int64_t leading,
                      float* to) {
  for (int64_t p = 0; p < depth; ++p) {
    const float* const from = b + p * leading;
    float* const row = to + p * kColumns;
    int64_t j = 0;
    for (; j + kColumns <= columns; j += kColumns) {
      _mm256_store_ps(row + j * depth, _mm256_loadu_ps(from + j));
      _mm256_store_ps(row + j * depth + 8, _mm256_loadu_ps(from + j + 8));
    }
    if (j < columns) {
      float* const last = row + j * depth;
      std::fill(std::copy(from + j, from + columns, last), last + kColumns, 0.0f);
    }
  }
}

// c [rows, columns] = or += a x b, of operands that were copied.
template <bool transposed>
void MultiplyBlock(int64_t rows, int64_t columns, int64_t depth, const float* a,
                   const float* b, bool add, float* c, int64_t c_leading) {
  for (int64_t j = 0; j < columns; j += kColumns) {
    for (int64_t i = 0; i < rows; i += kRows) {
      const int64_t high = std::min(kRows, rows - i), wide = columns - j;
      const float* const x = a + i * (transposed ? depth : kApart);
      const float* const y = b + j * depth;
      float* const z = c + i * c_leading + j;
      const TileFunction tile = kTiles<transposed>[high - 1];
      if (wide >= kColumns) {
        tile(depth, x, y, add, z, c_leading);
      } else {
        Edge(tile, high, wide, depth, x, y, add, z, c_leading);
      }
    }
  }
}

template <bool transposed>
void Multiply(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b,
              bool add, float* c, int64_t c_leading) {
  auto& [left, right] = OfThisThread();
  // Equal parts, none much shorter than the rest.
  const int64_t parts = (k + kDeep - 1) / kDeep, deep = (k + parts - 1) / parts;
  for (int64_t p = 0; p < k; p += deep) {
    const int64_t depth = std::min(deep, k - p);
    for (int64_t j = 0; j < n; j += kBroad) {
      const int64_t columns = std::min(kBroad, n - j);
      CopyRight(depth, columns, b.data + p * b.leading + j, b.leading, right);
      for (int64_t i = 0; i < m; i += kHigh) {
        const int64_t rows = std::min(kHigh, m - i);
        const float* const from =
            a.data + (transposed ? p * a.leading + i : i * a.leading + p);
        CopyLeft(rows, depth, {from, transposed, a.leading}, left);
        MultiplyBlock<transposed>(rows, columns, depth, left, right, add || p > 0,
                                  c + i * c_leading + j, c_leading);
      }
    }
  }
}

// As `jaxdl_lanes` has it: 8, and not 16.
bool OnlyAvx2() {
  static const bool found = SmallAvx2() != nullptr && SmallAvx512() == nullptr;
  return found;
}

static_assert(kHigh % kSgemmUnit == 0 && kSgemmUnit % kRows == 0 &&
              kSgemmUnit % kColumns == 0);

}  // namespace

bool SgemmCopies(int64_t m, int64_t n, bool a_transposed, bool b_transposed,
                 int64_t b_leading) {
  return OnlyAvx2() && !b_transposed && m >= kLeastRows && n >= kColumns &&
         b_leading >= (a_transposed ? 256 : 512);
}

bool Sgemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, bool add, float* c,
           int64_t c_leading) {
  if (SgemmCopies(m, n, a.transposed, b.transposed, b.leading) && k > 0) {
    (a.transposed ? Multiply<true> : Multiply<false>)(m, n, k, a, b, add, c, c_leading);
    return true;
  }
  return dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1,
                    a.data, a.leading, b.data, b.leading, add ? 1 : 0, c,
                    c_leading) == dnnl_success;
}

}  // namespace jaxdl
