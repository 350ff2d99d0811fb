// Loops over XLA's own threads: no others are made, so none compete for the cores. And
// loops for whichever instructions there are.

#ifndef JAXDL_PARALLEL_H_
#define JAXDL_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <thread>

#include "xla/ffi/api/ffi.h"

// One version of a function for each kind of x86-64, chosen as the library is loaded.
// GCC 11 and older can choose by single features alone: with AVX2 they then do without
// FMA, which only the rounding shows, for what is cloned waits for memory.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define FOR_EACH_MACHINE \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_MACHINE __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define FOR_EACH_MACHINE
#endif
// For what such a function calls, so that it is compiled with its instructions.
#define INLINE inline __attribute__((always_inline))

namespace jaxdl {

using Pool = xla::ffi::ThreadPool;

// Calls work(i) for each piece i, on the caller's thread and whichever others are free.
// How the work is cut must not depend on who does it: then the bits do not either.
//
// The caller never waits for a thread to start, only for pieces that one has begun; so
// a pool that is busy, or blocked in calls like this one, cannot make it hang.
//
// What a piece throws, on whichever thread, is thrown here once none is at work.
template <typename Work>
void ForEachPiece(Pool& pool, int64_t pieces, const Work& work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;  // the first one
  };
  const int64_t threads = std::min<int64_t>(pool.num_threads(), pieces);
  if (threads <= 1) {
    for (int64_t i = 0; i < pieces; ++i) work(i);
    return;
  }
  const auto shared = std::make_shared<Shared>();
  // A task that starts when all is done must not touch `work`, which is gone by then.
  auto take = [shared, pieces, &work] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < pieces;) {
      try {
        work(i);
      } catch (...) {
        if (!shared->failed.exchange(true)) shared->error = std::current_exception();
      }
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  try {
    for (int64_t t = 1; t < threads; ++t) pool.Schedule(decltype(take)(take));
  } catch (const std::bad_alloc&) {
    // Fewer threads do it too, and those that have begun need `work`.
  }
  take();
  while (shared->done.load(std::memory_order_acquire) < pieces) {
    std::this_thread::yield();
  }
  if (shared->failed) std::rethrow_exception(shared->error);
}

// Calls work(worker, each) for at most so many workers. In it each(one) calls one(item)
// for items that no other worker has taken, until there are none: a worker, unlike an
// item, has its own part of a workspace.
template <typename Work>
void ForEachWorker(Pool& pool, int64_t workers, int64_t items, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  ForEachPiece(pool, std::min({workers, items, threads}), [&](int64_t worker) {
    work(worker, [&](const auto& one) {
      for (int64_t item; (item = next.fetch_add(1)) < items;) one(item);
    });
  });
}

// Calls work(begin, end) for parts of 0 ... count of about `grain` items.
template <typename Work>
void ForEachRange(Pool& pool, int64_t count, int64_t grain, const Work& work) {
  const int64_t size = std::max<int64_t>(1, grain);
  ForEachPiece(pool, (count + size - 1) / size,
               [&](int64_t i) { work(i * size, std::min(count, (i + 1) * size)); });
}

}  // namespace jaxdl

#endif  // JAXDL_PARALLEL_H_
