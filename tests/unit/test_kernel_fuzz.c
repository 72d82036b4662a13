/* Every kernel set that this CPU runs against the portable one, on shapes and
 * numbers that a generator draws: any number of outputs, rows and columns that
 * the type allows, zeros, subnormals and the largest factors, operands between
 * two pages that nobody may touch. A failure prints its seed. */
#include "base/rng.h"
#include "tensor/attend.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/packed_kernels.h"
#include "tensor/quant.h"
#include "tensor/vector_ops_impl.h"
#include "tensor/weight.h"
#include "tests/test.h"
#include "tests/unit/blocks_fixture.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory between two guard pages
 * ---------------------------------------------------- */

#define MOST_MAPPINGS 64

struct fuzz {
    struct rng r;
    struct {
        void *p;
        size_t bytes;
    } mappings[MOST_MAPPINGS];
    int n_mappings;
};

/* Up against the page before or the one behind, as it falls. */
static void *between_pages(struct fuzz *f, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (n + page - 1) / page * page;
    size_t bytes = body + 2 * page;
    unsigned char *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED && f->n_mappings < MOST_MAPPINGS);
    CHECK_INT(mprotect(p + page, body, PROT_READ | PROT_WRITE), ==, 0);
    f->mappings[f->n_mappings].p = p;
    f->mappings[f->n_mappings++].bytes = bytes;
    return rng_below(&f->r, 2) ? p + page : p + page + body - n;
}

/* All but the first `kept`. */
static void unmap_from(struct fuzz *f, int kept)
{
    while (f->n_mappings > kept) {
        f->n_mappings--;
        munmap(f->mappings[f->n_mappings].p, f->mappings[f->n_mappings].bytes);
    }
}

static int between(struct fuzz *f, int low, int high)
{
    return low + (int)rng_below(&f->r, (uint64_t)high - (uint64_t)low + 1);
}

/* ---- numbers
 * -----------------------------------------------------------------------------
 */

static const enum tensor_type types[] = {TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0, TENSOR_Q4_1,
                                         TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0, TENSOR_Q4_K,
                                         TENSOR_Q5_K, TENSOR_Q6_K};
enum { N_TYPES = sizeof types / sizeof *types };

/* Halves: zero, minus zero, the smallest and largest subnormal, the largest,
 * one. */
static const uint16_t odd_halves[] = {0, 0x8000, 1, 0x03ff, 0x7bff, 0xfbff, 0x3c00};
/* bf16: zero, a subnormal, 2^-100, 2^40. */
static const uint16_t odd_bf16[] = {0, 0x8000, 0x0003, 0x0d80, 0x5380, 0xd380};

#define PICK(f, list) (list)[rng_below(&(f)->r, sizeof(list) / sizeof *(list))]

/* Where the factor of a block of this type is. */
static size_t factor_at(enum tensor_type type)
{
    return type == TENSOR_Q6_K ? 208 : 0;
}

/* Blocks, one in `rare` with an odd factor (or numbers, one in `rare` odd). */
static void draw_weights(struct fuzz *f, uint8_t *p, size_t bytes, enum tensor_type type)
{
    size_t step = (size_t)tensor_type_traits(type)->block_bytes;
    uint64_t rare = (uint64_t)between(f, 1, 20);
    fill_blocks(p, bytes, type, &f->r);
    for (size_t at = 0; at < bytes; at += step) {
        if (rng_below(&f->r, rare) == 0) {
            uint16_t h = type == TENSOR_BF16 ? PICK(f, odd_bf16) : PICK(f, odd_halves);
            memcpy(p + at + factor_at(type), &h, sizeof h);
        }
    }
}

static void draw_numbers(struct fuzz *f, float *x, size_t n)
{
    static const float sizes[] = {0, 1e-44f, 1e-39f, 1e-31f, 1e-29f, 1e-3f, 1, 1, 1, 100, 1e9f};
    float size = 1;
    for (size_t i = 0; i < n; i++) {
        if (i % 16 == 0) {
            size = PICK(f, sizes);
        }
        x[i] = (float)(rng_double(&f->r) * 2 - 1) * size;
    }
}

