/* The elementwise loops of every instruction set that this CPU runs, against formulas in
 * double: over all magnitudes, at the ends, and the same bits wherever an element lies. */
#include "base/rng.h"
#include "tensor/kernels_impl.h"
#include "tensor/vector_ops_impl.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* ---- functions of one number ---- */

static double exact_gelu_erf(double x)
{
    return 0.5 * x * erfc(-x * M_SQRT1_2);
}

static double exact_gelu_tanh(double x)
{
    double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    return x / (1 + exp(-2 * u));
}

static double exact_gelu_quick(double x)
{
    return x / (1 + exp(-1.702 * x));
}

static double exact_silu(double x)
{
    return x / (1 + exp(-x));
}

static double exact_softcap(double x)
{
    return 30 * tanh(x / 30);
}

static void softcap_30(const struct vector_ops *ops, float *x, size_t n)
{
    ops->softcap(x, n, 30);
}

#define MAP_OF(name)                                                                               \
    static void name##_of(const struct vector_ops *ops, float *x, size_t n)                        \
    {                                                                                              \
        ops->name(x, n);                                                                           \
    }
MAP_OF(gelu_erf)
MAP_OF(gelu_tanh)
MAP_OF(gelu_quick)
MAP_OF(silu)

/* With a factor of 1 the fused ones are the plain ones. */
static void silu_mul_of(const struct vector_ops *ops, float *x, size_t n)
{
    const float one = 1;
    for (size_t i = 0; i < n; i++) {
        ops->silu_mul(x + i, &one, 1);
    }
}

static void gelu_tanh_mul_of(const struct vector_ops *ops, float *x, size_t n)
{
    const float one = 1;
    for (size_t i = 0; i < n; i++) {
        ops->gelu_tanh_mul(x + i, &one, 1);
    }
}

/* Errors allowed: so much of the result, and so much besides. What goes to 0 on the left
 * is a product with e^-x, whose argument is rounded: a relative error of |x| / 2^24, of a
 * number that is nothing beside the others. libm's erff and tanhf leave 1 + erf no correct
 * digits there: "ref" has the absolute error of 1 + erf, 6e-8 times |x|. */
static const struct {
    const char *name;
    void (*run)(const struct vector_ops *ops, float *x, size_t n);
    double (*exact)(double x);
    double relative, absolute;
} maps[] = {
    {"gelu_erf", gelu_erf_of, exact_gelu_erf, 4e-7, 4e-7},
    {"gelu_tanh", gelu_tanh_of, exact_gelu_tanh, 4e-7, 4e-7},
    {"gelu_tanh_mul", gelu_tanh_mul_of, exact_gelu_tanh, 4e-7, 4e-7},
    {"gelu_quick", gelu_quick_of, exact_gelu_quick, 4e-7, 1e-7},
    {"silu", silu_of, exact_silu, 4e-7, 1e-8},
    {"silu_mul", silu_mul_of, exact_silu, 4e-7, 1e-8},
    {"softcap", softcap_30, exact_softcap, 4e-7, 0},
};

enum { N_MAPS = sizeof maps / sizeof *maps, BATCH = 1009 };

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

TEST(vector_ops_accuracy, "activations and the soft cap over all of fp32, to a few ulp")
{
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    for (int s = 0; s < n_sets; s++) {
        for (int m = 0; m < N_MAPS; m++) {
            double worst = 0;
            /* every sign and exponent, some 2000 mantissas of each */
            for (uint64_t bits = 0; bits < 0x100000000u; bits += 3989 * (uint64_t)BATCH) {
                float x[BATCH];
                float y[BATCH];
                for (int i = 0; i < BATCH; i++) {
                    x[i] = y[i] = from_bits((uint32_t)(bits + 3989 * (uint64_t)i));
                }
                maps[m].run(sets[s], y, BATCH);
                for (int i = 0; i < BATCH; i++) {
                    double want = maps[m].exact((double)x[i]);
                    double error = fabs((double)y[i] - want);
                    double allowed = maps[m].relative * fabs(want) + maps[m].absolute + 1e-37;
                    if (isnan(x[i]) || isnan(y[i])) {
                        /* -inf times 0 is a NaN in all of them */
                        CHECK(isnan(y[i]) && (isnan(x[i]) || isinf(x[i])));
                    } else if (isfinite(x[i]) && !(error <= allowed)) {
                        FAIL("%s of %s: %.9g gives %.9g, not %.9g", maps[m].name, sets[s]->name,
                             (double)x[i], (double)y[i], want);
                    } else if (isfinite(x[i]) && error / allowed > worst) {
                        worst = error / allowed;
                    }
                }
            }
            printf("      %-7s %-14s %.2f of the error allowed\n", sets[s]->name, maps[m].name,
                   worst);
        }
    }
}

