/* The portable loops of attention: what each entry of attend_kernels.h means. */
#include "tensor/attend_kernels.h"
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

static void columns_f16(float *to, const uint16_t *from, int n, int dim)
{
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < dim; i++) {
            to[(size_t)i * ATTEND_LD + (size_t)j] =
                op_f16_to_f32(from[(size_t)j * (size_t)dim + (size_t)i]);
        }
    }
}

static void columns_f32(float *to, const float *from, size_t ld, int n, int dim)
{
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < dim; i++) {
            to[(size_t)i * ATTEND_LD + (size_t)j] = from[(size_t)j * ld + (size_t)i];
        }
    }
}

static void rows_f16(float *to, const uint16_t *from, int n, int dim, int width)
{
    for (int j = 0; j < n; j++, from += dim, to += width) {
        for (int i = 0; i < width; i++) {
            to[i] = i < dim ? op_f16_to_f32(from[i]) : 0.0f;
        }
    }
}

static float q8_at(const struct attend_q8 *from, int j, int i, int dim)
{
    size_t block = (size_t)j * (size_t)attend_q8_blocks(dim) + (size_t)(i / ATTEND_Q8_BLOCK);
    return op_f16_to_f32(from->scale[block]) * (float)from->q[(size_t)j * (size_t)dim + (size_t)i];
}

static void columns_q8(float *to, const struct attend_q8 *from, int n, int dim)
{
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < dim; i++) {
            to[(size_t)i * ATTEND_LD + (size_t)j] = q8_at(from, j, i, dim);
        }
    }
}

static void rows_q8(float *to, const struct attend_q8 *from, int n, int dim, int width)
{
    for (int j = 0; j < n; j++, to += width) {
        for (int i = 0; i < width; i++) {
            to[i] = i < dim ? q8_at(from, j, i, dim) : 0.0f;
        }
    }
}

static void round_block(const float *x, int n, int8_t *q, uint16_t *scale)
{
    float most = 0;
    for (int i = 0; i < n; i++) {
        float size = isfinite(x[i]) ? fabsf(x[i]) : NAN;
        most = size > most || isnan(size) ? size : most; /* a NaN stays: nothing is greater */
    }
    *scale = op_f32_to_f16(most / 127.0f);
    float factor = op_f16_to_f32(*scale);
    float inverse = factor > 0 ? 1.0f / factor : 0;
    for (int i = 0; i < n; i++) {
        float r = x[i] * inverse;
        q[i] = (int8_t)rintf(r < 127.0f ? (r > -127.0f ? r : -127.0f) : 127.0f);
    }
}

static void round_q8(const float *x, int dim, int8_t *q, uint16_t *scale)
{
    for (int i = 0; i < dim; i += ATTEND_Q8_BLOCK) {
        int n = dim - i < ATTEND_Q8_BLOCK ? dim - i : ATTEND_Q8_BLOCK;
        round_block(x + i, n, q + i, scale + i / ATTEND_Q8_BLOCK);
    }
}

static void product(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
                    int rows, int depth, int cols)
{
    for (int r = 0; r < rows; r++, a += lda, c += ldc) {
        memset(c, 0, (size_t)cols * sizeof *c);
        for (int k = 0; k < depth; k++) {
            for (int i = 0; i < cols; i++) {
                c[i] += a[k] * b[(size_t)k * ldb + (size_t)i];
            }
        }
    }
}

static void product_f16(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b,
                        size_t ldb, int rows, int depth, int cols, bool add)
{
    for (int r = 0; r < rows; r++, a += lda, c += ldc) {
        for (int i = 0; i < cols; i++) {
            float sum = add ? c[i] : 0.0f;
            for (int k = 0; k < depth; k++) {
                sum += a[k] * op_f16_to_f32(b[(size_t)k * ldb + (size_t)i]);
            }
            c[i] = sum;
        }
    }
}

static float with_terms(float score, const struct attend_terms *t, float position, int i)
{
    if (t->softcap > 0) {
        score = t->softcap * tanhf(score / t->softcap);
    }
    if (t->bias) {
        score += t->bias[i];
    }
    if (t->window > 0 && !(position - t->key_position[i] < t->window)) {
        score = -INFINITY;
    }
    return score;
}

static void weigh(float *scores, int n_visible, int n_keys, const struct attend_terms *terms,
                  float position, float *max, float *norm)
{
    *max = -INFINITY;
    *norm = 0;
    for (int i = 0; i < n_visible; i++) {
        scores[i] = with_terms(scores[i], terms, position, i);
        *max = scores[i] > *max ? scores[i] : *max;
    }
    float shift = *max == -INFINITY ? 0.0f : *max;
    for (int i = 0; i < n_visible; i++) {
        scores[i] = expf(scores[i] - shift);
        *norm += scores[i];
    }
    for (int i = n_visible; i < n_keys; i++) {
        scores[i] = 0;
    }
}

static void merge(const struct attend_state *total, const struct attend_state *part, int rows,
                  int width)
{
    for (int r = 0; r < rows; r++) {
        float max = total->max[r] > part->max[r] ? total->max[r] : part->max[r];
        float shift = max == -INFINITY ? 0.0f : max;
        float keep = expf(total->max[r] - shift);
        float take = expf(part->max[r] - shift);
        total->max[r] = max;
        total->norm[r] = total->norm[r] * keep + part->norm[r] * take;
        float *to = total->sum + (size_t)r * (size_t)width;
        const float *from = part->sum + (size_t)r * (size_t)width;
        for (int i = 0; i < width; i++) {
            to[i] = to[i] * keep + from[i] * take;
        }
    }
}

const struct attend_kernels attend_ref = {
    .columns_f16 = columns_f16,
    .columns_f32 = columns_f32,
    .rows_f16 = rows_f16,
    .columns_q8 = columns_q8,
    .rows_q8 = rows_q8,
    .round_q8 = round_q8,
    .product = product,
    .product_f16 = product_f16,
    .weigh = weigh,
    .merge = merge,
};
