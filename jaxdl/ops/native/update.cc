// A step of SGD with momentum in one pass over the arrays: XLA's CPU backend gives each
// result a loop of its own, and reads everything again in each.

#include "errors.h"
#include "parallel.h"

#include <vector>

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;

constexpr int64_t kGrain = 1 << 14;  // floats; some 5 us

struct Rule {
  float rate, momentum;
  bool nesterov, decoupled;
};

struct Piece {
  const float *parameter, *trace, *gradient;
  float *new_parameter, *new_trace;
  int64_t count;
  float decay;
};

// The results may take the operands' place, which the compiler cannot know; no element
// depends on another one's.
FOR_EACH_MACHINE void Step(const Piece& piece, const Rule& rule) {
  const auto [p, t, g, to_p, to_t, count, decay] = piece;
  const auto [rate, momentum, nesterov, decoupled] = rule;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const float slope = decoupled ? g[i] : g[i] + decay * p[i];
    const float moved = slope + momentum * t[i];
    const float along = nesterov ? slope + momentum * moved : moved;
    to_t[i] = moved;
    to_p[i] = p[i] - rate * (decoupled ? along + decay * p[i] : along);
  }
}

// Operands: rate, momentum and the decay of each array; then all parameters, all traces,
// all gradients. Results: all parameters, all traces.
ffi::Error Sgd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> numbers,
               ffi::RemainingArgs operands, ffi::RemainingRets results, bool nesterov,
               bool decoupled) {
  const size_t arrays = operands.size() / 3;
  if (operands.size() != 3 * arrays || results.size() != 2 * arrays ||
      numbers.element_count() != 2 + arrays) {
    return ffi::Error::InvalidArgument("jaxdl_sgd: numbers of arrays");
  }
  const float* const number = numbers.typed_data();
  std::vector<Piece> pieces;
  for (size_t i = 0; i < arrays; ++i) {
    const auto from = [&](size_t group) {
      return static_cast<const float*>(
          operands.get<ffi::AnyBuffer>(group * arrays + i)->untyped_data());
    };
    const auto to = [&](size_t group) {
      return static_cast<float*>(
          (*results.get<ffi::AnyBuffer>(group * arrays + i))->untyped_data());
    };
    const float *p = from(0), *t = from(1), *g = from(2);
    float *to_p = to(0), *to_t = to(1);
    const int64_t count = operands.get<ffi::AnyBuffer>(i)->element_count();
    for (int64_t at = 0; at < count; at += kGrain) {
      pieces.push_back({p + at, t + at, g + at, to_p + at, to_t + at,
                        std::min(kGrain, count - at), number[2 + i]});
    }
  }
  const Rule rule{number[0], number[1], nesterov, decoupled};
  ForEachPiece(pool, pieces.size(), [&](int64_t i) { Step(pieces[i], rule); });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_sgd, jaxdl::Guarded("jaxdl_sgd", jaxdl::Sgd),
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<bool>("nesterov")
                                  .Attr<bool>("decoupled"));

#pragma GCC visibility pop
