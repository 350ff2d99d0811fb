// Matrix products, as convolutions of single pixels by a 1x1 kernel: whole layers of
// that kind, and JAX's own products. The plain matrices are taken as they are.
//
// XLA's threads share the work: each computes pieces of the result, in which oneDNN is
// told that it is alone. Its own threads would come too late for products of some
// microseconds, and compete with XLA's for the cores.

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

#include "alone.h"
#include "convolution.h"
#include "sgemm.h"
#include "transforms.h"

namespace jaxdl {
namespace {

using dnnl::memory;

constexpr int64_t kLeastShared = 1 << 21;  // multiply-adds: some 10 us of one core
constexpr int64_t kPiece = 1 << 22;
constexpr int64_t kMostPieces = 32, kMostCopied = 8;
constexpr int64_t kLines = 128;      // of a piece, unless threads would idle
constexpr int64_t kLeastLines = 64;  // for each thread, or the longer side is cut
constexpr int64_t kFewRows = 16;  // take as long as reading the other operand
constexpr int64_t kCacheLine = 16;  // floats, which no two pieces share
constexpr int64_t kLeastTurned = 512;  // rows that are worth another order of `b`

struct Matrix {
  int64_t by_row, by_column;

  bool transposed() const { return by_column != 1; }
  // Of a matrix with one row, or one column, both strides may be 1.
  int64_t leading(int64_t rows, int64_t columns) const {
    return by_column == 1 ? std::max(by_row, columns) : std::max(by_column, rows);
  }
};

class Product : public Convolution {
 public:
  explicit Product(const Geometry& g) : bf16_(g.operand_bf16), rounded_(g.result_bf16) {
    if (g.taps() != 1 || g.stride_h != 1 || g.stride_w != 1 || g.top || g.left ||
        g.bottom || g.right) {
      throw std::invalid_argument("not a 1x1 kernel with stride 1");
    }
    const int64_t m = g.images * g.height * g.width, c = g.channels, o = g.outputs;
    const Matrix kernel{g.by_input(), g.by_output()};
    switch (g.direction) {
      case kForward:
        Set(m, c, o, {c, 1}, kernel, g.threads);
        break;
      case kInputGradient:
        Set(m, o, c, {o, 1}, {kernel.by_column, kernel.by_row}, g.threads);
        break;
      default:
        if (g.swapped) throw std::invalid_argument("a swapped weight gradient");
        Set(c, m, o, {1, c}, {o, 1}, g.threads);
    }
    if (!bf16_ && !rounded_) return;
    Alone([&] {
      whole_ = Prepare(size_);
      const int64_t rest = length() % size_;
      last_ = rest ? Prepare(rest) : whole_;
    });
  }

  const char* implementation() const override {
    return plain() ? "sgemm" : implementation_.c_str();
  }
  size_t workspace() const override {
    return turned_bytes() + pieces_ * scratch_ + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    if (turned_) {
      auto* const turned = reinterpret_cast<float*>(parts.Take(turned_bytes()));
      Turn(pool, static_cast<const float*>(right), turned);
      right = turned;
    }
    char* const scratch = parts.Take(0);
    std::atomic<bool> failed{false};
    ForEachPiece(pool, pieces_, [&](int64_t i) {
      const int64_t at = i * size_, size = std::min(size_, length() - at);
      const auto *a = static_cast<char*>(left), *b = static_cast<char*>(right);
      const int64_t apart = by_rows_ ? a_.by_row : b_.by_column;
      (by_rows_ ? a : b) += at * apart * (bf16_ ? 2 : 4);
      char* const c =
          static_cast<char*>(result) + at * (by_rows_ ? n_ : 1) * (rounded_ ? 2 : 4);
      Alone([&] {
        const bool done = plain() ? Multiply(size, a, b, c)
                                  : Execute(at + size < length() ? whole_ : last_, a, b,
                                            c, scratch + i * scratch_);
        if (!done) failed = true;
      });
    });
    if (failed) throw std::runtime_error("a product failed");
  }

 private:
  bool plain() const { return !bf16_ && !rounded_; }
  int64_t length() const { return by_rows_ ? m_ : n_; }

