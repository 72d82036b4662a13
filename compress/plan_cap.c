/* A plan that compresses no more than so many times: what a roll-out that has not come further
 * and a budget of time do to it. Only rates change, so the methods stay those that were
 * asked for. */
#include "compress/plan_impl.h"

#include <math.h>

/* Methods without a rate of their own, by thresholds or in pairs, leave about half at most. */
#define RATE_OF_OTHERS 2.0

void plan_step_cap(struct plan_step *step, enum modality m, int n_rows, double cap)
{
    const struct compressor *c = step->method;
    int ratio = compressor_option_index(c, "ratio");
    bool rated = ratio >= 0 && compressor_option_is_set(c, step->options, ratio);
    int left = m == MODALITY_IMAGE ? c->ops.predict(step->options, n_rows) : -1;
    if (c == compressors[0] || (left >= 0 && left * cap >= n_rows)) {
        return;
    }
    if (cap <= 1 || (left < 0 && !rated && cap < RATE_OF_OTHERS) || (left >= 0 && ratio < 0)) {
        plan_step_init(step, m, compressors[0]);
    } else if (ratio >= 0 && (rated || left >= 0)) {
        double now = step->options[ratio];
        plan_step_store(step, ratio, left < 0 && now < cap ? now : cap);
    }
}
