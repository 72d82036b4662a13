/* Kernels for AVX2 + FMA + F16C: eight fp32 lanes.
 *
 * The row kernels see every quantised type as a sequence of groups of 32 elements,
 *   w[i] = d * q[i] + m      q small whole numbers, d and m one float for the group
 * (Q6_K has a scale for 16 elements: it is multiplied into q, still whole numbers).
 * A type gives one function that unpacks a group; the dot product
 *   sum_i w[i] x[i] = d * sum q[i] x[i] + m * sum x[i]
 * and the dequantisation are made from it by a macro, so that the compiler sees the
 * whole loop. Loads never touch a byte outside the row: rows end at page ends. */
#if defined(__x86_64__)
#include "tensor/kernels_impl.h"
#include "tensor/ops.h"
#include "tensor/quant.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

struct group {
    __m256 q[4]; /* elements 0..7, 8..15, 16..23, 24..31 */
    float d;
    float m;
};

INLINE float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

INLINE __m128i load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

INLINE __m256 load_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(load16(p));
}

INLINE __m256 load_bf16(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(p)), 16));
}

INLINE __m256 load_f32(const uint8_t *p)
{
    return _mm256_loadu_ps((const float *)(const void *)p);
}

/* ---- plain types ---- */

#define PLAIN_ROW_KERNELS(suffix, bytes, load, scalar)                                             \
    static float dot_row_##suffix(const void *row, const float *x, int n)                          \
    {                                                                                              \
        const uint8_t *p = row;                                                                    \
        __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),            \
                         _mm256_setzero_ps()};                                                     \
        int i = 0;                                                                                 \
        for (; i + 32 <= n; i += 32, p += 32 * (bytes)) {                                          \
            for (int j = 0; j < 4; j++) {                                                          \
                acc[j] = _mm256_fmadd_ps(load(p + 8 * (bytes)*j), _mm256_loadu_ps(x + i + 8 * j),  \
                                         acc[j]);                                                  \
            }                                                                                      \
        }                                                                                          \
        for (; i + 8 <= n; i += 8, p += 8 * (bytes)) {                                             \
            acc[0] = _mm256_fmadd_ps(load(p), _mm256_loadu_ps(x + i), acc[0]);                     \
        }                                                                                          \
        float sum =                                                                                \
            sum8(_mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));     \
        for (; i < n; i++, p += (bytes)) {                                                         \
            sum += scalar(p) * x[i];                                                               \
        }                                                                                          \
        return sum;                                                                                \
    }                                                                                              \
    static void dequantize_row_##suffix(const void *row, float *y, int n)                          \
    {                                                                                              \
        const uint8_t *p = row;                                                                    \
        int i = 0;                                                                                 \
        for (; i + 8 <= n; i += 8, p += 8 * (bytes)) {                                             \
            _mm256_storeu_ps(y + i, load(p));                                                      \
        }                                                                                          \
        for (; i < n; i++, p += (bytes)) {                                                         \
            y[i] = scalar(p);                                                                      \
        }                                                                                          \
    }

INLINE float f32_at(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE float bf16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return op_bf16_to_f32(h);
}

PLAIN_ROW_KERNELS(f32, 4, load_f32, f32_at)
PLAIN_ROW_KERNELS(f16, 2, load_f16, f16_at)
PLAIN_ROW_KERNELS(bf16, 2, load_bf16, bf16_at)

static float dot_f32(const float *a, const float *b, int n)
{
    return dot_row_f32(a, b, n);
}

static float dot_f16(const uint16_t *a, const float *b, int n)
{
    return dot_row_f16(a, b, n);
}

static void f16_to_f32(float *y, const uint16_t *x, int n)
{
    dequantize_row_f16(x, y, n);
}

static void axpy_f32(float *y, const float *x, float s, int n)
{
    __m256 scale = _mm256_set1_ps(s);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 sum = _mm256_fmadd_ps(scale, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i));
        _mm256_storeu_ps(y + i, sum);
    }
    for (; i < n; i++) {
        y[i] += s * x[i];
    }
}

