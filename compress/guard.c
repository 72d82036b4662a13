#include "compress/guard.h"

#include "compress/options.h"
#include "compress/plan_impl.h"

#include <math.h>
#include <string.h>

const struct compressor_option guard_options[N_GUARD_OPTIONS] = {
    [GUARD_MARGIN] = {.name = "margin",
                      .type = OPTION_FLOAT,
                      .min = 0,
                      .max = 1,
                      .def = 0.15,
                      .unit = "",
                      .help = "least lead of the most likely token over the second, as "
                              "probabilities"},
    [GUARD_ENTROPY] = {.name = "entropy",
                       .type = OPTION_FLOAT,
                       .min = 0.01,
                       .max = 20,
                       .def = 0,
                       .unit = "nats",
                       .help = "most entropy of the next token"},
    [GUARD_TOKENS] = OPTION_FIRST_TOKENS,
    [GUARD_MIN_RATIO] = {.name = "min_ratio",
                         .type = OPTION_FLOAT,
                         .min = 1,
                         .max = 16,
                         .def = 1.1,
                         .unit = "",
                         .help = "pictures and text that would be compressed by less stay as they "
                                 "are"},
};

void guard_init(struct guard *g)
{
    *g = (struct guard){.on = false};
    for (int i = 0; i < N_GUARD_OPTIONS; i++) {
        g->value[i] = guard_options[i].def;
    }
}

static int unknown(const char *option, struct err *e)
{
    const char *names[N_GUARD_OPTIONS + 2] = {"on"};
    char param[128];
    for (int i = 0; i < N_GUARD_OPTIONS; i++) {
        names[i + 1] = guard_options[i].name;
    }
    snprintf(param, sizeof param, "compression.guard.%.64s", option);
    plan_unknown_name(e, param, "option of the guard:", option, names);
    return -1;
}

int plan_set_guard(struct plan *p, const char *option, double value, struct err *e)
{
    static const struct compressor_option on = {.name = "on", .type = OPTION_BOOL, .max = 1};
    int i = 0;
    while (i < N_GUARD_OPTIONS && strcmp(guard_options[i].name, option) != 0) {
        i++;
    }
    if (i == N_GUARD_OPTIONS && strcmp(option, on.name) != 0) {
        return unknown(option, e);
    }
    if (plan_check_number(i < N_GUARD_OPTIONS ? &guard_options[i] : &on, "guard", value, e)) {
        return -1;
    }
    p->guard.on = i < N_GUARD_OPTIONS || value != 0;
    if (i < N_GUARD_OPTIONS) {
        p->guard.value[i] = value;
    }
    return 0;
}

void guard_measure(const float *logits, int n, struct guard_signal *out)
{
    double first = -INFINITY;
    double second = -INFINITY;
    for (int i = 0; i < n; i++) {
        double v = (double)logits[i];
        if (v > first) {
            second = first;
            first = v;
        } else if (v > second) {
            second = v;
        }
    }
    double sum = 0;
    double weighted = 0;
    for (int i = 0; i < n; i++) {
        double p = exp((double)logits[i] - first);
        sum += p;
        weighted += p > 0 ? p * ((double)logits[i] - first) : 0;
    }
    out->margin = (1 - exp(second - first)) / sum;
    out->entropy = log(sum) - weighted / sum;
}

const char *guard_doubts(const struct guard *g, const struct guard_signal *s)
{
    if (!g->on) {
        return NULL;
    }
    if (s->margin < g->value[GUARD_MARGIN]) {
        return "narrow_margin";
    }
    bool limited = g->value[GUARD_ENTROPY] >= guard_options[GUARD_ENTROPY].min;
    return limited && s->entropy > g->value[GUARD_ENTROPY] ? "high_entropy" : NULL;
}
