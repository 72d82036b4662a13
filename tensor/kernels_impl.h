/* The kernel sets, for kernels.c and the tests that compare all of them. */
#ifndef TAMP_TENSOR_KERNELS_IMPL_H
#define TAMP_TENSOR_KERNELS_IMPL_H

#include "tensor/kernels.h"

extern const struct kernels kernels_ref;
#if defined(__x86_64__)
/* The loops of kernels_avx2 beside another table of packed products. */
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avxvnni;
extern const struct kernels kernels_vnni;
extern const struct kernels kernels_amx;
#endif

/* What "auto" stands for from now on; NULL: the best set of this CPU, as at first. For the
 * tests, which run everything with each set; before other threads compute. */
void kernels_prefer(const struct kernels *k);

#endif