static void axpy_f16(float *y, const uint16_t *x, float s, int n)
{
    __m256 scale = _mm256_set1_ps(s);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = load_f16((const uint8_t *)(x + i));
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(scale, v, _mm256_loadu_ps(y + i)));
    }
    for (; i < n; i++) {
        y[i] += s * _cvtsh_ss(x[i]);
    }
}

static void f32_to_f16(uint16_t *y, const float *x, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(y + i), h);
    }
    for (; i < n; i++) {
        y[i] = _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT);
    }
}

/* ---- unpacking a group of 32 ---- */

INLINE __m256 i32_to_f32(__m256i v)
{
    return _mm256_cvtepi32_ps(v);
}

/* Sixteen bytes each for elements 0..15 and 16..31, signed. */
INLINE void unpack_i8(struct group *g, __m128i low, __m128i high)
{
    g->q[0] = i32_to_f32(_mm256_cvtepi8_epi32(low));
    g->q[1] = i32_to_f32(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(low, low)));
    g->q[2] = i32_to_f32(_mm256_cvtepi8_epi32(high));
    g->q[3] = i32_to_f32(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(high, high)));
}

INLINE __m128i low_nibbles(__m128i v)
{
    return _mm_and_si128(v, _mm_set1_epi8(15));
}

INLINE __m128i high_nibbles(__m128i v)
{
    return low_nibbles(_mm_srli_epi16(v, 4));
}

/* Sixteen bits of a field to 0 or `value` in each of sixteen bytes. */
INLINE __m128i spread_bits(uint32_t bits, char value)
{
    const __m128i which = _mm_set_epi8(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i mask = _mm_set1_epi64x((long long)0x8040201008040201u);
    __m128i bytes = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), which);
    __m128i set = _mm_cmpeq_epi8(_mm_and_si128(bytes, mask), mask);
    return _mm_and_si128(set, _mm_set1_epi8(value));
}

INLINE void group_q4_0(struct group *g, const uint8_t *p, int sub)
{
    (void)sub;
    const __m128i offset = _mm_set1_epi8(8);
    __m128i v = load16(p + 2);
    unpack_i8(g, _mm_sub_epi8(low_nibbles(v), offset), _mm_sub_epi8(high_nibbles(v), offset));
    g->d = f16_at(p);
}

INLINE void group_q4_1(struct group *g, const uint8_t *p, int sub)
{
    (void)sub;
    __m128i v = load16(p + 4);
    unpack_i8(g, low_nibbles(v), high_nibbles(v));
    g->d = f16_at(p);
    g->m = f16_at(p + 2);
}

INLINE void unpack_five_bits(struct group *g, const uint8_t *field, const uint8_t *nibbles,
                             char offset)
{
    uint32_t bits;
    memcpy(&bits, field, sizeof bits);
    __m128i v = load16(nibbles);
    __m128i low = _mm_or_si128(low_nibbles(v), spread_bits(bits, 16));
    __m128i high = _mm_or_si128(high_nibbles(v), spread_bits(bits >> 16, 16));
    __m128i minus = _mm_set1_epi8(offset);
    unpack_i8(g, _mm_sub_epi8(low, minus), _mm_sub_epi8(high, minus));
}

INLINE void group_q5_0(struct group *g, const uint8_t *p, int sub)
{
    (void)sub;
    unpack_five_bits(g, p + 2, p + 6, 16);
    g->d = f16_at(p);
}

INLINE void group_q5_1(struct group *g, const uint8_t *p, int sub)
{
    (void)sub;
    unpack_five_bits(g, p + 4, p + 8, 0);
    g->d = f16_at(p);
    g->m = f16_at(p + 2);
}

INLINE void group_q8_0(struct group *g, const uint8_t *p, int sub)
{
    (void)sub;
    unpack_i8(g, load16(p + 2), load16(p + 18));
    g->d = f16_at(p);
}

