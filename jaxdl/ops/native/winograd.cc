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
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "alone.h"
#include "convolution.h"
#include "sgemm.h"
#include "transforms.h"

namespace jaxdl {
namespace {

constexpr int64_t kCache = 256 << 10;  // bytes of a row of places that a thread is at
constexpr int64_t kMany = 64;          // tiles that are worth more than the cache
constexpr int64_t kManySummed = 128;   // the same where they are summed
constexpr int64_t kLeast = 16;         // tiles at a time: fewer make slow products
constexpr int64_t kOwn = 5 << 19;      // bytes of sums that each thread may have
constexpr int64_t kSums = 10 << 20;    // bytes of them together
constexpr int64_t kApart = 64;   // floats between places, lest they share cache sets
constexpr int64_t kAhead = 8;    // tiles, of which the pixels are asked for beforehand
constexpr int64_t kLine = 16;    // floats that come together
constexpr int64_t kGrain = 16;   // what numbers of tiles are multiples of

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
    const bool summed = g.direction == kWeightGradient;
    const int64_t row = kEdge * (seen_.channels + made_.channels) * 4;
    chunk_ = std::max(summed ? kManySummed : kMany, InGrains(kCache / row));
    chunk_ = std::min(chunk_, tiles_);
    if (summed) {
      Share();
    } else {
      chunk_ = Fair();
    }
  }

  const char* implementation() const override { return "winograd"; }

