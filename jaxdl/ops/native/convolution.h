// A convolution or gradient, prepared once for its geometry and run many times.

#ifndef JAXDL_CONVOLUTION_H_
#define JAXDL_CONVOLUTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "oneapi/dnnl/dnnl.hpp"
#include "parallel.h"

namespace jaxdl {

enum Algorithm : int64_t { kDirect = 0, kTaps = 1, kSmall = 2, kProduct = 3, kWinograd = 4 };
enum Direction : int64_t { kForward = 0, kInputGradient = 1, kWeightGradient = 2 };

// Mirrors jaxdl/ops/native/__init__.py: Geometry, in that order.
struct Geometry {
  int64_t algorithm;
  int64_t direction;
  int64_t operand_bf16, result_bf16;
  int64_t images, height, width, channels;  // of the forward convolution's input
  int64_t rows, columns, outputs;           // of its output
  int64_t kernel_height, kernel_width;
  int64_t stride_h, stride_w, dilation_h, dilation_w;
  int64_t top, bottom, left, right;  // padding
  int64_t swapped;                   // kernel [h, w, outputs, channels], not [.., c, o]
  int64_t threads;                   // for which there is room to work

  int64_t by_output() const { return swapped ? channels : 1; }
  int64_t by_input() const { return swapped ? 1 : outputs; }
  int64_t taps() const { return kernel_height * kernel_width; }
};
constexpr size_t kFields = sizeof(Geometry) / sizeof(int64_t);

class Convolution {
 public:
  virtual ~Convolution() = default;
  virtual const char* implementation() const = 0;
  virtual size_t workspace() const = 0;  // bytes

  // Forward and input gradient: (operand, kernel) -> result; weight gradient: (images,
  // outputs' gradient) -> kernel's gradient. May run on several threads at once, each
  // with a workspace of its own.
  virtual void Run(Pool& pool, void* left, void* right, void* result,
                   void* workspace) const = 0;
};

// Throw dnnl::error or std::invalid_argument where there is no such convolution.
std::unique_ptr<Convolution> MakeDirect(const Geometry& g);
std::unique_ptr<Convolution> MakeTaps(const Geometry& g);
std::unique_ptr<Convolution> MakeSmall(const Geometry& g);
std::unique_ptr<Convolution> MakeProduct(const Geometry& g);
std::unique_ptr<Convolution> MakeWinograd(const Geometry& g);

inline const dnnl::engine& Cpu() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

constexpr size_t kAlignment = 64;

constexpr size_t Aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Hands out aligned parts of a workspace, which must have kAlignment bytes to spare.
class Parts {
 public:
  explicit Parts(void* workspace)
      : free_(
            reinterpret_cast<char*>(Aligned(reinterpret_cast<uintptr_t>(workspace)))) {}

  char* Take(size_t bytes) {
    char* const place = free_;
    free_ += Aligned(bytes);
    return place;
  }

 private:
  char* free_;
};

}  // namespace jaxdl

#endif  // JAXDL_CONVOLUTION_H_
