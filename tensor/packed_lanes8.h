/* What the files with eight outputs in a register share. */
#ifndef TAMP_TENSOR_PACKED_LANES8_H
#define TAMP_TENSOR_PACKED_LANES8_H

#if defined(__AVX2__)

#include "tensor/packed_kernels.h"

#include <immintrin.h>
#include <string.h>

#define INLINE    static inline __attribute__((always_inline))
#define TILE_ROWS 4
#define HALF      8 /* outputs in a register */

INLINE __m256i load32(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE __m256 load_halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE __m256i four_columns(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE __m256i store_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#endif
#endif
