/* Kernels for AVX2 + FMA + F16C: eight fp32 lanes.
 *
 * The row kernels see every quantised type as blocks of groups of 32 elements,
 *   w[i] = d * q[i] + m      q small whole numbers, d and m floats for the group
 * (Q6_K has a d for 16 elements: each half of a group has its own). A type gives two
 * functions: the factors of a block, and the numbers q of a group. A macro makes the dot
 * product and the dequantisation from them, so that the compiler sees the whole loop.
 *
 * Where there is a minimum, w is formed and multiplied (two FMAs for eight elements);
 * where there is none, q is multiplied and d applied to the sum of a half group. Both
 * were the fastest of the forms tried on Zen 3: widening bytes straight from memory and
 * independent sums matter more than the number of multiplications.
 * Loads never touch a byte outside the row: rows end at page ends. */
#if defined(__x86_64__)
#include "tensor/attend_bulk.h"
#include "tensor/kernels_impl.h"
#include "tensor/ops.h"
#include "tensor/packed_kernels.h"
#include "tensor/quant.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* For each group of a block, at most eight. */
struct factors {
    float d[16]; /* for each half of a group */
    float m[8];
} __attribute__((aligned(32)));

INLINE float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float sum_all(const __m256 acc[4])
{
    return sum8(_mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));
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

/* ---- factors of a block, and the 32 numbers q of a group ---- */

INLINE __m256 widen_i8(__m128i v)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v));
}

INLINE void widen_32(__m256 q[4], __m256i v)
{
    __m128i low = _mm256_castsi256_si128(v);
    __m128i high = _mm256_extracti128_si256(v, 1);
    q[0] = widen_i8(low);
    q[1] = widen_i8(_mm_unpackhi_epi64(low, low));
    q[2] = widen_i8(high);
    q[3] = widen_i8(_mm_unpackhi_epi64(high, high));
}

INLINE void one_factor(struct factors *f, const uint8_t *p)
{
    f->d[0] = f->d[1] = f16_at(p);
}

INLINE void two_factors(struct factors *f, const uint8_t *p)
{
    one_factor(f, p);
    f->m[0] = f16_at(p + 2);
}

/* Sixteen bytes of nibbles, the low ones first, minus an offset. */
INLINE void widen_nibbles(__m256 q[4], const uint8_t *p, int offset)
{
    const __m256i low = _mm256_set1_epi32(15);
    const __m256i minus = _mm256_set1_epi32(offset);
    for (int i = 0; i < 2; i++) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(p + 8 * i));
        __m256i v = _mm256_cvtepu8_epi32(bytes);
        q[i] = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(v, low), minus));
        q[i + 2] = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(v, 4), minus));
    }
}

#define factors_q4_0 one_factor
INLINE void group_q4_0(__m256 q[4], const uint8_t *p, int sub)
{
    (void)sub;
    widen_nibbles(q, p + 2, 8);
}

#define factors_q4_1 two_factors
INLINE void group_q4_1(__m256 q[4], const uint8_t *p, int sub)
{
    (void)sub;
    widen_nibbles(q, p + 4, 0);
}

INLINE __m256i nibbles_32(const uint8_t *p)
{
    __m128i v = load16(p);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(v, 4), v);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* The 32 bits of a field, each as 0 or 16 in a byte. */
INLINE __m256i fifth_bits_32(const uint8_t *field)
{
    const __m256i which =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i mask = _mm256_set1_epi64x((long long)0x8040201008040201u);
    int bits;
    memcpy(&bits, field, sizeof bits);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), which);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, mask), mask);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

#define factors_q5_0 one_factor
INLINE void group_q5_0(__m256 q[4], const uint8_t *p, int sub)
{
    (void)sub;
    __m256i v = _mm256_or_si256(nibbles_32(p + 6), fifth_bits_32(p + 2));
    widen_32(q, _mm256_sub_epi8(v, _mm256_set1_epi8(16)));
}

#define factors_q5_1 two_factors
INLINE void group_q5_1(__m256 q[4], const uint8_t *p, int sub)
{
    (void)sub;
    widen_32(q, _mm256_or_si256(nibbles_32(p + 8), fifth_bits_32(p + 4)));
}

#define factors_q8_0 one_factor
INLINE void group_q8_0(__m256 q[4], const uint8_t *p, int sub)
{
    (void)sub;
    for (int i = 0; i < 4; i++) {
        q[i] = widen_i8(_mm_loadl_epi64((const __m128i *)(const void *)(p + 2 + 8 * i)));
    }
}

INLINE __m256 scaled_bytes(uint32_t low, uint32_t high, float scale)
{
    __m128i bytes = _mm_set_epi32(0, 0, (int)high, (int)low);
    __m256 wide = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    return _mm256_mul_ps(_mm256_set1_ps(scale), wide);
}

