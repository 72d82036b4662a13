/* The loops of struct attend_kernels over the lanes of the file that includes this. */
#ifndef TAMP_TENSOR_ATTEND_LOOPS_H
#define TAMP_TENSOR_ATTEND_LOOPS_H

#include "tensor/attend_kernels.h"
#include "tensor/lanes_math.h"

#include <stdbool.h>

#if defined(LANES)

/* Vectors of columns that a block of product has: with ATTEND_BLOCK rows of them 24 of
 * AVX-512's 32 registers and 12 of AVX2's 16 are sums; the rest are operands. */
#define ATTEND_VECTORS (LANES == 16 ? 4 : 2)

/* ---- keys into columns, eight at a time ---- */

/* Rows behind the last are read as the last: their columns are not used. */
#define EIGHT_ROWS(rows, from, ld, n)                                                              \
    for (int j = 0; j < 8; j++) {                                                                  \
        rows[j] = (from) + (size_t)(j < (n) ? j : (n)-1) * (ld);                                   \
    }

INLINE __m256i load_halves(const uint16_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE void store_halves(float *low, float *high, __m256i v)
{
    _mm256_storeu_ps(low, _mm256_cvtph_ps(_mm256_castsi256_si128(v)));
    _mm256_storeu_ps(high, _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}

/* Elements 0-7 of the eight rows in the low half, 8-15 in the high half: transposed while
 * they are still halves. */
INLINE void transpose_16_halves(float *to, const uint16_t *const rows[8], int at)
{
    __m256i pairs[8];
    __m256i fours[8];
    for (int j = 0; j < 8; j += 2) {
        __m256i a = load_halves(rows[j] + at);
        __m256i b = load_halves(rows[j + 1] + at);
        pairs[j] = _mm256_unpacklo_epi16(a, b);
        pairs[j + 1] = _mm256_unpackhi_epi16(a, b);
    }
    for (int j = 0; j < 2; j++) { /* rows 4j..4j+3 */
        for (int i = 0; i < 2; i++) {
            fours[4 * j + 2 * i] = _mm256_unpacklo_epi32(pairs[4 * j + i], pairs[4 * j + i + 2]);
            fours[4 * j + 2 * i + 1] =
                _mm256_unpackhi_epi32(pairs[4 * j + i], pairs[4 * j + i + 2]);
        }
    }
    for (int i = 0; i < 4; i++) {
        float *low = to + (size_t)(at + 2 * i) * ATTEND_LD;
        float *high = low + 8 * ATTEND_LD;
        store_halves(low, high, _mm256_unpacklo_epi64(fours[i], fours[i + 4]));
        store_halves(low + ATTEND_LD, high + ATTEND_LD,
                     _mm256_unpackhi_epi64(fours[i], fours[i + 4]));
    }
}

static void columns_f16(float *to, const uint16_t *from, int n, int dim)
{
    for (int first = 0; first < n; first += 8, to += 8) {
        const uint16_t *rows[8];
        EIGHT_ROWS(rows, from + (size_t)first * (size_t)dim, (size_t)dim, n - first)
        int i = 0;
        for (; i + 16 <= dim; i += 16) {
            transpose_16_halves(to, rows, i);
        }
        for (; i < dim; i++) {
            for (int j = 0; j < 8; j++) {
                to[(size_t)i * ATTEND_LD + (size_t)j] = _cvtsh_ss(rows[j][i]);
            }
        }
    }
}

INLINE void transpose_8_floats(float *to, const float *const rows[8], int at)
{
    __m256 pairs[8];
    __m256 fours[8];
    for (int j = 0; j < 4; j++) { /* row j low, row j + 4 high: then in-lane steps are enough */
        __m256 a = _mm256_castps128_ps256(_mm_loadu_ps(rows[j] + at));
        __m256 b = _mm256_castps128_ps256(_mm_loadu_ps(rows[j] + at + 4));
        fours[j] = _mm256_insertf128_ps(a, _mm_loadu_ps(rows[j + 4] + at), 1);
        fours[j + 4] = _mm256_insertf128_ps(b, _mm_loadu_ps(rows[j + 4] + at + 4), 1);
    }
    for (int j = 0; j < 8; j += 2) {
        pairs[j] = _mm256_unpacklo_ps(fours[j], fours[j + 1]);
        pairs[j + 1] = _mm256_unpackhi_ps(fours[j], fours[j + 1]);
    }
    for (int i = 0; i < 2; i++) { /* elements 4i..4i+3 */
        const __m256 *p = pairs + 4 * i;
        float *column = to + (size_t)(at + 4 * i) * ATTEND_LD;
        _mm256_storeu_ps(column, _mm256_shuffle_ps(p[0], p[2], 0x44));
        _mm256_storeu_ps(column + ATTEND_LD, _mm256_shuffle_ps(p[0], p[2], 0xee));
        _mm256_storeu_ps(column + 2 * ATTEND_LD, _mm256_shuffle_ps(p[1], p[3], 0x44));
        _mm256_storeu_ps(column + 3 * ATTEND_LD, _mm256_shuffle_ps(p[1], p[3], 0xee));
    }
}

static void columns_f32(float *to, const float *from, size_t ld, int n, int dim)
{
    for (int first = 0; first < n; first += 8, to += 8) {
        const float *rows[8];
        EIGHT_ROWS(rows, from + (size_t)first * ld, ld, n - first)
        int i = 0;
        for (; i + 8 <= dim; i += 8) {
            transpose_8_floats(to, rows, i);
        }
        for (; i < dim; i++) {
            for (int j = 0; j < 8; j++) {
                to[(size_t)i * ATTEND_LD + (size_t)j] = rows[j][i];
            }
        }
    }
}

static void rows_f16(float *to, const uint16_t *from, int n, int dim, int width)
{
    for (int j = 0; j < n; j++, from += dim, to += width) {
        int i = 0;
        for (; i + LANES <= dim; i += LANES) {
            l_store(to + i, l_load_f16(from + i));
        }
        for (; i < dim; i++) {
            to[i] = _cvtsh_ss(from[i]);
        }
        for (; i < width; i++) {
            to[i] = 0.0f;
        }
    }
}

/* ---- rows in 8 bits ---- */

static void columns_q8(float *to, const struct attend_q8 *from, int n, int dim)
{
    size_t blocks = (size_t)attend_q8_blocks(dim);
    for (int first = 0; first < n; first += 8, to += 8) {
        float wide[8][8];
        const float *rows[8];
        const int8_t *q[8];
        const uint16_t *scale[8];
        EIGHT_ROWS(q, from->q + (size_t)first * (size_t)dim, (size_t)dim, n - first)
        EIGHT_ROWS(scale, from->scale + (size_t)first * blocks, blocks, n - first)
        int i = 0;
        for (; i + 8 <= dim; i += 8) {
            for (int j = 0; j < 8; j++) {
                __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(q[j] + i));
                __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                __m256 s = _mm256_set1_ps(_cvtsh_ss(scale[j][i / ATTEND_Q8_BLOCK]));
                _mm256_storeu_ps(wide[j], _mm256_mul_ps(s, x));
                rows[j] = wide[j];
            }
            transpose_8_floats(to + (size_t)i * ATTEND_LD, rows, 0);
        }
        for (; i < dim; i++) {
            for (int j = 0; j < 8; j++) {
                to[(size_t)i * ATTEND_LD + (size_t)j] =
                    _cvtsh_ss(scale[j][i / ATTEND_Q8_BLOCK]) * (float)q[j][i];
            }
        }
    }
}

static void rows_q8(float *to, const struct attend_q8 *from, int n, int dim, int width)
{
    const int8_t *q = from->q;
    const uint16_t *scale = from->scale;
    for (int j = 0; j < n; j++, q += dim, scale += attend_q8_blocks(dim), to += width) {
        int i = 0;
        for (; i + LANES <= dim; i += LANES) {
            l_store(to + i, l_mul(l_set(_cvtsh_ss(scale[i / ATTEND_Q8_BLOCK])), l_load_i8(q + i)));
        }
        for (; i < dim; i++) {
            to[i] = _cvtsh_ss(scale[i / ATTEND_Q8_BLOCK]) * (float)q[i];
        }
        for (; i < width; i++) {
            to[i] = 0.0f;
        }
    }
}

/* n elements, 1..ATTEND_Q8_BLOCK. */
INLINE void round_block(const float *x, int n, int8_t *q, uint16_t *scale)
{
    float rounded[ATTEND_Q8_BLOCK];
    lanes most = l_set(0.0f);
    lanes bad = l_set(0.0f); /* x - x is 0 or no number */
    for (int i = 0; i < n; i += LANES) {
        lanes v = l_load_part(x + i, n - i < LANES ? n - i : LANES);
        most = l_max(l_abs(v), most);
        bad = l_add(bad, l_sub(v, v));
    }
    float largest = l_largest(most) + l_sum(bad);
    *scale = _cvtss_sh(largest / 127.0f, _MM_FROUND_TO_NEAREST_INT);
    float factor = _cvtsh_ss(*scale);
    lanes inverse = l_set(factor > 0.0f ? 1.0f / factor : 0.0f);
    for (int i = 0; i < n; i += LANES) {
        lanes v = l_load_part(x + i, n - i < LANES ? n - i : LANES);
        v = l_max(l_min(l_mul(v, inverse), l_set(127.0f)), l_set(-127.0f)); /* NaN: 127 */
        l_store(rounded + i, l_round(v));
    }
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)rounded[i];
    }
}

