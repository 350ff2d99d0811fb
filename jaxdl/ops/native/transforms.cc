// Small matrices times squares of vectors, all of it unrolled: what is zero in a matrix
// costs nothing.

#include "transforms.h"

#include <cstring>
#include <utility>

#include "parallel.h"

namespace jaxdl {
namespace {

// One register of AVX-512, or two of AVX2; and what may be left over.
typedef float Vector __attribute__((vector_size(2 * kUnit * sizeof(float))));
typedef float HalfVector __attribute__((vector_size(kUnit * sizeof(float))));

template <int rows_, int columns_>
struct Matrix {
  static constexpr int rows = rows_, columns = columns_;
  float at[rows_][columns_];

  constexpr Matrix<columns_, rows_> Transposed() const {
    Matrix<columns_, rows_> result{};
    for (int i = 0; i < rows_; ++i) {
      for (int j = 0; j < columns_; ++j) result.at[j][i] = at[i][j];
    }
    return result;
  }
};

// B', G and A' for rows of so many weights.
template <int taps>
struct Transforms;

template <>
struct Transforms<3> {
  static constexpr Matrix<4, 4> kPixels{{
      {1, 0, -1, 0},
      {0, 1, 1, 0},
      {0, -1, 1, 0},
      {0, 1, 0, -1},
  }};
  static constexpr Matrix<4, 3> kKernel{{
      {1, 0, 0},
      {0.5, 0.5, 0.5},
      {0.5, -0.5, 0.5},
      {0, 0, 1},
  }};
  static constexpr Matrix<2, 4> kResults{{
      {1, 1, 1, 0},
      {0, 1, -1, -1},
  }};
  static constexpr auto kGradients = kResults.Transposed();
  static constexpr auto kKernelGradient = kKernel.Transposed();
};

// Of the first three and the last two.
template <>
struct Transforms<5> {
  static constexpr Matrix<7, 6> kPixels{{
      {1, 0, -1, 0, 0, 0},
      {0, 1, 1, 0, 0, 0},
      {0, -1, 1, 0, 0, 0},
      {0, 1, 0, -1, 0, 0},
      {0, 0, 0, 1, -1, 0},
      {0, 0, 0, 0, 1, 0},
      {0, 0, 0, 0, -1, 1},
  }};
  static constexpr Matrix<7, 5> kKernel{{
      {1, 0, 0, 0, 0},
      {0.5, 0.5, 0.5, 0, 0},
      {0.5, -0.5, 0.5, 0, 0},
      {0, 0, 1, 0, 0},
      {0, 0, 0, 1, 0},
      {0, 0, 0, 1, 1},
      {0, 0, 0, 0, 1},
  }};
  static constexpr Matrix<2, 7> kResults{{
      {1, 1, 1, 0, 1, 1, 0},
      {0, 1, -1, -1, 0, 1, 1},
  }};
  static constexpr auto kGradients = kResults.Transposed();
  static constexpr auto kKernelGradient = kKernel.Transposed();
};

template <int taps>
constexpr bool kFits = Transforms<taps>::kPixels.columns == SideFor(taps) &&
                       Transforms<taps>::kPixels.rows == EdgeFor(taps) &&
                       Transforms<taps>::kResults.rows == kTile;
static_assert(kFits<3> && kFits<5>);

// Row i of `matrix` times the vectors from[0], from[step], ...
template <const auto& matrix, typename V>
INLINE V Dot(int i, const V* from, int step) {
  V sum{};
  bool begun = false;
#pragma GCC unroll 8
  for (int j = 0; j < matrix.columns; ++j) {
    if (matrix.at[i][j] == 0) continue;
    const V term = matrix.at[i][j] * from[j * step];
    sum = begun ? sum + term : term;
    begun = true;
  }
  return sum;
}

template <typename V>
INLINE V Load(const float* from) {
  V loaded;
  std::memcpy(&loaded, from, sizeof(V));
  return loaded;
}
template <typename V>
INLINE void Store(const V& value, float* to) {
  std::memcpy(to, &value, sizeof(V));
}

// matrix x from x matrix', of a vector at each of columns x columns places, `at` floats
// on.
template <const auto& matrix>
struct Square {
  template <typename V>
  INLINE static void Apply(const float* const* from, float* const* to, int64_t at) {
    constexpr int n = matrix.columns, m = matrix.rows;
    V in[n * n], half[n];
#pragma GCC unroll 64
    for (int i = 0; i < n * n; ++i) in[i] = Load<V>(from[i] + at);
#pragma GCC unroll 8
    for (int i = 0; i < m; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) half[j] = Dot<matrix>(i, in + j, n);
#pragma GCC unroll 8
      for (int j = 0; j < m; ++j) {
        Store(Dot<matrix>(j, half, 1), to[i * m + j] + at);
      }
    }
  }
};

// Row `row` of that alone.
template <const auto& matrix, int row>
struct Row {
  template <typename V>
  INLINE static void Apply(const float* const* from, float* const* to, int64_t at) {
    constexpr int n = matrix.columns, m = matrix.rows;
    V half[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      V column[n];
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) {
        if (matrix.at[row][i] != 0) column[i] = Load<V>(from[i * n + j] + at);
      }
      half[j] = Dot<matrix>(row, column, 1);
    }
#pragma GCC unroll 8
    for (int j = 0; j < m; ++j) Store(Dot<matrix>(j, half, 1), to[j] + at);
  }
};

