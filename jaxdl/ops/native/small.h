// What the kernels of small.cc are given, and what each instruction set has of them.

#ifndef JAXDL_SMALL_H_
#define JAXDL_SMALL_H_

#include <algorithm>
#include <cstdint>

namespace jaxdl {

// A forward convolution, or the one that an input gradient is, or the one whose
// weights' gradient is wanted: [height, width, in] -> [rows, columns, out].
struct Map {
  int64_t height, width, in, rows, columns, out;
  int64_t kernel_height, kernel_width, stride_h, stride_w, top, left;
  int64_t lanes = 0, most = 0;  // of the instruction set: see SmallKernels

  int64_t taps() const { return kernel_height * kernel_width * in; }
  int64_t padded() const { return (columns - 1) * stride_w + kernel_width; }
  int64_t line() const { return padded() * in * lanes; }  // floats, padding included
  int64_t result_line() const { return columns * out * lanes; }
  int64_t tiles() const { return (out + most - 1) / most; }
  int64_t widest() const { return (out + tiles() - 1) / tiles(); }
  int64_t wide() const { return out - tiles() * (widest() - 1); }  // tiles that are so
};

// One row of outputs [columns, out, lanes] from the lines of images from `x` on;
// `weights` are [kernel_height, kernel_width, in, out], of which rows from `first` to
// `last` see the image.
struct RowTask {
  const Map& map;
  const float *x, *weights;
  int64_t first, last;
  float* y;
};

// Adds to sums [taps, out, lanes] what `rows` rows give: lines x, and gradients y.
struct WeightsTask {
  const Map& map;
  const float *x, *y;
  int64_t rows;
  float* sums;
};

constexpr int64_t kMostLanes = 16;

struct SmallKernels {
  int64_t lanes;  // images side by side, kMostLanes at most
  int64_t most;   // outputs in a tile of registers

  // `count` numbers of each of `images` images that lie `stride` apart ->
  // [count, lanes], and the reverse.
  void (*to_lanes)(const float* from, int64_t stride, int64_t images, int64_t count,
                   float* to);
  void (*from_lanes)(const float* from, int64_t stride, int64_t images, int64_t count,
                     float* to);
  // [count, lanes] -> [count], sums over the lanes; a multiple of kMostLanes.
  void (*sum_lanes)(const float* from, int64_t count, float* to);
  // By the outputs of the widest tile, less one.
  void (*const* row)(const RowTask& task);
  void (*const* weights)(const WeightsTask& task);
};

// Null where the processor lacks the instructions.
const SmallKernels* SmallAvx512();
const SmallKernels* SmallAvx2();

}  // namespace jaxdl

#endif  // JAXDL_SMALL_H_
