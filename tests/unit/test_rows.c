/* rows_merge and rows_permute against arithmetic done by hand and against their
 * invariants on random groups; every failed allocation leaves the rows untouched. */
#include "base/alloc.h"
#include "compress/rows.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"

#include <math.h>

#define ARENA_MAX ((size_t)64 << 20)

TEST(rows_merge_by_hand, "mass-weighted mean, summed mass, smallest position, new owners")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    CHECK_OK(rows_init(&r, &a, 4, 2, ROW_IMAGE, 10, &e), e);
    const float x[] = {1, 2, 3, 4, 5, 6, 7, 8};
    memcpy(r.x, x, sizeof x);
    r.flags[2] = ROW_BREAK;

    const int32_t first[] = {1, 0, 1, 0};
    CHECK_OK(rows_merge(&r, first, 2, &a, &e), e);
    CHECK_INT(r.n, ==, 2);
    CHECK_DOUBLE(r.x[0], ==, 5); /* (3 + 7) / 2 */
    CHECK_DOUBLE(r.x[3], ==, 4); /* (2 + 6) / 2 */
    CHECK_DOUBLE(r.position[0], ==, 11);
    CHECK_DOUBLE(r.position[1], ==, 10);
    CHECK_INT(r.flags[1], ==, ROW_BREAK);
    CHECK_INT(r.owner[0], ==, 1);
    CHECK_INT(r.owner[3], ==, 0);
    CHECK_OK(rows_check(&r, &e), e);
    r.mass[0] = 3;
    CHECK(rows_check(&r, &e));
    r.mass[0] = 2;

    int32_t source[2];
    rows_first_source(&r, source);
    CHECK_INT(source[0], ==, 1);
    CHECK_INT(source[1], ==, 0);

    const int32_t both[] = {0, 0};
    CHECK_OK(rows_merge(&r, both, 1, &a, &e), e);
    CHECK_DOUBLE(r.x[0], ==, 4);
    CHECK_DOUBLE(r.mass[0], ==, 4);
    CHECK_OK(rows_check(&r, &e), e);
    arena_clear(&a);
}

TEST(rows_merge_unequal_mass, "rows of different mass count by their mass")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rows r;
    arena_init(&a, ARENA_MAX);
    CHECK_OK(rows_init(&r, &a, 4, 1, ROW_TEXT, 0, &e), e);
    for (int i = 0; i < 4; i++) {
        r.x[i] = (float)(i * i);
    }
    const int32_t three[] = {0, 0, 0, 1};
    const int32_t one[] = {0, 0};
    CHECK_OK(rows_merge(&r, three, 2, &a, &e), e);
    CHECK_OK(rows_merge(&r, one, 1, &a, &e), e);
    /* (0 + 1 + 4 + 9) / 4; the mean of 5/3 is rounded once on the way */
    CHECK_DOUBLE(fabs((double)r.x[0] - 3.5), <, 1e-6);
    CHECK_DOUBLE(r.mass[0], ==, 4);
    arena_clear(&a);
}

TEST(rows_merge_alone, "a row alone in its group keeps its bytes, whatever its mass")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rng g;
    struct rows r;
    struct rows before;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    random_rows(&r, &a, 7, 32, SHAPE_UNIFORM, &g);
    const int32_t three[] = {0, 0, 0, 1, 2, 2, 2};
    CHECK_OK(rows_merge(&r, three, 3, &a, &e), e);
    r.x[0] = -0.0f;
    copy_rows(&before, &a, &r);
    const int32_t swap[] = {1, 0, 0};
    CHECK_OK(rows_merge(&r, swap, 2, &a, &e), e);
    CHECK(test_same_bits(r.x + 32, before.x, 32));
    CHECK_DOUBLE(r.mass[1], ==, 3);
    arena_clear(&a);
}

TEST(rows_merge_broken_map, "a new row that stands for nothing is an error and changes nothing")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rows r;
    struct rows before;
    struct rng g;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    random_rows(&r, &a, 3, 4, SHAPE_UNIFORM, &g);
    copy_rows(&before, &a, &r);
    const int32_t map[] = {0, 2, 2};
    CHECK_INT(rows_merge(&r, map, 3, &a, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_INTERNAL);
    CHECK(same_rows(&r, &before));
    arena_clear(&a);
}

