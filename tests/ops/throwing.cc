// A target of XLA's FFI whose pieces of work throw, for test_failures.py.

#include <chrono>
#include <stdexcept>
#include <thread>

#include "errors.h"
#include "parallel.h"

namespace {

namespace ffi = xla::ffi;

// Sets all results to 1, a piece of a millisecond each. Pieces throw on the caller's
// thread, or on all others, where `where` is 1 or 2.
ffi::Error Throw(ffi::ThreadPool pool, ffi::Result<ffi::Buffer<ffi::F32>> ones,
                 int64_t where, bool memory) {
  const auto caller = std::this_thread::get_id();
  std::atomic<int> at_work{0};
  struct Counted {
    std::atomic<int>& count;
    explicit Counted(std::atomic<int>& count) : count(count) { ++count; }
    ~Counted() { --count; }
  };
  try {
    jaxdl::ForEachPiece(pool, ones->element_count(), [&](int64_t i) {
      const Counted counted(at_work);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (where == (std::this_thread::get_id() == caller ? 1 : 2)) {
        if (memory) throw std::bad_alloc();
        throw std::runtime_error("no such luck");
      }
      ones->typed_data()[i] = 1;
    });
  } catch (...) {
    if (at_work > 0) return ffi::Error::Internal("threads are still at work");
    throw;
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(throwing, jaxdl::Guarded("throwing", Throw),
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("where")
                                  .Attr<bool>("memory"));
