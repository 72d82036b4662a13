/* Which of several plans, mildest first, may be trusted? A fixed-sequence test: each plan is
 * tested at the full level, and the first that fails ends the sequence, so the chance that
 * any plan below the target is kept is at most alpha, however many plans there are (Maurer,
 * Hothorn, Lehmacher 1995). The plan that is kept must hold once more on requests that
 * nobody looked at before; where it does not, the next milder one is asked. */
#ifndef TAMP_CMD_FIXED_SEQUENCE_H
#define TAMP_CMD_FIXED_SEQUENCE_H

#include <stdbool.h>

/* Half 0 chooses, half 1 confirms. */
enum { HALF_CHOOSE, HALF_CONFIRM, HALF_COUNT };

/* What one plan did on one half. A plan that can no longer reach the target is left, so
 * good + bad may be less than the half has requests. */
struct sequence_tally {
    int good, bad;
    bool complete; /* every request was asked */
    double bound;  /* one-sided, of good among good + bad */
    bool holds;    /* complete, and bound >= target */
};

struct sequence {
    int n_steps;
    int n_items[HALF_COUNT];
    double target, alpha;
    bool explore; /* ask every plan all of half 0, also behind the first that fails, so that
                     the whole ladder can be looked at; what is kept stays the same */
    /* 1: the request is answered as without compression; 0: it is not; -1: stop. Requests
     * are asked for in order, each at most once. */
    int (*agrees)(void *ctx, int step, int half, int item);
    void *ctx;

    struct sequence_tally (*tally)[HALF_COUNT]; /* [n_steps], zeroed; out */
    int chosen;                                 /* by half 0; -1 = none */
    int kept;                                   /* after half 1; -1 = none */
};

/* -1 when `agrees` said stop; tally then holds what is known. */
int sequence_run(struct sequence *s);

#endif
