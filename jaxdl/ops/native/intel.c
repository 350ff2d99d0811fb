// oneDNN's TBB build names two libraries of Intel's compiler, libintlc and libimf,
// whose package is larger than all of JAX. It uses these two functions of the first,
// and of the second only what every libm has. So this file is built under both names,
// for where Intel's own are not installed.

#include <string.h>

void* _intel_fast_memcpy(void* to, const void* from, size_t bytes) {
  return memcpy(to, from, bytes);
}

void* _intel_fast_memset(void* to, int value, size_t bytes) {
  return memset(to, value, bytes);
}
