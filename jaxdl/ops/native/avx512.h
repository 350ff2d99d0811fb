// What files with AVX-512 share. They are compiled for any x86-64; their functions are
// reached where SmallAvx512() finds these instructions.

#ifndef JAXDL_AVX512_H_
#define JAXDL_AVX512_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma")))
#define TARGET_INLINE TARGET __attribute__((always_inline)) inline

namespace jaxdl {

// The first `count` lanes of a register: none, or all, where it is beyond their number.
constexpr __mmask16 First(int64_t count) {
  return static_cast<__mmask16>((1 << std::clamp<int64_t>(count, 0, 16)) - 1);
}

}  // namespace jaxdl

#endif  // JAXDL_AVX512_H_
