/* The loops of vector_ops.h for AVX-512. */
#if defined(__x86_64__)
#include "tensor/attend_kernels.h"
#include "tensor/vector_ops_impl.h"
#include "tensor/vector_ops_loops.h"

const struct vector_ops vector_ops_avx512 = {
    .name = "avx512", VECTOR_OPS_LOOPS, .attend = &attend_avx512};
#endif
