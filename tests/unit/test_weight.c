/* Weights: binding checks, and the product against a plain double loop for every type,
 * odd sizes and both ways (few and many rows), bit-equal for any number of threads. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "tensor/gguf_impl.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/quant.h"
#include "tensor/weight.h"
#include "tests/test.h"
#include "tests/unit/blocks_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static float uniform(struct rng *r)
{
    return (float)(2 * rng_double(r) - 1);
}

struct fixture {
    struct weight w;
    uint8_t *blocks;
    float *bias;
    float *x;
    double *want;  /* [rows, n_out] */
    double *scale; /* sum |w x|: what rounding errors are relative to */
    int n_rows;
};

static void expect(struct fixture *f)
{
    const struct weight *w = &f->w;
    float *row = mem_alloc((size_t)w->n_in, sizeof *row);
    CHECK(row);
    for (int o = 0; o < w->n_out; o++) {
        quant_dequantize(w->type, f->blocks + (size_t)o * w->row_bytes, row, w->n_in);
        for (int r = 0; r < f->n_rows; r++) {
            double sum = w->bias ? (double)w->bias[o] : 0;
            double magnitude = fabs(sum);
            for (int i = 0; i < w->n_in; i++) {
                double term = (double)row[i] * (double)f->x[r * w->n_in + i];
                sum += term;
                magnitude += fabs(term);
            }
            f->want[r * w->n_out + o] = sum;
            f->scale[r * w->n_out + o] = magnitude;
        }
    }
    mem_free(row);
}

static void fixture_init(struct fixture *f, enum tensor_type type, int n_in, int n_out, int n_rows,
                         bool bias, struct rng *r)
{
    const struct tensor_type_traits *t = tensor_type_traits(type);
    size_t row_bytes = (size_t)(n_in / t->block_elements) * (size_t)t->block_bytes;
    size_t outputs = (size_t)n_out * (size_t)n_rows;
    *f = (struct fixture){.n_rows = n_rows};
    f->blocks = mem_alloc((size_t)n_out, row_bytes);
    f->bias = mem_alloc((size_t)n_out, sizeof *f->bias);
    f->x = mem_alloc((size_t)n_rows * (size_t)n_in, sizeof *f->x);
    f->want = mem_alloc(outputs, sizeof *f->want);
    f->scale = mem_alloc(outputs, sizeof *f->scale);
    CHECK(f->blocks && f->bias && f->x && f->want && f->scale);
    fill_blocks(f->blocks, (size_t)n_out * row_bytes, type, r);
    for (int i = 0; i < n_out; i++) {
        f->bias[i] = uniform(r);
    }
    for (int i = 0; i < n_rows * n_in; i++) {
        f->x[i] = uniform(r);
    }
    f->w = (struct weight){.n_out = n_out,
                           .n_in = n_in,
                           .type = type,
                           .data = f->blocks,
                           .row_bytes = row_bytes,
                           .bias = bias ? f->bias : NULL};
    expect(f);
}

static void fixture_free(struct fixture *f)
{
    mem_free(f->blocks);
    mem_free(f->bias);
    mem_free(f->x);
    mem_free(f->want);
    mem_free(f->scale);
}

static void multiply(const struct fixture *f, float *y, int ldy, struct pool *pool)
{
    struct err e = ERR_INIT;
    const struct compute c = {.pool = pool, .kernels = kernels_choose(NULL, &e)};
    CHECK_OK(weight_matmul(&f->w, f->x, f->w.n_in, f->n_rows, y, ldy, &c, &e), e);
}

static void check_product(const struct fixture *f, const float *y)
{
    for (int i = 0; i < f->n_rows * f->w.n_out; i++) {
        /* fp32 sums of up to 600 terms in at least 8 lanes: 75 roundings of 6e-8 in the worst
         * case, in types with a minimum twice and of larger terms that cancel */
        double tolerance = 1e-5 * f->scale[i] + 1e-6;
        if (!(fabs((double)y[i] - f->want[i]) <= tolerance)) {
            FAIL("%s [%d, %d] x %d rows: y[%d] is %.9g, not %.9g",
                 tensor_type_traits(f->w.type)->name, f->w.n_in, f->w.n_out, f->n_rows, i,
                 (double)y[i], f->want[i]);
        }
    }
}

