/* Packed weights: what the layouts keep of each type, and every set of packed kernels this
 * CPU can run against the portable one: odd shapes, tails, guard pages, and rows whose
 * bits do not depend on their neighbours. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/packed.h"
#include "tensor/packed_kernels.h"
#include "tensor/quant.h"
#include "tests/test.h"
#include "tests/unit/blocks_fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const enum tensor_type types[] = {TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0, TENSOR_Q4_1,
                                         TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0, TENSOR_Q4_K,
                                         TENSOR_Q5_K, TENSOR_Q6_K};
enum { N_TYPES = sizeof types / sizeof *types };

static size_t row_bytes(enum tensor_type type, int n_in)
{
    const struct tensor_type_traits *t = tensor_type_traits(type);
    return (size_t)(n_in / t->block_elements) * (size_t)t->block_bytes;
}

static struct packed pack(enum tensor_type type, int n_out, int n_in, struct rng *r,
                          uint8_t **blocks)
{
    struct packed p;
    struct err e = ERR_INIT;
    size_t bytes = (size_t)n_out * row_bytes(type, n_in);
    *blocks = test_guarded(NULL, bytes);
    fill_blocks(*blocks, bytes, type, r);
    CHECK_OK(packed_init(&p, type, n_out, n_in, &e), e);
    packed_fill(&p, type, *blocks, row_bytes(type, n_in), 0, p.n_panels);
    return p;
}

/* How far a packed weight may be from the file's, relative to the largest of its block of
 * 32 (256 where a factor spans 256): nothing where both factors are kept, 2^-11 of q d and
 * of m where they are rounded to halves, half a step of 1/127 where q is made anew. */
static double kept(enum tensor_type type)
{
    switch (type) {
    case TENSOR_F16:
    case TENSOR_BF16:
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_Q8_0:
        return FLT_EPSILON;
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
        return 1.0 / 512; /* d q and m are each up to twice what is left of their sum */
    default:
        return 0.5 / 127 * 1.01;
    }
}

TEST(packed_keeps_weights, "a packed matrix holds the weights of the file, as far as it says")
{
    struct rng r;
    rng_init(&r, test_seed());
    for (int i = 0; i < N_TYPES; i++) {
        bool plain = tensor_type_traits(types[i])->block_elements == 1;
        int n_in = plain ? 83 : 768;
        uint8_t *blocks;
        struct packed p = pack(types[i], 19, n_in, &r, &blocks);
        float want[768];
        float got[768];
        for (int o = 0; o < 19; o++) {
            quant_dequantize(types[i], blocks + (size_t)o * row_bytes(types[i], n_in), want, n_in);
            packed_row(&p, o, got);
            double most = 0;
            for (int k = 0; k < n_in; k++) {
                most = fmax(most, fabs((double)want[k]));
            }
            double diff = test_max_diff(got, want, (size_t)n_in);
            if (!(diff <= kept(types[i]) * most)) {
                FAIL("%s row %d: off by %g, largest %g", tensor_type_traits(types[i])->name, o,
                     diff, most);
            }
        }
        packed_clear(&p);
    }
}

/* Every block ends at a page nobody may touch. */
static struct packed_rows make_rows(int n_rows, int n_blocks)
{
    int group = packed_group(n_rows);
    size_t n = (size_t)((n_rows + group - 1) / group * group) * (size_t)n_blocks;
    return (struct packed_rows){
        .n_rows = n_rows,
        .n_blocks = n_blocks,
        .group = group,
        .q = test_guarded(NULL, n * PACKED_ROW_BLOCK),
        .scale = test_guarded(NULL, n * sizeof(float)),
        .scaled_sum = test_guarded(NULL, n * sizeof(float)),
        .offset = test_guarded(NULL, n * sizeof(int32_t)),
    };
}

static float *random_rows(struct rng *r, int n_rows, int n)
{
    float *x = test_guarded(NULL, (size_t)n_rows * (size_t)n * sizeof *x);
    for (int i = 0; i < n_rows * n; i++) {
        double u = rng_double(r) - 0.5;
        x[i] = (float)(u * u * u * 40); /* a few are far larger than the rest */
    }
    return x;
}