/* Scale and minimum of group `sub`, out of the packed twelve bytes. */
INLINE void k_factors(struct group *g, const uint8_t *p, int sub)
{
    const uint8_t *s = p + 4;
    int scale = sub < 4 ? s[sub] & 63 : (s[sub + 4] & 15) | (s[sub - 4] >> 6) << 4;
    int minimum = sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | (s[sub] >> 6) << 4;
    g->d = f16_at(p) * (float)scale;
    g->m = -f16_at(p + 2) * (float)minimum;
}

INLINE void k_nibbles(const uint8_t *q, int sub, __m128i *low, __m128i *high)
{
    *low = load16(q + sub / 2 * 32);
    *high = load16(q + sub / 2 * 32 + 16);
    *low = sub & 1 ? high_nibbles(*low) : low_nibbles(*low);
    *high = sub & 1 ? high_nibbles(*high) : low_nibbles(*high);
}

INLINE void group_q4_k(struct group *g, const uint8_t *p, int sub)
{
    __m128i low;
    __m128i high;
    k_nibbles(p + 16, sub, &low, &high);
    unpack_i8(g, low, high);
    k_factors(g, p, sub);
}

INLINE __m128i fifth_bit_of(__m128i field, int sub)
{
    __m128i set = _mm_cmpgt_epi8(_mm_setzero_si128(), _mm_slli_epi16(field, 7 - sub));
    return _mm_and_si128(set, _mm_set1_epi8(16));
}

INLINE void group_q5_k(struct group *g, const uint8_t *p, int sub)
{
    __m128i low;
    __m128i high;
    k_nibbles(p + 48, sub, &low, &high);
    low = _mm_or_si128(low, fifth_bit_of(load16(p + 16), sub));
    high = _mm_or_si128(high, fifth_bit_of(load16(p + 32), sub));
    unpack_i8(g, low, high);
    k_factors(g, p, sub);
}

/* Sixteen 6-bit values times their 8-bit scale: fits in 16 bits exactly. */
INLINE void unpack_q6(__m256 q[2], __m128i nibbles, __m128i pairs, int scale)
{
    __m128i high = _mm_slli_epi16(_mm_and_si128(pairs, _mm_set1_epi8(3)), 4);
    __m128i v = _mm_sub_epi8(_mm_or_si128(nibbles, high), _mm_set1_epi8(32));
    __m256i w = _mm256_mullo_epi16(_mm256_cvtepi8_epi16(v), _mm256_set1_epi16((short)scale));
    q[0] = i32_to_f32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(w)));
    q[1] = i32_to_f32(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(w, 1)));
}

INLINE void group_q6_k(struct group *g, const uint8_t *p, int sub)
{
    const uint8_t *nibbles = p + sub / 4 * 64 + sub % 2 * 32;
    const uint8_t *pairs = p + 128 + sub / 4 * 32;
    for (int i = 0; i < 2; i++) {
        __m128i v = load16(nibbles + 16 * i);
        v = sub & 2 ? high_nibbles(v) : low_nibbles(v);
        __m128i bits = _mm_srli_epi16(load16(pairs + 16 * i), sub % 4 * 2);
        unpack_q6(g->q + 2 * i, v, bits, (int8_t)p[192 + sub * 2 + i]);
    }
    g->d = f16_at(p + 208);
}

/* ---- rows of groups ---- */

INLINE __m256 group_dot(const struct group *g, const __m256 x[4])
{
    __m256 a = _mm256_mul_ps(g->q[0], x[0]);
    __m256 b = _mm256_mul_ps(g->q[1], x[1]);
    a = _mm256_fmadd_ps(g->q[2], x[2], a);
    b = _mm256_fmadd_ps(g->q[3], x[3], b);
    return _mm256_add_ps(a, b);
}

