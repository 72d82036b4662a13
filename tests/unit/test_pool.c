/* pool and downscale: the grid that cells go to, against a search over all coarse cells. */
#include "base/arena.h"
#include "tests/test.h"
#include "tests/unit/picture_rows.h"

#define ARENA_MAX ((size_t)64 << 20)

/* The coarse cell of n_coarse in a line of n whose span holds the centre of cell i. */
static int naive_cell(int i, int n, int n_coarse)
{
    for (int c = 0; c < n_coarse; c++) {
        double from = (double)c * n / n_coarse;
        double to = (double)(c + 1) * n / n_coarse;
        if (i + 0.5 >= from && i + 0.5 < to) {
            return c;
        }
    }
    FAIL("cell %d of %d lies nowhere", i, n);
}

static void check_pool(int width, int height, int columns, int lines, int protect_every,
                       struct rng *g)
{
    struct arena a;
    struct rows r;
    struct rows before;
    struct picture_facts facts;
    double options[COMPRESSOR_MAX_OPTIONS];
    arena_init(&a, ARENA_MAX);
    picture_rows(&r, &facts, &a, width, height, g);
    for (int i = 0; protect_every && i < r.n; i += protect_every) {
        r.flags[i] = ROW_PROTECTED;
    }
    copy_rows(&before, &a, &r);
    compressor_defaults(compressor_find("pool"), options);
    picture_option("pool", options, "columns", columns);
    picture_option("pool", options, "lines", lines);
    picture_apply("pool", options, &facts, &r, &a, NULL);
    CHECK(protect_every || r.n == columns * lines);
    int last = -1;
    for (int row = 0; row < r.n; row++) {
        int first = 0;
        while (r.owner[first] != row) {
            first++;
        }
        CHECK_INT(first, >, last); /* raster order */
        last = first;
        CHECK_DOUBLE(r.position[row], ==, first);
        double sum[PICTURE_WIDTH] = {0};
        double n = 0;
        for (int i = 0; i < before.n; i++) {
            bool alone = (before.flags[i] | before.flags[first]) & ROW_PROTECTED;
            bool same =
                naive_cell(i % width, width, columns) ==
                    naive_cell(first % width, width, columns) &&
                naive_cell(i / width, height, lines) == naive_cell(first / width, height, lines);
            CHECK_INT(r.owner[i] == row, ==, alone ? i == first : same);
            for (int d = 0; r.owner[i] == row && d < PICTURE_WIDTH; d++) {
                sum[d] += (double)before.x[i * PICTURE_WIDTH + d];
            }
            n += r.owner[i] == row;
        }
        for (int d = 0; d < PICTURE_WIDTH; d++) { /* fp32 means of values below 1 */
            CHECK_DOUBLE(fabs(sum[d] / n - (double)r.x[row * PICTURE_WIDTH + d]), <, 1e-6);
        }
    }
    arena_clear(&a);
}

TEST(pool_partition, "each cell belongs to the one coarse cell that holds its centre")
{
    struct rng g;
    rng_init(&g, test_seed());
    static const int grids[][4] = {{16, 16, 8, 8}, {16, 16, 4, 4}, {16, 16, 10, 10},
                                   {16, 16, 6, 5}, {7, 5, 3, 2},   {16, 16, 16, 16},
                                   {1, 9, 1, 4},   {5, 5, 1, 1}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        for (int every = 0; every < 6; every += 5) {
            check_pool(grids[i][0], grids[i][1], grids[i][2], grids[i][3], every, &g);
        }
    }
}

static int rows_for(const char *method, const char *option, double value, int n)
{
    double options[COMPRESSOR_MAX_OPTIONS];
    const struct compressor *c = compressor_find(method);
    compressor_defaults(c, options);
    picture_option(method, options, option, value);
    return c->ops.predict(options, n);
}

TEST(pool_ratios, "the grid that comes nearest to a ratio; downscale stays square")
{
    CHECK_INT(rows_for("pool", "ratio", 4, 256), ==, 64);
    CHECK_INT(rows_for("pool", "ratio", 16, 256), ==, 16);
    CHECK_INT(rows_for("pool", "ratio", 8, 256), ==, 30);
    CHECK_INT(rows_for("pool", "ratio", 2, 256), ==, 132);
    CHECK_INT(rows_for("pool", "ratio", 1, 256), ==, 256);
    CHECK_INT(rows_for("pool", "ratio", 64, 16), ==, 1);
    CHECK_INT(rows_for("pool", "columns", 300, 256), ==, 256);
    CHECK_INT(rows_for("pool", "ratio", 4, 255), ==, -1);
    CHECK_INT(rows_for("downscale", "ratio", 4, 256), ==, 64);
    CHECK_INT(rows_for("downscale", "ratio", 8, 256), ==, 36);
    CHECK_INT(rows_for("downscale", "side", 5, 256), ==, 25);
}

TEST(pool_refusals, "without the whole grid, and beside protected cells, nothing is done")
{
    struct arena a;
    struct rng g;
    struct rows r;
    struct rows before;
    struct picture_facts facts;
    double options[COMPRESSOR_MAX_OPTIONS];
    const char *skipped = NULL;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    picture_rows(&r, &facts, &a, 6, 6, &g);
    compressor_defaults(compressor_find("pool"), options);
    copy_rows(&before, &a, &r);
    facts.width = 5;
    picture_apply("pool", options, &facts, &r, &a, &skipped);
    CHECK_STR(skipped, "no_grid");
    picture_apply("pool", options, NULL, &r, &a, &skipped);
    CHECK_STR(skipped, "no_grid");
    CHECK(same_rows(&r, &before));
    facts.width = 6;
    r.flags[7] = ROW_PROTECTED;
    compressor_defaults(compressor_find("downscale"), options);
    picture_apply("downscale", options, &facts, &r, &a, &skipped);
    CHECK_STR(skipped, "protected_area");
    CHECK_INT(r.n, ==, 36);
    arena_clear(&a);
}
