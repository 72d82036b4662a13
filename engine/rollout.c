#include "engine/rollout.h"

#include "engine/engine_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of a mean: what agrees by the target exactly is not below it. */
#define ROUNDING 1e-9

const char *const rollout_names[ROLLOUT_LEVELS] = {
    [ROLLOUT_SHADOW] = "shadow", [ROLLOUT_1_3X] = "1.3x", [ROLLOUT_2X] = "2x",
    [ROLLOUT_4X] = "4x",         [ROLLOUT_FULL] = "full",
};

double rollout_cap(enum rollout_level level)
{
    static const double caps[ROLLOUT_LEVELS] = {
        [ROLLOUT_SHADOW] = 1.3, [ROLLOUT_1_3X] = 1.3, [ROLLOUT_2X] = 2, [ROLLOUT_4X] = 4};
    return caps[level];
}

void rollout_init(struct rollout *r, enum rollout_level first, double target)
{
    *r = (struct rollout){.first = first, .target = target};
    pthread_mutex_init(&r->lock, NULL);
}

void rollout_clear(struct rollout *r)
{
    pthread_mutex_destroy(&r->lock);
}

/* Under the lock; NULL: it is not followed. */
static struct rollout_plan *find(struct rollout *r, unsigned long long id)
{
    for (int i = 0; i < r->n_plans; i++) {
        if (r->plans[i].id == id) {
            return &r->plans[i];
        }
    }
    return NULL;
}

static struct rollout_plan *add(struct rollout *r, unsigned long long id, const char *profile)
{
    struct rollout_plan *p = &r->plans[0];
    if (r->n_plans < ROLLOUT_PLANS) {
        p = &r->plans[r->n_plans++];
    } else {
        for (int i = 1; i < ROLLOUT_PLANS; i++) {
            p = r->plans[i].used < p->used ? &r->plans[i] : p;
        }
    }
    *p = (struct rollout_plan){.id = id, .level = r->first, .need = ROLLOUT_WINDOW};
    snprintf(p->profile, sizeof p->profile, "%s", profile);
    return p;
}

enum rollout_level rollout_level(struct rollout *r, unsigned long long plan, const char *profile)
{
    pthread_mutex_lock(&r->lock);
    struct rollout_plan *p = find(r, plan);
    p = p ? p : add(r, plan, profile);
    p->used = ++r->clock;
    enum rollout_level level = p->level;
    pthread_mutex_unlock(&r->lock);
    return level;
}

static double mean(const struct rollout_plan *p)
{
    int n = p->n < ROLLOUT_WINDOW ? p->n : ROLLOUT_WINDOW;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += p->window[i];
    }
    return sum / n;
}

/* The level that follows from what was compared. */
static enum rollout_level decide(const struct rollout *r, struct rollout_plan *p)
{
    double agreement = mean(p);
    if (p->n >= ROLLOUT_LEAST && agreement < r->target - ROUNDING) {
        p->need = p->need * 2 < ROLLOUT_MOST_NEED ? p->need * 2 : ROLLOUT_MOST_NEED;
        return p->level > ROLLOUT_SHADOW ? p->level - 1 : p->level;
    }
    if (p->n >= p->need && agreement >= r->target - ROUNDING && p->level < ROLLOUT_FULL) {
        return p->level + 1;
    }
    if (p->n >= 4 * p->need) {
        p->need = ROLLOUT_WINDOW;
    }
    return p->level;
}

bool rollout_add(struct rollout *r, unsigned long long plan, enum rollout_level level,
                 double agreement, struct rollout_change *change)
{
    bool changes = false;
    pthread_mutex_lock(&r->lock);
    struct rollout_plan *p = find(r, plan);
    if (p && p->level == level) {
        p->window[p->n++ % ROLLOUT_WINDOW] = agreement;
        enum rollout_level to = decide(r, p);
        *change = (struct rollout_change){.from = level, .to = to, .agreement = mean(p)};
        snprintf(change->profile, sizeof change->profile, "%s", p->profile);
        changes = to != level;
        bool stays_low =
            !changes && p->n >= ROLLOUT_LEAST && change->agreement < r->target - ROUNDING;
        if (changes || stays_low) { /* the lowest rung begins to count anew */
            p->level = to;
            p->n = 0;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return changes;
}

int engine_rollout(struct engine *en, struct engine_rollout *out, int max)
{
    struct rollout *r = &en->rollout;
    int n = 0;
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < r->n_plans; i++) {
        const struct rollout_plan *p = &r->plans[i];
        int k = 0;
        while (k < n && strcmp(out[k].profile, p->profile) != 0) {
            k++;
        }
        if (k < max && (k == n || (int)p->level < out[k].level)) {
            n = k == n ? n + 1 : n;
            out[k] = (struct engine_rollout){.level = p->level, .agreement = p->n ? mean(p) : NAN};
            snprintf(out[k].profile, sizeof out[k].profile, "%s", p->profile);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}
