/* The inner loops of attention of every instruction set that this CPU runs: odd sizes,
 * guard pages, against the portable ones and double. */
#include "base/rng.h"
#include "tensor/attend.h"
#include "tensor/ops.h"
#include "tensor/vector_ops_impl.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static void fill(struct rng *r, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(rng_double(r) * 2 - 1);
    }
}

TEST(attend_columns, "keys into columns and values into rows: any number, any head size")
{
    static const int dims[] = {1, 2, 15, 16, 24, 33, 64, 80};
    static float x[ATTEND_KEYS * 80];
    static uint16_t h[ATTEND_KEYS * 80];
    static float to[80 * ATTEND_LD];
    static float rows[ATTEND_KEYS * 80];
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    fill(&r, x, sizeof x / sizeof *x);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        h[i] = op_f32_to_f16(x[i]);
    }
    for (int k = 0; k < 8 * 5 * n_sets; k++) {
        const struct attend_kernels *kernels = sets[k / 40]->attend;
        int dim = dims[k % 8];
        int n = (const int[]){1, 7, 8, 61, ATTEND_KEYS}[k / 8 % 5];
        int width = (dim + ATTEND_PAD - 1) / ATTEND_PAD * ATTEND_PAD;
        size_t count = (size_t)n * (size_t)dim;
        const uint16_t *halves = test_guarded(h, count * sizeof *h);
        kernels->columns_f16(to, halves, n, dim);
        kernels->rows_f16(rows, halves, n, dim, width);
        for (int j = 0; j < n; j++) {
            for (int i = 0; i < width; i++) {
                float want = i < dim ? op_f16_to_f32(h[j * dim + i]) : 0;
                CHECK_DOUBLE(rows[j * width + i], ==, want);
                CHECK(i >= dim || to[i * ATTEND_LD + j] == want);
            }
        }
        /* rows three apart: the last ends where the page does */
        size_t ld = (size_t)dim + 3;
        size_t span = ((size_t)n - 1) * ld + (size_t)dim;
        if (span <= sizeof x / sizeof *x) {
            const float *floats = test_guarded(x, span * sizeof *x);
            kernels->columns_f32(to, floats, ld, n, dim);
            for (int j = 0; j < n; j++) {
                for (int i = 0; i < dim; i++) {
                    CHECK_DOUBLE(to[i * ATTEND_LD + j], ==, x[(size_t)j * ld + (size_t)i]);
                }
            }
        }
    }
}

TEST(attend_product, "any rows, depth and columns; a row's bits do not depend on the others")
{
    enum { LD = 160 };
    static float a[ATTEND_BLOCK * LD];
    static float b[LD * LD];
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    fill(&r, a, sizeof a / sizeof *a);
    fill(&r, b, sizeof b / sizeof *b);
    for (int k = 0; k < 10 * 4 * n_sets; k++) {
        const struct attend_kernels *kernels = sets[k / 40]->attend;
        int cols = (1 + k % 10) * ATTEND_PAD;
        int depth = (const int[]){0, 1, 63, 128}[k / 10 % 4];
        float whole[ATTEND_BLOCK * LD];
        kernels->product(whole, LD, a, LD, b, LD, ATTEND_BLOCK, depth, cols);
        for (int row = 0; row < ATTEND_BLOCK; row++) {
            for (int i = 0; i < cols; i++) {
                double want = 0;
                for (int d = 0; d < depth; d++) {
                    want += (double)a[row * LD + d] * (double)b[d * LD + i];
                }
                /* 128 roundings of sums of about 5 */
                CHECK_DOUBLE(fabs((double)whole[row * LD + i] - want), <=, 1e-5);
            }
        }
        for (int rows = 1; rows < ATTEND_BLOCK; rows++) {
            float some[ATTEND_BLOCK * LD];
            kernels->product(some, LD, a + LD, LD, b, LD, rows, depth, cols);
            for (int row = 0; row < rows; row++) {
                CHECK(memcmp(some + row * LD, whole + (row + 1) * LD,
                             (size_t)cols * sizeof *some) == 0);
            }
        }
    }
}