/* ---- packed products
 * ----------------------------------------------------------------------- */

struct product_case {
    enum tensor_type type;
    int n_out, n_in, n_rows;
    struct packed p; /* its data between two pages */
    uint8_t *file;   /* the rows as a file has them */
    size_t row_bytes;
    float *x, *bias;
    double *size; /* [n_rows, n_out] sum of the magnitudes of what is added */
    double *lost; /* the same shape: what flushing subnormals may take away */
};

/* A weight with its parts' magnitudes, |d| |q| + |m|: where they cancel they
 * round as much. */
static double magnitude(const struct packed *p, int o, int k, float w)
{
    if (!packed_is_integer(p)) {
        return fabs((double)w);
    }
    const uint8_t *block = packed_block(p, o / PACKED_LANES, k / PACKED_BLOCK);
    uint16_t m;
    memcpy(&m, packed_factors(p, block) + 2 * (size_t)(PACKED_LANES + o % PACKED_LANES), sizeof m);
    return fabs((double)w) + 2 * fabs((double)op_f16_to_f32(m));
}

static void measure(struct fuzz *f, struct product_case *c)
{
    size_t n = (size_t)c->n_rows * (size_t)c->n_out;
    float *w = between_pages(f, (size_t)c->n_in * sizeof *w);
    c->size = between_pages(f, (n + n) * sizeof *c->size);
    c->lost = c->size + n;
    for (int i = 0; i < c->n_rows * c->n_out; i++) {
        int o = i % c->n_out;
        const float *x = c->x + (size_t)(i / c->n_out) * (size_t)c->n_in;
        packed_row(&c->p, o, w);
        c->size[i] = fabs((double)c->bias[o]);
        c->lost[i] = 1e-36;
        double largest = 0; /* an activation is rounded in steps of its block's largest */
        for (int k = 0; k < c->n_in; k++) {
            largest = k % PACKED_BLOCK ? largest : 0;
            for (int j = k; k % PACKED_BLOCK == 0 && j < c->n_in && j < k + PACKED_BLOCK; j++) {
                largest = fmax(largest, fabs((double)x[j]));
            }
            double size = magnitude(&c->p, o, k, w[k]);
            c->size[i] += size * (fabs((double)x[k]) + largest / PACKED_MOST);
            c->lost[i] += 1.2e-38 * (size + fabs((double)x[k]));
        }
    }
}

/* A multiple of `step` up to `most`. */
static int width(struct fuzz *f, int step, int most)
{
    return step * between(f, 1, most > step ? most / step : 1);
}

/* Most are small; some are longer than what matrix units widen at a time
 * (BULK_WIDE_BLOCKS), some have more rows than share the widened weights
 * (BULK_MOST_ROWS). */
static void draw_shape(struct fuzz *f, struct product_case *c)
{
    int step = tensor_type_traits(c->type)->block_elements;
    switch (rng_below(&f->r, 16)) {
    case 0:
        c->n_out = between(f, 1, 50);
        c->n_in = width(f, step, 2 * BULK_WIDE_BLOCKS * PACKED_BLOCK + 200);
        c->n_rows = between(f, 1, 20);
        return;
    case 1:
        c->n_out = between(f, 1, 20);
        c->n_in = width(f, step, 70);
        c->n_rows = between(f, BULK_MOST_ROWS - 2, BULK_MOST_ROWS + 40);
        return;
    default:
        c->n_out = between(f, 1, rng_below(&f->r, 3) ? 40 : 90);
        c->n_in = width(f, step, step == 256 ? 512 : 300);
        c->n_rows = between(f, 1, 40);
    }
}

