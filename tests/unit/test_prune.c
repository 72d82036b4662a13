/* prune against the formulas in double, without any sorting or incremental arrays. */
#include "base/arena.h"
#include "tests/test.h"
#include "tests/unit/picture_rows.h"

#define ARENA_MAX ((size_t)64 << 20)
#define MOST_ROWS 64

enum { IMPORTANCE, DIVERSITY };
enum { MERGE, DISCARD };

static double cosine(const struct rows *r, int i, int j)
{
    double ij = 0;
    double ii = 0;
    double jj = 0;
    for (int d = 0; d < r->n_embd; d++) {
        double x = (double)r->x[i * r->n_embd + d];
        double y = (double)r->x[j * r->n_embd + d];
        ij += x * y;
        ii += x * x;
        jj += y * y;
    }
    return ij / sqrt(ii * jj);
}

static bool is_free(const struct rows *r, int i)
{
    return !(r->flags[i] & ROW_PROTECTED);
}

/* The most looked-at rows, then evenly from the others. */
static void naive_importance(const struct rows *r, int k, double spread, bool *keep)
{
    int evenly = (int)floor(spread * k + 0.5);
    for (int t = 0; t < k - evenly; t++) {
        int best = -1;
        for (int i = 0; i < r->n; i++) {
            bool better = best < 0 || r->attention[i] > r->attention[best];
            best = is_free(r, i) && !keep[i] && better ? i : best;
        }
        keep[best] = true;
    }
    int rest[MOST_ROWS];
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        if (is_free(r, i) && !keep[i]) {
            rest[n++] = i;
        }
    }
    for (int t = 0; t < evenly; t++) {
        keep[rest[(int)floor((t + 0.5) * n / evenly)]] = true;
    }
}

/* Distance of row i to the nearest of those in `to`. */
static double distance(const struct rows *r, int i, const bool *to)
{
    double least = INFINITY;
    for (int j = 0; j < r->n; j++) {
        if (j != i && to[j]) {
            least = fmin(least, 1 - cosine(r, i, j));
        }
    }
    return least;
}

static void naive_diversity(const struct rows *r, int k, bool *keep)
{
    bool taken[MOST_ROWS];
    bool all[MOST_ROWS];
    bool any = false;
    for (int i = 0; i < r->n; i++) {
        taken[i] = !is_free(r, i);
        all[i] = true;
        any |= taken[i];
    }
    for (int t = 0; t < k; t++) {
        int best = -1;
        double most = -1;
        for (int i = 0; i < r->n; i++) {
            double d = taken[i] ? -1 : distance(r, i, any ? taken : all);
            if (d > most) {
                most = d;
                best = i;
            }
        }
        taken[best] = keep[best] = any = true;
    }
}

static void check_prune(int score, int fate, int k, int protect_every, struct rng *g)
{
    struct arena a;
    struct rows r;
    struct rows before;
    struct picture_facts facts;
    double options[COMPRESSOR_MAX_OPTIONS];
    bool keep[MOST_ROWS] = {false};
    arena_init(&a, ARENA_MAX);
    picture_rows(&r, &facts, &a, 8, 6, g);
    for (int i = 3; protect_every && i < r.n; i += protect_every) {
        r.flags[i] = ROW_PROTECTED;
    }
    copy_rows(&before, &a, &r);
    compressor_defaults(compressor_find("prune"), options);
    picture_option("prune", options, "rows", k);
    picture_option("prune", options, "score", score);
    picture_option("prune", options, "dropped", fate);
    picture_option("prune", options, "spread", 0.25);
    picture_apply("prune", options, &facts, &r, &a, NULL);
    if (score == IMPORTANCE) {
        naive_importance(&before, k, 0.25, keep);
    } else {
        naive_diversity(&before, k, keep);
    }
    int row = 0;
    for (int i = 0; i < before.n; i++) {
        if (keep[i] || !is_free(&before, i)) {
            CHECK_INT(r.owner[i], ==, row); /* in their old order */
            CHECK(fate == MERGE || r.mass[row] == 1);
            row++;
        }
    }
    CHECK_INT(r.n, ==, row);
    for (int i = 0; i < before.n; i++) {
        if (!keep[i] && is_free(&before, i)) {
            int best = -1;
            for (int j = 0; j < before.n; j++) {
                best = keep[j] && (best < 0 || cosine(&before, i, j) > cosine(&before, i, best))
                           ? j
                           : best;
            }
            CHECK_INT(r.owner[i], ==, fate == DISCARD ? ROW_DROPPED : r.owner[best]);
        }
    }
    CHECK_INT(rows_dropped(&r), ==, fate == DISCARD ? before.n - r.n : 0);
    arena_clear(&a);
}

TEST(prune_reference, "what is kept, and where the others go")
{
    struct rng g;
    rng_init(&g, test_seed());
    for (int score = IMPORTANCE; score <= DIVERSITY; score++) {
        for (int fate = MERGE; fate <= DISCARD; fate++) {
            for (int every = 0; every < 8; every += 7) {
                check_prune(score, fate, 1, every, &g);
                check_prune(score, fate, 12, every, &g);
                check_prune(score, fate, 40, every, &g);
            }
        }
    }
}

TEST(prune_without_attention, "importance needs a tower that says what it looked at")
{
    struct arena a;
    struct rng g;
    struct rows r;
    struct picture_facts facts;
    double options[COMPRESSOR_MAX_OPTIONS];
    const char *skipped = NULL;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    picture_rows(&r, &facts, &a, 4, 4, &g);
    r.attention = NULL;
    compressor_defaults(compressor_find("prune"), options);
    picture_apply("prune", options, &facts, &r, &a, &skipped);
    CHECK_STR(skipped, "no_attention");
    CHECK_INT(r.n, ==, 16);
    picture_option("prune", options, "score", DIVERSITY);
    picture_apply("prune", options, &facts, &r, &a, &skipped);
    CHECK(!skipped);
    CHECK_INT(r.n, ==, 4);
    arena_clear(&a);
}
