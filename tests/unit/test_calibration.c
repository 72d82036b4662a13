/* Quantiles by hand, and the point of it all: the threshold for a share merges that share. */
#include "base/alloc.h"
#include "compress/calibration.h"
#include "compress/compressor.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"

#include <math.h>
#include <stdlib.h>

#define ARENA_MAX ((size_t)64 << 20)

TEST(calibration_quantiles, "known values come back between and at the quantiles")
{
    struct calibration c;
    struct err e = ERR_INIT;
    float cosines[] = {0.5f, NAN, 0.1f, 0.9f, 0.3f, 0.7f};
    CHECK_OK(calibration_init(&c, 2, &e), e);
    CHECK(isnan((double)calibration_threshold(&c, 0, 0.5)));
    calibration_set(&c, 0, cosines, 6);
    /* fp32 interpolation of values below 1 */
    CHECK_DOUBLE(fabs((double)calibration_threshold(&c, 0, 0) - 0.9), <, 1e-6);
    CHECK_DOUBLE(fabs((double)calibration_threshold(&c, 0, 1) - 0.1), <, 1e-6);
    CHECK_DOUBLE(fabs((double)calibration_threshold(&c, 0, 0.5) - 0.5), <, 1e-6);
    CHECK_DOUBLE(fabs((double)calibration_threshold(&c, 0, 0.38) - 0.596), <, 1e-6);
    CHECK_DOUBLE((double)calibration_threshold(&c, 0, -3), ==,
                 (double)calibration_threshold(&c, 0, 0));
    CHECK(isnan((double)calibration_threshold(&c, 1, 0.5)));
    CHECK(isnan((double)calibration_threshold(&c, 2, 0.5)));
    CHECK(isnan((double)calibration_threshold(&c, -2, 0.5)));
    calibration_set(&c, 1, cosines, 0);
    calibration_set(&c, 7, cosines, 5);
    CHECK(isnan((double)calibration_threshold(&c, 1, 0.5)));
    calibration_clear(&c);
    calibration_clear(&c);
    CHECK(isnan((double)calibration_threshold(&c, 0, 0.5)));
    CHECK(calibration_init(&c, -1, &e));
    alloc_fail_at(1);
    CHECK(calibration_init(&c, 1, &e));
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    alloc_fail_at(0);
}

TEST(calibration_neighbours, "only neighbours that may merge are measured")
{
    struct arena a;
    struct rows r;
    struct rng g;
    float cosines[8];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    random_rows(&r, &a, 8, 16, SHAPE_UNIFORM, &g);
    CHECK_INT(calibration_measure_neighbours(&r, cosines), ==, 7);
    double want = test_cosine(r.x + 2 * 16, r.x + 3 * 16, 16);
    CHECK_DOUBLE(fabs((double)cosines[2] - want), <, 1e-6);
    r.flags[0] = ROW_PROTECTED;
    r.flags[3] = ROW_BREAK;
    r.kind[6] = ROW_IMAGE;
    CHECK_INT(calibration_measure_neighbours(&r, cosines), ==, 3); /* 1-2, 3-4, 4-5 */
    r.n = 0;
    CHECK_INT(calibration_measure_neighbours(&r, cosines), ==, 0);
    arena_clear(&a);
}

TEST(calibration_reaches_the_ratio, "the threshold of a share merges that share of the rows")
{
    struct arena a;
    struct rows r;
    struct rng g;
    struct calibration c;
    struct err e = ERR_INIT;
    enum { N = 2000 };
    static float cosines[N];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    CHECK_OK(calibration_init(&c, 0, &e), e);
    random_rows(&r, &a, N, 16, SHAPE_UNIFORM, &g);
    int n = calibration_measure_neighbours(&r, cosines);
    CHECK_INT(n, ==, N - 1);
    calibration_set(&c, -1, cosines, n);
    const struct compressor *cosine = compressor_find("cosine");
    double options[COMPRESSOR_MAX_OPTIONS];
    compressor_defaults(cosine, options);
    options[compressor_option_index(cosine, "max_group")] = 64;
    options[compressor_option_index(cosine, "threshold")] =
        (double)calibration_threshold(&c, -1, 1 - 1 / 1.6);
    struct compress_call call = {
        .stage = STAGE_TEXT_ROWS, .layer = -1, .n_layer = 1, .options = options};
    struct compress_outcome out;
    CHECK_OK(cosine->ops.apply(&call, &r, &a, &out, &e), e);
    /* 37.5 % falls between two of the 101 quantiles: half a percent either way */
    CHECK_INT(abs(r.n - (int)(N / 1.6)), <=, N / 200);
    calibration_clear(&c);
    arena_clear(&a);
}

TEST(merge_rates_between,
     "measured rates come back, between them the logarithm decides, 1 merges nothing")
{
    struct merge_rates r = {0};
    struct err e = ERR_INIT;
    float t[2];
    CHECK_OK(merge_rates_init(&r, 2, &e), e);
    CHECK_DOUBLE(merge_rate_ratio(0), ==, 2);
    CHECK_DOUBLE(merge_rate_ratio(MERGE_RATES - 1), ==, 16);
    CHECK(merge_rates_needs(&r, 1, 4));
    CHECK(!merge_rates_needs(&r, 0, 4));
    CHECK(!merge_rates_needs(&r, 2, 4));
    CHECK(merge_rates_needs(&r, 0, 3) && merge_rates_needs(&r, 1, 3));
    CHECK(merge_rates_needs(&r, 3, 16) && merge_rates_needs(&r, 3, 64));
    for (int rate = 0; rate < MERGE_RATES; rate++) {
        CHECK(!merge_rates_needs(&r, rate, 1));
    }
    merge_rates_add(&r, 0, 0, 0.8f);
    merge_rates_add(&r, 0, 0, 0.9f);
    merge_rates_add(&r, 0, 1, NAN);
    merge_rates_add(&r, 1, 0, 0.5f);
    CHECK(!merge_rates_needs(&r, 0, 2));
    merge_rates_thresholds(&r, 2, t);
    CHECK_DOUBLE(fabs((double)t[0] - 0.85), <, 1e-6);
    CHECK_DOUBLE((double)t[1], ==, 1);
    merge_rates_thresholds(&r, 4, t);
    CHECK_DOUBLE(fabs((double)t[0] - 0.5), <, 1e-6);
    merge_rates_thresholds(&r, sqrt(8), t);
    CHECK_DOUBLE(fabs((double)t[0] - 0.675), <, 1e-6);
    merge_rates_thresholds(&r, sqrt(2), t);
    CHECK_DOUBLE(fabs((double)t[0] - 0.925), <, 1e-6);
    merge_rates_thresholds(&r, 1, t);
    CHECK_DOUBLE((double)t[0], ==, 1);
    CHECK_OK(merge_rates_init(&r, 2, &e), e); /* what is there stays */
    CHECK(!merge_rates_needs(&r, 0, 2));
    merge_rates_clear(&r);
}
