/* Sixteen fp32 lanes of AVX-512. The other side is lanes_avx2.h: the same names for eight
 * lanes, so that lanes_math.h, vector_ops_loops.h and attend_loops.h are written once.
 * A partial load never touches memory behind its n elements and gives 0 in the lanes
 * behind them; every lane of an operation is computed alone. */
#ifndef TAMP_TENSOR_LANES_AVX512_H
#define TAMP_TENSOR_LANES_AVX512_H

#if defined(__AVX512F__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define LANES  16
#define INLINE static inline __attribute__((always_inline))

typedef __m512 lanes;
typedef __mmask16 lane_mask;

/* The first n lanes; n <= LANES. */
INLINE lane_mask first_lanes(int n)
{
    return (lane_mask)((1u << n) - 1);
}

INLINE lanes l_set(float x)
{
    return _mm512_set1_ps(x);
}

INLINE lanes l_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE void l_store(float *p, lanes v)
{
    _mm512_storeu_ps(p, v);
}

INLINE lanes l_load_part(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

INLINE void l_store_part(float *p, lanes v, int n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

INLINE lanes l_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

INLINE lanes l_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

INLINE lanes l_add(lanes a, lanes b)
{
    return _mm512_add_ps(a, b);
}

INLINE lanes l_sub(lanes a, lanes b)
{
    return _mm512_sub_ps(a, b);
}

INLINE lanes l_mul(lanes a, lanes b)
{
    return _mm512_mul_ps(a, b);
}

INLINE lanes l_div(lanes a, lanes b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c and c - a * b, rounded once */
INLINE lanes l_fma(lanes a, lanes b, lanes c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE lanes l_fnma(lanes a, lanes b, lanes c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* a > b ? a : b, so b where a is NaN; likewise the smaller */
INLINE lanes l_max(lanes a, lanes b)
{
    return _mm512_max_ps(a, b);
}

INLINE lanes l_min(lanes a, lanes b)
{
    return _mm512_min_ps(a, b);
}

/* False where one is NaN. */
INLINE lane_mask l_less(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

INLINE lane_mask l_equal(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

INLINE lanes l_choose(lane_mask m, lanes a, lanes b)
{
    return _mm512_mask_mov_ps(b, m, a);
}

INLINE lanes l_abs(lanes a)
{
    return _mm512_abs_ps(a);
}

/* The magnitude of a with the sign of b. */
INLINE lanes l_copysign(lanes a, lanes b)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
}

/* To the nearest whole number, ties to even. */
INLINE lanes l_round(lanes a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* p * 2^n, n whole and of magnitude at most 250 */
INLINE lanes l_scale2(lanes p, lanes n)
{
    return _mm512_scalef_ps(p, n);
}

INLINE float l_sum(lanes v)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float l_largest(lanes v)
{
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* x0 x1 x2 x3 -> x1 x0 x3 x2 */
INLINE lanes l_swap_pairs(lanes v)
{
    return _mm512_permute_ps(v, 0xb1);
}

/* Minus the even lanes. */
INLINE lanes l_negate_even(lanes v)
{
    return _mm512_xor_ps(v, _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000)));
}

/* p0 p0 p1 p1 ... from the first n <= LANES / 2 of p */
INLINE lanes l_load_doubled(const float *p, int n)
{
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(twice, l_load_part(p, n));
}

/* Sums over a row in double. */
typedef struct {
    __m512d low, high;
} wide_sum;

INLINE wide_sum wide_zero(void)
{
    return (wide_sum){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

INLINE void wide_add(wide_sum *s, lanes v)
{
    s->low = _mm512_add_pd(s->low, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
    s->high = _mm512_add_pd(s->high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
}

INLINE void wide_add_square(wide_sum *s, lanes v)
{
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    s->low = _mm512_fmadd_pd(low, low, s->low);
    s->high = _mm512_fmadd_pd(high, high, s->high);
}

INLINE double wide_total(const wide_sum *s)
{
    return _mm512_reduce_add_pd(_mm512_add_pd(s->low, s->high));
}

#endif
#endif
