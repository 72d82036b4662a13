/* Pairs by spherical interpolation: the length rule, the arithmetic by hand, what must stay
 * finite, and the published code's own arithmetic. */
#include "compress/compressor.h"
#include "tests/test.h"
#include "tests/unit/method_fixture.h"
#include "tests/unit/random_rows.h"

#define ARENA_MAX ((size_t)64 << 20)
#define WIDTH     6

static struct method method = {.name = "slerp", .stage = STAGE_LM_LAYER, .layer = 3, .n_layer = 8};

/* Rows in the plane: angle in degrees and length. */
static void rows_at(struct rows *r, struct arena *a, const double (*at)[2], int n)
{
    struct err e = ERR_INIT;
    CHECK_OK(rows_init(r, a, n, 2, ROW_TEXT, 10, &e), e);
    for (int i = 0; i < n; i++) {
        row_at_angle(r, i, at[i][0], at[i][1]);
    }
}

static void check_row(const struct rows *r, int i, double degrees, double length)
{
    /* fp32 rounding of the inputs, enlarged where nearly opposite rows cancel */
    CHECK_DOUBLE(fabs((double)r->x[2 * i] - length * cos(degrees * M_PI / 180)), <, 1e-5);
    CHECK_DOUBLE(fabs((double)r->x[2 * i + 1] - length * sin(degrees * M_PI / 180)), <, 1e-5);
}

TEST(slerp_lengths, "0 to 9 rows become 0 1 2 3 3 4 4 5 5 6; the first and the last stay")
{
    static const int want[] = {0, 1, 2, 3, 3, 4, 4, 5, 5, 6};
    struct rng g;
    rng_init(&g, test_seed());
    method_defaults(&method);
    for (int n = 0; n < 10; n++) {
        struct arena a;
        struct rows r;
        struct rows before;
        arena_init(&a, ARENA_MAX);
        random_rows(&r, &a, n, WIDTH, SHAPE_UNIFORM, &g);
        copy_rows(&before, &a, &r);
        const char *skipped = method_run(&method, &r, &a);
        CHECK_INT(r.n, ==, want[n]);
        CHECK((skipped != NULL) == (n <= 3));
        for (int last = n - (n % 2 ? 2 : 1); n > 3 && last < n; last++) {
            CHECK_DOUBLE(r.mass[r.owner[last]], ==, 1);
            CHECK(test_same_bits(r.x + r.owner[last] * WIDTH, before.x + last * WIDTH, WIDTH));
        }
        CHECK(n < 4 || test_same_bits(r.x, before.x, WIDTH));
        arena_clear(&a);
    }
}

TEST(slerp_by_hand, "the middle angle; lengths blend; places are the mean or counted anew")
{
    static const double at[][2] = {{0, 1}, {10, 2}, {70, 2}, {90, 3}, {210, 1}, {0, 1}};
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    rows_at(&r, &a, at, 6);
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 4);
    check_row(&r, 0, 0, 1);
    check_row(&r, 1, 40, 2); /* where the mean would have length 2 cos 30 = 1.73 */
    /* 120 degrees apart: both weights are sin 60 / sin 120 = 1 */
    CHECK_DOUBLE(fabs((double)r.x[4] - cos(210 * M_PI / 180)), <, 1e-5);
    CHECK_DOUBLE(fabs((double)r.x[5] - (3 + sin(210 * M_PI / 180))), <, 1e-5);
    CHECK_DOUBLE(r.position[1], ==, 11.5);
    CHECK_DOUBLE(r.position[2], ==, 13.5);
    CHECK_DOUBLE(r.position[3], ==, 15);
    method_set(&method, "positions", 1);
    rows_at(&r, &a, at, 6);
    CHECK(!method_run(&method, &r, &a));
    for (int i = 0; i < 4; i++) {
        CHECK_DOUBLE(r.position[i], ==, 10 + i);
    }
    arena_clear(&a);
}

TEST(slerp_masses, "a row that stands for three pulls three times as far as one")
{
    static const double at[][2] = {{0, 1}, {0, 2}, {80, 2}, {5, 1}};
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    rows_at(&r, &a, at, 4);
    r.mass[2] = 3;
    r.n_source = 6;
    static int32_t owner[] = {0, 1, 2, 2, 2, 3};
    r.owner = owner;
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 3);
    CHECK_DOUBLE(r.mass[1], ==, 4);
    check_row(&r, 1, 60, 2);
    CHECK_DOUBLE(r.position[1], ==, 11.75);
    arena_clear(&a);
}