static void round_all(const struct packed_kernels *k, const float *x, int n_in,
                      struct packed_rows *to)
{
    for (int i = 0; i < to->n_rows; i++) {
        k->round_row(x + (size_t)i * (size_t)n_in, n_in, to, i);
    }
}

static void check_rounding(const struct packed_kernels *k, struct rng *r, int n_in)
{
    int n_blocks = (n_in + PACKED_BLOCK - 1) / PACKED_BLOCK;
    struct packed_rows want = make_rows(3, n_blocks);
    struct packed_rows got = make_rows(3, n_blocks);
    float *x = random_rows(r, 3, n_in);
    if (n_in > 3) {
        memset(x, 0, sizeof *x * 4);
    }
    x[n_in] = 1e-38f; /* the second row begins with what is too small to round */
    round_all(&packed_ref, x, n_in, &want);
    round_all(k, x, n_in, &got);
    size_t n = 3 * (size_t)n_blocks;
    CHECK(memcmp(want.q, got.q, n * PACKED_ROW_BLOCK) == 0);
    CHECK(test_same_bits(want.scale, got.scale, n));
    CHECK(test_same_bits(want.scaled_sum, got.scaled_sum, n));
    CHECK(memcmp(want.offset, got.offset, n * sizeof(int32_t)) == 0);
    for (int i = 0; i < 3 * n_in; i++) {
        size_t at = packed_at(&got, i / n_in, i % n_in / PACKED_BLOCK);
        const int8_t *q = got.q + at * PACKED_ROW_BLOCK + i % n_in % PACKED_BLOCK;
        float back = (float)(q[0] * PACKED_RADIX + q[PACKED_BLOCK]) * got.scale[at];
        CHECK_DOUBLE(fabs((double)(back - x[i])), <=, 0.501 * (double)got.scale[at] + 1e-37);
    }
}

/* Rows in both forms: rounded to bytes and as they were. */
struct operand {
    struct packed_rows rows;
    const float *wide;
    int n_in;
};

static void multiply(const struct packed_kernels *k, const struct packed *p, int begin, int end,
                     const struct operand *x, const float *bias, float *y)
{
    if (packed_is_integer(p)) {
        k->multiply(p, begin, end, &x->rows, bias, y, p->n_out);
    } else {
        k->multiply_halves(p, begin, end, x->wide, x->n_in, x->rows.n_rows, bias, y, p->n_out);
    }
}

/* One of the rows by itself. */
static struct operand row_of(const struct operand *x, int row)
{
    struct operand one = {make_rows(1, x->rows.n_blocks), x->wide + (size_t)(row * x->n_in),
                          x->n_in};
    round_all(&packed_ref, one.wide, one.n_in, &one.rows);
    return one;
}

static void check_product(const struct packed_kernels *k, struct rng *r, enum tensor_type type,
                          int n_out, int n_in, int n_rows)
{
    uint8_t *blocks;
    struct packed p = pack(type, n_out, n_in, r, &blocks);
    struct operand x = {make_rows(n_rows, p.n_blocks), random_rows(r, n_rows, n_in), n_in};
    float *bias = random_rows(r, 1, n_out);
    round_all(&packed_ref, x.wide, n_in, &x.rows);
    size_t n = (size_t)n_rows * (size_t)n_out;
    float *want = test_guarded(NULL, n * sizeof *want);
    float *got = test_guarded(NULL, n * sizeof *got);
    memset(got, 0xff, n * sizeof *got);
    multiply(&packed_ref, &p, 0, p.n_panels, &x, bias, want);
    int middle = p.n_panels / 2;
    multiply(k, &p, 0, middle, &x, bias, got);
    multiply(k, &p, middle, p.n_panels, &x, bias, got);
    /* the same integers, but each block rounded once or twice: relative to the sums */
    if (!(test_nmse(got, want, n) <= 1e-11)) {
        FAIL("%s %d x %d, %d rows: NMSE %g", tensor_type_traits(type)->name, n_out, n_in, n_rows,
             test_nmse(got, want, n));
    }
    float *alone = test_guarded(NULL, (size_t)n_out * sizeof *alone);
    for (int row = 0; row < n_rows; row++) {
        struct operand one = row_of(&x, row);
        multiply(k, &p, 0, p.n_panels, &one, bias, alone);
        CHECK(test_same_bits(alone, got + (size_t)row * (size_t)n_out, (size_t)n_out));
    }
    packed_clear(&p);
}

