// The transforms of Winograd's convolutions: see winograd.cc.

#ifndef JAXDL_TRANSFORMS_H_
#define JAXDL_TRANSFORMS_H_

#include <cstdint>

namespace jaxdl {

constexpr int64_t kTile = 2;  // results of a tile, in either direction
constexpr int64_t kUnit = 8;  // channels come in multiples of it
constexpr int64_t kSquare = 2 * kUnit;

// Of the transforms for kernels of taps x taps, in either direction.
constexpr int SideFor(int taps) { return taps + 1; }  // pixels that a tile sees
constexpr int EdgeFor(int taps) { return taps == 3 ? 4 : 7; }  // places

enum Step {
  kKernel,          // taps x taps -> places
  kKernelGradient,  // places -> taps x taps
  kRowOfPixels,     // pixels -> a row of places
  kRowOfGradients,  // results' gradients -> a row of places
  kRowToResults,    // a row of places, added to results; the first of them are stored
};

// Transforms `count` channels, which begin at from[i] and to[i] at each pixel, weight
// or place of a square, or of the row in question.
void Transform(int taps, Step step, int row, const float* const* from,
               float* const* to, int64_t count);

// Of a square's first `rows` rows and `columns` columns, the columns become rows, so far
// apart.
void Transpose(const float square[kSquare][kSquare], int64_t rows, int64_t columns,
               float* to, int64_t apart);

}  // namespace jaxdl

#endif  // JAXDL_TRANSFORMS_H_
