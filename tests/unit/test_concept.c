/* Concepts: their borders by hand, what stands for them, prefix stability, and that the
 * calibrated ratio is a mean over texts and not of each. */
#include "compress/calibration.h"
#include "compress/compressor.h"
#include "compress/plan.h"
#include "tests/test.h"
#include "tests/unit/method_fixture.h"
#include "tests/unit/random_rows.h"

#include <stdlib.h>

#define ARENA_MAX ((size_t)256 << 20)
#define WIDTH     16

static struct method method = {
    .name = "concept", .stage = STAGE_LM_LAYER, .layer = 3, .n_layer = 8};

TEST(concept_by_hand, "p_t = (1 - cos) / 2 at its border; mean, first or last stands for all")
{
    static const double degrees[] = {0, 20, 40, 101, 120, 180.5};
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    method_set(&method, "threshold", 0.5); /* p = 1/4: turns of 60 degrees and more */
    static const double want[][2] = {{20, 110.5}, {0, 101}, {40, 120}};
    for (int vector = 0; vector < 3; vector++) {
        method_set(&method, "vector", vector);
        rows_at_angles(&r, &a, 0, degrees, 6);
        CHECK(!method_run(&method, &r, &a));
        CHECK_INT(r.n, ==, 3);
        CHECK_DOUBLE(r.mass[0], ==, 3);
        CHECK_DOUBLE(r.position[0], ==, 1);
        CHECK_DOUBLE(r.position[1], ==, 3.5);
        for (int i = 0; i < 2; i++) { /* fp32 rounding; norm: direction keeps the length */
            CHECK_DOUBLE(fabs((double)r.x[2 * i] - 2 * cos(want[vector][i] * M_PI / 180)), <, 1e-6);
            CHECK_DOUBLE(fabs((double)r.x[2 * i + 1] - 2 * sin(want[vector][i] * M_PI / 180)), <,
                         1e-6);
        }
    }
    method_set(&method, "threshold", 1);
    rows_at_angles(&r, &a, 0, degrees, 6);
    CHECK_STR(method_run(&method, &r, &a), "nothing_similar");
    arena_clear(&a);
}

TEST(concept_prefix_stable, "concepts of every prefix are those of the whole, but for the open one")
{
    struct rng g;
    rng_init(&g, test_seed());
    for (int trial = 0; trial < 20; trial++) {
        struct arena a;
        struct rows whole;
        struct rows merged;
        arena_init(&a, ARENA_MAX);
        random_rows(&whole, &a, 60, WIDTH, SHAPE_NEIGHBOURS, &g);
        for (int i = 0; i < whole.n; i++) {
            whole.flags[i] = rng_below(&g, 8) == 0 ? ROW_PROTECTED : rng_below(&g, 9) == 0;
        }
        method_defaults(&method);
        method_set(&method, "threshold", 0.9 * rng_double(&g));
        method_set(&method, "vector", (double)rng_below(&g, 3));
        copy_rows(&merged, &a, &whole);
        method_run(&method, &merged, &a);
        for (int k = 1; k < whole.n; k++) {
            struct rows prefix;
            copy_rows(&prefix, &a, &whole);
            prefix.n = prefix.n_source = k;
            method_run(&method, &prefix, &a);
            for (int s = 0; s < k; s++) {
                CHECK_INT(prefix.owner[s], ==, merged.owner[s]);
            }
            size_t closed = (size_t)prefix.n - 1;
            CHECK(memcmp(prefix.x, merged.x, closed * WIDTH * sizeof *merged.x) == 0);
        }
        arena_clear(&a);
    }
}

/* A text whose rows keep so much of the one before. */
static void wander(struct rows *r, struct arena *a, int n, float keep, struct rng *g)
{
    random_rows(r, a, n, WIDTH, SHAPE_UNIFORM, g);
    for (int i = WIDTH; i < n * WIDTH; i++) {
        r->x[i] += r->x[i - WIDTH] * keep;
    }
}

TEST(concept_global_ratio, "the ratio holds over all texts; a wordy one merges more, a dense less")
{
    enum { N = 1500 };
    struct rng g;
    struct arena a;
    struct calibration c;
    struct err e = ERR_INIT;
    struct plan plan;
    struct plan_step step;
    static float cosines[2 * N];
    struct rows text[2];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    wander(&text[0], &a, N, 0.9f, &g);
    wander(&text[1], &a, N, 0.5f, &g);
    CHECK_OK(calibration_init(&c, 8, &e), e);
    int n = calibration_measure_neighbours(&text[0], cosines);
    n += calibration_measure_neighbours(&text[1], cosines + n);
    calibration_set(&c, 3, cosines, n);
    CHECK_OK(plan_from_profile(&plan, "off", &e), e);
    CHECK_OK(plan_set_method(&plan, MODALITY_LM, "concept", &e), e);
    CHECK_OK(plan_set_number(&plan, MODALITY_LM, "cutoff", 3, &e), e);
    CHECK_OK(plan_set_number(&plan, MODALITY_LM, "ratio", 1.6, &e), e);
    CHECK_OK(plan_set_number(&plan, MODALITY_LM, "max_group", 64, &e), e);
    const char *skipped;
    plan_text_step(&plan, MODALITY_LM, 2 * N, &c, &step, &skipped);
    CHECK(!skipped);
    memcpy(method.option, step.options, sizeof method.option);
    for (int i = 0; i < 2; i++) {
        CHECK(!method_run(&method, &text[i], &a));
    }
    CHECK_INT(text[0].n, <, text[1].n * 3 / 4);
    CHECK_INT(text[1].n, >, (int)(N / 1.6));
    /* between two quantiles, and some concepts of the wordy text are cut at 64 rows */
    CHECK_INT(abs(text[0].n + text[1].n - (int)(2 * N / 1.6)), <, 2 * N / 50);
    calibration_clear(&c);
    arena_clear(&a);
}
