// The kernels of small.cc with AVX2: 8 lanes, 16 registers.

#include <immintrin.h>

#include <cstring>

// The file is compiled for any x86-64; these functions are reached where AVX2 is.
#define TARGET __attribute__((target("avx2,fma")))
#define TARGET_INLINE TARGET __attribute__((always_inline)) inline

namespace jaxdl {
namespace {

using Vector = __m256;
constexpr int kLanes = 8, kWidest = 6;

// Second extent of a tile of registers that is `outputs` wide: the registers hold its
// sums, a column of one operand and a number of the other.
constexpr int Depth(int outputs) {
  return outputs >= 5 ? 2 : outputs >= 3 ? 3 : outputs == 2 ? 5 : 7;
}

TARGET_INLINE Vector Zero() { return _mm256_setzero_ps(); }
TARGET_INLINE Vector Same(float number) { return _mm256_set1_ps(number); }
TARGET_INLINE Vector Load(const float* from) { return _mm256_load_ps(from); }
TARGET_INLINE void Store(float* to, Vector v) { _mm256_store_ps(to, v); }
TARGET_INLINE Vector Add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
TARGET_INLINE Vector MultiplyAdd(Vector a, Vector b, Vector sum) {
  return _mm256_fmadd_ps(a, b, sum);
}

TARGET_INLINE Vector LoadFirst(const float* from, int64_t count) {
  if (count >= kLanes) return _mm256_loadu_ps(from);
  alignas(32) float part[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = from[i];
  return Load(part);
}

// Masked stores take AMD's processors dozens of cycles.
TARGET_INLINE void StoreFirst(float* to, int64_t count, Vector v) {
  if (count >= kLanes) return _mm256_storeu_ps(to, v);
  alignas(32) float part[kLanes];
  Store(part, v);
  for (int64_t i = 0; i < count; ++i) to[i] = part[i];
}

// Transposes 8 rows of 8 numbers.
TARGET_INLINE void Transpose(Vector* r) {
  Vector t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  // Now each holds 4x4 blocks; what remains is to transpose those.
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace jaxdl

#include "small_kernels.h"

namespace jaxdl {

const SmallKernels* SmallAvx2() {
  const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has ? &kKernels : nullptr;
}

}  // namespace jaxdl
