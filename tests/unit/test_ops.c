/* Row operations against numbers computed by hand or by other programs (named beside
 * them). Tolerance, unless a line says otherwise: 1e-6, a few ulp of values near 1. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tensor/ops.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define TOLERANCE 1e-6

static void check_near(const float *got, const double *want, int n, double tolerance)
{
    for (int i = 0; i < n; i++) {
        if (!(fabs((double)got[i] - want[i]) <= tolerance)) {
            FAIL("[%d] is %.9g, not %.9g", i, (double)got[i], want[i]);
        }
    }
}

TEST(ops_layer_norm, "mean 0, variance 1 over n (not n - 1), then w and b; in place too")
{
    float x[4] = {1, 2, 3, 4};
    const float w[4] = {1, 1, 2, 2};
    const float b[4] = {0, 1, 0, 1};
    /* mean 2.5, variance 1.25: (x - 2.5) / sqrt(1.25) = -1.3416408, -0.4472136, ... */
    const double want[4] = {-1.3416407865, 0.5527864045, 0.8944271910, 3.6832815730};
    float y[4];
    op_layer_norm(y, x, w, b, 1, 4, 0);
    check_near(y, want, 4, TOLERANCE);
    op_layer_norm(x, x, w, b, 1, 4, 0);
    check_near(x, want, 4, TOLERANCE);
    const float constant[3] = {5, 5, 5};
    const float ones[3] = {1, 1, 1};
    op_layer_norm(y, constant, ones, NULL, 1, 3, 1e-6f);
    check_near(y, (const double[]){0, 0, 0}, 3, 0);
}

TEST(ops_rms_norm, "divided by the root of the mean square; w may be absent")
{
    const float x[4] = {3, 4, 6, 8}; /* two rows: mean squares 12.5 and 50 */
    const float w[2] = {1, 10};
    float y[4];
    op_rms_norm(y, x, w, 2, 2, 0);
    check_near(y, (const double[]){0.8485281374, 11.3137084990, 0.8485281374, 11.3137084990}, 4,
               1e-5);
    op_rms_norm(y, x, NULL, 1, 2, 12.5f);
    check_near(y, (const double[]){0.6, 0.8}, 2, TOLERANCE);
}

TEST(ops_activations, "GELU in three forms, SiLU and the soft cap")
{
    const float in[5] = {-3, -1, 0, 0.5f, 2};
    float x[5];
    memcpy(x, in, sizeof in);
    op_gelu_erf(x, 5); /* x (1 + erf(x / sqrt 2)) / 2, Python's math.erf */
    check_near(x, (const double[]){-0.0040496940, -0.1586552539, 0, 0.3457312306, 1.9544997361}, 5,
               TOLERANCE);
    memcpy(x, in, sizeof in);
    op_gelu_tanh(x, 5); /* Python's math.tanh */
    check_near(x, (const double[]){-0.0036373921, -0.1588080094, 0, 0.3457140098, 1.9545976941}, 5,
               TOLERANCE);
    memcpy(x, in, sizeof in);
    op_gelu_quick(x, 5);
    check_near(x, (const double[]){-0.0180713097, -0.1542042341, 0, 0.3503884366, 1.9356586231}, 5,
               TOLERANCE);
    memcpy(x, in, sizeof in);
    op_silu(x, 5);
    check_near(x, (const double[]){-0.1422776195, -0.2689414214, 0, 0.3112296656, 1.7615941560}, 5,
               TOLERANCE);
    memcpy(x, in, sizeof in);
    op_softcap(x, 5, 2);
    check_near(x, (const double[]){-1.8102965072, -0.9242343145, 0, 0.4898373248, 1.5231883119}, 5,
               TOLERANCE);
    float ends[2] = {-1e30f, 1e30f};
    op_silu(ends, 2);
    CHECK(ends[0] == 0 && ends[1] == 1e30f);
    op_gelu_quick(ends + 1, 1);
    CHECK(ends[1] == 1e30f);
}

