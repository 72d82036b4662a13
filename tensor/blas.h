/* OpenBLAS for the large fp32 products, and the repair of its core-type trap:
 * Debian's 0.3.21 does not know some CPUs in a VM and falls back to SSE3. */
#ifndef TAMP_TENSOR_BLAS_H
#define TAMP_TENSOR_BLAS_H

#include "base/err.h"

/* Compare openblas_get_corename() with cpuid; when OpenBLAS fell back to a core
 * far below this CPU, set OPENBLAS_CORETYPE and re-exec argv once (the variable is
 * read when the library loads). Call first in main. Returns when nothing is to be
 * done, or when the re-exec already happened or failed. Pins OpenBLAS to one
 * thread a call: our pool slices the work. */
void blas_init(char **argv);
/* The core in use, and what was corrected ("" if nothing): for the start-up line. */
const char *blas_core_name(void);
const char *blas_correction(void);

/* C[m, n] = A[m, k] * B[n, k]^T, all row-major with the given leading dimensions. */
void blas_gemm_nt(int m, int n, int k, const float *a, int lda, const float *b, int ldb, float *c,
                  int ldc);

#endif