static void round_q8(const float *x, int dim, int8_t *q, uint16_t *scale)
{
    for (int i = 0; i < dim; i += ATTEND_Q8_BLOCK) {
        int n = dim - i < ATTEND_Q8_BLOCK ? dim - i : ATTEND_Q8_BLOCK;
        round_block(x + i, n, q + i, scale + i / ATTEND_Q8_BLOCK);
    }
}

/* ---- products ---- */

/* What a block multiplies: its right operand is floats or halves. */
struct factors {
    const float *a;
    size_t lda;
    const float *b;
    const uint16_t *halves; /* instead of b */
    size_t ldb;
    int depth;
    bool add; /* to what c holds */
};

/* rows, vectors and halves are constants where this is expanded, so acc lives in
 * registers. */
INLINE void block(float *c, size_t ldc, const struct factors *f, int rows, int vectors, bool halves)
{
    lanes acc[ATTEND_BLOCK][ATTEND_VECTORS];
    const float *a = f->a;
    const float *b = f->b;
    const uint16_t *h = f->halves;
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < vectors; v++) {
            acc[r][v] = f->add ? l_load(c + (size_t)r * ldc + (size_t)(v * LANES)) : l_set(0.0f);
        }
    }
    for (int k = 0; k < f->depth; k++) {
        lanes column[ATTEND_VECTORS];
        for (int v = 0; v < vectors; v++) {
            column[v] = halves ? l_load_f16(h + v * LANES) : l_load(b + v * LANES);
        }
        for (int r = 0; r < rows; r++) {
            lanes factor = l_set(a[(size_t)r * f->lda + (size_t)k]);
            for (int v = 0; v < vectors; v++) {
                acc[r][v] = l_fma(factor, column[v], acc[r][v]);
            }
        }
        b = halves ? b : b + f->ldb;
        h = halves ? h + f->ldb : h;
    }
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < vectors; v++) {
            l_store(c + (size_t)r * ldc + (size_t)(v * LANES), acc[r][v]);
        }
    }
}

