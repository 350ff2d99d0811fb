// An array that XLA has to write before it goes on (../materialise.py).

#include <cstring>

#include "errors.h"

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;

ffi::Error Materialise(ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> result) {
  if (result->untyped_data() != x.untyped_data()) {  // XLA shares them; it need not
    std::memcpy(result->untyped_data(), x.untyped_data(), x.size_bytes());
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_materialise, jaxdl::Materialise,
                              xla::ffi::Ffi::Bind()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>());

#pragma GCC visibility pop
