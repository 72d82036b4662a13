/* The loops of attend_kernels.h for AVX2. */
#if defined(__x86_64__)
#include "tensor/attend_loops.h"

const struct attend_kernels attend_avx2 = {ATTEND_LOOPS};
#endif