INLINE void block_of_rows(float *c, size_t ldc, const struct factors *f, int rows, int vectors,
                          bool halves)
{
    switch (rows) {
    case 1:
        block(c, ldc, f, 1, vectors, halves);
        return;
    case 2:
        block(c, ldc, f, 2, vectors, halves);
        return;
    case 3:
        block(c, ldc, f, 3, vectors, halves);
        return;
    case 4:
        block(c, ldc, f, 4, vectors, halves);
        return;
    case 5:
        block(c, ldc, f, 5, vectors, halves);
        return;
    default:
        block(c, ldc, f, 6, vectors, halves);
        return;
    }
}

INLINE void product_of(float *c, size_t ldc, struct factors f, int rows, int cols, bool halves)
{
    int vectors = ATTEND_VECTORS;
    for (int i = 0; i < cols; i += vectors * LANES) {
        if (cols - i >= ATTEND_VECTORS * LANES) {
            block_of_rows(c + i, ldc, &f, rows, ATTEND_VECTORS, halves);
        } else {
            vectors = ATTEND_PAD / LANES;
            block_of_rows(c + i, ldc, &f, rows, ATTEND_PAD / LANES, halves);
        }
        f.b = halves ? NULL : f.b + vectors * LANES;
        f.halves = halves ? f.halves + vectors * LANES : NULL;
    }
}

static void product(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
                    int rows, int depth, int cols)
{
    product_of(c, ldc, (struct factors){a, lda, b, NULL, ldb, depth, false}, rows, cols, false);
}

static void product_f16(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b,
                        size_t ldb, int rows, int depth, int cols, bool add)
{
    product_of(c, ldc, (struct factors){a, lda, NULL, b, ldb, depth, add}, rows, cols, true);
}

/* ---- softmax ---- */

/* Keys [i, i + part) of a row. */
INLINE lanes with_terms(lanes score, const struct attend_terms *t, float position, int i, int part)
{
    if (t->softcap > 0) {
        lanes cap = l_set(t->softcap);
        score = l_mul(cap, l_tanh(l_div(score, cap)));
    }
    if (t->bias) {
        score = l_add(score, l_load_part(t->bias + i, part));
    }
    if (t->window > 0) {
        lanes back = l_sub(l_set(position), l_load_part(t->key_position + i, part));
        score = l_choose(l_less(back, l_set(t->window)), score, l_set(-INFINITY));
    }
    return score;
}