#define GROUP_ROW_KERNELS(suffix, groups, bytes, has_minimum)                                      \
    static float dot_row_##suffix(const void *row, const float *x, int n)                          \
    {                                                                                              \
        const uint8_t *p = row;                                                                    \
        __m256 acc = _mm256_setzero_ps();                                                          \
        __m256 minima = _mm256_setzero_ps();                                                       \
        for (int i = 0; i < n; i += 32 * (groups), p += (bytes)) {                                 \
            _Pragma("GCC unroll 8") for (int s = 0; s < (groups); s++)                             \
            {                                                                                      \
                struct group g;                                                                    \
                group_##suffix(&g, p, s);                                                          \
                const float *at = x + i + 32 * s;                                                  \
                const __m256 v[4] = {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8),                 \
                                     _mm256_loadu_ps(at + 16), _mm256_loadu_ps(at + 24)};          \
                acc = _mm256_fmadd_ps(_mm256_set1_ps(g.d), group_dot(&g, v), acc);                 \
                if (has_minimum) {                                                                 \
                    __m256 sum =                                                                   \
                        _mm256_add_ps(_mm256_add_ps(v[0], v[1]), _mm256_add_ps(v[2], v[3]));       \
                    minima = _mm256_fmadd_ps(_mm256_set1_ps(g.m), sum, minima);                    \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        return sum8(_mm256_add_ps(acc, minima));                                                   \
    }                                                                                              \
    static void dequantize_row_##suffix(const void *row, float *y, int n)                          \
    {                                                                                              \
        const uint8_t *p = row;                                                                    \
        for (int i = 0; i < n; i += 32 * (groups), p += (bytes)) {                                 \
            _Pragma("GCC unroll 8") for (int s = 0; s < (groups); s++)                             \
            {                                                                                      \
                struct group g;                                                                    \
                group_##suffix(&g, p, s);                                                          \
                for (int j = 0; j < 4; j++) {                                                      \
                    __m256 w = _mm256_mul_ps(_mm256_set1_ps(g.d), g.q[j]);                         \
                    w = (has_minimum) ? _mm256_add_ps(w, _mm256_set1_ps(g.m)) : w;                 \
                    _mm256_storeu_ps(y + i + 32 * s + 8 * j, w);                                   \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

GROUP_ROW_KERNELS(q4_0, 1, 18, 0)
GROUP_ROW_KERNELS(q4_1, 1, 20, 1)
GROUP_ROW_KERNELS(q5_0, 1, 22, 0)
GROUP_ROW_KERNELS(q5_1, 1, 24, 1)
GROUP_ROW_KERNELS(q8_0, 1, 34, 0)
GROUP_ROW_KERNELS(q4_k, 8, 144, 1)
GROUP_ROW_KERNELS(q5_k, 8, 176, 1)
GROUP_ROW_KERNELS(q6_k, 8, 210, 0)

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .dot_f32 = dot_f32,
    .axpy_f32 = axpy_f32,
    .dot_f16 = dot_f16,
    .axpy_f16 = axpy_f16,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .dot_row =
        {
            [TENSOR_F32] = dot_row_f32,
            [TENSOR_F16] = dot_row_f16,
            [TENSOR_BF16] = dot_row_bf16,
            [TENSOR_Q4_0] = dot_row_q4_0,
            [TENSOR_Q4_1] = dot_row_q4_1,
            [TENSOR_Q5_0] = dot_row_q5_0,
            [TENSOR_Q5_1] = dot_row_q5_1,
            [TENSOR_Q8_0] = dot_row_q8_0,
            [TENSOR_Q4_K] = dot_row_q4_k,
            [TENSOR_Q5_K] = dot_row_q5_k,
            [TENSOR_Q6_K] = dot_row_q6_k,
        },
    .dequantize_row =
        {
            [TENSOR_F32] = dequantize_row_f32,
            [TENSOR_F16] = dequantize_row_f16,
            [TENSOR_BF16] = dequantize_row_bf16,
            [TENSOR_Q4_0] = dequantize_row_q4_0,
            [TENSOR_Q4_1] = dequantize_row_q4_1,
            [TENSOR_Q5_0] = dequantize_row_q5_0,
            [TENSOR_Q5_1] = dequantize_row_q5_1,
            [TENSOR_Q8_0] = dequantize_row_q8_0,
            [TENSOR_Q4_K] = dequantize_row_q4_k,
            [TENSOR_Q5_K] = dequantize_row_q5_k,
            [TENSOR_Q6_K] = dequantize_row_q6_k,
        },
};
#endif
