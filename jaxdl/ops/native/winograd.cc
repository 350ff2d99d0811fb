// Convolutions by 3x3 and 5x5 kernels in fewer multiplications, after Winograd (1980)
// and Lavin and Gray (2016, "Fast Algorithms for Convolutional Neural Networks").
//
// A tile of 2x2 results takes 36 multiplications by a 3x3 kernel for each pair of
// channels. Of its 4x4 pixels d and the kernel g, transformed, it takes 16:
// A' [(G g G') * (B' d B)] A. Each of the 16 places of all tiles together is a matrix
// product. The transforms add and subtract, and halve twice: whole numbers stay exact,
// and others lose some two bits. This is F(2x2, 3x3), F(2, 3) in each direction. A row
// of five weights is one of three and one of two, F(2, 3) beside F(2, 2): 7
// multiplications instead of 10, and for a 5x5 kernel 49 instead of 100.
//
// Larger tiles would take fewer multiplications still, F(4x4, 3x3) or an undivided
// F(2x2, 5x5) a quarter and a third of those of a plain sum, but with 4 to 8 times its
// rounding error, even with the best of points (Barabasz et al. 2020): the price is not
// paid here.
//
// The gradient of the pixels is such a convolution too, by the kernel turned round;
// that of the kernel is G' [(A y A') * (B' d B)] G, summed over the tiles, y being the
// gradient of the results.

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "alone.h"
#include "convolution.h"
#include "sgemm.h"
#include "transforms.h"

namespace jaxdl {
namespace {

constexpr int64_t kCache = 512 << 10;  // bytes of a row of places that a thread is at
constexpr int64_t kMany = 64;          // tiles that are worth more than the cache
constexpr int64_t kLeast = 32;         // tiles at a time: fewer make slow products
constexpr int64_t kShared = 4 << 20;   // bytes of all places that all threads are at
constexpr int64_t kLeastShared = 128;  // tiles of these
constexpr int64_t kApart = 64;   // floats between places, lest they share cache sets
constexpr int64_t kSlots = 32;   // threads for which there is room to work
constexpr int64_t kSquare = 16;  // channels of a square that is transposed
constexpr int64_t kGrain = 16;   // tiles in a piece of a transform

// Images [height, width, channels], of which tiles see side x side pixels, the first of
// them at (2 y - top, 2 x - left).
struct Image {
  int64_t height, width, channels, top, left;
};

template <int taps>
class Winograd : public Convolution {
 public:
  explicit Winograd(const Geometry& g)
      : g_(g),
        seen_{g.height, g.width, g.channels, g.top, g.left},
        made_{g.rows, g.columns, g.outputs, 0, 0} {
    if (g.direction == kInputGradient) {
      seen_ = {g.rows, g.columns, g.outputs, taps - 1 - g.top, taps - 1 - g.left};
      made_ = {g.height, g.width, g.channels, 0, 0};
    }
    if (g.kernel_height != taps || g.kernel_width != taps || g.stride_h != 1 ||
        g.stride_w != 1 || g.dilation_h != 1 || g.dilation_w != 1) {
      throw std::invalid_argument("winograd: no 3x3 or 5x5 kernel at each pixel");
    }
    if (g.operand_bf16 || g.result_bf16) {
      throw std::invalid_argument("winograd: not float32");
    }
    if (g.channels % kUnit || g.outputs % kUnit) {
      throw std::invalid_argument("winograd: channels are no multiples of 8");
    }
    if (g.swapped && g.direction == kWeightGradient) {
      throw std::invalid_argument("winograd: a swapped result");
    }
    tall_ = (made_.height + 1) / kTile;
    wide_ = (made_.width + 1) / kTile;
    tiles_ = g.images * tall_ * wide_;
    if (tiles_ == 0) throw std::invalid_argument("winograd: no images");
    const int64_t row = kEdge * (seen_.channels + made_.channels) * 4;
    if (g.direction == kWeightGradient) {
      chunk_ = std::max(kLeastShared, InGrains(kShared / (kEdge * row)));
    } else {
      chunk_ = std::max(kMany, InGrains(kCache / row));
    }
    chunk_ = std::min(chunk_, tiles_);
  }

  const char* implementation() const override { return "winograd"; }

  size_t workspace() const override {
    const size_t tiles = g_.direction == kWeightGradient ? SlotBytes(kPlaces)
                                                        : Slots() * SlotBytes(kEdge);
    return Aligned(kPlaces * Apart(weights()) * 4) + tiles +
           Aligned(std::max(seen_.channels, made_.channels) * 4) + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    const int64_t most = std::max(seen_.channels, made_.channels);
    auto* const kernel = Take(parts, kPlaces * Apart(weights()));
    auto* const zeros = Take(parts, most);
    std::fill(zeros, zeros + most, 0.0f);
    const auto* const x = static_cast<const float*>(left);
    const auto* const y = static_cast<const float*>(right);
    auto* const out = static_cast<float*>(result);
    if (g_.direction == kWeightGradient) {
      SumOverTiles(pool, x, y, zeros, parts, kernel);
      OfKernel<kEdge, taps>(pool, kKernelGradient, kernel, Apart(weights()), out,
                            weights());
    } else {
      TransformKernel(pool, y, kernel);
      Convolve(pool, x, zeros, kernel, parts, out);
    }
  }

