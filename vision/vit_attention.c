/* Attention without mask over a few hundred rows: the logits of some queries of one head
 * fit a cache, so a unit of work is one head and a tile of queries, start to end: logits,
 * softmax, weighted sum. Units depend on nothing but the shape. */
#include "vision/vit.h"

#include "tensor/blas.h"
#include "tensor/ops.h"

#include <math.h>

#define TILE_QUERIES 64

struct attention {
    const float *q, *k, *v, *bias;
    float *out;
    float *values_t; /* [n_embd, n]: the product below wants both operands by rows */
    float *logits;   /* [threads, TILE_QUERIES, n] */
    int n, n_head, head_dim;
};

static void transpose_values(void *ctx, int ith, int nth)
{
    const struct attention *t = ctx;
    int width = t->n_head * t->head_dim;
    int begin;
    int end;
    pool_slice(width, 16, ith, nth, &begin, &end);
    for (int r = 0; r < t->n; r++) {
        for (int c = begin; c < end; c++) {
            t->values_t[(size_t)c * (size_t)t->n + (size_t)r] =
                t->v[(size_t)r * (size_t)width + (size_t)c];
        }
    }
}

static void one_unit(const struct attention *t, float *logits, int unit, int n_tiles)
{
    int width = t->n_head * t->head_dim;
    int first = unit % n_tiles * TILE_QUERIES;
    int count = t->n - first < TILE_QUERIES ? t->n - first : TILE_QUERIES;
    size_t head = (size_t)(unit / n_tiles) * (size_t)t->head_dim;
    size_t at = (size_t)first * (size_t)width + head;
    float scale = 1.0f / sqrtf((float)t->head_dim);
    blas_gemm_nt(count, t->n, t->head_dim, t->q + at, width, t->k + head, width, logits, t->n);
    for (int i = 0; i < count; i++) {
        float *row = logits + (size_t)i * (size_t)t->n;
        for (int j = 0; j < t->n; j++) {
            row[j] *= scale;
        }
        for (int j = 0; t->bias && j < t->n; j++) {
            row[j] += t->bias[j];
        }
        op_softmax(row, t->n);
    }
    blas_gemm_nt(count, t->head_dim, t->n, logits, t->n, t->values_t + head * (size_t)t->n, t->n,
                 t->out + at, width);
}

static void run_units(void *ctx, int ith, int nth)
{
    const struct attention *t = ctx;
    int n_tiles = (t->n + TILE_QUERIES - 1) / TILE_QUERIES;
    float *logits = t->logits + (size_t)ith * TILE_QUERIES * (size_t)t->n;
    int begin;
    int end;
    pool_slice(t->n_head * n_tiles, 1, ith, nth, &begin, &end);
    for (int unit = begin; unit < end; unit++) {
        one_unit(t, logits, unit, n_tiles);
    }
}

int vit_attention(const float *q, const float *k, const float *v, const float *bias, int n,
                  int n_head, int head_dim, float *out, const struct compute *c,
                  struct arena *scratch, struct err *e)
{
    size_t width = (size_t)n_head * (size_t)head_dim;
    size_t threads = (size_t)pool_size(c->pool);
    struct arena_mark mark = arena_mark(scratch);
    struct attention t = {
        .q = q,
        .k = k,
        .v = v,
        .bias = bias,
        .out = out,
        .values_t = arena_alloc(scratch, width * (size_t)n, sizeof(float)),
        .logits = arena_alloc(scratch, threads * TILE_QUERIES * (size_t)n, sizeof(float)),
        .n = n,
        .n_head = n_head,
        .head_dim = head_dim,
    };
    if (!t.values_t || !t.logits) {
        return err_no_memory(e, width * (size_t)n * sizeof(float));
    }
    pool_run(c->pool, transpose_values, &t);
    pool_run(c->pool, run_units, &t);
    arena_rewind(scratch, mark);
    return 0;
}
