/* `tamp calibrate`: its statistics against SciPy's numbers and against synthetic answers
 * whose true agreement is known. */
#include "base/binomial.h"
#include "base/rng.h"
#include "cmd/fixed_sequence.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

/* scipy 1.17.1: binom.sf(k - 1, n, p) */
TEST(binomial_tail_is_scipys, "the chance of at least k good ones")
{
    static const struct {
        int k, n;
        double p, want;
    } cases[] = {
        {3, 10, 0.25, 0.474407196045},
        {95, 100, 0.98, 0.984516359358},
        {990, 1000, 0.983, 0.0477563093957},
        {1, 50, 0.001, 0.048794371803},
        {500, 1000, 0.5, 0.512612509089},
        {9800, 10000, 0.98, 0.518795268761},
        {10, 10, 0.9, 0.3486784401},
        {1999990, 2000000, 0.99999, 0.0108114280135},
        {0, 10, 0.5, 1},
        {5, 10, 0, 0},
        {5, 10, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double got = binomial_tail(cases[i].k, cases[i].n, cases[i].p);
        CHECK_DOUBLE(fabs(got - cases[i].want), <=, 1e-9);
    }
}

/* scipy 1.17.1: beta.ppf(alpha, k, n - k + 1) */
TEST(binomial_bound_is_clopper_pearson, "the one-sided bound of k good ones of n")
{
    static const struct {
        int k, n;
        double alpha, want;
    } cases[] = {
        {200, 200, 0.05, 0.985132960769},
        {297, 300, 0.05, 0.974358606917},
        {495, 500, 0.05, 0.979089677058},
        {990, 1000, 0.05, 0.983096824879},
        {1, 1, 0.05, 0.05},
        {1, 7, 0.05, 0.00730083197901},
        {3, 10, 0.05, 0.0872644339142},
        {175, 175, 0.05, 0.983027218369},
        {174, 175, 0.05, 0.973180448593},
        {9990, 10000, 0.05, 0.998304368546},
        {5000, 10000, 0.01, 0.488320144641},
        {1999990, 2000000, 0.05, 0.999991518905},
        {0, 5, 0.05, 0},
        {0, 0, 0.05, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double got = binomial_lower_bound(cases[i].k, cases[i].n, cases[i].alpha);
        CHECK_DOUBLE(fabs(got - cases[i].want), <=, 1e-9);
    }
}

/* The same with scipy, counted up until the bound falls below the target. */
TEST(binomial_most_bad_is_what_the_bound_allows, "how many may differ, and how many are needed")
{
    static const struct {
        int n;
        double target;
        int want;
    } cases[] = {
        {100, 0.983, -1},  {100, 0.95, 1},   {100, 0.9, 4},     {174, 0.983, -1}, {174, 0.95, 3},
        {175, 0.983, 0},   {200, 0.95, 4},   {200, 0.9, 12},    {300, 0.983, 1},  {300, 0.95, 8},
        {500, 0.983, 3},   {500, 0.9, 38},   {1000, 0.983, 10}, {1000, 0.95, 38}, {5000, 0.983, 69},
        {5000, 0.95, 224}, {5000, 0.9, 464},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_INT(binomial_most_bad(cases[i].n, cases[i].target, 0.05), ==, cases[i].want);
    }
    CHECK_INT(binomial_least_trials(0.983, 0.05), ==, 175);
    CHECK_INT(binomial_least_trials(0.98, 0.05), ==, 149);
    CHECK_INT(binomial_least_trials(0.95, 0.05), ==, 59);
    CHECK_INT(binomial_least_trials(0.999, 0.05), ==, 2995);
}

/* ---- the sequence ------------------------------------------------------------------- */

#define STEPS 6

struct world {
    struct rng rng;
    const double *truth; /* [STEPS] true share of requests that a plan answers alike */
    int asked[STEPS][HALF_COUNT];
    int stop_after; /* answers until -1; 0 = never */
};

static int draw(void *ctx, int step, int half, int item)
{
    struct world *w = ctx;
    CHECK_INT(item, ==, w->asked[step][half]);
    w->asked[step][half]++;
    if (w->stop_after && --w->stop_after == 0) {
        return -1;
    }
    return rng_double(&w->rng) < w->truth[step];
}

static int run_world(struct world *w, int n, double target, struct sequence *s)
{
    static struct sequence_tally tally[STEPS][HALF_COUNT];
    memset(tally, 0, sizeof tally);
    memset(w->asked, 0, sizeof w->asked);
    *s = (struct sequence){.n_steps = STEPS,
                           .n_items = {n, n},
                           .target = target,
                           .alpha = 0.05,
                           .agrees = draw,
                           .ctx = w,
                           .tally = tally};
    return sequence_run(s);
}

/* How often a plan was kept whose truth is below the target, in `runs` resamples. */
static int broken_promises(const double *truth, int n, double target, int runs, uint64_t seed,
                           int *kept_any)
{
    int broken = 0;
    struct world w = {.truth = truth};
    struct sequence s;
    rng_init(&w.rng, seed);
    *kept_any = 0;
    for (int i = 0; i < runs; i++) {
        CHECK_INT(run_world(&w, n, target, &s), ==, 0);
        *kept_any += s.kept >= 0;
        broken += s.kept >= 0 && truth[s.kept] < target;
    }
    return broken;
}

TEST(calibrate_keeps_its_promise, "on 20 resamples the promised bound holds in at least 19")
{
    static const double worlds[][STEPS] = {
        {0.999, 0.997, 0.990, 0.982, 0.970, 0.950},       /* a usual ladder */
        {0.9829, 0.9829, 0.9829, 0.9829, 0.9829, 0.9829}, /* all just too bad */
        {0.999, 0.980, 0.999, 0.980, 0.999, 0.980},       /* not even in order */
        {0.99, 0.98, 0.97, 0.96, 0.95, 0.94},
    };
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        int kept;
        CHECK_INT(broken_promises(worlds[i], 600, 0.983, 20, i + 1, &kept), <=, 1);
        /* At most alpha in the long run; the confirmation makes it far less. */
        CHECK_INT(broken_promises(worlds[i], 600, 0.983, 1000, 100 + i, &kept), <=, 50);
    }
}

TEST(calibrate_can_find_something, "a good plan is found when there are requests enough")
{
    static const double truth[STEPS] = {0.999, 0.999, 0.999, 0.9, 0.5, 0.5};
    int kept;
    CHECK_INT(broken_promises(truth, 1000, 0.983, 100, 7, &kept), ==, 0);
    CHECK_INT(kept, >=, 95);
    /* With 174 requests not even agreement in all of them is enough. */
    CHECK_INT(broken_promises(truth, 174, 0.983, 100, 7, &kept), ==, 0);
    CHECK_INT(kept, ==, 0);
}

TEST(calibrate_asks_no_more_than_needed, "a lost plan is left, and nothing behind it is asked")
{
    static const double truth[STEPS] = {1, 1, 0, 1, 1, 1};
    struct world w = {.truth = truth};
    struct sequence s;
    rng_init(&w.rng, 1);
    CHECK_INT(run_world(&w, 300, 0.983, &s), ==, 0);
    CHECK_INT(s.chosen, ==, 1);
    CHECK_INT(s.kept, ==, 1);
    CHECK_INT(w.asked[2][HALF_CHOOSE], ==, 2); /* one may differ, so the second one decides */
    CHECK(!s.tally[2][HALF_CHOOSE].holds && !s.tally[2][HALF_CHOOSE].complete);
    CHECK_INT(w.asked[3][HALF_CHOOSE], ==, 0);
    CHECK_INT(w.asked[0][HALF_CONFIRM], ==, 0);
    CHECK_INT(w.asked[1][HALF_CONFIRM], ==, 300);
    CHECK_DOUBLE(s.tally[1][HALF_CONFIRM].bound, >=, 0.983);
}

/* Steps agree for ever in the half that chooses; in the other only step 0 does. */
static int only_step_0_confirms(void *ctx, int step, int half, int item)
{
    (void)ctx;
    (void)item;
    return half == HALF_CHOOSE || step == 0;
}

TEST(calibrate_steps_back, "what the second half does not confirm gives way to the next milder one")
{
    struct sequence_tally tally[STEPS][HALF_COUNT] = {0};
    struct sequence s = {.n_steps = STEPS,
                         .n_items = {200, 200},
                         .target = 0.983,
                         .alpha = 0.05,
                         .agrees = only_step_0_confirms,
                         .tally = tally};
    CHECK_INT(sequence_run(&s), ==, 0);
    CHECK_INT(s.chosen, ==, STEPS - 1);
    CHECK_INT(s.kept, ==, 0);
}

TEST(calibrate_explores_the_whole_ladder, "every plan is asked, and the same one is kept")
{
    static const double truth[STEPS] = {1, 1, 0.5, 1, 1, 1};
    struct sequence_tally tally[STEPS][HALF_COUNT] = {0};
    struct world w = {.truth = truth};
    struct sequence s = {.n_steps = STEPS,
                         .n_items = {300, 300},
                         .target = 0.983,
                         .alpha = 0.05,
                         .explore = true,
                         .agrees = draw,
                         .ctx = &w,
                         .tally = tally};
    rng_init(&w.rng, 1);
    CHECK_INT(sequence_run(&s), ==, 0);
    for (int i = 0; i < STEPS; i++) {
        CHECK_INT(w.asked[i][HALF_CHOOSE], ==, 300);
    }
    CHECK_INT(s.chosen, ==, 1);
    CHECK_INT(s.kept, ==, 1);
}

TEST(calibrate_stops_when_told, "-1 of the asking ends it at once")
{
    static const double truth[STEPS] = {1, 1, 1, 1, 1, 1};
    struct world w = {.truth = truth, .stop_after = 250};
    struct sequence s;
    rng_init(&w.rng, 1);
    CHECK_INT(run_world(&w, 200, 0.983, &s), ==, -1);
    CHECK_INT(w.asked[1][HALF_CHOOSE], ==, 50);
}