static struct product_case draw_product(struct fuzz *f)
{
    struct err e = ERR_INIT;
    struct product_case c = {.type = PICK(f, types)};
    int step = tensor_type_traits(c.type)->block_elements;
    draw_shape(f, &c);
    c.row_bytes = (size_t)(c.n_in / step) * (size_t)tensor_type_traits(c.type)->block_bytes;
    c.file = between_pages(f, (size_t)c.n_out * c.row_bytes);
    draw_weights(f, c.file, (size_t)c.n_out * c.row_bytes, c.type);
    CHECK_OK(packed_init(&c.p, c.type, c.n_out, c.n_in, &e), e);
    packed_fill(&c.p, c.type, c.file, c.row_bytes, 0, c.p.n_panels);
    size_t bytes = (size_t)c.p.n_panels * (size_t)c.p.n_blocks * c.p.block_bytes;
    struct packed own = c.p;
    c.p.data = between_pages(f, bytes);
    memcpy(c.p.data, own.data, bytes);
    packed_clear(&own);
    c.x = between_pages(f, (size_t)c.n_rows * (size_t)c.n_in * sizeof *c.x);
    c.bias = between_pages(f, (size_t)c.n_out * sizeof *c.bias);
    draw_numbers(f, c.x, (size_t)c.n_rows * (size_t)c.n_in);
    draw_numbers(f, c.bias, (size_t)c.n_out);
    measure(f, &c);
    return c;
}

static struct packed_rows round_rows(struct fuzz *f, const struct product_case *c,
                                     const struct packed_kernels *k)
{
    int group = packed_group(c->n_rows);
    size_t padded = ((size_t)c->n_rows + (size_t)group - 1) / (size_t)group * (size_t)group;
    size_t n = padded * (size_t)c->p.n_blocks;
    struct packed_rows to = {
        .n_rows = c->n_rows,
        .n_blocks = c->p.n_blocks,
        .group = group,
        .q = between_pages(f, n * PACKED_ROW_BLOCK),
        .scale = between_pages(f, n * sizeof(float)),
        .scaled_sum = between_pages(f, n * sizeof(float)),
        .offset = between_pages(f, n * sizeof(int32_t)),
    };
    for (int i = 0; i < c->n_rows; i++) {
        k->round_row(c->x + (size_t)i * (size_t)c->n_in, c->n_in, &to, i);
    }
    return to;
}

static void same_rows(const struct packed_rows *a, const struct packed_rows *b)
{
    for (int i = 0; i < a->n_rows * a->n_blocks; i++) {
        size_t at = packed_at(a, i / a->n_blocks, i % a->n_blocks);
        CHECK(memcmp(a->q + at * PACKED_ROW_BLOCK, b->q + at * PACKED_ROW_BLOCK,
                     PACKED_ROW_BLOCK) == 0);
        CHECK(test_same_bits(a->scale + at, b->scale + at, 1));
        CHECK(test_same_bits(a->scaled_sum + at, b->scaled_sum + at, 1));
        CHECK_INT(a->offset[at], ==, b->offset[at]);
    }
}

/* All panels, in two pieces as it falls. */
static float *multiply(struct fuzz *f, const struct product_case *c, const struct packed_kernels *k,
                       const struct packed_rows *rows, const float *bias)
{
    float *y = between_pages(f, (size_t)c->n_rows * (size_t)c->n_out * sizeof *y);
    int cut[3] = {0, between(f, 0, c->p.n_panels), c->p.n_panels};
    for (int i = 0; i < 2; i++) {
        if (packed_is_integer(&c->p)) {
            k->multiply(&c->p, cut[i], cut[i + 1], rows, bias, y, c->n_out);
        } else {
            k->multiply_halves(&c->p, cut[i], cut[i + 1], c->x, c->n_in, c->n_rows, bias, y,
                               c->n_out);
        }
    }
    return y;
}

static void near(const struct product_case *c, const char *set, const float *got, const float *want,
                 double step)
{
    for (int i = 0; i < c->n_rows * c->n_out; i++) {
        double off = fabs((double)got[i] - (double)want[i]);
        if (!(off <= step * c->size[i] + c->lost[i])) {
            FAIL("%s, %s: %d x %d, row %d of %d, output %d: %g in place of %g (of %g)", set,
                 tensor_type_traits(c->type)->name, c->n_out, c->n_in, i / c->n_out, c->n_rows,
                 i % c->n_out, (double)got[i], (double)want[i], c->size[i]);
        }
    }
}