// What row `row` of the places, `from`, adds to the square.
template <const auto& matrix, int row>
struct AddRow {
  template <typename V>
  INLINE static void Apply(const float* const* from, float* const* to, int64_t at) {
    constexpr int n = matrix.columns, m = matrix.rows;
    V in[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) in[j] = Load<V>(from[j] + at);
#pragma GCC unroll 8
    for (int i = 0; i < m; ++i) {
      if (matrix.at[i][row] == 0) continue;
      bool first = true;
#pragma GCC unroll 8
      for (int r = 0; r < row; ++r) first = first && matrix.at[i][r] == 0;
#pragma GCC unroll 8
      for (int j = 0; j < m; ++j) {
        V sum = matrix.at[i][row] * Dot<matrix>(j, in, 1);
        if (!first) sum += Load<V>(to[i * m + j] + at);
        Store(sum, to[i * m + j] + at);
      }
    }
  }
};

// Work of `count` floats at each place, a multiple of kUnit.
template <typename Work>
INLINE void OverChannels(const float* const* from, float* const* to, int64_t count) {
  int64_t at = 0;
  for (; at + 2 * kUnit <= count; at += 2 * kUnit) {
    Work::template Apply<Vector>(from, to, at);
  }
  if (at < count) Work::template Apply<HalfVector>(from, to, at);
}

template <int taps, int row = 0>
INLINE void TransformRow(Step step, int wanted, const float* const* from,
                         float* const* to, int64_t count) {
  using T = Transforms<taps>;
  if constexpr (row < T::kPixels.rows) {
    if (row < wanted) {
      return TransformRow<taps, row + 1>(step, wanted, from, to, count);
    }
    if (step == kRowOfPixels) {
      OverChannels<Row<T::kPixels, row>>(from, to, count);
    } else if (step == kRowOfGradients) {
      OverChannels<Row<T::kGradients, row>>(from, to, count);
    } else {
      OverChannels<AddRow<T::kResults, row>>(from, to, count);
    }
  }
}

template <int taps>
INLINE void TransformBy(Step step, int row, const float* const* from,
                        float* const* to, int64_t count) {
  using T = Transforms<taps>;
  switch (step) {
    case kKernel:
      return OverChannels<Square<T::kKernel>>(from, to, count);
    case kKernelGradient:
      return OverChannels<Square<T::kKernelGradient>>(from, to, count);
    default:
      return TransformRow<taps>(step, row, from, to, count);
  }
}

// Lanes of `a` and, from kSquare on, of `b`.
template <int... lanes>
INLINE Vector Shuffle(const Vector& a, const Vector& b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, lanes...);
#else  // GCC 11
  typedef int Lanes __attribute__((vector_size(sizeof(Vector))));
  return __builtin_shuffle(a, b, Lanes{lanes...});
#endif
}

// Of two rows `distance` apart, blocks so wide change places across the diagonal.
template <int distance, int... lanes>
INLINE void Exchange(Vector& a, Vector& b, std::integer_sequence<int, lanes...>) {
  constexpr int n = sizeof...(lanes);
  const Vector first =
      Shuffle<(lanes & distance ? n + lanes - distance : lanes)...>(a, b);
  b = Shuffle<(lanes & distance ? n + lanes : lanes + distance)...>(a, b);
  a = first;
}

// A step of Eklundh's (1972) transposition.
template <int distance>
INLINE void Exchanges(Vector* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kSquare; ++i) {
    if (i & distance) continue;
    Exchange<distance>(rows[i], rows[i + distance],
                       std::make_integer_sequence<int, kSquare>());
  }
}

FOR_EACH_MACHINE void TransposeSquare(const float (*square)[kSquare], int64_t rows,
                                      int64_t columns, float* to, int64_t apart) {
  Vector v[kSquare];
#pragma GCC unroll 16
  for (int i = 0; i < kSquare; ++i) v[i] = Load<Vector>(square[i]);
  Exchanges<8>(v);
  Exchanges<4>(v);
  Exchanges<2>(v);
  Exchanges<1>(v);
  if (rows == kSquare && columns == kSquare) {
#pragma GCC unroll 16
    for (int i = 0; i < kSquare; ++i) Store(v[i], to + i * apart);
    return;
  }
  for (int i = 0; i < columns; ++i) {
    std::memcpy(to + i * apart, &v[i], rows * sizeof(float));
  }
}

FOR_EACH_MACHINE void Transform3(Step step, int row, const float* const* from,
                                 float* const* to, int64_t count) {
  TransformBy<3>(step, row, from, to, count);
}
FOR_EACH_MACHINE void Transform5(Step step, int row, const float* const* from,
                                 float* const* to, int64_t count) {
  TransformBy<5>(step, row, from, to, count);
}

}  // namespace

void Transform(int taps, Step step, int row, const float* const* from, float* const* to,
               int64_t count) {
  (taps == 3 ? Transform3 : Transform5)(step, row, from, to, count);
}

void Transpose(const float square[kSquare][kSquare], int64_t rows, int64_t columns,
               float* to, int64_t apart) {
  TransposeSquare(square, rows, columns, to, apart);
}

}  // namespace jaxdl
