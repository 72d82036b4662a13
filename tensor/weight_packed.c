/* Round the rows once, then hand out panels. Panels of all weights of a product form one
 * row of units, so that a small matrix beside a large one leaves no thread without work,
 * and one job of the pool serves them all. */
#include "tensor/weight_packed.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "tensor/kernels.h"
#include "tensor/packed_kernels.h"

#include <stdatomic.h>

/* Panels of one unit. */
#define UNIT_PANELS 4
/* From here on rounding is worth waking the pool. */
#define POOL_ROWS 8

/* What one block of activations takes: its bytes, scale, scaled sum and offset. */
#define BLOCK_BYTES (PACKED_ROW_BLOCK + 2 * sizeof(float) + sizeof(int32_t))

/* Memory is fastest read from one end to the other, so each thread has a run of units of its
 * own; who is through with his takes from the others', for CPUs are not equally fast. */
#define MOST_SHARES 64

struct share {
    _Alignas(64) atomic_int next;
    int end;
};

struct run {
    const struct packed_product *p;
    const struct packed_kernels *k;
    const float *x;
    int ldx, n_rows, n_in;
    int n_alone;             /* bulk: rows of answers, the first ones; else all */
    bool rounds;             /* integer weights meet some of these */
    struct packed_rows rows; /* the first n_alone as bytes, where weights are integers */
    uint16_t *wide;          /* bulk: what bulk_row makes of the rows; else NULL */
    int n_parts;             /* bulk: bf16 numbers in an activation; else 0 */
    uint8_t *scratch;        /* bulk: [threads, BULK_SCRATCH_BYTES] */
    struct share share[MOST_SHARES];
    int n_shares;
    int n_units;
};

/* Whole groups: bulk and packed rows have the same. */
static int padded(int n_rows)
{
    _Static_assert(BULK_ROWS == PACKED_GROUP, "both lie in groups of as many rows");
    return (n_rows + PACKED_GROUP - 1) / PACKED_GROUP * PACKED_GROUP;
}

static void round_rows(void *ctx, int ith, int nth)
{
    struct run *r = ctx;
    int begin;
    int end;
    pool_slice(r->n_alone, 1, ith, nth, &begin, &end);
    for (int i = begin; i < end; i++) {
        r->k->round_row(r->x + (size_t)i * (size_t)r->ldx, r->n_in, &r->rows, i);
    }
}

static void widen_rows(void *ctx, int ith, int nth)
{
    struct run *r = ctx;
    int n_rows = r->n_rows - r->n_alone;
    const float *x = r->x + (size_t)r->n_alone * (size_t)r->ldx;
    int begin;
    int end;
    pool_slice(padded(n_rows), 1, ith, nth, &begin, &end);
    for (int i = begin; i < end; i++) {
        if (i < n_rows) {
            r->k->bulk_row(x + (size_t)i * (size_t)r->ldx, r->n_in, r->wide, i, r->rows.n_blocks,
                           r->n_parts);
        } else {
            r->k->bulk_row(r->x, 0, r->wide, i, r->rows.n_blocks, r->n_parts);
        }
    }
}

static int units_of(const struct weight *w)
{
    return (w->packed.n_panels + UNIT_PANELS - 1) / UNIT_PANELS;
}

/* The first n_alone rows times panels [begin, end) of weight i. */
static void multiply_alone(const struct run *r, int i, int begin, int end)
{
    const struct packed_product *p = r->p;
    const struct weight *w = p->w[i];
    if (packed_is_integer(&w->packed)) {
        r->k->multiply(&w->packed, begin, end, &r->rows, w->bias, p->y[i], p->ldy[i]);
    } else {
        r->k->multiply_halves(&w->packed, begin, end, r->x, r->ldx, r->n_alone, w->bias, p->y[i],
                              p->ldy[i]);
    }
}

static void multiply_unit(const struct run *r, int unit)
{
    const struct packed_product *p = r->p;
    int i = 0;
    while (unit >= units_of(p->w[i])) {
        unit -= units_of(p->w[i++]);
    }
    int n_panels = p->w[i]->packed.n_panels;
    int begin = unit * UNIT_PANELS;
    int end = begin + UNIT_PANELS;
    multiply_alone(r, i, begin, end < n_panels ? end : n_panels);
}