TEST(vector_ops_ends, "NaN stays NaN, the right end is x, the left end 0, a cap is reached")
{
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    for (int s = 0; s < n_sets; s++) {
        for (int m = 0; m < N_MAPS; m++) {
            bool cap = maps[m].exact == exact_softcap;
            float x[5] = {NAN, INFINITY, 3e38f, -3e38f, 0};
            maps[m].run(sets[s], x, 5);
            CHECK(isnan(x[0]));
            CHECK_DOUBLE(x[1], ==, cap ? 30 : (double)INFINITY);
            CHECK_DOUBLE(x[2], ==, cap ? 30 : (double)3e38f);
            CHECK_DOUBLE(x[3], ==, cap ? -30 : 0);
            CHECK_DOUBLE(x[4], ==, 0);
        }
    }
}

/* ---- the same bits everywhere ---- */

static void fill(struct rng *r, float *x, int n)
{
    for (int i = 0; i < n; i++) {
        x[i] = (float)(rng_double(r) * 12 - 6);
    }
}

static float *guarded(const float *from, int n)
{
    return test_guarded(from, (size_t)n * sizeof *from);
}

TEST(vector_ops_position, "an element's bits depend on it alone; nothing behind the end is read")
{
    enum { N = 67 };
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int s = 0; s < n_sets; s++) {
        float x[N];
        float up[N];
        fill(&r, x, N);
        fill(&r, up, N);
        for (int m = 0; m < N_MAPS + 2; m++) {
            float whole[N];
            memcpy(whole, x, sizeof whole);
            m < N_MAPS    ? maps[m].run(sets[s], whole, N)
            : m == N_MAPS ? sets[s]->silu_mul(whole, up, N)
                          : sets[s]->add(whole, up, N);
            for (int n = 1; n < N; n++) {
                float *part = guarded(x + N - n, n);
                float *other = guarded(up + N - n, n);
                m < N_MAPS    ? maps[m].run(sets[s], part, (size_t)n)
                : m == N_MAPS ? sets[s]->silu_mul(part, other, (size_t)n)
                              : sets[s]->add(part, other, (size_t)n);
                CHECK(memcmp(part, whole + N - n, (size_t)n * sizeof *part) == 0);
            }
        }
    }
}

/* ---- rows ---- */

static double exact_norm(const float *x, const float *w, const float *b, int n, int i, bool centre)
{
    double mean = 0;
    double squares = 0;
    for (int j = 0; j < n; j++) {
        mean += centre ? (double)x[j] / n : 0;
    }
    for (int j = 0; j < n; j++) {
        squares += ((double)x[j] - mean) * ((double)x[j] - mean) / n;
    }
    return ((double)x[i] - mean) / sqrt(squares + 1e-5) * (w ? (double)w[i] : 1) +
           (b ? (double)b[i] : 0);
}