TEST(attend_product_halves, "halves give the bits of the same numbers as floats, in pieces too")
{
    enum { LD = 96 };
    static float a[ATTEND_BLOCK * LD];
    static float b[LD * LD];
    static uint16_t h[LD * LD];
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    fill(&r, a, sizeof a / sizeof *a);
    for (int i = 0; i < LD * LD; i++) {
        h[i] = op_f32_to_f16((float)(rng_double(&r) * 2 - 1));
        b[i] = op_f16_to_f32(h[i]);
    }
    for (int k = 0; k < 6 * ATTEND_BLOCK * n_sets; k++) {
        const struct attend_kernels *kernels = sets[k / (6 * ATTEND_BLOCK)]->attend;
        int rows = 1 + k % ATTEND_BLOCK;
        int cols = (1 + k / ATTEND_BLOCK % 6) * ATTEND_PAD;
        float want[ATTEND_BLOCK * LD];
        float got[ATTEND_BLOCK * LD];
        /* the last row of b ends where the page does */
        const uint16_t *halves =
            test_guarded(h, ((size_t)(LD - 1) * LD + (size_t)cols) * sizeof *h);
        kernels->product(want, LD, a, LD, b, LD, rows, LD, cols);
        kernels->product_f16(got, LD, a, LD, halves, LD, rows, 40, cols, false);
        kernels->product_f16(got, LD, a + 40, LD, halves + (size_t)40 * LD, LD, rows, LD - 40, cols,
                             true);
        for (int row = 0; row < rows; row++) {
            CHECK(memcmp(got + row * LD, want + row * LD, (size_t)cols * sizeof *got) == 0);
        }
    }
}

TEST(attend_runs, "keys and values in several runs give the bits of one run, few rows and many")
{
    enum { DIM = 32 };
    static uint16_t k[ATTEND_KEYS * DIM];
    static uint16_t v[ATTEND_KEYS * DIM];
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int i = 0; i < ATTEND_KEYS * DIM; i++) {
        k[i] = op_f32_to_f16((float)(rng_double(&r) * 2 - 1));
        v[i] = op_f32_to_f16((float)(rng_double(&r) * 2 - 1));
    }
    for (int set = 0; set < n_sets; set++) {
        const struct attend_terms none = {.softcap = 0};
        struct arena scratch;
        struct attend t;
        float out[3][DIM];
        arena_init(&scratch, (size_t)1 << 24);
        CHECK_INT(attend_init(&t, sets[set]->attend, NULL, DIM, &scratch), ==, 0);
        fill(&r, t.q, (size_t)20 * DIM);
        for (int way = 0; way < 3; way++) { /* one run; runs; runs, many rows */
            int rows = way < 2 ? 1 : 20;
            attend_begin(&t, rows);
            for (int at = 0; at < 101; at += way ? 24 : 101) {
                int n = way == 0 ? 101 : 101 - at < 24 ? 101 - at : 24;
                attend_load_f16(&t, at, k + (size_t)at * DIM, v + (size_t)at * DIM, n);
            }
            for (int i = 0; i < rows; i++) {
                t.visible[i] = i == 0 ? 99 : 101;
            }
            attend_tile(&t, rows, &none, &t.part);
            attend_add(&t, rows, &t.part);
            attend_store(&t, 0, out[way]);
        }
        CHECK_DOUBLE(test_max_diff(out[0], out[1], DIM), ==, 0);
        CHECK_DOUBLE(test_max_diff(out[0], out[2], DIM), ==, 0);
        arena_clear(&scratch);
    }
}

static double exact_score(const float *scores, const struct attend_terms *t, float position, int i)
{
    double s = (double)scores[i];
    s = t->softcap > 0 ? (double)t->softcap * tanh(s / (double)t->softcap) : s;
    s += t->bias ? (double)t->bias[i] : 0;
    return t->window > 0 && position - t->key_position[i] >= t->window ? -INFINITY : s;
}

