/* Round the rows once, then hand out panels. Panels of all weights of a product form one
 * row of units, so that a small matrix beside a large one leaves no thread without work,
 * and one job of the pool serves them all. */
#include "tensor/weight_packed.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "tensor/kernels.h"
#include "tensor/packed_kernels.h"

#include <stdatomic.h>
#include <string.h>

/* Panels of one unit: a multiple of what a bulk kernel works on at once. */
#define UNIT_PANELS 4
/* From here on rounding is worth waking the pool. */
#define POOL_ROWS 8

/* What one block of activations takes: its bytes, scale, scaled sum and offset. */
#define BLOCK_BYTES (PACKED_ROW_BLOCK + 2 * sizeof(float) + sizeof(int32_t))

struct run {
    const struct packed_product *p;
    const struct packed_kernels *k;
    const float *x;
    int ldx, n_rows, n_in;
    struct packed_rows rows;
    uint16_t *wide; /* bulk: [n_rows up to a multiple of BULK_ROWS, 32 n_blocks] */
    uint8_t *scratch;
    size_t scratch_bytes; /* of one thread */
    atomic_int next;
    int n_units;
};

static void round_rows(void *ctx, int ith, int nth)
{
    struct run *r = ctx;
    int begin;
    int end;
    pool_slice(r->n_rows, 1, ith, nth, &begin, &end);
    for (int i = begin; i < end; i++) {
        const float *x = r->x + (size_t)i * (size_t)r->ldx;
        if (r->wide) {
            size_t width = (size_t)r->rows.n_blocks * BULK_PARTS * PACKED_BLOCK;
            r->k->bulk_row(x, r->n_in, r->wide + (size_t)i * width, r->rows.n_blocks);
        } else {
            r->k->round_row(x, r->n_in, &r->rows, i);
        }
    }
}

static int units_of(const struct weight *w)
{
    return (w->packed.n_panels + UNIT_PANELS - 1) / UNIT_PANELS;
}

static void multiply_unit(const struct run *r, int unit, int ith)
{
    const struct packed_product *p = r->p;
    int i = 0;
    while (unit >= units_of(p->w[i])) {
        unit -= units_of(p->w[i++]);
    }
    const struct weight *w = p->w[i];
    int begin = unit * UNIT_PANELS;
    int end = begin + UNIT_PANELS;
    end = end < w->packed.n_panels ? end : w->packed.n_panels;
    if (r->wide) {
        r->k->bulk_multiply(&w->packed, begin, end, r->wide, r->n_rows, w->bias, p->y[i], p->ldy[i],
                            r->scratch + (size_t)ith * r->scratch_bytes);
    } else if (!packed_is_integer(&w->packed)) {
        r->k->multiply_halves(&w->packed, begin, end, r->x, r->ldx, r->n_rows, w->bias, p->y[i],
                              p->ldy[i]);
    } else {
        r->k->multiply(&w->packed, begin, end, &r->rows, w->bias, p->y[i], p->ldy[i]);
    }
}

static void multiply_units(void *ctx, int ith, int nth)
{
    struct run *r = ctx;
    (void)nth;
    for (;;) {
        int unit = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (unit >= r->n_units) {
            return;
        }
        multiply_unit(r, unit, ith);
    }
}

/* One piece of memory for what the rows become. */
static void *make_room(struct run *r, int n_threads, bool bulk, struct err *e)
{
    size_t width = (size_t)r->rows.n_blocks * BULK_PARTS * PACKED_BLOCK;
    size_t n_rows = (size_t)r->n_rows;
    if (bulk) {
        n_rows = (n_rows + BULK_ROWS - 1) / BULK_ROWS * BULK_ROWS;
        r->scratch_bytes = (bulk_scratch_bytes(&r->p->w[0]->packed) + 63) / 64 * 64;
    }
    size_t row_bytes = bulk ? width * sizeof *r->wide : (size_t)r->rows.n_blocks * BLOCK_BYTES;
    size_t bytes;
    if (!ck_mul(n_rows, row_bytes, &bytes) ||
        !ck_add(bytes, (size_t)n_threads * r->scratch_bytes + 64, &bytes)) {
        err_set(e, ERR_TOO_LARGE, "%d rows of %d columns do not fit into memory", r->n_rows,
                r->n_in);
        return NULL;
    }
    uint8_t *memory = mem_alloc_aligned(bytes, 1);
    if (!memory) {
        err_no_memory(e, bytes);
        return NULL;
    }
    if (bulk) {
        r->scratch = memory;
        r->wide = (uint16_t *)(void *)(memory + (size_t)n_threads * r->scratch_bytes);
        memset(r->wide + (size_t)r->n_rows * width, 0,
               (n_rows - (size_t)r->n_rows) * width * sizeof *r->wide);
        return memory;
    }
    size_t n_blocks = n_rows * (size_t)r->rows.n_blocks;
    r->rows.q = (int8_t *)(void *)memory;
    r->rows.scale = (float *)(void *)(memory + n_blocks * PACKED_ROW_BLOCK);
    r->rows.scaled_sum = r->rows.scale + n_blocks;
    r->rows.offset = (int32_t *)(void *)(r->rows.scaled_sum + n_blocks);
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
        .rows = {.n_rows = n_rows, .n_blocks = first->n_blocks},
    };
    for (int i = 0; i < p->n_weights; i++) {
        r.n_units += units_of(p->w[i]);
    }
    void *memory = make_room(&r, pool_size(c->pool), c->bulk && r.k->bulk_multiply, e);
    if (!memory) {
        return -1;
    }
    if (r.wide || any_integer(p)) {
        pool_run(n_rows >= POOL_ROWS ? c->pool : NULL, round_rows, &r);
    }
    pool_run(c->pool, multiply_units, &r);
    mem_free(memory);
    return 0;
}

struct packing {
    struct weight *w;
    atomic_int next;
};

static void pack_units(void *ctx, int ith, int nth)
{
    struct packing *p = ctx;
    struct weight *w = p->w;
    (void)ith;
    (void)nth;
    for (;;) {
        int unit = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (unit >= units_of(w)) {
            return;
        }
        int begin = unit * UNIT_PANELS;
        int end =
            begin + UNIT_PANELS < w->packed.n_panels ? begin + UNIT_PANELS : w->packed.n_panels;
        packed_fill(&w->packed, w->type, w->data, w->row_bytes, begin, end);
    }
}

int weight_pack(struct weight *w, const struct compute *c, struct err *e)
{
    if (!packed_has(w->type)) {
        return 0;
    }
    if (packed_init(&w->packed, w->type, w->n_out, w->n_in, e)) {
        return -1;
    }
    struct packing p = {.w = w};
    pool_run(c->pool, pack_units, &p);
    return 0;
}
