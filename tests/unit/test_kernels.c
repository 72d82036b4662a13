/* Every kernel set that this CPU can run, against the portable reference: odd sizes,
 * tails, and operands that end at a page nobody may touch. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tensor/kernels.h"
#include "tensor/kernels_impl.h"
#include "tensor/ops.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const int plain_sizes[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 100, 577};

static float normal(struct rng *r)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        sum += rng_double(r);
    }
    return (float)(sum - 6);
}

static float *guarded_floats(struct rng *r, int n)
{
    float *x = test_guarded(NULL, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) {
        x[i] = normal(r);
    }
    return x;
}

/* Random blocks whose fp16 factors are ordinary numbers: any byte is a valid integer
 * part, but most 16-bit patterns make no weight. */
static uint8_t *guarded_row(struct rng *r, enum tensor_type type, int n)
{
    static const struct {
        enum tensor_type type;
        int factors[2]; /* byte offsets of the fp16 factors, -1 = none */
    } layouts[] = {
        {TENSOR_Q4_0, {0, -1}}, {TENSOR_Q4_1, {0, 2}},    {TENSOR_Q5_0, {0, -1}},
        {TENSOR_Q5_1, {0, 2}},  {TENSOR_Q8_0, {0, -1}},   {TENSOR_Q4_K, {0, 2}},
        {TENSOR_Q5_K, {0, 2}},  {TENSOR_Q6_K, {208, -1}},
    };
    const struct tensor_type_traits *t = tensor_type_traits(type);
    size_t bytes = (size_t)(n / t->block_elements) * (size_t)t->block_bytes;
    uint8_t *p = test_guarded(NULL, bytes);
    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)rng_u64(r);
    }
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) {
        for (size_t b = 0; layouts[l].type == type && b < bytes; b += (size_t)t->block_bytes) {
            for (int f = 0; f < 2 && layouts[l].factors[f] >= 0; f++) {
                uint16_t h = op_f32_to_f16(0.1f * normal(r));
                memcpy(p + b + layouts[l].factors[f], &h, sizeof h);
            }
        }
    }
    for (int i = 0; t->block_elements == 1 && i < n; i++) {
        float v = normal(r);
        uint16_t h = op_f32_to_f16(v);
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        uint16_t upper = (uint16_t)(bits >> 16);
        const void *from = type == TENSOR_F32 ? (void *)&v : type == TENSOR_F16 ? &h : &upper;
        memcpy(p + (size_t)i * (size_t)t->block_bytes, from, (size_t)t->block_bytes);
    }
    return p;
}

/* fp32 sums over n terms in lanes: a few ulp of the largest partial sum, and in the types
 * with a minimum two sums may cancel, hence the largest weight and not each one. */
static double sum_tolerance(const float *w, const float *x, int n)
{
    double most = 0;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs((double)w[i]));
        sum += fabs((double)x[i]);
    }
    return 8 * (double)FLT_EPSILON * most * sum + 1e-30;
}

static void check_plain(const struct kernels *k, struct rng *r, int n)
{
    float *a = guarded_floats(r, n);
    uint16_t *half = test_guarded(NULL, (size_t)n * sizeof *half);
    k->f32_to_f16(half, a, n);
    for (int i = 0; i < n; i++) {
        CHECK_INT(half[i], ==, op_f32_to_f16(a[i]));
    }
}

static void check_row(const struct kernels *k, struct rng *r, enum tensor_type type, int n)
{
    const uint8_t *row = guarded_row(r, type, n);
    float *x = guarded_floats(r, n);
    float *want = guarded_floats(r, n);
    float *got = guarded_floats(r, n);
    kernels_ref.dequantize_row[type](row, want, n);
    k->dequantize_row[type](row, got, n);
    double most = 0;
    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs((double)want[i]));
    }
    /* the factors are multiplied in another order: a few ulp of the largest weight */
    CHECK_DOUBLE(test_max_diff(got, want, (size_t)n), <=, 4 * (double)FLT_EPSILON * most);
    double dot = (double)k->dot_row[type](row, x, n);
    double reference = (double)kernels_ref.dot_row[type](row, x, n);
    if (!(fabs(dot - reference) <= sum_tolerance(want, x, n))) {
        FAIL("%s dot_row %s of %d: %.9g against %.9g", k->name, tensor_type_traits(type)->name, n,
             dot, reference);
    }
}

static void check_set(const struct kernels *k)
{
    struct rng r;
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof plain_sizes / sizeof *plain_sizes; i++) {
        check_plain(k, &r, plain_sizes[i]);
    }
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        const struct tensor_type_traits *t = tensor_type_traits((enum tensor_type)type);
        if (!t) {
            CHECK(!k->dot_row[type] && !k->dequantize_row[type]);
            continue;
        }
        for (int blocks = 1; blocks <= 9; blocks++) {
            check_row(k, &r, (enum tensor_type)type, blocks * t->block_elements);
        }
        check_row(k, &r, (enum tensor_type)type, t->block_elements == 1 ? 577 : 1536);
    }
}

TEST(kernels_agree, "every kernel set equals the reference on odd sizes, up to the page end")
{
    int n_sets = 0;
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        struct err e = ERR_INIT;
        const struct kernels *k = kernels_choose(*name, &e);
        if (!k) {
            CHECK_INT(e.code, ==, ERR_UNSUPPORTED);
            continue;
        }
        CHECK_STR(k->name, *name);
        check_set(k);
        n_sets++;
    }
    CHECK_INT(n_sets, >=, 1);
}

TEST(kernels_choice, "auto finds a set; an unknown name is refused with the list")
{
    struct err e = ERR_INIT;
    CHECK(kernels_choose(NULL, &e));
    CHECK(kernels_choose("auto", &e) == kernels_choose(NULL, &e));
    CHECK(kernels_choose("ref", &e) == &kernels_ref);
    CHECK_STR(kernels_names()[0], "auto");
    CHECK(!kernels_choose("sse9", &e));
    CHECK_INT(e.code, ==, ERR_INVALID);
    CHECK(strstr(e.msg, "sse9") && strstr(e.msg, "ref"));
}