  // [m, k] x [k, n], cut along a side of the result, by the sizes and threads alone.
  void Set(int64_t m, int64_t k, int64_t n, Matrix a, Matrix b, int64_t threads) {
    m_ = m, k_ = k, n_ = n, a_ = a, b_ = b;
    // oneDNN's copy of so much that is transposed would take longer.
    turned_ = plain() && b.transposed() && !a.transposed() && k >= n &&
              m >= std::max(k, kLeastTurned);
    if (turned_) b = b_ = {n, 1};
    by_rows_ = m >= n;  // the longer side is cut, as a rule
    int64_t most = kMostPieces, unit = kCacheLine, least = unit;
    if (plain() && SgemmCopies(m, n, a.transposed(), b.transposed(), b.leading(k, n))) {
      // Each piece copies all of the shorter side anew.
      most = kMostCopied, unit = least = kSgemmUnit;
    } else if (plain()) {
      // oneDNN copies what is transposed, for each piece anew unless it is that which
      // is cut, and multiplies few columns at a time slower than few rows.
      const bool columns = b.transposed() && !a.transposed() && k >= n;
      if ((columns ? n : m) >= kLeastLines * threads) by_rows_ = !columns;
      least = std::min(kLines, (length() + threads - 1) / threads);
    }
    // Few rows wait for the other operand, of which a thread best reads one long part.
    const bool few = m < kFewRows && !a.transposed();
    if (few) most = std::min(most, threads);
    const int64_t work = (few ? kFewRows : m) * k * n;
    int64_t pieces = work < kLeastShared ? 1 : 2;
    while (pieces < most && work / kPiece >= 2 * pieces) pieces *= 2;
    size_ = std::max(least, (length() + pieces - 1) / pieces);
    size_ = (size_ + unit - 1) / unit * unit;
    pieces_ = (length() + size_ - 1) / size_;
  }

  bool Multiply(int64_t size, const void* a, const void* b, void* c) const {
    const int64_t m = by_rows_ ? size : m_, n = by_rows_ ? n_ : size;
    return Sgemm(m, n, k_,
                 {static_cast<const float*>(a), a_.transposed(), a_.leading(m, k_)},
                 {static_cast<const float*>(b), b_.transposed(), b_.leading(k_, n)},
                 false, static_cast<float*>(c), n_);
  }

  size_t turned_bytes() const { return turned_ ? Aligned(k_ * n_ * sizeof(float)) : 0; }

  // b as it lies, [n, k], to [k, n].
  void Turn(Pool& pool, const float* from, float* to) const {
    ForEachRange(pool, (n_ + kSquare - 1) / kSquare, 1, [&](int64_t j, int64_t) {
      j *= kSquare;
      const int64_t rows = std::min(kSquare, n_ - j);
      for (int64_t p = 0; p < k_; p += kSquare) {
        const int64_t columns = std::min(kSquare, k_ - p);
        float square[kSquare][kSquare] = {};
        for (int64_t i = 0; i < rows; ++i) {
          std::copy_n(from + (j + i) * k_ + p, columns, square[i]);
        }
        Transpose(square, rows, columns, to + p * n_ + j, n_);
      }
    });
  }

  struct Prepared {
    memory::desc a, b, c, scratch;
    dnnl::matmul matmul;
  };

  Prepared Prepare(int64_t size) {
    using type = memory::data_type;
    const type operand = bf16_ ? type::bf16 : type::f32;
    const int64_t m = by_rows_ ? size : m_, n = by_rows_ ? n_ : size;
    Prepared p;
    p.a = memory::desc({m, k_}, operand, memory::dims{a_.by_row, a_.by_column});
    p.b = memory::desc({k_, n}, operand, memory::dims{b_.by_row, b_.by_column});
    p.c = memory::desc({m, n}, rounded_ ? type::bf16 : type::f32, memory::dims{n_, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);
    const dnnl::matmul::primitive_desc desc(Cpu(), p.a, p.b, p.c, attributes);
    p.scratch = desc.scratchpad_desc();
    p.matmul = dnnl::matmul(desc);
    scratch_ = std::max(scratch_, Aligned(p.scratch.get_size()));
    implementation_ = desc.impl_info_str();
    return p;
  }

  static bool Execute(const Prepared& p, const void* a, const void* b, void* c,
                      void* scratch) try {
    dnnl::stream stream(Cpu());
    p.matmul.execute(stream,
                     {{DNNL_ARG_SRC, memory(p.a, Cpu(), const_cast<void*>(a))},
                      {DNNL_ARG_WEIGHTS, memory(p.b, Cpu(), const_cast<void*>(b))},
                      {DNNL_ARG_DST, memory(p.c, Cpu(), c)},
                      {DNNL_ARG_SCRATCHPAD, memory(p.scratch, Cpu(), scratch)}});
    stream.wait();
    return true;
  } catch (const dnnl::error&) {
    return false;
  }

  bool bf16_, rounded_, by_rows_, turned_ = false;
  int64_t m_, k_, n_, size_, pieces_;
  Matrix a_, b_;
  Prepared whole_, last_;
  size_t scratch_ = 0;
  std::string implementation_;
};

}  // namespace

std::unique_ptr<Convolution> MakeProduct(const Geometry& g) {
  return std::make_unique<Product>(g);
}

}  // namespace jaxdl
