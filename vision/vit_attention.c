/* Attention without mask (tensor/attend.h): a unit of work is one head and some queries
 * over all keys. Units depend on nothing but the shape. */
#include "tensor/attend.h"
#include "tensor/vector_ops.h"
#include "vision/vit.h"

#include <math.h>
#include <stdatomic.h>

struct attention {
    const float *q, *k, *v, *bias;
    float *out;
    int n, n_head, head_dim;
    struct attend *tiles; /* [threads] */
    atomic_int next;      /* unit: queries first, so that the last, small ones come last */
};

static void load_queries(const struct attention *a, struct attend *t, size_t at, int n)
{
    float scale = 1.0f / sqrtf((float)a->head_dim);
    size_t width = (size_t)a->n_head * (size_t)a->head_dim;
    for (int r = 0; r < n; r++) {
        const float *from = a->q + at + (size_t)r * width;
        float *to = t->q + (size_t)r * (size_t)a->head_dim;
        for (int i = 0; i < a->head_dim; i++) {
            to[i] = from[i] * scale;
        }
    }
}

static void attend_unit(const struct attention *a, struct attend *t, int unit)
{
    size_t width = (size_t)a->n_head * (size_t)a->head_dim;
    size_t head = (size_t)(unit % a->n_head) * (size_t)a->head_dim;
    int query = unit / a->n_head * ATTEND_ROWS;
    int rows = a->n - query < ATTEND_ROWS ? a->n - query : ATTEND_ROWS;
    size_t at = (size_t)query * width + head;
    load_queries(a, t, at, rows);
    attend_begin(t, rows);
    for (int first = 0; first < a->n; first += ATTEND_KEYS) {
        int n = a->n - first < ATTEND_KEYS ? a->n - first : ATTEND_KEYS;
        size_t key = (size_t)first * width + head;
        struct attend_terms terms = {.bias = a->bias ? a->bias + first : NULL};
        attend_load_f32(t, 0, a->k + key, a->v + key, width, n);
        for (int r = 0; r < rows; r++) {
            t->visible[r] = n;
        }
        attend_tile(t, rows, &terms, &t->part);
        attend_add(t, rows, &t->part);
    }
    for (int r = 0; r < rows; r++) {
        attend_store(t, r, a->out + at + (size_t)r * width);
    }
}

static void worker(void *ctx, int ith, int nth)
{
    struct attention *a = ctx;
    int n_units = (a->n + ATTEND_ROWS - 1) / ATTEND_ROWS * a->n_head;
    (void)nth;
    for (;;) {
        int unit = atomic_fetch_add_explicit(&a->next, 1, memory_order_relaxed);
        if (unit >= n_units) {
            return;
        }
        attend_unit(a, &a->tiles[ith], unit);
    }
}

int vit_attention(const float *q, const float *k, const float *v, const float *bias, int n,
                  int n_head, int head_dim, float *out, const struct compute *c,
                  struct arena *scratch, struct err *e)
{
    int n_threads = pool_size(c->pool);
    struct arena_mark mark = arena_mark(scratch);
    struct attention a = {
        .q = q,
        .k = k,
        .v = v,
        .bias = bias,
        .out = out,
        .n = n,
        .n_head = n_head,
        .head_dim = head_dim,
        .tiles = arena_zalloc(scratch, (size_t)n_threads, sizeof *a.tiles),
    };
    for (int i = 0; i < n_threads; i++) {
        if (!a.tiles || attend_init(&a.tiles[i], vector_ops_used()->attend, head_dim, scratch)) {
            arena_rewind(scratch, mark);
            return err_set(e, ERR_NO_MEMORY, "no scratch memory left for attention");
        }
    }
    pool_run(c->pool, worker, &a);
    arena_rewind(scratch, mark);
    return 0;
}