  size_t workspace() const override {
    return Aligned(parts_ * Sums() * 4) + Slots() * SlotBytes() +
           Aligned(std::max(seen_.channels, made_.channels) * 4) + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    const int64_t most = std::max(seen_.channels, made_.channels);
    auto* const kernel = Take(parts, parts_ * Sums());
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
  int64_t Sums() const { return kPlaces * Apart(weights()); }  // floats of all places
  int64_t Slots() const {
    const bool summed = g_.direction == kWeightGradient;
    return std::min(summed ? Items() : (tiles_ + kLeast - 1) / kLeast, g_.threads);
  }
  // Tiles in a chunk, of which all threads get equally many.
  int64_t Fair() const {
    const int64_t threads = Slots();
    const int64_t rounds = (tiles_ + threads * chunk_ - 1) / (threads * chunk_);
    const int64_t size = (tiles_ + threads * rounds - 1) / (threads * rounds);
    return std::min(chunk_, std::max(kLeast, InGrains(size + kGrain - 1)));
  }
  int64_t SeenApart() const { return Apart(chunk_ * seen_.channels); }
  int64_t MadeApart() const { return Apart(chunk_ * made_.channels); }
  size_t SlotBytes() const {
    return Aligned(kEdge * SeenApart() * 4) + Aligned(kEdge * MadeApart() * 4) +
           Aligned(made_.channels * 4);
  }
  static void Multiply(int64_t m, int64_t n, int64_t k, const Operand& a,
                       const Operand& b, bool add, float* c, int64_t c_leading) {
    if (!SgemmInCache(m, n, k, a, b, add, c, c_leading) &&
        !Sgemm(m, n, k, a, b, add, c, c_leading)) {
      throw std::runtime_error("a product failed");
    }
  }
  static int64_t Apart(int64_t floats) { return floats + kApart; }
  static int64_t InGrains(int64_t tiles) { return tiles / kGrain * kGrain; }
  static float* Take(Parts& parts, int64_t floats) {
    return reinterpret_cast<float*>(parts.Take(floats * 4));
  }

  // What a thread works with.
  struct Desk {
    float *seen, *made, *lost;  // rows of places; what lies outside
    std::vector<const float*> pixels, gradients;
    std::vector<float*> results;
  };

  // Calls work(item, desk) for each item, alone.
  template <typename Work>
  void ForEachItem(Pool& pool, Parts& parts, int64_t items, const Work& work) const {
    char* const slots = parts.Take(Slots() * SlotBytes());
    ForEachWorker(pool, Slots(), items, [&](int64_t worker, const auto& each) {
      Parts own(slots + worker * SlotBytes());
      Desk desk;
      desk.seen = Take(own, kEdge * SeenApart());
      desk.made = Take(own, kEdge * MadeApart());
      desk.lost = Take(own, made_.channels);
      Alone([&] { each([&](int64_t item) { work(item, desk); }); });
    });
  }

  // The result, each chunk of tiles by one thread: a row of places is in its cache from
  // the pixels to the results.
  void Convolve(Pool& pool, const float* images, const float* zeros,
                const float* kernel, Parts& parts, float* result) const {
    const int64_t chunks = (tiles_ + chunk_ - 1) / chunk_;
    ForEachItem(pool, parts, chunks, [&](int64_t item, Desk& desk) {
      const int64_t start = item * chunk_, count = std::min(chunk_, tiles_ - start);
      Places<kSide>(seen_, start, count, images, zeros, desk.pixels);
      Places<kTile>(made_, start, count, result, desk.lost, desk.results);
      for (int row = 0; row < kEdge; ++row) OneRow(row, count, kernel, desk);
    });
  }

  // What a row of places adds to the results of so many tiles.
  void OneRow(int row, int64_t count, const float* kernel, Desk& desk) const {
    RowOf<kSide>(kRowOfPixels, row, count, desk.pixels, seen_.channels, SeenApart(),
                 desk.seen);
    for (int i = 0; i < kEdge; ++i) {
      const float* const place = kernel + (row * kEdge + i) * Apart(weights());
      Multiply(count, made_.channels, seen_.channels,
               {desk.seen + i * SeenApart(), false, seen_.channels},
               {place, false, made_.channels}, false, desk.made + i * MadeApart(),
               made_.channels);
    }
    const float* from[kEdge];
    for (int64_t t = 0; t < count; ++t) {
      if (t + kAhead < count) {
        Fetch<kTile>(row, &desk.results[(t + kAhead) * kTile * kTile], made_.channels);
      }
      for (int i = 0; i < kEdge; ++i) {
        from[i] = desk.made + i * MadeApart() + t * made_.channels;
      }
      Transform(taps, kRowToResults, row, from, &desk.results[t * kTile * kTile],
                made_.channels);
    }
  }

  // How the gradient of the kernel is shared among threads. Small sums each has of its
  // own, over a part of the tiles. Others are one sum, and a thread makes rows of its
  // places, if need be for some of the outputs: these transform the pixels again.
  void Share() {
    const int64_t threads = g_.threads, bytes = Sums() * 4;
    if (bytes <= kOwn) parts_ = std::min({2 * threads, kSums / bytes, tiles_ / chunk_});
    if (parts_ > threads) parts_ -= parts_ % threads;
    part_ = (tiles_ + parts_ - 1) / parts_;
    parts_ = (tiles_ + part_ - 1) / part_;
    by_rows_ = bytes > kOwn || parts_ < threads;
    int64_t splits = 1;
    const auto idle = [&] {  // of so many pieces of work, in the last round
      return (threads - parts_ * kEdge * splits % threads) % threads;
    };
    while (by_rows_ && idle() * 10 > parts_ * kEdge * splits) ++splits;
    width_ = InGrains((g_.outputs + splits - 1) / splits + kGrain - 1);
  }

  // Pieces of a part's work: rows of places, and parts of the outputs.
  int64_t Rows() const { return by_rows_ ? kEdge : 1; }
  int64_t Widths() const { return (g_.outputs + width_ - 1) / width_; }
  int64_t Items() const { return parts_ * Rows() * Widths(); }

  // The transformed gradient of the kernel: products over all tiles.
  void SumOverTiles(Pool& pool, const float* images, const float* gradients,
                    const float* zeros, Parts& parts, float* kernel) const {
    ForEachItem(pool, parts, Items(), [&](int64_t item, Desk& desk) {
      const int64_t within = item % (Rows() * Widths());
      const int64_t part = item / (Rows() * Widths()), first = within % Widths() * width_;
      const int64_t end = std::min(tiles_, (part + 1) * part_);
      const int64_t low = within / Widths(), high = by_rows_ ? low + 1 : kEdge;
      for (int64_t start = part * part_; start < end; start += chunk_) {
        const int64_t count = std::min(chunk_, end - start);
        Places<kSide>(seen_, start, count, images, zeros, desk.pixels);
        Places<kTile>(made_, start, count, gradients + first, zeros, desk.gradients);
        for (int64_t row = low; row < high; ++row) {
          AddRow(row, count, first, start > part * part_, kernel + part * Sums(), desk);
        }
      }
    });
    if (parts_ == 1) return;
    ForEachRange(pool, Sums(), 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t part = 1; part < parts_; ++part) {
        const float* const other = kernel + part * Sums();
        for (int64_t i = begin; i < end; ++i) kernel[i] += other[i];
      }
    });
  }

  // What so many tiles add to a row of places, at the outputs from `first` on.
  void AddRow(int row, int64_t count, int64_t first, bool add, float* kernel,
              Desk& desk) const {
    const int64_t width = std::min(width_, g_.outputs - first);
    RowOf<kSide>(kRowOfPixels, row, count, desk.pixels, g_.channels, SeenApart(),
                 desk.seen);
    RowOf<kTile>(kRowOfGradients, row, count, desk.gradients, width, MadeApart(),
                 desk.made);
    for (int i = 0; i < kEdge; ++i) {
      float* const place = kernel + (row * kEdge + i) * Apart(weights()) + first;
      Multiply(g_.channels, width, count,
               {desk.seen + i * SeenApart(), true, g_.channels},
               {desk.made + i * MadeApart(), false, width}, add, place, g_.outputs);
    }
  }

  // Asks for the pixels that a tile is the first to touch. In each direction these are
  // two, and the first two rows of places begin with one of them each.
  template <int side, typename Float>
  static void Fetch(int row, Float* const* pixels, int64_t channels) {
    if (row > 1) return;
    const int line = side == kTile ? row : 2 - row;
    for (int i = side - kTile; i < side; ++i) {
      Float* const pixel = pixels[line * side + i];
      for (int64_t c = 0; c < channels; c += kLine) {
        __builtin_prefetch(pixel + c, !std::is_const_v<Float>);
      }
    }
  }

  // A row of places of each of so many tiles, from `width` channels of their pixels.
  template <int side>
  void RowOf(Step step, int row, int64_t count, const std::vector<const float*>& pixels,
             int64_t width, int64_t apart, float* transformed) const {
    float* to[kEdge];
    for (int64_t t = 0; t < count; ++t) {
      if (t + kAhead < count) {
        Fetch<side>(row, &pixels[(t + kAhead) * side * side], width);
      }
      for (int i = 0; i < kEdge; ++i) to[i] = transformed + i * apart + t * width;
      Transform(taps, step, row, &pixels[t * side * side], to, width);
    }
  }

  // Where the side x side pixels of tiles are in the images; `outside` for padding.
  template <int side, typename Float>
  void Places(const Image& image, int64_t start, int64_t count, Float* images,
              Float* outside, std::vector<Float*>& places) const {
    places.resize(count * side * side);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t tile = start + t;
      const int64_t n = tile / (tall_ * wide_), at = tile % (tall_ * wide_);
      const int64_t top = at / wide_ * kTile - image.top;
      const int64_t left = at % wide_ * kTile - image.left;
      Float** to = &places[t * side * side];
      for (int64_t y = top; y < top + side; ++y) {
        const int64_t line = (n * image.height + y) * image.width;
        const bool seen = y >= 0 && y < image.height;
        for (int64_t x = left; x < left + side; ++x) {
          const bool inside = seen && x >= 0 && x < image.width;
          *to++ = inside ? images + (line + x) * image.channels : outside;
        }
      }
    }
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
    // [.., made, seen] as it is: transposed by squares, so that what is written follows.
    const int64_t rows = made_.channels, columns = seen_.channels;
    const int64_t pieces = (columns + kSquare - 1) / kSquare;
    ForEachPiece(pool, pieces, [&](int64_t piece) {
      const float* from[taps * taps];
      float square[kPlaces][kSquare][kSquare] = {};
      float* to[kPlaces];
      const int64_t column = piece * kSquare;
      const int64_t wide = std::min(kSquare, columns - column);
      for (int64_t row = 0; row < rows; row += kSquare) {
        const int64_t high = std::min(kSquare, rows - row);
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
          Transpose(square[p], high, wide, place, rows);
        }
      }
    });
  }

  Geometry g_;
  Image seen_, made_;
  int64_t tall_, wide_, tiles_, chunk_;
  int64_t parts_ = 1, part_ = 0, width_ = 0;  // of the tiles; tiles of one; outputs
  bool by_rows_ = false;
};

}  // namespace

// Throws std::invalid_argument where the convolution is none for it: other kernels than
// 3x3 and 5x5, strides, dilation, not float32, or channels that are no multiples of 8.
std::unique_ptr<Convolution> MakeWinograd(const Geometry& g) {
  if (g.kernel_height == 5) return std::make_unique<Winograd<5>>(g);
  return std::make_unique<Winograd<3>>(g);
}

}  // namespace jaxdl