TEST(ops_elementwise, "add, scale, LayerScale")
{
    float y[4] = {1, 2, 3, 4};
    const float x[4] = {10, 20, 30, 40};
    const float scale[2] = {0.5f, 2};
    op_add(y, x, 4);
    check_near(y, (const double[]){11, 22, 33, 44}, 4, 0);
    op_scale(y, 2, 4);
    op_add_scaled_rows(y, x, scale, 2, 2);
    check_near(y, (const double[]){27, 84, 81, 168}, 4, 0);
}

TEST(ops_cosine, "1 for the same direction, whatever the length; 0 without a length")
{
    const float a[3] = {1, 2, 3};
    const float b[3] = {2e-20f, 4e-20f, 6e-20f};
    const float c[3] = {3, 0, -1};
    const float zero[3] = {0, 0, 0};
    CHECK_DOUBLE(fabs((double)op_cosine(a, b, 3) - 1), <=, TOLERANCE);
    CHECK_DOUBLE(op_cosine(a, c, 3), ==, 0);
    CHECK_DOUBLE(op_cosine(a, zero, 3), ==, 0);
}

TEST(ops_rope, "pairs turn by position * base^(-2i/n); neighbours or halves")
{
    /* n_rot 4, base 100: angles 1 and 0.1 at position 1 */
    const double c0 = 0.5403023059, s0 = 0.8414709848, c1 = 0.9950041653, s1 = 0.0998334166;
    float x[4] = {1, 2, 3, 4};
    op_rope(x, 4, 1, 100, 1, NULL, 0);
    check_near(x, (const double[]){c0 - 2 * s0, s0 + 2 * c0, 3 * c1 - 4 * s1, 3 * s1 + 4 * c1}, 4,
               TOLERANCE);
    float halves[4] = {1, 2, 3, 4};
    op_rope(halves, 4, 1, 100, 1, NULL, 1);
    check_near(halves, (const double[]){c0 - 3 * s0, 2 * c1 - 4 * s1, s0 + 3 * c0, 2 * s1 + 4 * c1},
               4, TOLERANCE);
    float factored[4] = {1, 2, 3, 4};
    const float factors[2] = {4, 2};
    op_rope(factored, 4, 8, 100, 0.5f, factors, 0); /* angles 8/2/4 = 1 and 0.8/2/2 = 0.2 */
    check_near(factored, (const double[]){c0 - 2 * s0, s0 + 2 * c0, 2.1455225104, 4.5162743037}, 4,
               2e-6);
}

TEST(ops_rope_table, "the table and the rotation give what op_rope gives")
{
    struct rng r;
    rng_init(&r, test_seed());
    float a[64];
    float b[64];
    float table[64];
    for (int neox = 0; neox < 2; neox++) {
        for (int i = 0; i < 64; i++) {
            a[i] = b[i] = (float)rng_double(&r);
        }
        op_rope(a, 64, 4711, 10000, 1, NULL, neox);
        op_rope_table(table, 64, 4711, 10000, 1, NULL);
        op_rope_rotate(b, 64, table, neox);
        CHECK_DOUBLE(test_max_diff(a, b, 64), ==, 0);
    }
}

TEST(ops_f16, "halves: every one survives the round trip, ties go to even")
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = op_f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        CHECK(nan ? isnan(f) && isnan(op_f16_to_f32(op_f32_to_f16(f)))
                  : op_f32_to_f16(f) == (uint16_t)h);
    }
    CHECK_DOUBLE(op_f16_to_f32(0x3555), ==, 0.333251953125);
    CHECK_DOUBLE(op_f16_to_f32(0x0001), ==, 0x1p-24);
    CHECK_INT(op_f32_to_f16(1 + 0x1p-11f), ==, 0x3c00);     /* tie, down to even */
    CHECK_INT(op_f32_to_f16(1 + 3 * 0x1p-11f), ==, 0x3c02); /* tie, up to even */
    CHECK_INT(op_f32_to_f16(65519.99f), ==, 0x7bff);
    CHECK_INT(op_f32_to_f16(65520), ==, 0x7c00);
    CHECK_INT(op_f32_to_f16(-1e30f), ==, 0xfc00);
    CHECK_INT(op_f32_to_f16(0x1p-25f), ==, 0x0000); /* tie, to zero */
    CHECK_INT(op_f32_to_f16(0x1.8p-25f), ==, 0x0001);
    CHECK_INT(op_f32_to_f16(-0.0f), ==, 0x8000);
    CHECK_DOUBLE(op_bf16_to_f32(0xc0a0), ==, -5);
}