static void check_shape(enum tensor_type type, int n_in, int n_out, int n_rows, struct pool **pools,
                        struct rng *r)
{
    struct fixture f;
    fixture_init(&f, type, n_in, n_out, n_rows, n_rows % 2, r);
    size_t n = (size_t)n_rows * (size_t)n_out;
    float *alone = test_guarded(NULL, n * sizeof *alone);
    multiply(&f, alone, n_out, NULL);
    check_product(&f, alone);
    for (int p = 0; p < 2; p++) {
        float *y = test_guarded(NULL, n * sizeof *y);
        multiply(&f, y, n_out, pools[p]);
        CHECK(test_same_bits(alone, y, n));
    }
    fixture_free(&f);
}

TEST(weight_matmul_all, "W x + b for all types, rows and odd sizes; threads change no bit")
{
    static const int rows[] = {1, 2, 3, 6, 7, 8, 16, 33, 70};
    struct err e = ERR_INIT;
    struct pool *pools[2] = {pool_new(2, &e), pool_new(3, &e)};
    CHECK(pools[0] && pools[1]);
    struct rng r;
    rng_init(&r, test_seed());
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        const struct tensor_type_traits *t = tensor_type_traits((enum tensor_type)type);
        for (size_t i = 0; t && i < sizeof rows / sizeof *rows; i++) {
            int n_in = t->block_elements == 1 ? 77 : t->block_elements == 32 ? 96 : 256;
            check_shape((enum tensor_type)type, n_in, 45, rows[i], pools, &r);
        }
    }
    check_shape(TENSOR_Q4_1, 576, 577, 33, pools, &r); /* several panels, the last one short */
    check_shape(TENSOR_F16, 600, 1, 7, pools, &r);     /* less than a panel */
    pool_free(pools[0]);
    pool_free(pools[1]);
}

TEST(weight_matmul_strides, "rows of x and y may lie apart; what is between them stays")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct err e = ERR_INIT;
    const struct compute c = {.pool = NULL, .kernels = kernels_choose(NULL, &e)};
    for (int n_rows = 3; n_rows <= 9; n_rows += 6) {
        struct fixture f;
        fixture_init(&f, TENSOR_Q8_0, 64, 20, n_rows, true, &r);
        float x[9 * 70];
        float y[9 * 23];
        float plain[9 * 20];
        for (int i = 0; i < n_rows; i++) {
            memcpy(x + (size_t)i * 70, f.x + (size_t)i * 64, 64 * sizeof *x);
        }
        for (int i = 0; i < 9 * 23; i++) {
            y[i] = 42;
        }
        CHECK_OK(weight_matmul(&f.w, x, 70, n_rows, y, 23, &c, &e), e);
        multiply(&f, plain, 20, NULL);
        for (int i = 0; i < n_rows; i++) {
            CHECK(test_same_bits(y + (size_t)i * 23, plain + (size_t)i * 20, 20));
            CHECK(y[i * 23 + 20] == 42 && y[i * 23 + 22] == 42);
        }
        fixture_free(&f);
    }
}

TEST(weight_matmul_out_of_memory, "the scratch may fail: an error, no crash")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct fixture f;
    fixture_init(&f, TENSOR_Q4_0, 64, 20, 9, true, &r);
    float y[9 * 20];
    struct err e = ERR_INIT;
    const struct compute c = {.pool = NULL, .kernels = kernels_choose(NULL, &e)};
    alloc_fail_at(1);
    CHECK_INT(weight_matmul(&f.w, f.x, 64, 9, y, 20, &c, &e), ==, -1);
    alloc_fail_at(0);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    fixture_free(&f);
}

/* ---- binding ---- */

static void put(struct buf *b, const void *p, size_t n)
{
    buf_append(b, p, n);
}

