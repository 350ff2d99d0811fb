// Convolutions of few channels, such as LeNet-5's, for processors with AVX2 or AVX-512.
//
// Libraries make vectors of channels, and with three or six of them leave most of each
// vector empty. Here a vector holds one number of each of 8 or 16 images: always full,
// and neighbouring pixels, padding and strides are but addresses. The images are turned
// into such lanes [rows, columns, channels, lanes] some rows at a time, in the cache,
// and the result is turned back.
//
// A thread takes as many images at a time as there are lanes. What it computes does not
// depend on which thread it is, and weights' gradients are summed over the images in a
// fixed order.

#include "small.h"

#include <algorithm>
#include <stdexcept>

#include "convolution.h"

namespace jaxdl {
namespace {

constexpr int64_t kStrip = 512 << 10;    // bytes of rows in cache at a time
constexpr int64_t kMostBytes = 1 << 20;  // of one such strip, or of the weights' lanes
constexpr int64_t kMostChannels = 64;

const SmallKernels& Kernels() {
  static const SmallKernels* const kernels =
      SmallAvx512() != nullptr ? SmallAvx512() : SmallAvx2();
  if (kernels == nullptr) {
    throw std::invalid_argument("small: a processor without AVX2");
  }
  return *kernels;
}

class Small : public Convolution {
 public:
  explicit Small(const Geometry& g)
      : kernels_(Kernels()),
        g_(g),
        map_{g.height,   g.width,    g.channels,      g.rows,
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
    map_.lanes = kernels_.lanes;
    map_.most = kernels_.most;
    weights_ = map_.taps() * map_.out;
    while (strip_ < map_.rows && StripFloats(strip_ + 1) * 4 <= kStrip) ++strip_;
    const auto refuse = [](bool met, const char* reason) {
      if (met) throw std::invalid_argument(reason);
    };
    const bool weights = g.direction == kWeightGradient;
    refuse(g.operand_bf16 || g.result_bf16, "small: not float32");
    refuse(g.dilation_h > 1 || g.dilation_w > 1, "small: dilated");
    refuse(g.direction == kInputGradient && (g.stride_h > 1 || g.stride_w > 1),
           "small: the input gradient of a strided convolution");
    refuse(g.swapped && weights, "small: a swapped result");
    refuse(weights && g.outputs >= lanes(), "small: vectors of channels are as full");
    refuse(std::max(map_.in, map_.out) > kMostChannels, "small: too many channels");
    refuse(std::max(StripFloats(1), weights_ * lanes()) * 4 > kMostBytes,
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
    ForEachWorker(pool, slots(), blocks(), [&](int64_t worker, const auto& each) {
      char* const slot = slots_at + worker * SlotBytes();
      each([&](int64_t b) {
        if (g_.direction == kWeightGradient) {
          WeightsOfBlock(b, x, y, slot, shared + b * PartialFloats());
        } else {
          Block(b, x, shared, slot, out);
        }
      });
    });
    if (g_.direction != kWeightGradient) return;
    std::copy(shared, shared + weights_, out);
    for (int64_t b = 1; b < blocks(); ++b) {
      const float* const partial = shared + b * PartialFloats();
      for (int64_t i = 0; i < weights_; ++i) out[i] += partial[i];
    }
  }

 private:
  int64_t lanes() const { return kernels_.lanes; }
  int64_t blocks() const { return (g_.images + lanes() - 1) / lanes(); }
  int64_t slots() const { return std::min(blocks(), g_.threads); }
  int64_t PartialFloats() const { return (weights_ + kMostLanes - 1) / kMostLanes * kMostLanes; }
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
    return (StripFloats(strip_) + (sums ? PartialFloats() * lanes() : 0)) * 4;
  }
  int64_t Images(int64_t block) const {
    return std::min(lanes(), g_.images - block * lanes());
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
    const float* const from = images + block * lanes() * size;
    const int64_t first = std::max<int64_t>(0, -map_.left);
    const int64_t last =
        std::max(first, std::min(map_.width, map_.padded() - map_.left));
    float* const end = to + count * map_.line();
    for (int64_t row = line - map_.top; to < end; ++row, to += map_.line()) {
      const bool inside = row >= 0 && row < map_.height && last > first;
      float* const seen = to + (inside ? first + map_.left : 0) * map_.in * lanes();
      float* const after = seen + (inside ? last - first : 0) * map_.in * lanes();
      std::fill(to, seen, 0.0f);
      std::fill(after, to + map_.line(), 0.0f);
      if (!inside) continue;
      kernels_.to_lanes(from + (row * map_.width + first) * map_.in, size, Images(block),
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
        kernels_.row[map_.widest() - 1]({map_,
                                 lines + (row - start) * map_.stride_h * map_.line(),
                                 weights, first, last, row_lanes});
        kernels_.from_lanes(row_lanes, size, Images(block), row_size,
                  result + block * lanes() * size + row * row_size);
      }
    }
  }

  void WeightsOfBlock(int64_t block, const float* images, const float* gradients,
                      char* slot, float* partial) const {
    auto* const lines = reinterpret_cast<float*>(slot);
    float* const rows = lines + Lines(strip_) * map_.line();
    float* const sums = rows + strip_ * map_.result_line();
    const int64_t row_size = map_.columns * map_.out, size = map_.rows * row_size;
    std::fill(sums, sums + PartialFloats() * lanes(), 0.0f);
    for (int64_t start = 0; start < map_.rows; start += strip_) {
      const int64_t count = std::min(strip_, map_.rows - start);
      LoadLines(block, images, start * map_.stride_h, Lines(count), lines);
      kernels_.to_lanes(gradients + block * lanes() * size + start * row_size, size, Images(block),
              count * row_size, rows);
      kernels_.weights[map_.widest() - 1]({map_, lines, rows, count, sums});
    }
    kernels_.sum_lanes(sums, PartialFloats(), partial);
  }

  const SmallKernels& kernels_;
  Geometry g_;
  Map map_;
  int64_t weights_ = 0, strip_ = 1;
};

}  // namespace

// Throws std::invalid_argument where the processor or the convolution is none for it: not
// float32, dilated, an input gradient with strides, a weight gradient of as many outputs
// as there are lanes, more than kMostChannels channels or outputs, or more than
// kMostBytes of weights' sums or of the lines that a row of outputs sees.
std::unique_ptr<Convolution> MakeSmall(const Geometry& g) {
  return std::make_unique<Small>(g);
}

}  // namespace jaxdl