/* Every group of a random map gets at least one member. */
static int random_map(int32_t *map, int n, struct rng *g)
{
    int m = n ? 1 + (int)rng_below(g, (uint64_t)n) : 0;
    for (int i = 0; i < n; i++) {
        map[i] = i < m ? i : (int32_t)rng_below(g, (uint64_t)m);
    }
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rng_below(g, (uint64_t)i + 1);
        int32_t t = map[i];
        map[i] = map[j];
        map[j] = t;
    }
    return m;
}

TEST(rows_merge_random, "random groups again and again: invariants, and the mean of the sources")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rng g;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    for (int n = 0; n < 40; n++) {
        struct rows r;
        struct rows source;
        int32_t map[40];
        random_rows(&r, &a, n, 5, SHAPE_UNIFORM, &g);
        copy_rows(&source, &a, &r);
        for (int step = 0; step < 3; step++) {
            int m = random_map(map, r.n, &g);
            CHECK_OK(rows_merge(&r, map, m, &a, &e), e);
            CHECK_OK(rows_check(&r, &e), e);
        }
        for (int i = 0; i < r.n; i++) {
            double sum = 0;
            double position = INFINITY;
            for (int s = 0; s < n; s++) {
                if (r.owner[s] == i) {
                    sum += (double)source.x[s * 5];
                    position = fmin(position, s);
                }
            }
            /* three fp32 means of values below 1: a few units in the last place */
            CHECK_DOUBLE(fabs(sum / (double)r.mass[i] - (double)r.x[i * 5]), <, 1e-6);
            CHECK_DOUBLE(r.position[i], ==, position);
        }
        arena_clear(&a);
    }
}

TEST(rows_permute_order, "rows move with all that belongs to them")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rng g;
    struct rows r;
    struct rows before;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    random_rows(&r, &a, 7, 3, SHAPE_UNIFORM, &g);
    r.flags[4] = ROW_PROTECTED;
    r.kind[2] = ROW_IMAGE;
    copy_rows(&before, &a, &r);
    const int32_t perm[] = {6, 0, 5, 2, 4, 1, 3};
    const int32_t back[] = {1, 5, 3, 6, 4, 2, 0};
    CHECK_OK(rows_permute(&r, perm, &a, &e), e);
    for (int i = 0; i < 7; i++) {
        CHECK(test_same_bits(r.x + i * 3, before.x + perm[i] * 3, 3));
        CHECK_INT(r.flags[i], ==, before.flags[perm[i]]);
        CHECK_INT(r.kind[i], ==, before.kind[perm[i]]);
        CHECK_DOUBLE(r.position[i], ==, (double)before.position[perm[i]]);
        CHECK_INT(r.owner[perm[i]], ==, i);
    }
    CHECK_OK(rows_permute(&r, back, &a, &e), e);
    CHECK(same_rows(&r, &before));
    arena_clear(&a);
}

TEST(rows_out_of_memory, "a merge that gets no memory leaves the rows as they were")
{
    struct err e = ERR_INIT;
    struct rng g;
    struct arena a;
    struct rows r;
    struct rows before;
    int32_t map[32];
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    random_rows(&r, &a, 32, 16, SHAPE_UNIFORM, &g);
    copy_rows(&before, &a, &r);
    int m = random_map(map, 32, &g);
    int failures = 0;
    for (size_t limit = 0;; limit += 64) {
        struct arena scratch;
        arena_init(&scratch, limit);
        int rc = rows_merge(&r, map, m, &scratch, &e);
        arena_clear(&scratch);
        if (rc == 0) {
            break;
        }
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
        CHECK(same_rows(&r, &before));
        failures++;
    }
    CHECK_INT(failures, >, 3);
    CHECK_OK(rows_check(&r, &e), e);
    CHECK(rows_init(&r, &a, -1, 4, ROW_TEXT, 0, &e));
    arena_clear(&a);
}
