// The kernels of small.cc with AVX-512: 16 lanes, 32 registers.

#include "avx512.h"

namespace jaxdl {
namespace {

using Vector = __m512;
constexpr int kLanes = 16, kWidest = 8;

// Second extent of a tile of registers that is `outputs` wide: the registers hold its
// sums, a column of one operand and a number of the other.
constexpr int Depth(int outputs) {
  return outputs >= 7 ? 3 : outputs >= 5 ? 4 : outputs == 4 ? 6 : outputs == 3 ? 7 : 8;
}

TARGET_INLINE Vector Zero() { return _mm512_setzero_ps(); }
TARGET_INLINE Vector Same(float number) { return _mm512_set1_ps(number); }
TARGET_INLINE Vector Load(const float* from) { return _mm512_load_ps(from); }
TARGET_INLINE void Store(float* to, Vector v) { _mm512_store_ps(to, v); }
TARGET_INLINE Vector Add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
TARGET_INLINE Vector MultiplyAdd(Vector a, Vector b, Vector sum) {
  return _mm512_fmadd_ps(a, b, sum);
}

TARGET_INLINE Vector LoadFirst(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(First(count), from);
}

TARGET_INLINE void StoreFirst(float* to, int64_t count, Vector v) {
  _mm512_mask_storeu_ps(to, First(count), v);
}

TARGET_INLINE Vector LowPairs(Vector a, Vector b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

TARGET_INLINE Vector HighPairs(Vector a, Vector b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

// Transposes 16 rows of 16 numbers.
TARGET_INLINE void Transpose(Vector* r) {
  Vector t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = LowPairs(t[i], t[i + 2]);
    r[i + 1] = HighPairs(t[i], t[i + 2]);
    r[i + 2] = LowPairs(t[i + 1], t[i + 3]);
    r[i + 3] = HighPairs(t[i + 1], t[i + 3]);
  }
  // Now each holds 4x4 blocks; what remains is to transpose those.
  for (int i = 0; i < 4; ++i) {
    const Vector a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    const Vector b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    const Vector c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    const Vector d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    t[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    t[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    t[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace jaxdl

#include "small_kernels.h"

namespace jaxdl {

const SmallKernels* SmallAvx512() {
  const bool has =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has ? &kKernels : nullptr;
}

}  // namespace jaxdl