static const struct {
    const char *name;
    uint32_t type;
    uint64_t ne[4];
} tensors[] = {
    {"m.weight", TENSOR_F32, {3, 2, 1, 1}},    {"m.bias", TENSOR_F32, {2, 1, 1, 1}},
    {"conv.weight", TENSOR_F32, {2, 2, 3, 5}}, {"odd", 24 /* I8 */, {8, 1, 1, 1}},
    {"matrix", TENSOR_F16, {4, 3, 1, 1}},
};

static void put_pad(struct buf *b)
{
    while (b->len % 32) {
        buf_putc(b, 0);
    }
}

static uint64_t n_elements(size_t i)
{
    return tensors[i].ne[0] * tensors[i].ne[1] * tensors[i].ne[2] * tensors[i].ne[3];
}

static void put_values(struct buf *b, size_t i)
{
    for (uint64_t j = 0; j < n_elements(i); j++) {
        float v = (float)j;
        uint16_t h = op_f32_to_f16(v);
        put(b, tensors[i].type == TENSOR_F32 ? (void *)&v : (void *)&h,
            (size_t)tensor_type_layout(tensors[i].type)->block_bytes);
    }
    put_pad(b);
}

/* A file with the tensors above, of values 0, 1, 2, ... */
static struct gguf *make_file(struct buf *b)
{
    const uint32_t n_dims = 4;
    const uint64_t head[2] = {sizeof tensors / sizeof *tensors, 0};
    buf_init(b, 1 << 16);
    put(b, "GGUF\3\0\0\0", 8);
    put(b, head, sizeof head);
    uint64_t offset = 0;
    for (size_t i = 0; i < head[0]; i++) {
        uint64_t len = strlen(tensors[i].name);
        put(b, &len, 8);
        buf_puts(b, tensors[i].name);
        put(b, &n_dims, 4);
        put(b, tensors[i].ne, 32);
        put(b, &tensors[i].type, 4);
        put(b, &offset, 8);
        uint64_t bytes = n_elements(i) * (uint64_t)tensor_type_layout(tensors[i].type)->block_bytes;
        offset += (bytes + 31) / 32 * 32;
    }
    put_pad(b);
    for (size_t i = 0; i < head[0]; i++) {
        put_values(b, i);
    }
    struct err e = ERR_INIT;
    struct gguf *g = gguf_parse_view(b->data, b->len, "made.gguf", &e);
    if (!g) {
        FAIL("%s", e.msg);
    }
    return g;
}