static void each_set(void (*check)(const struct packed_kernels *k, struct rng *r))
{
    struct rng r;
    rng_init(&r, test_seed());
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        struct err e = ERR_INIT;
        const struct kernels *k = kernels_choose(*name, &e);
        if (k) {
            check(k->packed, &r);
        }
    }
}

static void check_rounding_sizes(const struct packed_kernels *k, struct rng *r)
{
    static const int sizes[] = {1, 7, 8, 9, 16, 17, 31, 32, 33, 64, 95, 577};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_rounding(k, r, sizes[i]);
    }
}

TEST(packed_shared_memory,
     "matrices in one piece of memory follow each other and are cleared alone")
{
    struct err e = ERR_INIT;
    struct rng r;
    rng_init(&r, test_seed());
    struct packed m[3];
    struct packed *const all[] = {&m[0], &m[1], &m[2]};
    const enum tensor_type type[] = {TENSOR_Q4_1, TENSOR_Q8_0, TENSOR_F16};
    const int n_out[] = {19, 16, 40};
    for (int i = 0; i < 3; i++) {
        packed_shape(&m[i], type[i], n_out[i], 96);
    }
    for (int n = 1; n <= 2; n++) {
        alloc_fail_at(n);
        CHECK_INT(packed_alloc(all, 3, &e), ==, -1);
        CHECK(!m[0].data && !m[2].data);
        e = (struct err)ERR_INIT;
    }
    alloc_fail_at(0);
    CHECK_OK(packed_alloc(all, 3, &e), e);
    float want[40 * 96];
    for (int i = 0; i < 3; i++) {
        const uint8_t *end = packed_block(&m[i], m[i].n_panels, 0);
        CHECK(i == 2 || end == m[i + 1].data);
        size_t bytes = (size_t)n_out[i] * row_bytes(type[i], 96);
        uint8_t *blocks = test_guarded(NULL, bytes);
        fill_blocks(blocks, bytes, type[i], &r);
        packed_fill(&m[i], type[i], blocks, row_bytes(type[i], 96), 0, m[i].n_panels);
        for (int o = 0; i == 2 && o < n_out[i]; o++) {
            packed_row(&m[i], o, want + o * 96);
        }
    }
    packed_clear(&m[0]);
    packed_clear(&m[1]);
    for (int o = 0; o < n_out[2]; o++) {
        float got[96];
        packed_row(&m[2], o, got);
        CHECK(memcmp(got, want + o * 96, sizeof got) == 0);
    }
    packed_clear(&m[2]);
    CHECK(!m[2].data);
}

TEST(packed_rounding, "activations are rounded to the same bytes by every kernel set")
{
    each_set(check_rounding_sizes);
}

static void check_bad_numbers(const struct packed_kernels *k, struct rng *r)
{
    for (int i = 0; i < 3; i++) {
        struct packed_rows x = make_rows(1, 2);
        float *v = random_rows(r, 1, 64);
        v[40] = i == 0 ? NAN : i == 1 ? INFINITY : -NAN;
        k->round_row(v, 64, &x, 0);
        CHECK(isfinite(x.scale[0]));
        CHECK(!isfinite(x.scale[1]));
        CHECK(!isfinite(x.scaled_sum[1]));
    }
}

TEST(packed_bad_numbers, "a NaN or an infinity in the activations is not rounded away")
{
    each_set(check_bad_numbers);
}