/* ---- resize ---- */

TEST(ops_resize_plain, "up by two without antialias: taps read the edge (a = -0.75)")
{
    /* At 1/4 between two pixels the weights for a = -3/4 are -27/256, 225/256, 67/256,
     * -9/256 (Keys' formula, by hand); the border repeats the edge pixel. */
    const float src[4] = {0, 256, 0, 0};
    float dst[8];
    CHECK_INT(op_resize_bicubic(src, 1, 4, dst, 1, 8, 1, -0.75f, 0), ==, 0);
    check_near(dst, (const double[]){-27, 67, 225, 225, 67, -27, -9, 0}, 8, 1e-4);
}

TEST(ops_resize_same_size, "the same size gives the same picture, with and without antialias")
{
    struct rng r;
    rng_init(&r, test_seed());
    float src[5 * 7 * 3];
    float dst[5 * 7 * 3];
    for (int i = 0; i < 105; i++) {
        src[i] = (float)rng_double(&r);
    }
    for (int antialias = 0; antialias < 2; antialias++) {
        CHECK_INT(op_resize_bicubic(src, 5, 7, dst, 5, 7, 3, -0.5f, antialias), ==, 0);
        CHECK_DOUBLE(test_max_diff(src, dst, 105), <=, TOLERANCE);
    }
}

TEST(ops_resize_antialias, "down by two: the kernel is twice as wide, normalised at the border")
{
    /* a = -1/2, ratio 2: taps at distances 1/4, 3/4, 5/4, 7/4 of the stretched kernel have
     * 111, 29, -9, -3 (over 128). Output 0 has its centre at 1: taps 0..4, 239 in all;
     * output 1 at 3: taps 0..6, 259 in all; the other two mirror them. */
    const float src[8] = {0, 0, 0, 256, 0, 0, 0, 0};
    const double want[4] = {256.0 * -9 / 239, 256.0 * 111 / 259, 256.0 * 29 / 259,
                            256.0 * -3 / 239};
    float dst[4];
    CHECK_INT(op_resize_bicubic(src, 1, 8, dst, 1, 4, 1, -0.5f, 1), ==, 0);
    check_near(dst, want, 4, 1e-4);
    CHECK_INT(op_resize_bicubic(src, 8, 1, dst, 4, 1, 1, -0.5f, 1), ==, 0);
    check_near(dst, want, 4, 1e-4);
}

TEST(ops_resize_constant, "a constant picture stays constant at any size, all channels apart")
{
    float src[6 * 9 * 2];
    float dst[13 * 17 * 2];
    for (int i = 0; i < 54; i++) {
        src[2 * i] = 3;
        src[2 * i + 1] = -5;
    }
    const int sizes[][2] = {{1, 1}, {3, 4}, {6, 17}, {13, 2}, {13, 17}};
    for (int s = 0; s < 5; s++) {
        for (int mode = 0; mode < 4; mode++) {
            int h = sizes[s][0];
            int w = sizes[s][1];
            float a = mode & 1 ? -0.5f : -0.75f;
            CHECK_INT(op_resize_bicubic(src, 6, 9, dst, h, w, 2, a, mode >> 1), ==, 0);
            for (int i = 0; i < h * w; i++) {
                CHECK_DOUBLE(fabs((double)dst[2 * i] - 3), <=, 1e-5);
                CHECK_DOUBLE(fabs((double)dst[2 * i + 1] + 5), <=, 1e-5);
            }
        }
    }
}

TEST(ops_resize_out_of_memory, "each allocation of the resize may fail")
{
    float src[16] = {0};
    float dst[64];
    long n = 1;
    for (;; n++) {
        alloc_fail_at(n);
        int failed = op_resize_bicubic(src, 4, 4, dst, 8, 8, 1, -0.5f, 1);
        alloc_fail_at(0);
        if (!failed) {
            break;
        }
    }
    CHECK_INT(n, >, 3);
}
