// A stable sort of values by 32-bit keys, a target of XLA's FFI: how JAX shuffles. XLA's
// CPU backend calls a compiled comparison for each of n log n pairs; this counts digits
// (Knuth, "The Art of Computer Programming", section 5.2.5).

#include <utility>
#include <vector>

#include "errors.h"
#include "parallel.h"

namespace jaxdl {
namespace {

namespace ffi = xla::ffi;

constexpr int kBits = 11, kDigits = 3;  // of a key, the lowest first
constexpr uint32_t kBuckets = 1 << kBits;

INLINE uint32_t Digit(uint64_t pair, int digit) {
  return pair >> (32 + digit * kBits) & (kBuckets - 1);
}

void SortRow(int64_t n, const uint32_t* keys, const uint32_t* values,
             uint32_t* sorted_keys, uint32_t* sorted_values) {
  std::vector<uint64_t> pairs(n), moved(n);
  std::vector<uint32_t> places(kDigits * kBuckets);
  for (int64_t i = 0; i < n; ++i) {
    pairs[i] = static_cast<uint64_t>(keys[i]) << 32 | values[i];
    for (int d = 0; d < kDigits; ++d) ++places[d * kBuckets + Digit(pairs[i], d)];
  }
  for (int d = 0; d < kDigits; ++d) {
    uint32_t* const place = places.data() + d * kBuckets;
    for (uint32_t bucket = 0, begin = 0; bucket < kBuckets; ++bucket) {
      begin += std::exchange(place[bucket], begin);
    }
    for (const uint64_t pair : pairs) moved[place[Digit(pair, d)]++] = pair;
    pairs.swap(moved);
  }
  for (int64_t i = 0; i < n; ++i) {
    sorted_keys[i] = static_cast<uint32_t>(pairs[i] >> 32);
    sorted_values[i] = static_cast<uint32_t>(pairs[i]);
  }
}

// Keys and values [..., n]; each row is sorted on its own.
ffi::Error Sort(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> keys, ffi::AnyBuffer values,
                ffi::Result<ffi::Buffer<ffi::U32>> sorted_keys,
                ffi::Result<ffi::AnyBuffer> sorted_values) {
  if (keys.dimensions().size() == 0 || values.size_bytes() != keys.size_bytes()) {
    return ffi::Error::InvalidArgument("jaxdl_sort: shapes");
  }
  const int64_t n = keys.dimensions().back();
  const auto* from = static_cast<const uint32_t*>(values.untyped_data());
  auto* to = static_cast<uint32_t*>(sorted_values->untyped_data());
  ForEachPiece(pool, n == 0 ? 0 : keys.element_count() / n, [&](int64_t row) {
    const int64_t at = row * n;
    SortRow(n, keys.typed_data() + at, from + at, sorted_keys->typed_data() + at,
            to + at);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxdl

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxdl_sort, jaxdl::Guarded("jaxdl_sort", jaxdl::Sort),
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::U32>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::U32>>()
                                  .Ret<xla::ffi::AnyBuffer>());

#pragma GCC visibility pop
