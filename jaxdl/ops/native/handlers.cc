// Convolutions as targets of XLA's FFI.
//
// The geometry comes as an attribute. From it a convolution is made once per compiled
// program ("instantiate"); executing it allocates no workspace, for XLA hands it one
// whose size was asked for (jaxdl_conv_plan) when the program was traced.

#include <xmmintrin.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "convolution.h"
#include "errors.h"
#include "small.h"

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;

struct Prepared {
  static ffi::TypeId id;
  std::unique_ptr<Convolution> convolution;
  size_t workspace = 0;  // bytes that it needs here
};
ffi::TypeId Prepared::id = {};

// TBB's tasks compute with the modes of the thread that came to it first. XLA's threads
// flush denormal numbers to zero; Python's, which plans, would not.
struct Flushing {
  static constexpr unsigned kResults = 1 << 15, kOperands = 1 << 6;
  const unsigned before = _mm_getcsr();
  Flushing() { _mm_setcsr(before | kResults | kOperands); }
  ~Flushing() { _mm_setcsr(before); }
};

std::unique_ptr<Convolution> Make(const int64_t* fields) {
  const Flushing flushing;
  Geometry g;
  std::memcpy(&g, fields, sizeof g);
  if (g.threads < 1) throw std::invalid_argument("no threads");
  switch (g.algorithm) {
    case kDirect:
      return MakeDirect(g);
    case kTaps:
      return MakeTaps(g);
    case kSmall:
      return MakeSmall(g);
    case kProduct:
      return MakeProduct(g);
    case kWinograd:
      return MakeWinograd(g);
  }
  throw std::invalid_argument("no such algorithm");
}

ffi::Error FailureTo(const char* act, std::string_view layer) {
  return Failure("oneDNN cannot " + std::string(act) + " the convolution of " +
                 std::string(layer));
}

ffi::ErrorOr<std::unique_ptr<Prepared>> Instantiate(ffi::Span<const int64_t> geometry,
                                                    std::string_view layer) {
  try {
    if (geometry.size() != kFields) throw std::invalid_argument("geometry");
    auto prepared = std::make_unique<Prepared>();
    prepared->convolution = Make(geometry.begin());
    prepared->workspace = prepared->convolution->workspace();
    return prepared;
  } catch (...) {
    return ffi::Unexpected(FailureTo("prepare", layer));
  }
}

ffi::Error Execute(Prepared* prepared, ffi::ThreadPool pool, ffi::AnyBuffer left,
                   ffi::AnyBuffer right, ffi::Result<ffi::AnyBuffer> result,
                   ffi::Result<ffi::AnyBuffer> workspace, ffi::Span<const int64_t>,
                   std::string_view layer) {
  // oneDNN's part of it grows with the threads, of which there may be more here than
  // where the program was compiled.
  if (workspace->size_bytes() < prepared->workspace) {
    return ffi::Error::InvalidArgument(
        "the convolution of " + std::string(layer) + " needs " +
        std::to_string(prepared->workspace) + " bytes of workspace here and has " +
        std::to_string(workspace->size_bytes()) +
        ": the program was compiled where there are other threads; compile it here");
  }
  try {
    prepared->convolution->Run(pool, left.untyped_data(), right.untyped_data(),
                               result->untyped_data(), workspace->untyped_data());
    return ffi::Error::Success();
  } catch (...) {
    return FailureTo("run", layer);
  }
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_conv_instantiate, jaxdl::Instantiate,
                              xla::ffi::Ffi::BindInstantiate()
                                  .Attr<xla::ffi::Span<const int64_t>>("geometry")
                                  .Attr<std::string_view>("layer"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_conv, jaxdl::Execute,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::State<jaxdl::Prepared>>()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("geometry")
                                  .Attr<std::string_view>("layer"));

extern "C" {

XLA_FFI_TypeId* jaxdl_conv_type_id() { return &jaxdl::Prepared::id; }

const XLA_FFI_TypeInfo* jaxdl_conv_type_info() {
  static const XLA_FFI_TypeInfo info = xla::ffi::MakeTypeInfo<jaxdl::Prepared>();
  return &info;
}

// Floats in the widest vectors that the processor computes with.
int64_t jaxdl_lanes() {
  return jaxdl::SmallAvx512() != nullptr ? 16 : jaxdl::SmallAvx2() != nullptr ? 8 : 4;
}

// Bytes of workspace for a geometry; negative where there is no such convolution.
// `said` (of `room` bytes) gets the implementation's name, or the error.
int64_t jaxdl_conv_plan(const int64_t* fields, char* said, size_t room) {
  try {
    const auto convolution = jaxdl::Make(fields);
    std::strncpy(said, convolution->implementation(), room);
    return static_cast<int64_t>(convolution->workspace());
  } catch (const std::exception& error) {
    std::strncpy(said, error.what(), room);
    return -1;
  }
}

}  // extern "C"

#pragma GCC visibility pop
