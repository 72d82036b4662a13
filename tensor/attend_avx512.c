/* The loops of attend_kernels.h for AVX-512. */
#if defined(__x86_64__)
#include "tensor/attend_loops.h"

const struct attend_kernels attend_avx512 = {ATTEND_LOOPS};
#endif
