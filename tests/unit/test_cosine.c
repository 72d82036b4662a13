/* Thresholded merging of neighbours: its groups against the definition, prefix stability,
 * positions and norms by hand. */
#include "compress/compressor.h"
#include "tests/test.h"
#include "tests/unit/method_fixture.h"
#include "tests/unit/random_rows.h"

#include <stdbool.h>

#define ARENA_MAX ((size_t)64 << 20)
#define WIDTH     8

static struct method method = {
    .name = "cosine", .stage = STAGE_TEXT_ROWS, .layer = -1, .n_layer = 1};

TEST(cosine_by_hand, "groups, mean positions and both norms on rows with known angles")
{
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    method_set(&method, "threshold", 0.85); /* 31.8 degrees */
    const double degrees[] = {0, 30, 90, 100, 110, 200};

    rows_at_angles(&r, &a, 100, degrees, 6);
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 3);
    CHECK_DOUBLE(r.mass[0], ==, 2);
    CHECK_DOUBLE(r.mass[1], ==, 3);
    CHECK_DOUBLE(r.mass[2], ==, 1);
    CHECK_DOUBLE(r.position[0], ==, 100.5);
    CHECK_DOUBLE(r.position[1], ==, 103);
    CHECK_DOUBLE(r.position[2], ==, 105);
    /* direction: the middle angle, length 2 as its members; fp32 rounding */
    CHECK_DOUBLE(fabs((double)r.x[0] - 2 * cos(15 * M_PI / 180)), <, 1e-6);
    CHECK_DOUBLE(fabs((double)r.x[1] - 2 * sin(15 * M_PI / 180)), <, 1e-6);
    CHECK_DOUBLE(fabs((double)r.x[3] - 2 * sin(100 * M_PI / 180)), <, 1e-6);

    method_set(&method, "norm", 0);
    rows_at_angles(&r, &a, 100, degrees, 6);
    CHECK(!method_run(&method, &r, &a));
    /* mean of two at 30 degrees: shorter by cos 15 */
    CHECK_DOUBLE(fabs((double)r.x[0] - 2 * pow(cos(15 * M_PI / 180), 2)), <, 1e-6);
    arena_clear(&a);
}

TEST(cosine_borders, "protected rows, breaks, kinds and max_group close a group")
{
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    const double same[12] = {0};
    rows_at_angles(&r, &a, 100, same, 12);
    r.flags[3] = ROW_PROTECTED;
    r.flags[6] = ROW_BREAK;
    r.kind[8] = ROW_IMAGE;
    method_set(&method, "max_group", 2);
    CHECK(!method_run(&method, &r, &a));
    /* 0 1 | 2 | 3 | 4 5 | 6 7 | 8 | 9 10 | 11 */
    static const int owner[] = {0, 0, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7};
    CHECK_INT(r.n, ==, 8);
    for (int i = 0; i < 12; i++) {
        CHECK_INT(r.owner[i], ==, owner[i]);
    }
    arena_clear(&a);
}

TEST(cosine_threshold_one, "1 merges nothing, not even equal rows; -1 all but opposite ones")
{
    struct arena a;
    struct rows r;
    struct rows before;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    const double degrees[] = {33, 33, 33, 33, 90, 270};
    method_set(&method, "threshold", 1);
    rows_at_angles(&r, &a, 100, degrees, 6);
    copy_rows(&before, &a, &r);
    CHECK_STR(method_run(&method, &r, &a), "nothing_similar");
    CHECK(same_rows(&r, &before));
    CHECK_INT(compressor_find("cosine")->ops.predict(method.option, 6), ==, 6);
    method_set(&method, "threshold", -1);
    method_set(&method, "max_group", 64);
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 2);
    CHECK_INT(compressor_find("cosine")->ops.predict(method.option, 6), ==, -1);
    rows_at_angles(&r, &a, 100, degrees, 1);
    CHECK_STR(method_run(&method, &r, &a), "too_few_rows");
    arena_clear(&a);
}

TEST(cosine_again, "merging merged rows weighs them by their mass")
{
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    const double same[4] = {0};
    rows_at_angles(&r, &a, 100, same, 4);
    r.flags[3] = ROW_BREAK;
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 2);
    r.flags[1] = 0;
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 1);
    CHECK_DOUBLE(r.mass[0], ==, 4);
    CHECK_DOUBLE(r.position[0], ==, 101.5);
    arena_clear(&a);
}

static void mark_borders(struct rows *r, struct rng *g)
{
    for (int i = 0; i < r->n; i++) {
        r->flags[i] = rng_below(g, 6) == 0 ? ROW_PROTECTED : rng_below(g, 9) == 0 ? ROW_BREAK : 0;
    }
}

TEST(cosine_prefix_stable, "groups of every prefix are those of the whole, but for the open one")
{
    struct rng g;
    rng_init(&g, test_seed());
    for (int trial = 0; trial < 20; trial++) {
        struct arena a;
        struct rows whole;
        struct rows merged;
        arena_init(&a, ARENA_MAX);
        random_rows(&whole, &a, 60, WIDTH, SHAPE_NEIGHBOURS, &g);
        mark_borders(&whole, &g);
        method_defaults(&method);
        method_set(&method, "threshold", -0.2 + 1.1 * rng_double(&g));
        method_set(&method, "max_group", (double)(2 + rng_below(&g, 5)));
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
            CHECK(memcmp(prefix.position, merged.position, closed * sizeof(float)) == 0);
        }
        arena_clear(&a);
    }
}
