// Exceptions as errors of XLA's FFI, which knows none: one that left a handler would end
// the process.

#ifndef JAXDL_ERRORS_H_
#define JAXDL_ERRORS_H_

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace jaxdl {

// The error for the exception that is being handled, and for `what` failed by it.
inline xla::ffi::Error Failure(const std::string& what) {
  using xla::ffi::Error;
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return Error(xla::ffi::ErrorCode::kResourceExhausted, what + ": out of memory");
  } catch (const std::exception& error) {
    return Error::Internal(what + ": " + error.what());
  } catch (...) {
    return Error::Internal(what + ": for an unknown reason");
  }
}

// The handler, with whatever it throws as an error.
template <typename... Args>
auto Guarded(const char* name, xla::ffi::Error (*handler)(Args...)) {
  return [name, handler](Args... args) {
    try {
      return handler(std::move(args)...);
    } catch (...) {
      return Failure(name);
    }
  };
}

}  // namespace jaxdl

#endif  // JAXDL_ERRORS_H_