static void share_units(struct run *r, int n_threads)
{
    r->n_shares = n_threads < MOST_SHARES ? n_threads : MOST_SHARES;
    for (int i = 0; i < r->n_shares; i++) {
        int begin;
        pool_slice(r->n_units, 1, i, r->n_shares, &begin, &r->share[i].end);
        atomic_init(&r->share[i].next, begin);
    }
}

static void multiply_units(void *ctx, int ith, int nth)
{
    struct run *r = ctx;
    (void)nth;
    for (int i = 0; i < r->n_shares; i++) {
        struct share *s = &r->share[(ith + i) % r->n_shares];
        for (;;) {
            int unit = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (unit >= s->end) {
                break;
            }
            multiply_unit(r, unit);
        }
    }
}

/* Panels [begin, end) of weight i. Rows of answers come first, a group of panels at a time:
 * the rows in bulk find its weights in the cache. */
static void multiply_both(const struct run *r, int i, int begin, int end, void *scratch)
{
    const struct packed_product *p = r->p;
    const struct weight *w = p->w[i];
    float *bulk_y = p->y[i] + (size_t)r->n_alone * (size_t)p->ldy[i];
    int step = r->n_alone > 0 ? BULK_GROUP : end - begin;
    for (int n; begin < end; begin += n) {
        n = end - begin < step ? end - begin : step;
        if (r->n_alone > 0) {
            multiply_alone(r, i, begin, begin + n);
        }
        r->k->bulk_multiply(&w->packed, begin, begin + n, r->wide, r->n_rows - r->n_alone, w->bias,
                            bulk_y, p->ldy[i], scratch);
    }
}

/* Bulk kernels gain from panels side by side, so each thread gets one stretch of them. */
static void multiply_bulk(void *ctx, int ith, int nth)
{
    struct run *r = ctx;
    const struct packed_product *p = r->p;
    int n_panels = 0;
    for (int i = 0; i < p->n_weights; i++) {
        n_panels += p->w[i]->packed.n_panels;
    }
    int begin;
    int end;
    pool_slice(n_panels, 1, ith, nth, &begin, &end);
    for (int i = 0; i < p->n_weights && end > 0; i++) {
        int n = p->w[i]->packed.n_panels;
        if (begin < n) {
            multiply_both(r, i, begin > 0 ? begin : 0, end < n ? end : n,
                          r->scratch + (size_t)ith * BULK_SCRATCH_BYTES);
        }
        begin -= n;
        end -= n;
    }
}

/* One piece of memory for what the rows become: scratch and rows in bulk, rows as bytes. */
static void *make_room(struct run *r, int n_threads, struct err *e)
{
    size_t n_blocks = (size_t)r->rows.n_blocks;
    size_t scratch_bytes = r->n_parts > 0 ? (size_t)n_threads * BULK_SCRATCH_BYTES : 0;
    size_t n_bulk = (size_t)padded(r->n_rows - r->n_alone);
    size_t n_bytes = r->rounds ? (size_t)r->n_alone : 0;
    if (r->n_alone > PACKED_GROUP && r->rounds) {
        n_bytes = (size_t)padded(r->n_alone);
    }
    size_t bulk_bytes;
    size_t row_bytes;
    size_t bytes;
    if (!ck_mul(n_bulk, n_blocks * (size_t)r->n_parts * PACKED_BLOCK * sizeof *r->wide,
                &bulk_bytes) ||
        !ck_mul(n_bytes, n_blocks * BLOCK_BYTES, &row_bytes) ||
        !ck_add(bulk_bytes, row_bytes, &bytes) || !ck_add(bytes, scratch_bytes, &bytes)) {
        err_set(e, ERR_TOO_LARGE, "%d rows of %d columns do not fit into memory", r->n_rows,
                r->n_in);
        return NULL;
    }
    uint8_t *memory = mem_alloc_aligned(bytes > 0 ? bytes : 1, 1);
    if (!memory) {
        err_no_memory(e, bytes);
        return NULL;
    }
    if (r->n_parts > 0) {
        r->scratch = memory;
        r->wide = (uint16_t *)(void *)(memory + scratch_bytes);
    }
    uint8_t *rows = memory + scratch_bytes + bulk_bytes;
    r->rows.q = (int8_t *)(void *)rows;
    r->rows.scale = (float *)(void *)(rows + n_bytes * n_blocks * PACKED_ROW_BLOCK);
    r->rows.scaled_sum = r->rows.scale + n_bytes * n_blocks;
    r->rows.offset = (int32_t *)(void *)(r->rows.scaled_sum + n_bytes * n_blocks);
    return memory;
}