/* The product in double: the loops for integers round activations otherwise. */
static void multiply_exactly(struct fuzz *f, const struct product_case *c, float *y)
{
    float *w = between_pages(f, (size_t)c->n_in * sizeof *w);
    for (int i = 0; i < c->n_rows * c->n_out; i++) {
        int o = i % c->n_out;
        const float *x = c->x + (size_t)(i / c->n_out) * (size_t)c->n_in;
        packed_row(&c->p, o, w);
        double sum = (double)c->bias[o];
        for (int k = 0; k < c->n_in; k++) {
            sum += (double)w[k] * (double)x[k];
        }
        y[i] = (float)sum;
    }
}

/* Matrix units. 16-bit weights: an activation keeps 16 of its bits; integers:
 * it and the weight keep 8. */
static void fuzz_bulk(struct fuzz *f, const struct product_case *c, const struct kernels *set,
                      const float *want)
{
    const struct packed_kernels *k = set->packed;
    int padded = (c->n_rows + BULK_ROWS - 1) / BULK_ROWS * BULK_ROWS;
    int n_parts = packed_bulk_parts(&c->p);
    size_t width = (size_t)c->p.n_blocks * (size_t)n_parts * PACKED_BLOCK;
    uint16_t *wide = between_pages(f, (size_t)padded * width * sizeof *wide);
    float *y = between_pages(f, (size_t)c->n_rows * (size_t)c->n_out * sizeof *y);
    void *scratch = between_pages(f, BULK_SCRATCH_BYTES);
    for (int i = 0; i < padded; i++) {
        bool is_row = i < c->n_rows;
        k->bulk_row(is_row ? c->x + (size_t)i * (size_t)c->n_in : c->x, is_row ? c->n_in : 0, wide,
                    i, c->p.n_blocks, n_parts);
    }
    k->bulk_multiply(&c->p, 0, c->p.n_panels, wide, c->n_rows, c->bias, y, c->n_out, scratch);
    if (packed_is_integer(&c->p)) {
        float *exact = between_pages(f, (size_t)c->n_rows * (size_t)c->n_out * sizeof *exact);
        multiply_exactly(f, c, exact);
        near(c, "bulk", y, exact, 0x1.1p-8);
    } else {
        near(c, "bulk", y, want, 0x1p-13);
    }
}

/* The row kernels on the file's own blocks. */
static void fuzz_file_rows(struct fuzz *f, const struct product_case *c, const struct kernels *set)
{
    const struct kernels *ref = kernels_choose("ref", NULL);
    int o = between(f, 0, c->n_out - 1);
    const uint8_t *row = c->file + (size_t)o * c->row_bytes;
    size_t bytes = (size_t)c->n_in * sizeof(float);
    float *want = between_pages(f, bytes);
    float *got = between_pages(f, bytes);
    ref->dequantize_row[c->type](row, want, c->n_in);
    set->dequantize_row[c->type](row, got, c->n_in);
    double size = 0;
    double lost = 1e-36;
    for (int k = 0; k < c->n_in; k++) {
        /* a product and a sum, rounded once or twice: of parts up to the block's
         * largest */
        double largest = 0;
        int first = k / 256 * 256;
        for (int j = first; j < c->n_in && j < first + 256; j++) {
            largest = fmax(largest, fabs((double)want[j]));
        }
        CHECK_DOUBLE(fabs((double)got[k] - (double)want[k]), <=, largest * 0x1p-21);
        size += largest * fabs((double)c->x[k]);
        lost += 1.2e-38 * (largest + fabs((double)c->x[k]));
    }
    double a = (double)ref->dot_row[c->type](row, c->x, c->n_in);
    double b = (double)set->dot_row[c->type](row, c->x, c->n_in);
    CHECK_DOUBLE(fabs(a - b), <=, size * c->n_in * 0x1p-23 + lost);
}