static void check_shapes(const struct packed_kernels *k, struct rng *r)
{
    static const int outs[] = {1, 7, 16, 17, 40, 65};
    static const int rows[] = {1, 2, 3, 5, 8, 13, 27};
    for (int i = 0; i < N_TYPES; i++) {
        bool plain = tensor_type_traits(types[i])->block_elements == 1;
        int step = tensor_type_traits(types[i])->block_elements;
        for (size_t o = 0; o < sizeof outs / sizeof *outs; o++) {
            check_product(k, r, types[i], outs[o], plain ? 45 : 3 * step, rows[o]);
        }
        check_product(k, r, types[i], 33, plain ? 32 : step, 27);
        check_product(k, r, types[i], 17, plain ? 700 : 768, 49);
    }
}

TEST(packed_products, "packed products equal the reference for every type, shape and neighbour")
{
    each_set(check_shapes);
}

/* y of row r in double, from the weights as they were packed. */
static void exact_row(const struct packed *p, const float *x, const float *bias, double *y,
                      double *scale)
{
    float *w = mem_alloc((size_t)p->n_in, sizeof *w);
    CHECK(w);
    for (int o = 0; o < p->n_out; o++) {
        packed_row(p, o, w);
        y[o] = (double)bias[o];
        scale[o] = fabs(y[o]);
        for (int k = 0; k < p->n_in; k++) {
            y[o] += (double)w[k] * (double)x[k];
            scale[o] += fabs((double)w[k] * (double)x[k]);
        }
    }
    mem_free(w);
}

static void check_bulk_product(const struct packed_kernels *k, struct rng *r, enum tensor_type type,
                               int n_out, int n_in, int n_rows)
{
    uint8_t *blocks;
    struct packed p = pack(type, n_out, n_in, r, &blocks);
    int padded = (n_rows + BULK_ROWS - 1) / BULK_ROWS * BULK_ROWS;
    int n_parts = packed_bulk_parts(&p);
    size_t width = (size_t)p.n_blocks * (size_t)n_parts * PACKED_BLOCK;
    /* Two parts: an activation keeps 16 bits, the product of the small parts is left out.
     * One: it and the weight lose up to 2^-9 each. */
    double most = n_parts > 1 ? 0x1p-14 : 0x1.02p-8;
    float *x = random_rows(r, n_rows, n_in);
    float *bias = random_rows(r, 1, n_out);
    uint16_t *wide = test_guarded(NULL, (size_t)padded * width * sizeof *wide);
    float *y = test_guarded(NULL, (size_t)n_rows * (size_t)n_out * sizeof *y);
    void *scratch = test_guarded(NULL, BULK_SCRATCH_BYTES);
    for (int i = 0; i < padded; i++) {
        k->bulk_row(x + (size_t)i * (size_t)n_in, i < n_rows ? n_in : 0, wide, i, p.n_blocks,
                    n_parts);
    }
    int middle = p.n_panels / 2;
    k->bulk_multiply(&p, 0, middle, wide, n_rows, bias, y, n_out, scratch);
    k->bulk_multiply(&p, middle, p.n_panels, wide, n_rows, bias, y, n_out, scratch);
    double *want = mem_alloc((size_t)n_out * 2, sizeof *want);
    CHECK(want);
    for (int i = 0; i < n_rows; i++) {
        exact_row(&p, x + (size_t)i * (size_t)n_in, bias, want, want + n_out);
        for (int o = 0; o < n_out; o++) {
            CHECK_DOUBLE(fabs((double)y[i * n_out + o] - want[o]), <=, most * want[n_out + o]);
        }
    }
    mem_free(want);
    packed_clear(&p);
}