static bool any_integer(const struct packed_product *p)
{
    for (int i = 0; i < p->n_weights; i++) {
        if (packed_is_integer(&p->w[i]->packed)) {
            return true;
        }
    }
    return false;
}

/* How many bf16 numbers an activation must be for all weights; 0: they do not agree, or
 * one number is too coarse for one of them. */
static int bulk_parts(const struct packed_product *p)
{
    int n_parts = packed_bulk_parts(&p->w[0]->packed);
    for (int i = 0; i < p->n_weights; i++) {
        const struct weight *w = p->w[i];
        bool is_coarse = packed_is_integer(&w->packed) && w->is_sensitive;
        if (is_coarse || packed_bulk_parts(&w->packed) != n_parts) {
            return 0;
        }
    }
    return n_parts;
}

int packed_matmul(const struct packed_product *p, const float *x, int ldx, int n_rows,
                  const struct compute *c, struct err *e)
{
    const struct packed *first = &p->w[0]->packed;
    struct run r = {
        .p = p,
        .k = c->kernels->packed,
        .x = x,
        .ldx = ldx,
        .n_rows = n_rows,
        .n_in = first->n_in,
        .rows = {.n_rows = n_rows, .n_blocks = first->n_blocks, .group = packed_group(n_rows)},
    };
    for (int i = 0; i < p->n_weights; i++) {
        r.n_units += units_of(p->w[i]);
    }
    r.n_parts = c->bulk && c->n_answer_rows < n_rows && r.k->bulk_multiply ? bulk_parts(p) : 0;
    r.n_alone = r.n_parts > 0 ? c->n_answer_rows : n_rows;
    r.rounds = r.n_alone > 0 && any_integer(p);
    r.rows.n_rows = r.n_alone;
    r.rows.group = packed_group(r.n_alone);
    void *memory = make_room(&r, pool_size(c->pool), e);
    if (!memory) {
        return -1;
    }
    struct pool *few = n_rows >= POOL_ROWS ? c->pool : NULL;
    if (r.rounds) {
        pool_run(few, round_rows, &r);
    }
    if (r.wide) {
        pool_run(few, widen_rows, &r);
        pool_run(c->pool, multiply_bulk, &r);
    } else {
        share_units(&r, pool_size(c->pool));
        pool_run(c->pool, multiply_units, &r);
    }
    mem_free(memory);
    return 0;
}

struct packing {
    struct weight *const *w;
    int n;
    int n_units; /* of all of them */
    atomic_int next;
};

static void pack_unit(const struct packing *p, int unit)
{
    int i = 0;
    while (!p->w[i]->packed.data || unit >= units_of(p->w[i])) {
        unit -= p->w[i]->packed.data ? units_of(p->w[i]) : 0;
        i++;
    }
    struct weight *w = p->w[i];
    int begin = unit * UNIT_PANELS;
    int end = begin + UNIT_PANELS < w->packed.n_panels ? begin + UNIT_PANELS : w->packed.n_panels;
    packed_fill(&w->packed, w->type, w->data, w->row_bytes, begin, end);
}

static void pack_units(void *ctx, int ith, int nth)
{
    struct packing *p = ctx;
    (void)ith;
    (void)nth;
    for (;;) {
        int unit = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (unit >= p->n_units) {
            return;
        }
        pack_unit(p, unit);
    }
}

int weights_pack(struct weight *const *w, int n, const struct compute *c, struct err *e)
{
    struct packing p = {.w = w, .n = n};
    struct packed **shapes = mem_alloc((size_t)n, sizeof *shapes);
    int n_shapes = 0;
    if (!shapes) {
        return err_no_memory(e, (size_t)n * sizeof *shapes);
    }
    for (int i = 0; i < n; i++) {
        if (packed_has(w[i]->type)) {
            packed_shape(&w[i]->packed, w[i]->type, w[i]->n_out, w[i]->n_in);
            shapes[n_shapes++] = &w[i]->packed;
            p.n_units += units_of(w[i]);
        }
    }
    if (n_shapes > 0 && packed_alloc(shapes, n_shapes, e)) {
        for (int i = 0; i < n_shapes; i++) {
            *shapes[i] = (struct packed){0};
        }
        mem_free(shapes);
        return -1;
    }
    mem_free(shapes);
    pool_run(c->pool, pack_units, &p);
    return 0;
}