static void fuzz_products(struct fuzz *f)
{
    struct product_case c = draw_product(f);
    struct packed_rows want_rows = round_rows(f, &c, &packed_ref);
    const float *bias = rng_below(&f->r, 4) ? c.bias : NULL;
    float *want = multiply(f, &c, &packed_ref, &want_rows, bias);
    int kept = f->n_mappings;
    for (const char *const *name = kernels_names() + 2; *name; name++) {
        struct err e = ERR_INIT;
        const struct kernels *set = kernels_choose(*name, &e);
        if (!set) {
            continue;
        }
        struct packed_rows rows = round_rows(f, &c, set->packed);
        same_rows(&rows, &want_rows);
        float *got = multiply(f, &c, set->packed, &rows, bias);
        /* the same integers; every block (16-bit weights: every column) rounded
         * once or twice */
        double steps = packed_is_integer(&c.p) ? 2 * c.p.n_blocks + 2 : c.n_in + 2;
        near(&c, *name, got, want, steps * 0x1p-24);
        if (set->packed->bulk_multiply && bias) {
            fuzz_bulk(f, &c, set, want);
        }
        fuzz_file_rows(f, &c, set);
        unmap_from(f, kept);
    }
    unmap_from(f, 0);
}

/* ---- rows of answers beside rows of a prompt
 * ---------------------------------------------- */

/* y [n_rows, n_out] of rows from `first` on; the first n_answer of them are of
 * answers. */
static float *multiply_rows(struct fuzz *f, const struct weight *w, const struct compute *c,
                            const float *x, int n_rows, int n_answer)
{
    struct err e = ERR_INIT;
    struct compute own = *c;
    float *y = between_pages(f, (size_t)n_rows * (size_t)w->n_out * sizeof *y);
    own.n_answer_rows = n_answer;
    CHECK_OK(weight_matmul(w, x, w->n_in, n_rows, y, w->n_out, &own, &e), e);
    return y;
}

/* In one product, a row has the bits that it has alone, of an answer or of a
 * prompt. */
static void fuzz_mixed(struct fuzz *f, struct pool *pool)
{
    struct err e = ERR_INIT;
    struct weight w = {.type = PICK(f, types)};
    int step = tensor_type_traits(w.type)->block_elements;
    int n_rows = between(f, 1, 40);
    int n_answer = between(f, 0, n_rows);
    w.n_out = between(f, 1, 120);
    w.n_in = width(f, step, step == 256 ? 512 : 300);
    w.is_sensitive = rng_below(&f->r, 2);
    w.row_bytes = (size_t)(w.n_in / step) * (size_t)tensor_type_traits(w.type)->block_bytes;
    uint8_t *blocks = between_pages(f, (size_t)w.n_out * w.row_bytes);
    float *bias = between_pages(f, (size_t)w.n_out * sizeof *bias);
    float *x = between_pages(f, (size_t)n_rows * (size_t)w.n_in * sizeof *x);
    draw_weights(f, blocks, (size_t)w.n_out * w.row_bytes, w.type);
    draw_numbers(f, bias, (size_t)w.n_out);
    draw_numbers(f, x, (size_t)n_rows * (size_t)w.n_in);
    w.data = blocks;
    w.bias = bias;
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        struct compute c = {.pool = pool, .kernels = kernels_choose(*name, &e), .bulk = true};
        if (!c.kernels) {
            continue;
        }
        CHECK_OK(weights_pack(&(struct weight *){&w}, 1, &c, &e), e);
        int kept = f->n_mappings;
        const float *together = multiply_rows(f, &w, &c, x, n_rows, n_answer);
        for (int i = 0; i < 3; i++) {
            int r = between(f, 0, n_rows - 1);
            c.pool = i % 2 ? pool : NULL;
            const float *alone =
                multiply_rows(f, &w, &c, x + (size_t)r * (size_t)w.n_in, 1, r < n_answer);
            const float *same = together + (size_t)r * (size_t)w.n_out;
            if (!test_same_bits(alone, same, (size_t)w.n_out)) {
                FAIL("%s, %s: %d x %d, row %d of %d (%d of answers) differs from "
                     "itself alone",
                     *name, tensor_type_traits(w.type)->name, w.n_out, w.n_in, r, n_rows, n_answer);
            }
        }
        packed_clear(&w.packed);
        unmap_from(f, kept);
    }
    unmap_from(f, 0);
}