TEST(vector_ops_norms, "both norms of any width, far from 0 too; a row's bits are its own")
{
    static const int widths[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 100};
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int k = 0; k < 4 * 10; k++) {
        int n = widths[k % 10];
        bool plain = k / 10 % 2; /* no weights, no bias */
        float offset = k / 20 ? 1000.0f : 0.0f;
        float x[300];
        float w[100];
        float b[100];
        fill(&r, x, 3 * n);
        fill(&r, w, n);
        fill(&r, b, n);
        for (int i = 0; i < 3 * n; i++) {
            x[i] += offset;
        }
        const float *rows = guarded(x, 3 * n);
        const float *weight = guarded(w, n);
        const float *bias = plain ? NULL : guarded(b, n);
        for (int s = 0; s < n_sets; s++) {
            float *layer = guarded(x, 3 * n);
            float *rms = guarded(x, 3 * n);
            sets[s]->layer_norm(layer, rows, weight, bias, 3, n, 1e-5f);
            sets[s]->rms_norm(rms, rms, plain ? NULL : weight, 3, n, 1e-5f);
            for (int i = 0; i < 3 * n; i++) {
                const float *row = rows + i / n * n;
                double want = exact_norm(row, weight, bias, n, i % n, true);
                /* results of up to 60, to 2 ulp; 1 / sqrt(1e-5) for a width of 1 */
                CHECK_DOUBLE(fabs((double)layer[i] - want), <=, 1e-5);
                want = exact_norm(row, plain ? NULL : weight, NULL, n, i % n, false);
                CHECK_DOUBLE(fabs((double)rms[i] - want), <=, 1e-5);
            }
            float alone[100];
            sets[s]->layer_norm(alone, rows + n, weight, bias, 1, n, 1e-5f);
            CHECK(memcmp(alone, layer + n, (size_t)n * sizeof *alone) == 0);
            sets[s]->rms_norm(alone, rows + n, plain ? NULL : weight, 1, n, 1e-5f);
            CHECK(memcmp(alone, rms + n, (size_t)n * sizeof *alone) == 0);
        }
    }
}

TEST(vector_ops_rows, "LayerScale and rotation equal the portable loops, at guard pages")
{
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int n = 1; n <= 70; n++) {
        float x[140];
        float y[140];
        float scale[70];
        fill(&r, x, 2 * n);
        fill(&r, y, 2 * n);
        fill(&r, scale, n);
        for (int s = 1; s < n_sets; s++) {
            float *want = guarded(y, 2 * n);
            float *got = guarded(y, 2 * n);
            vector_ops_ref.add_scaled_rows(want, x, scale, 2, n);
            sets[s]->add_scaled_rows(got, guarded(x, 2 * n), guarded(scale, n), 2, n);
            /* sums of up to 42; a product is rounded or not */
            CHECK_DOUBLE(test_max_diff(got, want, (size_t)(2 * n)), <=, 4e-6);
            for (int adjacent = 0; adjacent < 2; adjacent++) {
                memcpy(want, y, (size_t)(2 * n) * sizeof *y);
                memcpy(got, y, (size_t)(2 * n) * sizeof *y);
                vector_ops_ref.rotate(want, x, x + n, n, adjacent);
                sets[s]->rotate(got, guarded(x, n), guarded(x + n, n), n, adjacent);
                /* up to 72, likewise */
                CHECK_DOUBLE(test_max_diff(got, want, (size_t)(2 * n)), <=, 2e-5);
            }
        }
    }
}

TEST(vector_ops_choice, "forced kernels force their loops; else the best of this CPU run")
{
    struct err e = ERR_INIT;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    kernels_prefer(NULL); /* as in the program, whatever set the tests run with */
    vector_ops_use(NULL);
    CHECK(vector_ops_used() == sets[n_sets - 1]);
    CHECK(vector_ops_for(kernels_choose(NULL, &e)) == sets[n_sets - 1]);
    if (n_sets > 1) {
        CHECK_STR(vector_ops_for(kernels_choose("ref", &e))->name, "ref");
    }
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        const struct kernels *k = kernels_choose(*name, &e);
        if (k && k != kernels_choose(NULL, &e)) {
            CHECK_STR(vector_ops_for(k)->name, k->loops);
        }
    }
    vector_ops_use(&vector_ops_ref);
    CHECK(vector_ops_used() == &vector_ops_ref);
}
