/* The decision of blas.c, for its test. */
#ifndef TAMP_TENSOR_BLAS_IMPL_H
#define TAMP_TENSOR_BLAS_IMPL_H

#include "tensor/cpu.h"

/* The core OpenBLAS should be told to use, or NULL when the one it chose (its name from
 * openblas_get_corename) does this CPU justice or is not known to us. */
const char *blas_better_core(struct cpu_features cpu, const char *core);

#endif