 private:
  static constexpr int kSide = SideFor(taps), kEdge = EdgeFor(taps);
  static constexpr int kPlaces = kEdge * kEdge;

  int64_t weights() const { return g_.channels * g_.outputs; }
  int64_t Slots() const { return std::min((tiles_ + kLeast - 1) / kLeast, kSlots); }
  // Tiles in a chunk, of which all threads get equally many.
  int64_t Fair(int64_t threads) const {
    const int64_t rounds = (tiles_ + threads * chunk_ - 1) / (threads * chunk_);
    const int64_t size = (tiles_ + threads * rounds - 1) / (threads * rounds);
    return std::min(chunk_, std::max(kLeast, InGrains(size + kGrain - 1)));
  }
  int64_t SeenApart() const { return Apart(chunk_ * seen_.channels); }
  int64_t MadeApart() const { return Apart(chunk_ * made_.channels); }
  size_t SlotBytes(int64_t places) const {
    return Aligned(places * SeenApart() * 4) + Aligned(places * MadeApart() * 4) +
           Aligned(made_.channels * 4);
  }
  static void Check(bool done) {
    if (!done) throw std::runtime_error("a product failed");
  }
  static int64_t Apart(int64_t floats) { return floats + kApart; }
  static int64_t InGrains(int64_t tiles) { return tiles / kGrain * kGrain; }
  static float* Take(Parts& parts, int64_t floats) {
    return reinterpret_cast<float*>(parts.Take(floats * 4));
  }

  // The result, each chunk of tiles by one thread: a row of places is in its cache from
  // the pixels to the results.
  void Convolve(Pool& pool, const float* images, const float* zeros,
                const float* kernel, Parts& parts, float* result) const {
    char* const slots = parts.Take(Slots() * SlotBytes(kEdge));
    const int64_t threads = std::clamp<int64_t>(pool.num_threads(), 1, Slots());
    const int64_t size = Fair(threads), chunks = (tiles_ + size - 1) / size;
    std::atomic<int64_t> next{0};
    ForEachPiece(pool, std::min(threads, chunks), [&](int64_t thread) {
      Parts own(slots + thread * SlotBytes(kEdge));
      float* const seen = Take(own, kEdge * SeenApart());
      float* const made = Take(own, kEdge * MadeApart());
      float* const lost = Take(own, made_.channels);  // what lies outside
      std::vector<const float*> pixels(size * kSide * kSide);
      std::vector<float*> results(size * kTile * kTile);
      Alone([&] {
        for (int64_t chunk; (chunk = next.fetch_add(1)) < chunks;) {
          const int64_t start = chunk * size, count = std::min(size, tiles_ - start);
          for (int64_t t = 0; t < count; ++t) {
            Places<kSide>(seen_, start + t, images, zeros, &pixels[t * kSide * kSide]);
            Places<kTile>(made_, start + t, result, lost, &results[t * kTile * kTile]);
          }
          for (int row = 0; row < kEdge; ++row) {
            OneRow(row, count, pixels, kernel, seen, made, results);
          }
        }
      });
    });
  }

  // What a row of places adds to the results of so many tiles.
  void OneRow(int row, int64_t count, const std::vector<const float*>& pixels,
              const float* kernel, float* seen, float* made,
              const std::vector<float*>& results) const {
    float *to[kEdge], *from[kEdge];
    for (int64_t t = 0; t < count; ++t) {
      for (int i = 0; i < kEdge; ++i) {
        to[i] = seen + i * SeenApart() + t * seen_.channels;
      }
      Transform(taps, kRowOfPixels, row, &pixels[t * kSide * kSide], to,
                seen_.channels);
    }
    for (int i = 0; i < kEdge; ++i) {
      const float* const place = kernel + (row * kEdge + i) * Apart(weights());
      Check(Sgemm(count, made_.channels, seen_.channels,
                  {seen + i * SeenApart(), false, seen_.channels},
                  {place, false, made_.channels}, false, made + i * MadeApart(),
                  made_.channels));
    }
    for (int64_t t = 0; t < count; ++t) {
      for (int i = 0; i < kEdge; ++i) {
        from[i] = made + i * MadeApart() + t * made_.channels;
      }
      Transform(taps, kRowToResults, row, from, &results[t * kTile * kTile],
                made_.channels);
    }
  }

  // The transformed gradient of the kernel: products over all tiles.
  void SumOverTiles(Pool& pool, const float* images, const float* gradients,
                    const float* zeros, Parts& parts, float* kernel) const {
    float* const seen = Take(parts, kPlaces * SeenApart());
    float* const made = Take(parts, kPlaces * MadeApart());
    for (int64_t start = 0; start < tiles_; start += chunk_) {
      const int64_t count = std::min(chunk_, tiles_ - start);
      FromImages<kSide>(pool, kPixels, seen_, start, count, images, zeros, seen);
      FromImages<kTile>(pool, kGradients, made_, start, count, gradients, zeros, made);
      ForEachPiece(pool, kPlaces, [&](int64_t place) {
        Alone([&] {
          Check(Sgemm(g_.channels, g_.outputs, count,
                      {seen + place * SeenApart(), true, g_.channels},
                      {made + place * MadeApart(), false, g_.outputs}, start > 0,
                      kernel + place * Apart(weights()), g_.outputs));
        });
      });
    }
  }