static void check_bulk(const struct packed_kernels *k, struct rng *r)
{
    static const enum tensor_type in_bulk[] = {TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0,
                                               TENSOR_Q4_1, TENSOR_Q8_0, TENSOR_Q6_K};
    for (int i = 0; k->bulk_multiply && i < 6; i++) {
        int step = in_bulk[i] == TENSOR_Q6_K ? 256 : 32;
        bool is_half = i < 2;
        check_bulk_product(k, r, in_bulk[i], 1, is_half ? 45 : step, 1);
        check_bulk_product(k, r, in_bulk[i], 16, is_half ? 64 : 2 * step, 31);
        check_bulk_product(k, r, in_bulk[i], 49, is_half ? 33 : step, 32);
        check_bulk_product(k, r, in_bulk[i], 64, step, 64);
        check_bulk_product(k, r, in_bulk[i], 71, is_half ? 45 : 3 * step, 65);
        check_bulk_product(k, r, in_bulk[i], 200, is_half ? 350 : 1792, 17);
    }
}

TEST(packed_bulk, "matrix units give the product of weights and activations in bf16 parts")
{
    each_set(check_bulk);
}

static void check_bulk_alone(const struct packed_kernels *k, struct rng *r)
{
    enum { N_OUT = 71, N_IN = 1792, N_ROWS = 53 };
    if (!k->bulk_multiply) {
        return;
    }
    uint8_t *blocks;
    struct packed p = pack(TENSOR_Q4_1, N_OUT, N_IN, r, &blocks);
    float *x = random_rows(r, N_ROWS, N_IN);
    float *bias = random_rows(r, 1, N_OUT);
    size_t width = (size_t)p.n_blocks * PACKED_BLOCK;
    uint16_t *wide = test_guarded(NULL, 64 * width * sizeof *wide);
    float *y = test_guarded(NULL, N_ROWS * N_OUT * sizeof *y);
    float *alone = test_guarded(NULL, N_OUT * sizeof *alone);
    void *scratch = test_guarded(NULL, BULK_SCRATCH_BYTES);
    for (int i = 0; i < 64; i++) {
        k->bulk_row(x + (size_t)i * N_IN, i < N_ROWS ? N_IN : 0, wide, i, p.n_blocks, 1);
    }
    k->bulk_multiply(&p, 0, p.n_panels, wide, N_ROWS, bias, y, N_OUT, scratch);
    for (int i = 0; i < N_ROWS; i++) {
        for (int j = 0; j < BULK_ROWS; j++) {
            k->bulk_row(x + (size_t)i * N_IN, j == 0 ? N_IN : 0, wide, j, p.n_blocks, 1);
        }
        for (int panel = 0; panel < p.n_panels; panel++) {
            k->bulk_multiply(&p, panel, panel + 1, wide, 1, bias, alone, N_OUT, scratch);
        }
        CHECK(test_same_bits(alone, y + (size_t)i * N_OUT, N_OUT));
    }
    packed_clear(&p);
}

TEST(packed_bulk_alone, "a row's bits in matrix units do not depend on its neighbours or panels")
{
    each_set(check_bulk_alone);
}

#if defined(__x86_64__)
TEST(packed_amx_bits, "int8 tiles give the bits of the AVX-512 loops, so rows may go either way")
{
    struct rng r;
    struct err e = ERR_INIT;
    rng_init(&r, test_seed());
    const struct kernels *amx = kernels_choose("amx", &e);
    if (!amx) {
        SKIP("%s", e.msg);
    }
    static const enum tensor_type integer[] = {TENSOR_Q4_1, TENSOR_Q8_0, TENSOR_Q5_1};
    for (int i = 0; i < 3; i++) {
        uint8_t *blocks;
        struct packed p = pack(integer[i], 75, 1536, &r, &blocks);
        struct operand x = {make_rows(70, p.n_blocks), random_rows(&r, 70, 1536), 1536};
        round_all(&packed_vnni, x.wide, 1536, &x.rows);
        float *bias = random_rows(&r, 1, 75);
        float *want = test_guarded(NULL, sizeof *want * 70 * 75);
        float *got = test_guarded(NULL, sizeof *got * 70 * 75);
        multiply(&packed_vnni, &p, 0, p.n_panels, &x, bias, want);
        multiply(amx->packed, &p, 0, p.n_panels, &x, bias, got);
        CHECK(test_same_bits(want, got, (size_t)70 * 75));
        packed_clear(&p);
    }
}
#endif
