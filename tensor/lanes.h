/* The vectors of the instruction set that a file is compiled for: LANES fp32 numbers and
 * what can be done with them (lanes_avx512.h explains the names). LANES is not defined
 * where the file is compiled for neither set. */
#ifndef TAMP_TENSOR_LANES_H
#define TAMP_TENSOR_LANES_H

#if defined(__AVX512F__)
#include "tensor/lanes_avx512.h"
#elif defined(__AVX2__)
#include "tensor/lanes_avx2.h"
#endif

#endif