/* ---- attention
 * ------------------------------------------------------------------------------
 */

enum attend_form { FORM_F16, FORM_F32, FORM_Q8, N_FORMS };

struct attend_case {
    enum attend_form form;
    int dim, n_keys, rows;
    int visible[ATTEND_ROWS];
    float position[ATTEND_ROWS];
    struct attend_terms terms;
    float *q;
    const void *k, *v;
    const uint16_t *k_scale, *v_scale;
    double tolerance;
};

/* Keys or values in the form of the case; *largest: of their magnitudes. */
static const void *draw_keys(struct fuzz *f, const struct attend_case *c, float size,
                             const uint16_t **scales, double *largest)
{
    size_t n = (size_t)c->n_keys * (size_t)c->dim;
    size_t n_scales = (size_t)c->n_keys * (size_t)attend_q8_blocks(c->dim);
    float *x = between_pages(f, n * sizeof *x);
    uint16_t *halves = between_pages(f, n * sizeof *halves);
    int8_t *bytes = between_pages(f, n);
    uint16_t *scale = between_pages(f, n_scales * sizeof *scale);
    *scales = scale;
    for (size_t i = 0; i < n; i++) {
        static const float odd[] = {0, 1e-7f, 1e-40f};
        double u = rng_double(&f->r) * 2 - 1;
        x[i] = rng_below(&f->r, 6) ? (float)u * size : PICK(f, odd);
        halves[i] = op_f32_to_f16(x[i]);
        *largest = fmax(*largest, fabs((double)x[i]));
    }
    for (int j = 0; j < c->n_keys; j++) {
        attend_ref.round_q8(x + (size_t)j * (size_t)c->dim, c->dim,
                            bytes + (size_t)j * (size_t)c->dim,
                            scale + (size_t)j * (size_t)attend_q8_blocks(c->dim));
    }
    return c->form == FORM_F32 ? (const void *)x : c->form == FORM_F16 ? (void *)halves : bytes;
}

static struct attend_case draw_attention(struct fuzz *f)
{
    static const float sizes[] = {1e-6f, 0.1f, 1, 1, 30};
    static const float value_sizes[] = {1e-5f, 1, 1, 60000};
    struct attend_case c = {.form = (enum attend_form)rng_below(&f->r, N_FORMS),
                            .dim = between(f, 1, 160),
                            .n_keys = between(f, 1, ATTEND_KEYS),
                            .rows = between(f, 1, rng_below(&f->r, 2) ? 8 : 40)};
    double key = 0;
    double value = 0;
    float size = PICK(f, sizes);
    c.k = draw_keys(f, &c, size, &c.k_scale, &key);
    c.v = draw_keys(f, &c, PICK(f, value_sizes), &c.v_scale, &value);
    c.q = between_pages(f, (size_t)c.rows * (size_t)c.dim * sizeof *c.q);
    for (int i = 0; i < c.rows * c.dim; i++) {
        c.q[i] = (float)(rng_double(&f->r) * 2 - 1);
    }
    float *bias = between_pages(f, (size_t)c.n_keys * sizeof *bias);
    float *key_position = between_pages(f, (size_t)c.n_keys * sizeof *key_position);
    for (int i = 0; i < c.n_keys; i++) {
        bias[i] = logf((float)between(f, 1, 9));
        key_position[i] = (float)(2 * i);
    }
    for (int i = 0; i < c.rows; i++) {
        c.visible[i] = between(f, 0, c.n_keys);
        c.position[i] = (float)between(f, 0, 2 * c.n_keys);
    }
    c.terms = (struct attend_terms){.softcap = rng_below(&f->r, 3) ? 0 : 20,
                                    .bias = rng_below(&f->r, 2) ? bias : NULL,
                                    .key_position = key_position,
                                    .window = rng_below(&f->r, 3) ? 0 : (float)between(f, 1, 99)};
    /* A score is a sum of dim products of at most `key`, each step rounded once
     * or twice, and moves its weight by as much of itself; e^x and tanh are good
     * to a few 1e-7. */
    double score = c.dim * key;
    c.tolerance = value * (2 * score * (c.dim + 2) * 0x1p-24 + 4e-6);
    return c;
}