/* e^d for d <= 0 (or NaN), to 1e-7 of the largest weight, which is 1; what is below e^-87
 * is 0: no subnormal numbers, which are slow. 2^t = 2^n 2^r is one operation shorter than
 * l_exp, at the price of rounding t, and d needs no bounds. */
INLINE lanes weight_of(lanes d)
{
    lanes t = l_mul(d, l_set(1.44269504f));
    lanes n = l_round(t);
    lanes r = l_sub(t, n);
    lanes p = l_set(0.0001545318283f);
    p = l_fma(p, r, l_set(0.001339088633f));
    p = l_fma(p, r, l_set(0.00961808252f));
    p = l_fma(p, r, l_set(0.05550357071f));
    p = l_fma(p, r, l_set(0.2402265076f));
    p = l_fma(p, r, l_set(0.693147188f));
    p = l_fma(p, r, l_set(1.0f));
    return l_choose(l_less(d, l_set(-87.0f)), l_set(0.0f), l_scale2(p, n));
}

/* The first n_visible scores of a row, -inf in the lanes behind them. */
INLINE lanes visible_scores(const float *scores, int i, int n_visible)
{
    lanes s = l_load(scores + i);
    return i + LANES <= n_visible ? s : l_choose(first_lanes(n_visible - i), s, l_set(-INFINITY));
}

static void apply_terms(float *scores, int n_visible, const struct attend_terms *terms,
                        float position)
{
    for (int i = 0; i < n_visible; i += LANES) {
        int part = n_visible - i < LANES ? n_visible - i : LANES;
        l_store(scores + i, with_terms(l_load(scores + i), terms, position, i, part));
    }
}

static void weigh(float *scores, int n_visible, int n_keys, const struct attend_terms *terms,
                  float position, float *max, float *norm)
{
    if (terms->softcap > 0 || terms->bias || terms->window > 0) {
        apply_terms(scores, n_visible, terms, position);
    }
    lanes best = l_set(-INFINITY);
    for (int i = 0; i < n_visible; i += LANES) {
        best = l_max(visible_scores(scores, i, n_visible), best);
    }
    *max = l_largest(best);
    /* With all keys masked e^(-inf - 0) is 0, and a NaN among them stays one. */
    lanes shift = l_set(*max == -INFINITY ? 0.0f : *max);
    lanes sum = l_set(0.0f);
    int i = 0;
    for (; i < n_visible; i += LANES) {
        lanes w = weight_of(l_sub(visible_scores(scores, i, n_visible), shift));
        l_store(scores + i, w);
        sum = l_add(sum, w);
    }
    for (; i < n_keys; i += LANES) {
        l_store(scores + i, l_set(0.0f));
    }
    *norm = l_sum(sum);
}

static void merge(const struct attend_state *total, const struct attend_state *part, int rows,
                  int width)
{
    for (int first = 0; first < rows; first += LANES) {
        float old_scale[LANES];
        float new_scale[LANES];
        int n = rows - first < LANES ? rows - first : LANES;
        lanes old_max = l_load_part(total->max + first, n);
        lanes new_max = l_load_part(part->max + first, n);
        lanes max = l_max(old_max, new_max);
        lanes shift = l_choose(l_equal(max, l_set(-INFINITY)), l_set(0.0f), max);
        lanes from_old = weight_of(l_sub(old_max, shift));
        lanes from_new = weight_of(l_sub(new_max, shift));
        l_store(old_scale, from_old);
        l_store(new_scale, from_new);
        lanes norm = l_mul(l_load_part(total->norm + first, n), from_old);
        norm = l_fma(l_load_part(part->norm + first, n), from_new, norm);
        l_store_part(total->max + first, max, n);
        l_store_part(total->norm + first, norm, n);
        for (int r = 0; r < n; r++) {
            float *to = total->sum + (size_t)(first + r) * (size_t)width;
            const float *from = part->sum + (size_t)(first + r) * (size_t)width;
            lanes keep = l_set(old_scale[r]);
            lanes take = l_set(new_scale[r]);
            for (int i = 0; i < width; i += LANES) {
                lanes kept = l_mul(l_load(to + i), keep);
                l_store(to + i, l_fma(l_load(from + i), take, kept));
            }
        }
    }
}

#define ATTEND_LOOPS                                                                               \
    .columns_f16 = columns_f16, .columns_f32 = columns_f32, .rows_f16 = rows_f16,                  \
    .columns_q8 = columns_q8, .rows_q8 = rows_q8, .round_q8 = round_q8, .product = product,        \
    .product_f16 = product_f16, .weigh = weigh, .merge = merge

#endif
#endif
