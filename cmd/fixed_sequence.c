#include "cmd/fixed_sequence.h"

#include "base/binomial.h"

static int run_half(struct sequence *s, int step, int half)
{
    struct sequence_tally *t = &s->tally[step][half];
    int n = s->n_items[half];
    int most_bad = binomial_most_bad(n, s->target, s->alpha);
    *t = (struct sequence_tally){0};
    bool all = s->explore && half == HALF_CHOOSE;
    for (int i = 0; i < n && (all || t->bad <= most_bad); i++) {
        int agrees = s->agrees(s->ctx, step, half, i);
        if (agrees < 0) {
            return -1;
        }
        t->good += agrees;
        t->bad += !agrees;
    }
    t->complete = t->good + t->bad == n;
    t->bound = binomial_lower_bound(t->good, t->good + t->bad, s->alpha);
    t->holds = t->complete && t->bad <= most_bad;
    return 0;
}

int sequence_run(struct sequence *s)
{
    bool holds = true;
    s->chosen = s->kept = -1;
    for (int step = 0; step < s->n_steps && (holds || s->explore); step++) {
        if (run_half(s, step, HALF_CHOOSE)) {
            return -1;
        }
        holds = holds && s->tally[step][HALF_CHOOSE].holds;
        s->chosen = holds ? step : s->chosen;
    }
    for (int step = s->chosen; step >= 0; step--) {
        if (run_half(s, step, HALF_CONFIRM)) {
            return -1;
        }
        if (s->tally[step][HALF_CONFIRM].holds) {
            s->kept = step;
            break;
        }
    }
    return 0;
}