/* The same unpacking as quant_k_scales, four bytes at a time. */
INLINE void factors_k(struct factors *f, const uint8_t *p)
{
    uint32_t s[3];
    memcpy(s, p + 4, sizeof s);
    uint32_t high_scales = (s[2] & 0x0f0f0f0f) | (s[0] >> 2 & 0x30303030);
    uint32_t high_minima = (s[2] >> 4 & 0x0f0f0f0f) | (s[1] >> 2 & 0x30303030);
    __m256 d = scaled_bytes(s[0] & 0x3f3f3f3f, high_scales, f16_at(p));
    _mm256_store_ps(f->m, scaled_bytes(s[1] & 0x3f3f3f3f, high_minima, -f16_at(p + 2)));
    __m256 low = _mm256_unpacklo_ps(d, d); /* 0 0 1 1 | 4 4 5 5 */
    __m256 high = _mm256_unpackhi_ps(d, d);
    _mm256_store_ps(f->d, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_store_ps(f->d + 8, _mm256_permute2f128_ps(low, high, 0x31));
}

INLINE __m256i load32(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* 32 bytes hold group 2j in their low nibbles and group 2j + 1 in their high ones. */
INLINE __m256i group_nibbles(const uint8_t *p, bool high)
{
    __m256i v = load32(p);
    v = high ? _mm256_srli_epi16(v, 4) : v;
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

#define factors_q4_k factors_k
INLINE void group_q4_k(__m256 q[4], const uint8_t *p, int sub)
{
    for (int i = 0; i < 4; i++) { /* the compiler widens once for both halves of a byte */
        const uint8_t *at = p + 16 + sub / 2 * 32 + 8 * i;
        __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
        v = sub & 1 ? _mm256_srli_epi32(v, 4) : _mm256_and_si256(v, _mm256_set1_epi32(15));
        q[i] = _mm256_cvtepi32_ps(v);
    }
}

#define factors_q5_k factors_k
INLINE void group_q5_k(__m256 q[4], const uint8_t *p, int sub)
{
    __m256i field = load32(p + 16); /* bit `sub` of each byte */
    __m256i bit =
        _mm256_slli_epi16(_mm256_and_si256(_mm256_srli_epi16(field, sub), _mm256_set1_epi8(1)), 4);
    widen_32(q, _mm256_or_si256(group_nibbles(p + 48 + sub / 2 * 32, sub & 1), bit));
}

INLINE void factors_q6_k(struct factors *f, const uint8_t *p)
{
    __m256 d = _mm256_set1_ps(f16_at(p + 208));
    __m128i scales = load16(p + 192);
    _mm256_store_ps(f->d, _mm256_mul_ps(d, widen_i8(scales)));
    _mm256_store_ps(f->d + 8, _mm256_mul_ps(d, widen_i8(_mm_unpackhi_epi64(scales, scales))));
}

INLINE void group_q6_k(__m256 q[4], const uint8_t *p, int sub)
{
    __m256i low = group_nibbles(p + sub / 4 * 64 + sub % 2 * 32, sub & 2);
    __m256i pairs = _mm256_srli_epi16(load32(p + 128 + sub / 4 * 32), sub % 4 * 2);
    __m256i high = _mm256_slli_epi16(_mm256_and_si256(pairs, _mm256_set1_epi8(3)), 4);
    widen_32(q, _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32)));
}

/* ---- rows of groups ---- */

INLINE void add_group(__m256 acc[4], const __m256 q[4], const float *x, const struct factors *f,
                      int sub, bool has_minimum)
{
    if (has_minimum) {
        __m256 d = _mm256_broadcast_ss(f->d + 2 * sub);
        __m256 m = _mm256_broadcast_ss(f->m + sub);
        for (int j = 0; j < 4; j++) {
            __m256 w = _mm256_fmadd_ps(q[j], d, m);
            acc[j] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + 8 * j), acc[j]);
        }
        return;
    }
    for (int half = 0; half < 2; half++) {
        const float *at = x + 16 * half;
        __m256 sum = _mm256_mul_ps(q[2 * half], _mm256_loadu_ps(at));
        sum = _mm256_fmadd_ps(q[2 * half + 1], _mm256_loadu_ps(at + 8), sum);
        acc[half] = _mm256_fmadd_ps(_mm256_broadcast_ss(f->d + 2 * sub + half), sum, acc[half]);
    }
}

INLINE void store_group(float *y, const __m256 q[4], const struct factors *f, int sub,
                        bool has_minimum)
{
    for (int j = 0; j < 4; j++) {
        __m256 w = _mm256_mul_ps(_mm256_broadcast_ss(f->d + 2 * sub + j / 2), q[j]);
        w = has_minimum ? _mm256_add_ps(w, _mm256_broadcast_ss(f->m + sub)) : w;
        _mm256_storeu_ps(y + 8 * j, w);
    }
}