TEST(slerp_guards, "equal, nearly equal, opposite and zero rows stay finite, in each arithmetic")
{
    static const double at[][2] = {{0, 1},   {33, 2}, {33, 2}, {50, 1}, {50.00001, 1}, {20, 1},
                                   {200, 1}, {0, 0},  {10, 4}, {0, 0},  {0, 0},        {7, 1}};
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    for (int compat = 0; compat < 2; compat++) {
        method_defaults(&method);
        method_set(&method, "compat", compat);
        rows_at(&r, &a, at, 12);
        CHECK(!method_run(&method, &r, &a));
        CHECK_INT(r.n, ==, 7);
        for (int i = 0; i < r.n * 2; i++) {
            CHECK(isfinite((double)r.x[i]));
        }
        if (!compat) {
            check_row(&r, 1, 33, 2);
            check_row(&r, 2, 50, 1);
            check_row(&r, 3, 0, 0); /* opposite: the straight mean */
            check_row(&r, 4, 10, 2);
            check_row(&r, 5, 0, 0);
        }
    }
    arena_clear(&a);
}

TEST(slerp_norms, "between rows of one length a pair has that length, if they are not opposite")
{
    struct rng g;
    struct arena a;
    struct rows r;
    rng_init(&g, test_seed());
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    for (int trial = 0; trial < 200; trial++) {
        double at[4][2] = {{0, 1}, {360 * rng_double(&g), 3}, {0, 3}, {0, 1}};
        at[2][0] = at[1][0] + 170 * rng_double(&g);
        rows_at(&r, &a, at, 4);
        CHECK(!method_run(&method, &r, &a));
        check_row(&r, 1, (at[1][0] + at[2][0]) / 2, 3);
    }
    arena_clear(&a);
}

TEST(slerp_compat, "the published arithmetic: norms over the stretch, pairs of about 0.707 (a + b)")
{
    static const double at[][2] = {{0, 1}, {10, 2}, {70, 2}, {90, 3}, {150, 1}, {45, 1}};
    struct arena a;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    method_set(&method, "compat", 1);
    rows_at(&r, &a, at, 6);
    CHECK(!method_run(&method, &r, &a));
    CHECK_INT(r.n, ==, 4);
    /* firsts 0, x1, x3, x5; seconds x0, x2, x4, 0: squares 4 + 9 + 1 and 1 + 4 + 1 */
    double cosine = 4 * cos(60 * M_PI / 180) / sqrt(14.0 * 6.0);
    double weight = 1 / (2 * cos(acos(cosine) / 2));
    CHECK_DOUBLE(weight, >, 0.6);
    CHECK_DOUBLE(weight, <, 0.75);
    check_row(&r, 1, 40, weight * 2 * 2 * cos(30 * M_PI / 180));
    arena_clear(&a);
}

TEST(slerp_borders, "protected rows, breaks and kinds end a stretch; start and end rows stay")
{
    struct rng g;
    struct arena a;
    struct rows r;
    rng_init(&g, test_seed());
    arena_init(&a, ARENA_MAX);
    method_defaults(&method);
    random_rows(&r, &a, 20, WIDTH, SHAPE_UNIFORM, &g);
    r.flags[4] = ROW_PROTECTED; /* 0..3 | 4 | 5..9 | 10..13 | 14..19 */
    r.flags[10] = ROW_BREAK;
    for (int i = 14; i < 20; i++) {
        r.kind[i] = ROW_IMAGE;
    }
    CHECK(!method_run(&method, &r, &a));
    static const int owner[] = {0, 1, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11, 12, 12, 13, 13, 14};
    CHECK_INT(r.n, ==, 15);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(r.owner[i], ==, owner[i]);
    }
    method_set(&method, "start", 2);
    method_set(&method, "end", 1);
    random_rows(&r, &a, 8, WIDTH, SHAPE_UNIFORM, &g);
    CHECK(!method_run(&method, &r,
                      &a)); /* 0 1 | 2 (3 4) 5 6 | 7: five in the middle, an odd number */
    CHECK_INT(r.n, ==, 7);
    CHECK_INT(r.owner[3], ==, 3);
    CHECK_INT(r.owner[4], ==, 3);
    arena_clear(&a);
}

TEST(slerp_prefix_stable, "the pairs of a prefix are those of the whole, but for its last stretch")
{
    struct rng g;
    rng_init(&g, test_seed());
    method_defaults(&method);
    for (int trial = 0; trial < 20; trial++) {
        struct arena a;
        struct rows whole;
        struct rows merged;
        arena_init(&a, ARENA_MAX);
        random_rows(&whole, &a, 50, WIDTH, SHAPE_UNIFORM, &g);
        for (int i = 0; i < whole.n; i++) {
            whole.flags[i] = rng_below(&g, 9) == 0 ? ROW_PROTECTED : 0;
        }
        copy_rows(&merged, &a, &whole);
        method_run(&method, &merged, &a);
        for (int k = 1; k < whole.n; k++) {
            struct rows prefix;
            copy_rows(&prefix, &a, &whole);
            prefix.n = prefix.n_source = k;
            method_run(&method, &prefix, &a);
            for (int s = 0; s < k - 2; s++) { /* a stretch leaves up to two rows at its end */
                CHECK_INT(prefix.owner[s], ==, merged.owner[s]);
            }
        }
        arena_clear(&a);
    }
}
