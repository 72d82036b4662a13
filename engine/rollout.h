/* How far a plan is rolled out: a ladder that it climbs while compressed answers agree with
 * uncompressed ones (shadow.c measures that), and falls back on when they do not.
 *
 *   shadow   served uncompressed; the shadow compresses, up to 1.3 times
 *   1.3x, 2x, 4x   compressed, but no more than so many times
 *   full     as planned
 *
 * The rule, for each plan by itself, with the agreement of a request being the share of its
 * answer's tokens that both prompts lead to:
 *   fall     20 or more requests were compared on this rung, and the mean of the last 50 is
 *            below the target: one rung down, and the next climb needs twice as many
 *            requests as before, up to 800
 *   climb    as many were compared as a climb needs, at first 50, and the mean is at the
 *            target or above: one rung up. A rung that holds for four times as many makes
 *            the next climb need 50 again
 * What was compared on another rung is forgotten. Levels never change without comparisons.
 * Any thread. */
#ifndef TAMP_ENGINE_ROLLOUT_H
#define TAMP_ENGINE_ROLLOUT_H

#include <pthread.h>
#include <stdbool.h>

enum rollout_level {
    ROLLOUT_SHADOW,
    ROLLOUT_1_3X,
    ROLLOUT_2X,
    ROLLOUT_4X,
    ROLLOUT_FULL,
    ROLLOUT_LEVELS
};
extern const char *const rollout_names[ROLLOUT_LEVELS];

/* At most so many times; 0 = as planned. */
double rollout_cap(enum rollout_level level);

#define ROLLOUT_LEAST     20
#define ROLLOUT_WINDOW    50
#define ROLLOUT_MOST_NEED 800
/* Plans that are followed; beyond that the one that was not asked for longest is forgotten. */
#define ROLLOUT_PLANS 32

struct rollout_plan {
    unsigned long long id; /* plan_id */
    char profile[32];
    enum rollout_level level;
    double window[ROLLOUT_WINDOW]; /* agreements, the last n_window of n */
    int n;                         /* compared on this level */
    int need;                      /* for a climb */
    unsigned long long used;
};

struct rollout {
    pthread_mutex_t lock;
    enum rollout_level first; /* of a plan that is new */
    double target;
    struct rollout_plan plans[ROLLOUT_PLANS];
    int n_plans;
    unsigned long long clock;
};

void rollout_init(struct rollout *r, enum rollout_level first, double target);
void rollout_clear(struct rollout *r);
enum rollout_level rollout_level(struct rollout *r, unsigned long long plan, const char *profile);

struct rollout_change {
    enum rollout_level from, to;
    double agreement; /* the mean that decided */
    char profile[32];
};
/* A request that was served on this level was compared. True: the plan's level changes. */
bool rollout_add(struct rollout *r, unsigned long long plan, enum rollout_level level,
                 double agreement, struct rollout_change *change);

#endif
