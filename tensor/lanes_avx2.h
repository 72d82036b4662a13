/* Eight fp32 lanes of AVX2 with FMA and F16C: the names of lanes_avx512.h, where they are
 * explained. */
#ifndef TAMP_TENSOR_LANES_AVX2_H
#define TAMP_TENSOR_LANES_AVX2_H

#if defined(__AVX2__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define LANES  8
#define INLINE static inline __attribute__((always_inline))

typedef __m256 lanes;
typedef __m256 lane_mask;

INLINE __m256i first_lanes_bits(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE lane_mask first_lanes(int n)
{
    return _mm256_castsi256_ps(first_lanes_bits(n));
}

INLINE lanes l_set(float x)
{
    return _mm256_set1_ps(x);
}

INLINE lanes l_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

INLINE void l_store(float *p, lanes v)
{
    _mm256_storeu_ps(p, v);
}

INLINE lanes l_load_part(const float *p, int n)
{
    return _mm256_maskload_ps(p, first_lanes_bits(n));
}

INLINE void l_store_part(float *p, lanes v, int n)
{
    _mm256_maskstore_ps(p, first_lanes_bits(n), v);
}

INLINE lanes l_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE lanes l_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

INLINE lanes l_add(lanes a, lanes b)
{
    return _mm256_add_ps(a, b);
}

INLINE lanes l_sub(lanes a, lanes b)
{
    return _mm256_sub_ps(a, b);
}

INLINE lanes l_mul(lanes a, lanes b)
{
    return _mm256_mul_ps(a, b);
}

INLINE lanes l_div(lanes a, lanes b)
{
    return _mm256_div_ps(a, b);
}

INLINE lanes l_fma(lanes a, lanes b, lanes c)
{
    return _mm256_fmadd_ps(a, b, c);
}

INLINE lanes l_fnma(lanes a, lanes b, lanes c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

INLINE lanes l_max(lanes a, lanes b)
{
    return _mm256_max_ps(a, b);
}

INLINE lanes l_min(lanes a, lanes b)
{
    return _mm256_min_ps(a, b);
}

INLINE lane_mask l_less(lanes a, lanes b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

INLINE lane_mask l_equal(lanes a, lanes b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}

INLINE lanes l_choose(lane_mask m, lanes a, lanes b)
{
    return _mm256_blendv_ps(b, a, m);
}

INLINE lanes l_abs(lanes a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

INLINE lanes l_copysign(lanes a, lanes b)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
}

INLINE lanes l_round(lanes a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* In two steps: 2^n itself need not be a normal number. */
INLINE lanes l_scale2(lanes p, lanes n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256i low = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i high = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return l_mul(l_mul(p, _mm256_castsi256_ps(low)), _mm256_castsi256_ps(high));
}

INLINE float l_sum(lanes v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float l_largest(lanes v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

INLINE lanes l_swap_pairs(lanes v)
{
    return _mm256_permute_ps(v, 0xb1);
}

INLINE lanes l_negate_even(lanes v)
{
    return _mm256_xor_ps(v, _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000)));
}

INLINE lanes l_load_doubled(const float *p, int n)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(l_load_part(p, n), twice);
}

typedef struct {
    __m256d low, high;
} wide_sum;

INLINE wide_sum wide_zero(void)
{
    return (wide_sum){_mm256_setzero_pd(), _mm256_setzero_pd()};
}

INLINE void wide_add(wide_sum *s, lanes v)
{
    s->low = _mm256_add_pd(s->low, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
    s->high = _mm256_add_pd(s->high, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
}

INLINE void wide_add_square(wide_sum *s, lanes v)
{
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
    __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    s->low = _mm256_fmadd_pd(low, low, s->low);
    s->high = _mm256_fmadd_pd(high, high, s->high);
}

INLINE double wide_total(const wide_sum *s)
{
    __m256d v = _mm256_add_pd(s->low, s->high);
    __m128d half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

#endif
#endif
