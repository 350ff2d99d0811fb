// A step of SGD with momentum in one pass over the arrays: XLA's CPU backend gives each
// result a loop of its own, and reads everything again in each.

#include "parallel.h"

#include <vector>

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_MACHINE \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_MACHINE
#endif

constexpr int64_t kGrain = 1 << 14;  // floats; some 5 us

struct Rule {
  float rate, momentum;
  bool nesterov;
};

struct Piece {
  const float *parameter, *trace, *gradient;
  float *new_parameter, *new_trace;
  int64_t count;
  float decay, late_decay;
};

// The results may take the operands' place, which the compiler cannot know; no element
// depends on another one's.
FOR_EACH_MACHINE void Step(const Piece& piece, const Rule& rule) {
  const auto [p, t, g, to_p, to_t, count, decay, late_decay] = piece;
  const auto [rate, momentum, nesterov] = rule;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const float slope = g[i] + decay * p[i];
    const float moved = slope + momentum * t[i];
    const float along = nesterov ? slope + momentum * moved : moved;
    to_t[i] = moved;
    to_p[i] = p[i] - rate * (along + late_decay * p[i]);
  }
}

// Operands: rate, then all parameters, all traces, all gradients. Results: all
// parameters, all traces.
ffi::Error Sgd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> rate,
               ffi::RemainingArgs operands, ffi::RemainingRets results,
               ffi::Span<const float> decays, ffi::Span<const float> late_decays,
               float momentum, bool nesterov) {
  const size_t arrays = decays.size();
  if (operands.size() != 3 * arrays || results.size() != 2 * arrays ||
      late_decays.size() != arrays) {
    return ffi::Error::InvalidArgument("jaxdl_sgd: numbers of arrays");
  }
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
                        std::min(kGrain, count - at), decays[i], late_decays[i]});
    }
  }
  const Rule rule{*rate.typed_data(), momentum, nesterov};
  ForEachPiece(pool, pieces.size(), [&](int64_t i) { Step(pieces[i], rule); });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_sgd, jaxdl::Sgd,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<xla::ffi::Span<const float>>("decays")
                                  .Attr<xla::ffi::Span<const float>>("late_decays")
                                  .Attr<float>("momentum")
                                  .Attr<bool>("nesterov"));

#pragma GCC visibility pop
