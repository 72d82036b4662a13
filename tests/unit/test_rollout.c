/* engine/rollout.c: the rule of its header, step by step. */
#include "engine/rollout.h"
#include "tests/test.h"

static struct rollout r;

/* Compare n requests with this agreement on the plan's level; the level afterwards. */
static enum rollout_level compare(unsigned long long plan, int n, double agreement)
{
    for (int i = 0; i < n; i++) {
        struct rollout_change c;
        enum rollout_level level = rollout_level(&r, plan, "p");
        bool changed = rollout_add(&r, plan, level, agreement, &c);
        CHECK_INT(changed, ==, rollout_level(&r, plan, "p") != level);
        CHECK(!changed || (c.from == level && c.to == rollout_level(&r, plan, "p")));
    }
    return rollout_level(&r, plan, "p");
}

TEST(rollout_falls, "twenty that disagree are one rung down, as far as the shadow and no further")
{
    rollout_init(&r, ROLLOUT_FULL, 0.9);
    CHECK_INT(compare(1, 19, 0.5), ==, ROLLOUT_FULL);
    CHECK_INT(compare(1, 1, 0.5), ==, ROLLOUT_4X);
    CHECK_INT(compare(1, 19, 0.5), ==, ROLLOUT_4X);
    CHECK_INT(compare(1, 1, 0.5), ==, ROLLOUT_2X);
    CHECK_INT(compare(1, 200, 0.5), ==, ROLLOUT_SHADOW);
    CHECK_INT(compare(2, 1, 0.5), ==, ROLLOUT_FULL); /* another plan is its own */
    rollout_clear(&r);
}

TEST(rollout_stays,
     "agreement at the target stays in full; a bad spell among good ones does not fall")
{
    rollout_init(&r, ROLLOUT_FULL, 0.9);
    CHECK_INT(compare(1, 1000, 0.9), ==, ROLLOUT_FULL);
    CHECK_INT(compare(1, 40, 1), ==, ROLLOUT_FULL);
    CHECK_INT(compare(1, 9, 0.5), ==, ROLLOUT_FULL); /* mean of 50: 0.91 */
    CHECK_INT(compare(1, 2, 0.5), ==, ROLLOUT_4X);
    rollout_clear(&r);
}

TEST(rollout_climbs, "fifty that agree are one rung up; after a fall it takes twice as many")
{
    rollout_init(&r, ROLLOUT_SHADOW, 0.9);
    CHECK_INT(compare(1, 49, 0.95), ==, ROLLOUT_SHADOW);
    CHECK_INT(compare(1, 1, 0.95), ==, ROLLOUT_1_3X);
    CHECK_INT(compare(1, 50, 0.95), ==, ROLLOUT_2X);
    CHECK_INT(compare(1, 20, 0.5), ==, ROLLOUT_1_3X);
    CHECK_INT(compare(1, 99, 0.95), ==, ROLLOUT_1_3X);
    CHECK_INT(compare(1, 1, 0.95), ==, ROLLOUT_2X);
    CHECK_INT(compare(1, 100, 0.95), ==, ROLLOUT_4X);
    CHECK_INT(compare(1, 100, 0.95), ==, ROLLOUT_FULL);
    CHECK_INT(compare(1, 400, 0.95), ==, ROLLOUT_FULL); /* held: need is 50 again */
    CHECK_INT(compare(1, 50, 0.1), <, ROLLOUT_FULL);
    CHECK_INT(compare(3, 10000, 0.1), ==, ROLLOUT_SHADOW);
    CHECK_INT(compare(3, ROLLOUT_MOST_NEED, 1), ==, ROLLOUT_1_3X); /* need has a ceiling */
    rollout_clear(&r);
}

TEST(rollout_forgets, "what was served on another level does not count, nor do old plans stay")
{
    struct rollout_change c;
    rollout_init(&r, ROLLOUT_FULL, 0.9);
    CHECK_INT(compare(1, 20, 0.5), ==, ROLLOUT_4X);
    for (int i = 0; i < 100; i++) {
        CHECK(!rollout_add(&r, 1, ROLLOUT_FULL, 0, &c));
        CHECK(!rollout_add(&r, 77, ROLLOUT_FULL, 0, &c)); /* unknown */
    }
    CHECK_INT(rollout_level(&r, 1, "p"), ==, ROLLOUT_4X);
    for (unsigned long long plan = 2; plan < 1000; plan++) { /* one that is asked for stays */
        rollout_level(&r, plan, "q");
        CHECK_INT(rollout_level(&r, 1, "p"), ==, ROLLOUT_4X);
    }
    CHECK_INT(r.n_plans, ==, ROLLOUT_PLANS);
    rollout_clear(&r);
}
