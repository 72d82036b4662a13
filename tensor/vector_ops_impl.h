/* The sets themselves, for vector_ops.c and the tests. */
#ifndef TAMP_TENSOR_VECTOR_OPS_IMPL_H
#define TAMP_TENSOR_VECTOR_OPS_IMPL_H

#include "tensor/vector_ops.h"

extern const struct vector_ops vector_ops_ref;
#if defined(__x86_64__)
extern const struct vector_ops vector_ops_avx2;
extern const struct vector_ops vector_ops_avx512;
#endif

/* The *n sets that this CPU runs, slowest first. */
const struct vector_ops *const *vector_ops_here(int *n);

#endif
