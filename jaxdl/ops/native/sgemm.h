// Products of float32 matrices, on the calling thread alone.

#ifndef JAXDL_SGEMM_H_
#define JAXDL_SGEMM_H_

#include <cstdint>

namespace jaxdl {

// A matrix whose rows, or where it is transposed whose columns, are `leading` apart.
struct Operand {
  const float* data;
  bool transposed;
  int64_t leading;
};

// c [m, n] = a [m, k] x b [k, n], or += where `add`; rows of c lie c_leading apart. Which
// sums are made depends on the sizes and the processor's instructions alone. Call it in
// `Alone`; false where oneDNN fails.
bool Sgemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, bool add, float* c,
           int64_t c_leading);

// The same for what is in a processor's own caches; false, with nothing done, where that
// way is no faster, or there is no AVX-512.
bool SgemmInCache(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b,
                  bool add, float* c, int64_t c_leading);

// Whether it copies its operands first; then results of whole units are the best. Where
// it does is measured.
bool SgemmCopies(int64_t m, int64_t n, bool a_transposed, bool b_transposed,
                 int64_t b_leading);
constexpr int64_t kSgemmUnit = 48;

}  // namespace jaxdl

#endif  // JAXDL_SGEMM_H_
