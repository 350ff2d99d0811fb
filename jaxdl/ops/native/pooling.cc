// The gradient of a maximum over windows of 2x2 or 3x3 pixels, as a target of XLA's FFI.
//
// XLA's CPU backend finds the maximum of a window anew for each of its pixels, and where
// channels are few, for one number at a time.

#include <cstring>
#include <limits>
#include <vector>

#include "errors.h"
#include "parallel.h"

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;
using Images = ffi::Buffer<ffi::F32, 4>;

// Mirrors jaxdl/ops/pool.py: _to_maximum_natively.
struct Window {
  int64_t height, width, down, across, top, left;
};

struct Task {
  Window window;
  int64_t height, width, channels;  // of an image
  int64_t rows, columns;            // windows
};

// Some channels of a window: adds its gradient to that of the pixel that is left by
// "keep the present one while it is >= the next", NaNs included, as XLA's own does.
// Vectors are spelt out, since the compiler would make branches of the choices.
template <int pixels, int count>
INLINE void AddChannels(const float* const* from, const float* gradient,
                        float* const* to, int64_t channel) {
  typedef float Numbers __attribute__((vector_size(count * 4)));
  typedef int32_t Places __attribute__((vector_size(count * 4)));
  Numbers best, next, given, sum;
  Places place = {};
  std::memcpy(&best, from[0] + channel, sizeof best);
  for (int k = 1; k < pixels; ++k) {
    std::memcpy(&next, from[k] + channel, sizeof next);
    const Places keep = best >= next;
    best = keep ? best : next;
    place = keep ? place : Places{} + k;
  }
  std::memcpy(&given, gradient + channel, sizeof given);
  for (int k = 0; k < pixels; ++k) {
    std::memcpy(&sum, to[k] + channel, sizeof sum);
    sum += place == k ? given : Numbers{};
    std::memcpy(to[k] + channel, &sum, sizeof sum);
  }
}

// Adds an image's gradients to those of its pixels. Pixels of padding are -inf, and what
// goes to them is lost.
template <int side>
INLINE void AddImage(const Task& task, const float* image, const float* gradient,
                     float* result) {
  constexpr int kPixels = side * side;
  const int64_t channels = task.channels;
  const std::vector<float> outside(channels, -std::numeric_limits<float>::infinity());
  std::vector<float> lost(channels);
  const float* from[kPixels];
  float* to[kPixels];
  for (int64_t row = 0; row < task.rows; ++row) {
    for (int64_t column = 0; column < task.columns; ++column, gradient += channels) {
      for (int k = 0; k < kPixels; ++k) {
        const int64_t y = row * task.window.down - task.window.top + k / side;
        const int64_t x = column * task.window.across - task.window.left + k % side;
        const bool inside = y >= 0 && y < task.height && x >= 0 && x < task.width;
        const int64_t pixel = (y * task.width + x) * channels;
        from[k] = inside ? image + pixel : outside.data();
        to[k] = inside ? result + pixel : lost.data();
      }
      int64_t c = 0;
      for (; c + 8 <= channels; c += 8) AddChannels<kPixels, 8>(from, gradient, to, c);
      for (; c + 4 <= channels; c += 4) AddChannels<kPixels, 4>(from, gradient, to, c);
      for (; c + 2 <= channels; c += 2) AddChannels<kPixels, 2>(from, gradient, to, c);
      for (; c < channels; ++c) AddChannels<kPixels, 1>(from, gradient, to, c);
    }
  }
}

FOR_EACH_MACHINE void AddImage2(const Task& task, const float* image,
                                const float* gradient, float* result) {
  AddImage<2>(task, image, gradient, result);
}

FOR_EACH_MACHINE void AddImage3(const Task& task, const float* image,
                                const float* gradient, float* result) {
  AddImage<3>(task, image, gradient, result);
}

ffi::Error MaxPoolGradient(ffi::ThreadPool pool, Images gradients, Images images,
                           ffi::Result<Images> result,
                           ffi::Span<const int64_t> window) {
  const auto shape = images.dimensions(), windows = gradients.dimensions();
  Task task{{}, shape[1], shape[2], shape[3], windows[1], windows[2]};
  if (window.size() * sizeof(int64_t) == sizeof task.window) {
    std::memcpy(&task.window, window.begin(), sizeof task.window);
  }
  const int64_t side = task.window.height;
  if ((side != 2 && side != 3) || task.window.width != side) {
    return ffi::Error::InvalidArgument("jaxdl_max_pool_gradient: window");
  }
  const int64_t size = task.height * task.width * task.channels;
  const int64_t result_size = task.rows * task.columns * task.channels;
  const auto add_image = side == 2 ? AddImage2 : AddImage3;
  ForEachPiece(pool, shape[0], [&](int64_t n) {
    float* const to = result->typed_data() + n * size;
    std::fill(to, to + size, 0.0f);
    add_image(task, images.typed_data() + n * size,
              gradients.typed_data() + n * result_size, to);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_max_pool_gradient,
                              jaxdl::Guarded("jaxdl_max_pool_gradient",
                                             jaxdl::MaxPoolGradient),
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<jaxdl::Images>()
                                  .Arg<jaxdl::Images>()
                                  .Ret<jaxdl::Images>()
                                  .Attr<xla::ffi::Span<const int64_t>>("window"));

#pragma GCC visibility pop
