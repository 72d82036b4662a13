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

/* Rows of a state that a matrix unit writes. */
#define BULK_ROWS ((ATTEND_ROWS + ATTEND_BULK_ROWS - 1) / ATTEND_BULK_ROWS * ATTEND_BULK_ROWS)
/* Rows of which one product makes the scores or sums: two blocks of the matrix unit. */
#define BULK_STEP (2 * ATTEND_BULK_ROWS)

static int init_bulk(struct attend *t, struct arena *scratch)
{
    size_t q = attend_bulk_words(ATTEND_ROWS, t->dim);
    size_t keys = attend_bulk_words(ATTEND_KEYS, t->dim);
    size_t values = attend_bulk_words(t->width, ATTEND_KEYS);
    size_t weights = attend_bulk_words(ATTEND_ROWS, ATTEND_KEYS);
    t->q_tiles = arena_alloc(scratch, q, sizeof(uint16_t));
    t->key_tiles = arena_alloc(scratch, keys, sizeof(uint16_t));
    t->value_tiles = arena_alloc(scratch, values, sizeof(uint16_t));
    t->weight_tiles = arena_alloc(scratch, weights, sizeof(uint16_t));
    return t->q_tiles && t->key_tiles && t->value_tiles && t->weight_tiles ? 0 : -1;
}

int attend_init(struct attend *t, const struct attend_kernels *kernels,
                const struct attend_bulk *matrix_unit, int dim, struct arena *scratch)
{
    *t = (struct attend){
        .kernels = kernels, .matrix_unit = matrix_unit, .dim = dim, .width = padded(dim)};
    size_t state = attend_state_floats(t, BULK_ROWS);
    float *total = arena_alloc(scratch, state, sizeof(float));
    float *part = arena_alloc(scratch, state, sizeof(float));
    t->q = arena_alloc(scratch, ATTEND_ROWS, (size_t)dim * sizeof(float));
    t->keys = arena_zalloc(scratch, ATTEND_LD, (size_t)t->width * sizeof(float));
    t->values = arena_alloc(scratch, ATTEND_KEYS, (size_t)t->width * sizeof(float));
    t->scores = arena_alloc(scratch, (size_t)BULK_ROWS * ATTEND_KEYS, sizeof(float));
    if (!total || !part || !t->q || !t->keys || !t->values || !t->scores ||
        (matrix_unit && init_bulk(t, scratch))) {
        return -1;
    }
    t->total = attend_state_in(t, total, BULK_ROWS);
    t->part = attend_state_in(t, part, BULK_ROWS);
    return 0;
}

void attend_begin(struct attend *t, int rows)
{
    t->parts = 0;
    t->direct = rows <= ATTEND_BLOCK && t->dim == t->width;
    memset(t->total.sum, 0, (size_t)rows * (size_t)t->width * sizeof *t->total.sum);
    for (int r = 0; r < rows; r++) {
        t->total.max[r] = -INFINITY;
        t->total.norm[r] = 0;
    }
}

void attend_begin_bulk(struct attend *t, int rows, int parts)
{
    attend_begin(t, rows);
    if (t->matrix_unit) {
        t->parts = parts;
        t->direct = false;
        t->matrix_unit->left(t->q_tiles, t->q, (size_t)t->dim, rows, t->dim, ATTEND_BULK_PARTS);
    }
}

/* Where key or value `at` of the tile begins while it waits as a row. */
static float *waiting_row(const struct attend *t, float *rows, int at)
{
    return rows + (size_t)at * (size_t)t->width;
}

void attend_load_f16(struct attend *t, int at, const uint16_t *k, const uint16_t *v, int n)
{
    t->n_loaded = at + n;
    if (t->parts > 0) {
        t->kernels->rows_f16(waiting_row(t, t->keys, at), k, n, t->dim, t->width);
        t->kernels->rows_f16(waiting_row(t, t->values, at), v, n, t->dim, t->width);
        return;
    }
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
    t->n_loaded = at + n;
    if (t->parts > 0) {
        t->kernels->rows_q8(waiting_row(t, t->keys, at), k, n, t->dim, t->width);
    } else {
        t->kernels->columns_q8(t->keys + at, k, n, t->dim);
    }
    t->kernels->rows_q8(waiting_row(t, t->values, at), v, n, t->dim, t->width);
}

/* Rows of dim numbers, ld apart, to rows of width, 0 behind dim. */
static void copy_rows(const struct attend *t, float *to, const float *from, size_t ld, int n)
{
    for (int i = 0; i < n; i++, to += t->width, from += ld) {
        memcpy(to, from, (size_t)t->dim * sizeof *to);
        memset(to + t->dim, 0, (size_t)(t->width - t->dim) * sizeof *to);
    }
}

void attend_load_f32(struct attend *t, int at, const float *k, const float *v, size_t ld, int n)
{
    t->direct = false;
    t->n_loaded = at + n;
    if (t->parts > 0) {
        copy_rows(t, waiting_row(t, t->keys, at), k, ld, n);
    } else {
        t->kernels->columns_f32(t->keys + at, k, ld, n, t->dim);
    }
    copy_rows(t, waiting_row(t, t->values, at), v, ld, n);
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

/* A product writes whole blocks of rows: sums go to t->part, which has room for them. What
 * no row of two blocks sees is left out; keys up to the next 32 have weight 0. */
static void tile_in_bulk(struct attend *t, int rows, const struct attend_terms *terms,
                         const struct attend_state *part)
{
    const struct attend_bulk *unit = t->matrix_unit;
    size_t width = (size_t)t->width;
    unit->right_columns(t->key_tiles, t->keys, width, t->n_loaded, t->dim);
    unit->right_rows(t->value_tiles, t->values, width, t->width, t->n_loaded, t->parts);
    for (int first = 0; first < rows; first += BULK_STEP) {
        int n = rows - first < BULK_STEP ? rows - first : BULK_STEP;
        int n_keys = keys_of_block(t, first, n);
        int depth = attend_bulk_blocks(n_keys, ATTEND_BULK_DEPTH) * ATTEND_BULK_DEPTH;
        float *scores = t->scores + (size_t)first * ATTEND_KEYS;
        uint16_t *weights = t->weight_tiles;
        unit->product(scores, ATTEND_KEYS, t->q_tiles + attend_bulk_words(first, t->dim), t->dim,
                      t->key_tiles, t->dim, n, t->dim, n_keys, ATTEND_BULK_PARTS);
        for (int r = 0; r < n; r++) {
            t->kernels->weigh(scores + (size_t)r * ATTEND_KEYS, t->visible[first + r], depth, terms,
                              t->position[first + r], part->max + first + r,
                              part->norm + first + r);
        }
        unit->left(weights, scores, ATTEND_KEYS, n, depth, t->parts);
        unit->product(t->part.sum + (size_t)first * width, width, weights, depth, t->value_tiles,
                      t->n_loaded, n, n_keys, t->width, t->parts);
    }
    if (part->sum != t->part.sum) {
        memcpy(part->sum, t->part.sum, (size_t)rows * width * sizeof *part->sum);
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
    if (t->parts > 0) {
        tile_in_bulk(t, rows, terms, part);
        return;
    }
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
