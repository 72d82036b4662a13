#include "tensor/attend.h"

#include <math.h>
#include <string.h>

static int padded(int n)
{
    return (n + ATTEND_PAD - 1) / ATTEND_PAD * ATTEND_PAD;
}

size_t attend_state_floats(const struct attend *t, int rows)
{
    return 2 * (size_t)padded(rows) + (size_t)rows * (size_t)t->width;
}

struct attend_state attend_state_in(const struct attend *t, float *memory, int rows)
{
    (void)t;
    size_t n = (size_t)padded(rows);
    return (struct attend_state){.max = memory, .norm = memory + n, .sum = memory + 2 * n};
}

int attend_init(struct attend *t, const struct attend_kernels *kernels, int dim,
                struct arena *scratch)
{
    *t = (struct attend){.kernels = kernels, .dim = dim, .width = padded(dim)};
    size_t state = attend_state_floats(t, ATTEND_ROWS);
    float *total = arena_alloc(scratch, state, sizeof(float));
    float *part = arena_alloc(scratch, state, sizeof(float));
    t->q = arena_alloc(scratch, ATTEND_ROWS, (size_t)dim * sizeof(float));
    t->keys = arena_zalloc(scratch, ATTEND_LD, (size_t)dim * sizeof(float));
    t->values = arena_alloc(scratch, ATTEND_KEYS, (size_t)t->width * sizeof(float));
    t->scores = arena_alloc(scratch, (size_t)ATTEND_ROWS * ATTEND_KEYS, sizeof(float));
    if (!total || !part || !t->q || !t->keys || !t->values || !t->scores) {
        return -1;
    }
    t->total = attend_state_in(t, total, ATTEND_ROWS);
    t->part = attend_state_in(t, part, ATTEND_ROWS);
    return 0;
}

void attend_begin(struct attend *t, int rows)
{
    t->direct = rows <= ATTEND_BLOCK && t->dim == t->width;
    memset(t->total.sum, 0, (size_t)rows * (size_t)t->width * sizeof *t->total.sum);
    for (int r = 0; r < rows; r++) {
        t->total.max[r] = -INFINITY;
        t->total.norm[r] = 0;
    }
}

void attend_load_f16(struct attend *t, int at, const uint16_t *k, const uint16_t *v, int n)
{
    t->kernels->columns_f16(t->keys + at, k, n, t->dim);
    t->n_runs = at == 0 ? 0 : t->n_runs;
    if (t->direct) {
        t->runs[t->n_runs].v = v;
        t->runs[t->n_runs++].at = at;
    } else {
        t->kernels->rows_f16(t->values + (size_t)at * (size_t)t->width, v, n, t->dim, t->width);
    }
}

/* Values are widened even for few rows: a product that did it would multiply by the scale
 * once for each row of queries. */
void attend_load_q8(struct attend *t, int at, const struct attend_q8 *k, const struct attend_q8 *v,
                    int n)
{
    t->direct = false;
    t->kernels->columns_q8(t->keys + at, k, n, t->dim);
    t->kernels->rows_q8(t->values + (size_t)at * (size_t)t->width, v, n, t->dim, t->width);
}

void attend_load_f32(struct attend *t, int at, const float *k, const float *v, size_t ld, int n)
{
    t->direct = false;
    t->kernels->columns_f32(t->keys + at, k, ld, n, t->dim);
    for (int i = 0; i < n; i++) {
        float *to = t->values + (size_t)(at + i) * (size_t)t->width;
        memcpy(to, v + (size_t)i * ld, (size_t)t->dim * sizeof *to);
        memset(to + t->dim, 0, (size_t)(t->width - t->dim) * sizeof *to);
    }
}

/* Keys that at least one row of a block sees: what lies behind them is left out. */
static int keys_of_block(const struct attend *t, int first, int n)
{
    int most = 0;
    for (int r = first; r < first + n; r++) {
        most = t->visible[r] > most ? t->visible[r] : most;
    }
    return most;
}

/* The one block's weights times the values where they lie. */
static void add_runs(const struct attend *t, int rows, const struct attend_state *part)
{
    size_t width = (size_t)t->width;
    int n_keys = keys_of_block(t, 0, rows);
    for (int i = 0; i < t->n_runs; i++) {
        int at = t->runs[i].at;
        int end = i + 1 < t->n_runs ? t->runs[i + 1].at : ATTEND_KEYS;
        int n = (n_keys < end ? n_keys : end) - at;
        t->kernels->product_f16(part->sum, width, t->scores + at, ATTEND_KEYS, t->runs[i].v, width,
                                rows, n > 0 ? n : 0, t->width, i > 0);
    }
}

/* Scores of all blocks, then weights, then sums: keys and values stay in the first cache
 * through their step. */
void attend_tile(struct attend *t, int rows, const struct attend_terms *terms,
                 const struct attend_state *part)
{
    const struct attend_kernels *k = t->kernels;
    size_t dim = (size_t)t->dim;
    size_t width = (size_t)t->width;
    for (int first = 0; first < rows; first += ATTEND_BLOCK) {
        int n = rows - first < ATTEND_BLOCK ? rows - first : ATTEND_BLOCK;
        k->product(t->scores + (size_t)first * ATTEND_KEYS, ATTEND_KEYS, t->q + (size_t)first * dim,
                   dim, t->keys, ATTEND_LD, n, t->dim, padded(keys_of_block(t, first, n)));
    }
    for (int first = 0; first < rows; first += ATTEND_BLOCK) {
        int n = rows - first < ATTEND_BLOCK ? rows - first : ATTEND_BLOCK;
        int n_keys = keys_of_block(t, first, n);
        for (int r = first; r < first + n; r++) {
            k->weigh(t->scores + (size_t)r * ATTEND_KEYS, t->visible[r], n_keys, terms,
                     t->position[r], part->max + r, part->norm + r);
        }
    }
    if (t->direct) {
        add_runs(t, rows, part);
        return;
    }
    for (int first = 0; first < rows; first += ATTEND_BLOCK) {
        int n = rows - first < ATTEND_BLOCK ? rows - first : ATTEND_BLOCK;
        k->product(part->sum + (size_t)first * width, width,
                   t->scores + (size_t)first * ATTEND_KEYS, ATTEND_KEYS, t->values, width, n,
                   keys_of_block(t, first, n), t->width);
    }
}

void attend_add(struct attend *t, int rows, const struct attend_state *part)
{
    t->kernels->merge(&t->total, part, rows, t->width);
}

void attend_store(const struct attend *t, int r, float *out)
{
    const float *from = t->total.sum + (size_t)r * (size_t)t->width;
    float inverse = 1.0f / t->total.norm[r];
    for (int i = 0; i < t->dim; i++) {
        out[i] = from[i] * inverse + 0.0f; /* + 0: no -0, whose sign rounding may decide */
    }
}