TEST(weight_bind_checks, "absent, misshapen and unknown tensors are refused by name")
{
    struct buf b;
    struct gguf *g = make_file(&b);
    struct weight w;
    struct err e = ERR_INIT;
    CHECK_OK(weight_bind(&w, g, "m.weight", "m.bias", 3, 2, &e), e);
    CHECK(w.n_in == 3 && w.n_out == 2 && w.bias && w.bias[1] == 1 && w.row_bytes == 12);
    weight_clear(&w);
    CHECK(!w.bias && !w.data);
    CHECK_INT(weight_bind(&w, g, "absent", NULL, 3, 2, &e), ==, -1);
    CHECK(strstr(e.msg, "absent"));
    CHECK_INT(weight_bind(&w, g, "m.weight", NULL, 2, 3, &e), ==, -1);
    CHECK(strstr(e.msg, "m.weight") && strstr(e.msg, "[2, 3]"));
    CHECK_INT(weight_bind(&w, g, "m.weight", "odd", 3, 2, &e), ==, -1);
    CHECK_INT(weight_bind(&w, g, "odd", NULL, 8, 1, &e), ==, -1);
    CHECK(strstr(e.msg, "odd"));
    CHECK_INT(weight_bind(&w, g, "m.weight", "conv.weight", 3, 2, &e), ==, -1);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(weight_bind_convolution, "a kernel [w, h, c, n_out] is a matrix of n_out rows")
{
    struct buf b;
    struct gguf *g = make_file(&b);
    struct weight w;
    struct err e = ERR_INIT;
    CHECK_OK(weight_bind(&w, g, "conv.weight", NULL, 12, 5, &e), e);
    const struct compute c = {.pool = NULL, .kernels = kernels_choose(NULL, &e)};
    float row[12];
    weight_row(&w, 2, row, &c);
    CHECK(row[0] == 24 && row[11] == 35);
    CHECK_INT(weight_bind(&w, g, "conv.weight", NULL, 4, 15, &e), ==, -1);
    weight_clear(&w);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(weight_vector_reads, "vectors and whole tables as fp32; the number of elements is checked")
{
    struct buf b;
    struct gguf *g = make_file(&b);
    struct err e = ERR_INIT;
    float *v = weight_vector(g, "matrix", 12, &e);
    CHECK(v && v[0] == 0 && v[5] == 5 && v[11] == 11);
    mem_free(v);
    CHECK(!weight_vector(g, "matrix", 13, &e));
    CHECK(strstr(e.msg, "13 elements"));
    CHECK(!weight_vector(g, "odd", 8, &e));
    alloc_fail_at(1);
    CHECK(!weight_vector(g, "matrix", 12, &e));
    alloc_fail_at(0);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    gguf_free_view(g);
    buf_free(&b);
}

TEST(weight_row_alone, "few rows: a row's bits are the same alone and with others")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct fixture f;
    fixture_init(&f, TENSOR_Q4_1, 96, 45, 6, true, &r);
    float together[6 * 45];
    multiply(&f, together, 45, NULL);
    f.n_rows = 1;
    for (int i = 0; i < 6; i++, f.x += 96) {
        float alone[45];
        multiply(&f, alone, 45, NULL);
        CHECK(test_same_bits(alone, together + (size_t)i * 45, 45));
    }
    f.x -= 6 * 96;
    fixture_free(&f);
}

/* ---- whole files ---- */

static void check_listed(const struct gguf *g, FILE *list, const char *name)
{
    struct err e = ERR_INIT;
    char type[16];
    size_t n;
    double sum;
    double magnitude;
    CHECK_INT(fscanf(list, "%15s %zu %lf %lf", type, &n, &sum, &magnitude), ==, 4);
    float *v = weight_vector(g, name, n, &e);
    if (!v) {
        FAIL("%s", e.msg);
    }
    CHECK_STR(gguf_tensor_type_name(gguf_find_tensor(g, name)), type);
    double got_sum = 0;
    double got_magnitude = 0;
    for (size_t i = 0; i < n; i++) {
        got_sum += (double)v[i];
        got_magnitude += fabs((double)v[i]);
    }
    /* the list has nine digits; the decoder may fuse a * b + c */
    CHECK_DOUBLE(fabs(got_magnitude - magnitude), <=, 1e-6 * magnitude);
    CHECK_DOUBLE(fabs(got_sum - sum), <=, 1e-6 * magnitude);
    for (size_t i = 0; i < 32; i++) {
        double want;
        CHECK_INT(fscanf(list, "%lf", &want), ==, 1);
        double got = (double)v[i < 16 ? i : n - 32 + i];
        CHECK_DOUBLE(fabs(got - want), <=, 1e-6 * fmax(1, fabs(want)));
    }
    mem_free(v);
}

static int check_list(const char *gguf_name, const char *list_name)
{
    struct err e = ERR_INIT;
    char *path = test_golden_path(gguf_name);
    char *list_path = test_golden_path(list_name);
    struct gguf *g = gguf_open(path, &e);
    FILE *list = fopen(list_path, "r");
    CHECK(g && list);
    char name[128];
    int n = 0;
    while (fscanf(list, "%127s", name) == 1) {
        if (name[0] == '#') {
            CHECK(fscanf(list, "%*[^\n]") == 0);
            continue;
        }
        check_listed(g, list, name);
        n++;
    }
    fclose(list);
    gguf_close(g);
    mem_free(path);
    mem_free(list_path);
    return n;
}

TEST(weight_golden_files, "all tensors of two files with every block format equal gguf-py's")
{
    CHECK_INT(check_list("tiny/gpt2-k-quants.gguf", "tiny/gpt2-k-quants.tensors.vec"), >=, 10);
    CHECK_INT(check_list("tiny/smollm-legacy-quants.gguf", "tiny/smollm-legacy-quants.tensors.vec"),
              >=, 10);
}