  // Where a tile's side x side pixels are in the images; `outside` for padding.
  template <int side, typename Float>
  void Places(const Image& image, int64_t tile, Float* images, Float* outside,
              Float** places) const {
    const int64_t n = tile / (tall_ * wide_), at = tile % (tall_ * wide_);
    const int64_t top = at / wide_ * kTile - image.top;
    const int64_t left = at % wide_ * kTile - image.left;
    for (int i = 0; i < side * side; ++i) {
      const int64_t y = top + i / side, x = left + i % side;
      const bool inside = y >= 0 && y < image.height && x >= 0 && x < image.width;
      const int64_t pixel = (n * image.height + y) * image.width + x;
      places[i] = inside ? images + pixel * image.channels : outside;
    }
  }

  // Tiles of side x side pixels -> [places, tiles, channels].
  template <int side>
  void FromImages(Pool& pool, Step step, const Image& image, int64_t start,
                  int64_t count, const float* images, const float* zeros,
                  float* transformed) const {
    ForEachRange(pool, count, kGrain, [&](int64_t begin, int64_t end) {
      const float* from[side * side];
      float* to[kPlaces];
      for (int64_t t = begin; t < end; ++t) {
        Places<side>(image, start + t, images, zeros, from);
        for (int64_t p = 0; p < kPlaces; ++p) {
          to[p] = transformed + p * Apart(chunk_ * image.channels) + t * image.channels;
        }
        Transform(taps, step, 0, from, to, image.channels);
      }
    });
  }

  // Where weight i of `count` is in a kernel that may have to be turned round.
  int Turned(int i, int count) const {
    return g_.direction == kInputGradient ? count - 1 - i : i;
  }

  // Kernels [side, side, channels * outputs], their planes so far apart.
  template <int side, int to_side>
  void OfKernel(Pool& pool, Step step, const float* kernel, int64_t apart,
                float* result, int64_t result_apart) const {
    ForEachRange(pool, weights() / kUnit, 256, [&](int64_t begin, int64_t end) {
      const float* from[side * side];
      float* to[to_side * to_side];
      for (int i = 0; i < side * side; ++i) {
        from[i] = kernel + Turned(i, side * side) * apart + begin * kUnit;
      }
      for (int i = 0; i < to_side * to_side; ++i) {
        to[i] = result + i * result_apart + begin * kUnit;
      }
      Transform(taps, step, 0, from, to, (end - begin) * kUnit);
    });
  }

  // The kernel's places, each [channels seen, channels made].
  void TransformKernel(Pool& pool, const float* kernel, float* transformed) const {
    if ((g_.direction == kInputGradient ? g_.by_output() : g_.by_input()) != 1) {
      OfKernel<taps, kEdge>(pool, kKernel, kernel, weights(), transformed,
                            Apart(weights()));
      return;
    }
    // [.., made, seen] as it is: transposed by squares.
    const int64_t rows = made_.channels, columns = seen_.channels;
    ForEachRange(pool, (rows + kSquare - 1) / kSquare, 1, [&](int64_t begin, int64_t) {
      const float* from[taps * taps];
      float square[kPlaces][kSquare][kSquare];
      float* to[kPlaces];
      const int64_t row = begin * kSquare, high = std::min(kSquare, rows - row);
      for (int64_t column = 0; column < columns; column += kSquare) {
        const int64_t wide = std::min(kSquare, columns - column);
        for (int64_t r = 0; r < high; ++r) {
          for (int i = 0; i < taps * taps; ++i) {
            from[i] = kernel + Turned(i, taps * taps) * weights() +
                      (row + r) * columns + column;
          }
          for (int p = 0; p < kPlaces; ++p) to[p] = square[p][r];
          Transform(taps, kKernel, 0, from, to, wide);
        }
        for (int p = 0; p < kPlaces; ++p) {
          float* const place = transformed + p * Apart(weights()) + column * rows + row;
          for (int64_t c = 0; c < wide; ++c) {
            for (int64_t r = 0; r < high; ++r) place[c * rows + r] = square[p][r][c];
          }
        }
      }
    });
  }

  Geometry g_;
  Image seen_, made_;
  int64_t tall_, wide_, tiles_, chunk_;
};

}  // namespace

// Throws std::invalid_argument where the convolution is none for it: other kernels than
// 3x3 and 5x5, strides, dilation, not float32, or channels that are no multiples of 8.
std::unique_ptr<Convolution> MakeWinograd(const Geometry& g) {
  if (g.kernel_height == 5) return std::make_unique<Winograd<5>>(g);
  return std::make_unique<Winograd<3>>(g);
}

}  // namespace jaxdl