/* Rows [first, first + n) of the case. */
static void attend(const struct attend_case *c, const struct attend_kernels *k, int first, int n,
                   struct arena *a, float *out)
{
    struct attend t;
    struct arena_mark mark = arena_mark(a);
    size_t dim = (size_t)c->dim;
    CHECK_INT(attend_init(&t, k, NULL, c->dim, a), ==, 0);
    memcpy(t.q, c->q + (size_t)first * dim, (size_t)n * dim * sizeof *t.q);
    memcpy(t.position, c->position + first, (size_t)n * sizeof *t.position);
    memcpy(t.visible, c->visible + first, (size_t)n * sizeof *t.visible);
    attend_begin(&t, n);
    switch (c->form) {
    case FORM_F16:
        attend_load_f16(&t, 0, c->k, c->v, c->n_keys);
        break;
    case FORM_F32:
        attend_load_f32(&t, 0, c->k, c->v, dim, c->n_keys);
        break;
    default:
        attend_load_q8(&t, 0, &(struct attend_q8){c->k, c->k_scale},
                       &(struct attend_q8){c->v, c->v_scale}, c->n_keys);
    }
    attend_tile(&t, n, &c->terms, &t.part);
    attend_add(&t, n, &t.part);
    for (int i = 0; i < n; i++) {
        attend_store(&t, i, out + (size_t)i * dim);
    }
    arena_rewind(a, mark);
}

static void fuzz_attention(struct fuzz *f, struct arena *a)
{
    struct attend_case c = draw_attention(f);
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    size_t n = (size_t)c.rows * (size_t)c.dim;
    float *want = between_pages(f, n * sizeof *want);
    float *got = between_pages(f, n * sizeof *got);
    float *alone = between_pages(f, (size_t)c.dim * sizeof *alone);
    attend(&c, &attend_ref, 0, c.rows, a, want);
    for (int k = 0; k < n_sets; k++) {
        attend(&c, sets[k]->attend, 0, c.rows, a, got);
        for (size_t i = 0; i < n; i++) {
            double off = fabs((double)got[i] - (double)want[i]);
            if (isnan(want[i]) ? !isnan(got[i]) : !(off <= c.tolerance)) {
                FAIL("set %d, form %d, dim %d, %d keys, row %zu of %d: %g in place of "
                     "%g (+- %g)",
                     k, (int)c.form, c.dim, c.n_keys, i / (size_t)c.dim, c.rows, (double)got[i],
                     (double)want[i], c.tolerance);
            }
        }
        int row = between(f, 0, c.rows - 1);
        attend(&c, sets[k]->attend, row, 1, a, alone);
        for (int i = 0; i < c.dim; i++) {
            const float *same = got + (size_t)row * (size_t)c.dim + i;
            CHECK((isnan(alone[i]) && isnan(*same)) || test_same_bits(alone + i, same, 1));
        }
    }
    unmap_from(f, 0);
}

static void run(int products, int mixtures, int attentions)
{
    struct err e = ERR_INIT;
    struct fuzz f = {.n_mappings = 0};
    struct pool *pool = pool_new(3, &e);
    CHECK(pool);
    struct arena a;
    rng_init(&f.r, test_seed());
    arena_init(&a, (size_t)1 << 26);
    for (int i = 0; i < products; i++) {
        fuzz_products(&f);
    }
    for (int i = 0; i < mixtures; i++) {
        fuzz_mixed(&f, pool);
    }
    for (int i = 0; i < attentions; i++) {
        fuzz_attention(&f, &a);
    }
    arena_clear(&a);
    pool_free(pool);
}

TEST(kernel_fuzz, "random shapes and numbers: products and attention of every "
                  "set near the reference")
{
    run(150, 100, 150);
}

SLOW_TEST(kernel_fuzz_long, "the same, many more of them")
{
    run(2500, 2000, 4000);
}
