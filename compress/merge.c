/* Similarity and means shared by the merging methods.
 *
 * The products are summed in an order that is written down here (lanes, then lanes
 * together) instead of being left to BLAS: its blocking depends on the machine and on
 * the number of threads, and groups must not. The matching keeps set b transposed, so
 * that the inner loop runs over partners and the compiler can vectorise it without
 * reordering any sum. */
#include "compress/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8
#define TILE  4

float merge_dot(const float *a, const float *b, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            lane[l] += a[i + l] * b[i + l];
        }
    }
    for (; i < n; i++) {
        lane[i % LANES] += a[i] * b[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

float merge_cosine(const float *a, const float *b, int n)
{
    double norms = sqrt((double)merge_dot(a, a, n)) * sqrt((double)merge_dot(b, b, n));
    if (!(norms > 0)) {
        return 0.0f;
    }
    float c = (float)((double)merge_dot(a, b, n) / norms);
    return c > 1.0f ? 1.0f : c < -1.0f ? -1.0f : c;
}

void merge_weighted_mean(float *out, const float *x, const float *weight, const int32_t *index,
                         int n_rows, int n)
{
    float total = 0;
    memset(out, 0, (size_t)n * sizeof *out);
    for (int i = 0; i < n_rows; i++) {
        const float *row = x + (size_t)index[i] * (size_t)n;
        float w = weight[index[i]];
        total += w;
        for (int d = 0; d < n; d++) {
            out[d] += w * row[d];
        }
    }
    for (int d = 0; d < n; d++) {
        out[d] /= total;
    }
}

int merge_target(double ratio, double rows, int n)
{
    if (n == 0) {
        return 0;
    }
    double wanted = rows >= 1 ? rows : floor((double)n / ratio + 0.5);
    return wanted < 1 ? 1 : wanted > (double)n ? n : (int)wanted;
}

/* 1 / |x|, or 0 for the zero vector. */
static float inverse_norm(const float *x, int n)
{
    double square = (double)merge_dot(x, x, n);
    return square > 0 ? (float)(1.0 / sqrt(square)) : 0.0f;
}

/* t[d, j] = b_j[d] / |b_j| */
static void transpose_units(const float *x, int n, const int32_t *b, int n_b, float *t)
{
    for (int j = 0; j < n_b; j++) {
        const float *row = x + (size_t)b[j] * (size_t)n;
        float scale = inverse_norm(row, n);
        for (int d = 0; d < n; d++) {
            t[(size_t)d * (size_t)n_b + (size_t)j] = row[d] * scale;
        }
    }
}

static struct merge_match best_of(const float *score, int n)
{
    struct merge_match best = {.score = -INFINITY, .to = 0};
    for (int j = 0; j < n; j++) {
        if (score[j] > best.score) {
            best = (struct merge_match){.score = score[j], .to = j};
        }
    }
    return best;
}

/* score[TILE, n_b] = cosines of TILE rows with all of b: each value of b is loaded once for
 * all of them. The sum of each score runs over d in order. */
static void score_tile(const float *const rows[TILE], const float *units, int n, int n_b,
                       float *score)
{
    float scale[TILE];
    size_t stride = (size_t)n_b;
    for (int t = 0; t < TILE; t++) {
        scale[t] = inverse_norm(rows[t], n);
    }
    memset(score, 0, TILE * stride * sizeof *score);
    for (int d = 0; d < n; d++) {
        const float *restrict u = units + (size_t)d * stride;
        float v[TILE];
        for (int t = 0; t < TILE; t++) {
            v[t] = rows[t][d] * scale[t];
        }
        float *restrict s0 = score;
        float *restrict s1 = score + stride;
        float *restrict s2 = score + 2 * stride;
        float *restrict s3 = score + 3 * stride;
        for (int j = 0; j < n_b; j++) {
            s0[j] += v[0] * u[j];
            s1[j] += v[1] * u[j];
            s2[j] += v[2] * u[j];
            s3[j] += v[3] * u[j];
        }
    }
}

int merge_bipartite(const float *x, int n, const int32_t *a, int n_a, const int32_t *b, int n_b,
                    struct merge_match *match, struct arena *scratch, struct err *e)
{
    float *units = arena_alloc(scratch, (size_t)n_b * (size_t)n, sizeof *units);
    float *score = arena_alloc(scratch, TILE * (size_t)n_b, sizeof *score);
    if (!units || !score) {
        return err_no_memory(e, (unsigned long long)n_b * (unsigned long long)n * sizeof *units);
    }
    transpose_units(x, n, b, n_b, units);
    for (int i = 0; i < n_a; i += TILE) {
        const float *rows[TILE];
        for (int t = 0; t < TILE; t++) {
            int row = a[i + t < n_a ? i + t : n_a - 1];
            rows[t] = x + (size_t)row * (size_t)n;
        }
        score_tile(rows, units, n, n_b, score);
        for (int t = 0; t < TILE && i + t < n_a; t++) {
            match[i + t] = best_of(score + (size_t)t * (size_t)n_b, n_b);
        }
    }
    return 0;
}

static int by_score(const void *p, const void *q)
{
    const struct merge_ranked *a = p;
    const struct merge_ranked *b = q;
    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return a->index < b->index ? -1 : a->index > b->index;
}

void merge_rank(struct merge_ranked *ranked, int n)
{
    qsort(ranked, (size_t)n, sizeof *ranked, by_score);
}

int merge_order(const struct merge_match *match, int n, int32_t *order, struct arena *scratch,
                struct err *e)
{
    struct merge_ranked *r = arena_alloc(scratch, (size_t)n, sizeof *r);
    if (!r) {
        return err_no_memory(e, (unsigned long long)n * sizeof *r);
    }
    for (int i = 0; i < n; i++) {
        r[i] = (struct merge_ranked){(double)match[i].score, i};
    }
    merge_rank(r, n);
    for (int i = 0; i < n; i++) {
        order[i] = r[i].index;
    }
    return 0;
}

const char *const merge_norm_names[] = {"mean", "direction", NULL};

void merge_stretch(float *x, int n, float norm)
{
    float now = sqrtf(merge_dot(x, x, n));
    if (now > 0) {
        float scale = norm / now;
        for (int d = 0; d < n; d++) {
            x[d] *= scale;
        }
    }
}
