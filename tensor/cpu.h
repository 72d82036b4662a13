/* What this CPU and its operating system can run: the choice of kernels and of the
 * BLAS core both rest on it. */
#ifndef TAMP_TENSOR_CPU_H
#define TAMP_TENSOR_CPU_H

#include <stdbool.h>

struct cpu_features {
    bool avx2;        /* AVX2, FMA and F16C, and the system saves the registers */
    bool avx512;      /* F, BW, DQ and VL, and the system saves the registers */
    bool avx_vnni;    /* avx2 with vpdpbusd on its registers */
    bool avx512_vnni; /* avx512 with vpdpbusd */
    bool amx;         /* avx512_vnni, AVX-512 BF16, and int8 and bf16 tiles that the system saves */
};

struct cpu_features cpu_features(void);

#endif