TEST(attend_weigh, "soft cap, bias and window; what is not visible weighs nothing")
{
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int k = 0; k < 8 * 12 * n_sets; k++) {
        int n = (const int[]){1, 2, 7, 8, 9, 15, 16, 17, 31, 100, 127, 128}[k / 8 % 12];
        float scores[ATTEND_KEYS];
        float got[ATTEND_KEYS];
        float bias[ATTEND_KEYS];
        float position[ATTEND_KEYS];
        fill(&r, bias, ATTEND_KEYS);
        for (int i = 0; i < ATTEND_KEYS; i++) {
            scores[i] = got[i] = (float)(rng_double(&r) * 40 - 20);
            position[i] = (float)i;
        }
        struct attend_terms t = {
            .softcap = k & 1 ? 15.0f : 0.0f,
            .bias = k & 2 ? test_guarded(bias, (size_t)n * sizeof *bias) : NULL,
            .key_position = test_guarded(position, (size_t)n * sizeof *position),
            .window = k & 4 ? 20.0f : 0.0f};
        float max;
        float norm;
        double want_max = -INFINITY;
        double want_norm = 0;
        sets[k / 96]->attend->weigh(got, n, ATTEND_KEYS, &t, (float)n, &max, &norm);
        for (int i = 0; i < n; i++) {
            want_max = fmax(want_max, exact_score(scores, &t, (float)n, i));
        }
        CHECK_DOUBLE(fabs((double)max - want_max), <=, 4e-6); /* 20 to 2 ulp */
        for (int i = 0; i < ATTEND_KEYS; i++) {
            double want = i < n ? exp(exact_score(scores, &t, (float)n, i) - want_max) : 0;
            want_norm += want;
            /* the argument of exp is off by up to 4 ulp of 20 */
            CHECK_DOUBLE(fabs((double)got[i] - want), <=, 1e-5 * want + 1e-37);
        }
        CHECK_DOUBLE(fabs((double)norm - want_norm), <=, 1e-5 * want_norm);
    }
}

TEST(attend_weigh_special, "all masked: no weight; NaN or +inf: NaN, whatever else is there")
{
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    for (int k = 0; k < 3 * n_sets; k++) {
        const float value = (const float[]){-INFINITY, NAN, INFINITY}[k % 3];
        for (int others = 0; others < 2; others++) {
            const struct attend_terms none = {.softcap = 0};
            float scores[ATTEND_KEYS];
            float max;
            float norm;
            for (int i = 0; i < ATTEND_KEYS; i++) {
                scores[i] = others && i != 19 ? 1.0f : value;
            }
            sets[k / 3]->attend->weigh(scores, 20, 32, &none, 0, &max, &norm);
            if (k % 3 > 0) {
                CHECK(isnan(norm) && isnan(scores[19]));
            } else {
                CHECK_DOUBLE(norm, ==, others ? 19 : 0);
                CHECK_DOUBLE(scores[19], ==, 0);
                CHECK_DOUBLE(max, ==, others ? 1 : -INFINITY);
            }
        }
    }
}

TEST(attend_merge, "parts add up to the whole, in rows of any number; nothing changes nothing")
{
    enum { ROWS = 37, WIDTH = 48 };
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int k = 0; k < n_sets; k++) {
        float sums[2][ROWS * WIDTH];
        float maxima[2][48];
        float norms[2][48];
        double want[ROWS][2];
        struct attend_state state[2];
        for (int i = 0; i < 2; i++) {
            fill(&r, sums[i], (size_t)ROWS * WIDTH);
            fill(&r, maxima[i], 48);
            fill(&r, norms[i], 48);
            state[i] = (struct attend_state){sums[i], maxima[i], norms[i]};
        }
        for (int row = 0; row < ROWS; row++) {
            maxima[0][row] *= 50;
            maxima[1][row] = row % 5 == 0 ? -INFINITY : maxima[1][row] * 50;
            maxima[0][row] = row % 7 == 0 ? -INFINITY : maxima[0][row];
            double max = fmax((double)maxima[0][row], (double)maxima[1][row]);
            double shift = isinf(max) ? 0 : max;
            double keep = exp((double)maxima[0][row] - shift);
            double take = exp((double)maxima[1][row] - shift);
            want[row][0] = (double)norms[0][row] * keep + (double)norms[1][row] * take;
            want[row][1] =
                (double)sums[0][row * WIDTH + 47] * keep + (double)sums[1][row * WIDTH + 47] * take;
        }
        sets[k]->attend->merge(&state[0], &state[1], ROWS, WIDTH);
        for (int row = 0; row < ROWS; row++) {
            CHECK_DOUBLE(fabs((double)norms[0][row] - want[row][0]), <=, 1e-6);
            CHECK_DOUBLE(fabs((double)sums[0][row * WIDTH + 47] - want[row][1]), <=, 1e-6);
        }
    }
}
