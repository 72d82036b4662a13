/* Block formats: values by hand for the reading of one block, ggml's own numbers for all
 * of them, in every kernel set that this CPU can run. */
#include "base/alloc.h"
#include "base/buf.h"
#include "tensor/gguf.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/quant.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const enum tensor_type quantised[] = {
    TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0,
    TENSOR_Q5_1, TENSOR_Q8_0, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K,
};

static char *golden(const char *type, const char *ending)
{
    char name[64];
    snprintf(name, sizeof name, "dequant/%s.%s", type, ending);
    return test_golden_path(name);
}

static bool same(float got, float want)
{
    if (isnan(want) || isinf(want)) {
        return isnan(want) ? isnan(got) : got == want;
    }
    /* a * b + c may be fused: one rounding of three; see tests/golden/README.md */
    return fabsf(got - want) <= 1e-6f * fmaxf(1.0f, fabsf(want));
}

static void check_type(const struct kernels *k, enum tensor_type type)
{
    const struct tensor_type_traits *t = tensor_type_traits(type);
    char *bin = golden(t->name, "bin");
    char *npy = golden(t->name, "npy");
    size_t n_bytes;
    char *blocks = test_read_file(bin, &n_bytes);
    float *want;
    int64_t shape[4];
    test_npy(npy, &want, shape);
    int n = (int)shape[0];
    CHECK_INT(n_bytes, ==, (size_t)(n / t->block_elements) * (size_t)t->block_bytes);
    float *got = test_guarded(NULL, (size_t)n * sizeof *got);
    k->dequantize_row[type](test_guarded(blocks, n_bytes), got, n);
    for (int i = 0; i < n; i++) {
        if (!same(got[i], want[i])) {
            FAIL("%s %s [%d]: %.9g, not %.9g", k->name, t->name, i, (double)got[i],
                 (double)want[i]);
        }
    }
    mem_free(bin);
    mem_free(npy);
    mem_free(blocks);
    mem_free(want);
}

TEST(quant_golden, "each block format decodes to ggml's numbers, in each kernel set")
{
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        struct err e = ERR_INIT;
        const struct kernels *k = kernels_choose(*name, &e);
        for (size_t i = 0; k && i < sizeof quantised / sizeof *quantised; i++) {
            check_type(k, quantised[i]);
        }
    }
}

static void put_f16(uint8_t *p, float v)
{
    uint16_t h = op_f32_to_f16(v);
    memcpy(p, &h, sizeof h);
}

TEST(quant_q4_1_by_hand, "Q4_1: d q + m, low nibbles first")
{
    uint8_t block[20];
    put_f16(block, 0.5f);
    put_f16(block + 2, -3);
    for (int i = 0; i < 16; i++) {
        block[4 + i] = (uint8_t)(i | (15 - i) << 4);
    }
    float y[32];
    quant_dequantize(TENSOR_Q4_1, block, y, 32);
    for (int i = 0; i < 16; i++) {
        CHECK_DOUBLE(y[i], ==, 0.5 * i - 3);
        CHECK_DOUBLE(y[16 + i], ==, 0.5 * (15 - i) - 3);
    }
}

TEST(quant_q5_0_by_hand, "Q5_0: the fifth bit of element i is bit i of a 32-bit field")
{
    uint8_t block[22] = {0};
    put_f16(block, 2);
    block[2] = 1;         /* element 0 */
    block[2 + 3] = 0x80;  /* element 31 */
    block[6] = 0x03;      /* element 0: 3 */
    block[6 + 15] = 0x70; /* element 31: 7 */
    float y[32];
    quant_dequantize(TENSOR_Q5_0, block, y, 32);
    CHECK_DOUBLE(y[0], ==, 2 * (16 + 3 - 16));
    CHECK_DOUBLE(y[31], ==, 2 * (16 + 7 - 16));
    CHECK_DOUBLE(y[1], ==, 2 * -16);
}

TEST(quant_k_scales_by_hand, "the twelve packed bytes give eight scales and eight minima")
{
    uint8_t packed[12] = {0};
    packed[0] = 0xc5; /* scale 0 = 5, upper bits of scale 4 = 3 */
    packed[4] = 0x47; /* minimum 0 = 7, upper bits of minimum 4 = 1 */
    packed[8] = 0x92; /* lower bits: scale 4 = 2, minimum 4 = 9 */
    uint8_t s[8];
    uint8_t m[8];
    quant_k_scales(packed, s, m);
    CHECK(s[0] == 5 && m[0] == 7 && s[4] == 48 + 2 && m[4] == 16 + 9);
}

TEST(quant_traits, "types tamp computes with have traits; others have at most a layout")
{
    CHECK_STR(tensor_type_traits(TENSOR_Q4_1)->name, "Q4_1");
    CHECK(!tensor_type_traits((enum tensor_type)10) && tensor_type_layout(10));
    CHECK(!tensor_type_traits((enum tensor_type)39) && tensor_type_layout(39));
    CHECK(!tensor_type_traits(TENSOR_TYPE_COUNT) && !tensor_type_layout(31));
    CHECK(!tensor_type_layout(4) && !tensor_type_layout(UINT32_MAX));
    for (size_t i = 0; i < sizeof quantised / sizeof *quantised; i++) {
        CHECK(tensor_type_traits(quantised[i]));
    }
}