#define GROUP_ROW_KERNELS(suffix, groups, bytes, has_minimum)                                      \
    static float dot_row_##suffix(const void *row, const float *x, int n)                          \
    {                                                                                              \
        const uint8_t *p = row;                                                                    \
        __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),            \
                         _mm256_setzero_ps()};                                                     \
        for (int i = 0; i < n; i += 32 * (groups), p += (bytes)) {                                 \
            struct factors f;                                                                      \
            factors_##suffix(&f, p);                                                               \
            _Pragma("GCC unroll 8") for (int s = 0; s < (groups); s++)                             \
            {                                                                                      \
                __m256 q[4];                                                                       \
                group_##suffix(q, p, s);                                                           \
                add_group(acc, q, x + i + 32 * s, &f, s, has_minimum);                             \
            }                                                                                      \
        }                                                                                          \
        return sum_all(acc);                                                                       \
    }                                                                                              \
    static void dequantize_row_##suffix(const void *row, float *y, int n)                          \
    {                                                                                              \
        const uint8_t *p = row;                                                                    \
        for (int i = 0; i < n; i += 32 * (groups), p += (bytes)) {                                 \
            struct factors f;                                                                      \
            factors_##suffix(&f, p);                                                               \
            _Pragma("GCC unroll 8") for (int s = 0; s < (groups); s++)                             \
            {                                                                                      \
                __m256 q[4];                                                                       \
                group_##suffix(q, p, s);                                                           \
                store_group(y + i + 32 * s, q, &f, s, has_minimum);                                \
            }                                                                                      \
        }                                                                                          \
    }

GROUP_ROW_KERNELS(q4_0, 1, 18, false)
GROUP_ROW_KERNELS(q4_1, 1, 20, true)
GROUP_ROW_KERNELS(q5_0, 1, 22, false)
GROUP_ROW_KERNELS(q5_1, 1, 24, true)
GROUP_ROW_KERNELS(q8_0, 1, 34, false)
GROUP_ROW_KERNELS(q4_k, 8, 144, true)
GROUP_ROW_KERNELS(q5_k, 8, 176, true)
GROUP_ROW_KERNELS(q6_k, 8, 210, false)

/* Newer sets share these loops and differ in the packed products. */
#define LOOPS                                                                                      \
    .f32_to_f16 = f32_to_f16,                                                                      \
    .dot_row =                                                                                     \
        {                                                                                          \
            [TENSOR_F32] = dot_row_f32,   [TENSOR_F16] = dot_row_f16,                              \
            [TENSOR_BF16] = dot_row_bf16, [TENSOR_Q4_0] = dot_row_q4_0,                            \
            [TENSOR_Q4_1] = dot_row_q4_1, [TENSOR_Q5_0] = dot_row_q5_0,                            \
            [TENSOR_Q5_1] = dot_row_q5_1, [TENSOR_Q8_0] = dot_row_q8_0,                            \
            [TENSOR_Q4_K] = dot_row_q4_k, [TENSOR_Q5_K] = dot_row_q5_k,                            \
            [TENSOR_Q6_K] = dot_row_q6_k,                                                          \
    },                                                                                             \
    .dequantize_row = {                                                                            \
        [TENSOR_F32] = dequantize_row_f32,   [TENSOR_F16] = dequantize_row_f16,                    \
        [TENSOR_BF16] = dequantize_row_bf16, [TENSOR_Q4_0] = dequantize_row_q4_0,                  \
        [TENSOR_Q4_1] = dequantize_row_q4_1, [TENSOR_Q5_0] = dequantize_row_q5_0,                  \
        [TENSOR_Q5_1] = dequantize_row_q5_1, [TENSOR_Q8_0] = dequantize_row_q8_0,                  \
        [TENSOR_Q4_K] = dequantize_row_q4_k, [TENSOR_Q5_K] = dequantize_row_q5_k,                  \
        [TENSOR_Q6_K] = dequantize_row_q6_k,                                                       \
    }

const struct kernels kernels_avx2 = {
    .name = "avx2", .loops = "avx2", .packed = &packed_avx2, LOOPS};
const struct kernels kernels_avxvnni = {
    .name = "avxvnni", .loops = "avx2", .packed = &packed_avxvnni, LOOPS};
const struct kernels kernels_vnni = {
    .name = "vnni", .loops = "avx512", .packed = &packed_vnni, LOOPS};
const struct kernels kernels_amx = {
    .name = "amx", .loops = "avx512", .packed = &packed_amx, .attend_bulk = &attend_amx, LOOPS};
#endif
