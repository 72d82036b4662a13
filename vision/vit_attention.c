/* Attention without mask (tensor/attend.h): a unit of work is one head and some queries
 * over all keys of their part. Units depend on nothing but the shape. */
#include "tensor/attend.h"
#include "tensor/kernels.h"
#include "tensor/vector_ops.h"
#include "vision/vit.h"

#include <math.h>
#include <stdatomic.h>

/* bf16 parts of weights and values: the tower's linear layers keep 16 bits of an activation,
 * too. */
#define WEIGHT_PARTS 2

struct attention {
    const float *q, *k, *v;
    const struct vit_part *parts;
    float *out;
    int n_head, head_dim;
    bool in_bulk;
    struct attend *tiles; /* [threads] */
    int n_units;
    atomic_int next; /* unit: part by part, queries first, so that small ones come last */
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

static int units_of(const struct attention *a, const struct vit_part *part)
{
    return (part->n + ATTEND_ROWS - 1) / ATTEND_ROWS * a->n_head;
}

/* Unit `unit` of a part whose first row is row `begin` of all. */
static void attend_unit(const struct attention *a, struct attend *t, const struct vit_part *part,
                        size_t begin, int unit)
{
    size_t width = (size_t)a->n_head * (size_t)a->head_dim;
    size_t head = begin * width + (size_t)(unit % a->n_head) * (size_t)a->head_dim;
    int query = unit / a->n_head * ATTEND_ROWS;
    int rows = part->n - query < ATTEND_ROWS ? part->n - query : ATTEND_ROWS;
    size_t at = (size_t)query * width + head;
    load_queries(a, t, at, rows);
    if (a->in_bulk) {
        attend_begin_bulk(t, rows, WEIGHT_PARTS);
    } else {
        attend_begin(t, rows);
    }
    for (int first = 0; first < part->n; first += ATTEND_KEYS) {
        int n = part->n - first < ATTEND_KEYS ? part->n - first : ATTEND_KEYS;
        size_t key = (size_t)first * width + head;
        struct attend_terms terms = {.bias = part->bias ? part->bias + first : NULL};
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
    (void)nth;
    for (;;) {
        int unit = atomic_fetch_add_explicit(&a->next, 1, memory_order_relaxed);
        if (unit >= a->n_units) {
            return;
        }
        const struct vit_part *part = a->parts;
        size_t begin = 0;
        for (; unit >= units_of(a, part); part++) {
            unit -= units_of(a, part);
            begin += (size_t)part->n;
        }
        attend_unit(a, &a->tiles[ith], part, begin, unit);
    }
}

int vit_attention(const float *q, const float *k, const float *v, const struct vit_part *parts,
                  int n_parts, int n_head, int head_dim, float *out, const struct compute *c,
                  struct arena *scratch, struct err *e)
{
    int n_threads = pool_size(c->pool);
    struct arena_mark mark = arena_mark(scratch);
    struct attention a = {
        .q = q,
        .k = k,
        .v = v,
        .parts = parts,
        .out = out,
        .n_head = n_head,
        .head_dim = head_dim,
        .in_bulk = c->bulk,
        .tiles = arena_zalloc(scratch, (size_t)n_threads, sizeof *a.tiles),
    };
    for (int i = 0; i < n_threads; i++) {
        if (!a.tiles || attend_init(&a.tiles[i], vector_ops_used()->attend, c->kernels->attend_bulk,
                                    head_dim, scratch)) {
            arena_rewind(scratch, mark);
            return err_set(e, ERR_NO_MEMORY, "no scratch memory left for attention");
        }
    }
    for (int i = 0; i < n_parts; i++) {
        a.n_units += units_of(&a, &parts[i]);
    }
    pool_run(c->pool, worker, &a);
    arena_rewind(scratch, mark);
    return 0;
}
