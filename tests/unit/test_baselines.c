/* The baselines: which rows each of them keeps, by hand, of pictures and of texts. */
#include "base/arena.h"
#include "tests/test.h"
#include "tests/unit/picture_rows.h"

#define ARENA_MAX ((size_t)64 << 20)

/* Which of 64 rows are left, as bits; every eighth one is protected where `text` says so. */
static uint64_t left_of(const char *method, const char *option, double value, bool text)
{
    struct arena a;
    struct rng g;
    struct rows r;
    struct picture_facts facts;
    double options[COMPRESSOR_MAX_OPTIONS];
    uint64_t left = 0;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    picture_rows(&r, &facts, &a, 8, 8, &g);
    for (int i = 0; i < 64 && text; i++) {
        r.kind[i] = ROW_TEXT;
        r.flags[i] = i % 8 == 0 ? ROW_PROTECTED : 0;
    }
    compressor_defaults(compressor_find(method), options);
    picture_option(method, options, option, value);
    picture_apply(method, options, &facts, &r, &a, NULL);
    for (int i = 0; i < 64; i++) {
        left |= (uint64_t)(r.owner[i] >= 0) << i;
    }
    arena_clear(&a);
    return left;
}

TEST(baselines_choose, "random follows its seed, stride is even")
{
    CHECK(left_of("random", "seed", 1, false) == left_of("random", "seed", 1, false));
    CHECK(left_of("random", "seed", 1, false) != left_of("random", "seed", 2, false));
    CHECK_INT(__builtin_popcountll(left_of("random", "seed", 3, false)), ==, 16);
    uint64_t ever = 0;
    for (int seed = 0; seed < 40; seed++) {
        ever |= left_of("random", "seed", seed, false);
    }
    CHECK(ever == ~(uint64_t)0); /* a row misses all 40 with (3/4)^40 = 1e-5 */
    CHECK(left_of("stride", "ratio", 4, false) == 0x4444444444444444u);
    CHECK_INT(__builtin_popcountll(left_of("stride", "rows", 7, false)), ==, 7);
}

TEST(baselines_text, "protected rows stay, of the others as many as the ratio says")
{
    uint64_t fixed = 0x0101010101010101u;
    uint64_t left = left_of("random", "ratio", 4, true);
    CHECK((left & fixed) == fixed);
    CHECK_INT(__builtin_popcountll(left), ==, 8 + 14);
    CHECK_INT(__builtin_popcountll(left_of("stride", "ratio", 4, true)), ==, 8 + 14);
    /* 56 free rows, 14 of them stay: seven at each end, or all at one */
    CHECK(left_of("truncate", "cut", 0, true) == (fixed | 0x7fu << 1 | 0xfeull << 56));
    CHECK(left_of("truncate", "cut", 1, true) == (fixed | 0xfefeull << 48));
    CHECK(left_of("truncate", "cut", 2, true) == (fixed | 0xfefeu));
    CHECK(left_of("truncate", "ratio", 1, true) == ~(uint64_t)0);
}
