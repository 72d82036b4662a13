/* Plans: overriding one option at a time with checks from the option tables, resolving
 * what depends on the request (`auto`, detail, target ratios), and one canonical print.
 *
 * Nothing here knows a method by name except for the strongest image plan; option names
 * with a meaning of their own across methods are `ratio` (may be auto), `threshold` (what
 * a text ratio turns into) and `layer` (where in the decoder). */
#include "compress/plan.h"
#include "compress/plan_impl.h"

#include "base/buf.h"
#include "base/edit_distance.h"
#include "compress/calibration.h"
#include "compress/modifiers.h"

#include <math.h>
#include <nettle/sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STRONGEST_METHOD "tome"
#define STRONGEST_RATIO  8.0
#define PRINT_MAX_BYTES  4096
#define MOST_BUDGET_MS   600000

/* ---- steps -------------------------------------------------------------------------- */

/* A method that can act at several stages of a slot takes the earliest. */
static enum stage stage_for(enum modality m, const struct compressor *method)
{
    static const unsigned slots[MODALITY_COUNT] = {
        [MODALITY_IMAGE] =
            STAGE_BIT(STAGE_PIXELS) | STAGE_BIT(STAGE_VIT_LAYER) | STAGE_BIT(STAGE_IMAGE_ROWS),
        [MODALITY_TEXT] = STAGE_BIT(STAGE_TEXT_ROWS),
        [MODALITY_LM] = STAGE_BIT(STAGE_LM_LAYER),
    };
    unsigned both = slots[m] & method->info.stages;
    return (enum stage)__builtin_ctz(both ? both : slots[m]);
}

void plan_step_init(struct plan_step *step, enum modality m, const struct compressor *method)
{
    *step = (struct plan_step){.method = method, .stage = stage_for(m, method)};
    compressor_defaults(method, step->options);
}

static bool is_off(const struct plan_step *step)
{
    return step->method == compressors[0];
}

/* ---- messages ----------------------------------------------------------------------- */

/* NULL when none is nearer than half of the name. */
static const char *nearest(const char *name, const char *const *names)
{
    const char *best = NULL;
    size_t len = strnlen(name, EDIT_DISTANCE_MAX_LEN);
    int least = (int)len / 2 + 1;
    for (; *names; names++) {
        int d = edit_distance(name, len, *names, strlen(*names));
        if (d < least) {
            least = d;
            best = *names;
        }
    }
    return best;
}

/* "a, b, c" cut to what fits. */
static void join(char *out, size_t size, const char *const *names)
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; names[i] && n < size; i++) {
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", names[i]);
    }
}

void plan_unknown_name(struct err *e, const char *param, const char *what, const char *name,
                       const char *const *names)
{
    char all[256];
    const char *near = nearest(name, names);
    join(all, sizeof all, names);
    err_reason(e, ERR_INVALID, "unknown_name", "unknown %s \"%.64s\"%s%s%s; there are: %s", what,
               name, near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "", all);
    err_param(e, "%s", param);
}

/* Always -1. */
static int option_error(struct err *e, enum err_code code, const char *slot,
                        const struct compressor_option *o, const char *got)
{
    char rule[256];
    if (o->type == OPTION_ENUM) {
        char all[200];
        join(all, sizeof all, o->choices);
        snprintf(rule, sizeof rule, "one of %s", all);
    } else if (o->type == OPTION_BOOL) {
        snprintf(rule, sizeof rule, "true or false");
    } else {
        snprintf(rule, sizeof rule, "a %snumber from %.9g to %.9g%s",
                 o->type == OPTION_INT ? "whole " : "", o->min, o->max,
                 o->auto_ok ? " or \"auto\"" : "");
    }
    err_reason(e, code, "bad_option_value", "compression.%s.%s is %.64s; it must be %s", slot,
               o->name, got, rule);
    return err_param(e, "compression.%s.%s", slot, o->name);
}

int plan_check_number(const struct compressor_option *o, const char *slot, double value,
                      struct err *e)
{
    char got[32];
    snprintf(got, sizeof got, "%.9g", value);
    if (o->type == OPTION_ENUM || (o->type == OPTION_INT && value != floor(value))) {
        return option_error(e, ERR_TYPE, slot, o, got);
    }
    double max = o->type == OPTION_BOOL ? 1 : o->max;
    double min = o->type == OPTION_BOOL ? 0 : o->min;
    if (!(value >= min && value <= max) || (o->type == OPTION_BOOL && value != floor(value))) {
        return option_error(e, ERR_RANGE, slot, o, got);
    }
    return 0;
}

/* ---- overrides ---------------------------------------------------------------------- */

static bool baselines_allowed;

void plan_allow_baselines(bool allowed)
{
    baselines_allowed = allowed;
}

int plan_set_method(struct plan *p, enum modality m, const char *method, struct err *e)
{
    const struct compressor *c = compressor_find(method);
    if (c && c->info.modalities & 1u << m && c->info.baseline && !baselines_allowed) {
        err_reason(e, ERR_UNSUPPORTED, "baseline_method",
                   "\"%s\" is for comparisons only: start tamp with --baselines to use it",
                   c->info.name);
        return err_param(e, "compression.%s.method", modality_name(m));
    }
    if (c && c->info.modalities & 1u << m) {
        plan_step_init(&p->step[m], m, c);
        return 0;
    }
    const char *names[64] = {NULL};
    int n = 0;
    for (int i = 0; compressors[i] && n < 63; i++) {
        if (compressors[i]->info.modalities & 1u << m &&
            (baselines_allowed || !compressors[i]->info.baseline)) {
            names[n++] = compressors[i]->info.name;
        }
    }
    char param[64];
    char what[64];
    snprintf(param, sizeof param, "compression.%s.method", modality_name(m));
    snprintf(what, sizeof what, "method for %s", modality_name(m));
    plan_unknown_name(e, param, what, method, names);
    return -1;
}

static bool belongs_to(const struct compressor_option *o, enum modality m)
{
    return !o->modalities || o->modalities & 1u << m;
}

/* Index of the option in this slot, or -1 with the error. */
static int find_option(const struct plan *p, enum modality m, const char *option, struct err *e)
{
    const struct compressor *c = p->step[m].method;
    const char *names[COMPRESSOR_MAX_OPTIONS + 1] = {NULL};
    int n = 0;
    for (int i = 0; i < compressor_n_options(c); i++) {
        const struct compressor_option *o = compressor_option(c, i);
        if (belongs_to(o, m)) {
            if (strcmp(o->name, option) == 0) {
                return i;
            }
            names[n++] = o->name;
        }
    }
    char param[128];
    char what[96];
    snprintf(param, sizeof param, "compression.%s.%.64s", modality_name(m), option);
    if (n == 0) {
        err_reason(e, ERR_INVALID, "no_options",
                   "the %s method \"%s\" has no option \"%.64s\": set compression.%s.method first",
                   modality_name(m), c->info.name, option, modality_name(m));
        return err_param(e, "%s", param);
    }
    snprintf(what, sizeof what, "option of the %s method \"%s\":", modality_name(m), c->info.name);
    plan_unknown_name(e, param, what, option, names);
    return -1;
}

/* Store, and unset what would hide it. */
void plan_step_store(struct plan_step *step, int i, double value)
{
    const struct compressor_info *info = &step->method->info;
    step->options[i] = value;
    for (int k = 0; k < info->n_options; k++) {
        const char *hidden = info->options[k].replaces;
        if (hidden && strcmp(hidden, compressor_option(step->method, i)->name) == 0) {
            step->options[k] = info->options[k].def;
        }
    }
}

int plan_set_number(struct plan *p, enum modality m, const char *option, double value,
                    struct err *e)
{
    int i = find_option(p, m, option, e);
    if (i < 0) {
        return -1;
    }
    if (plan_check_number(compressor_option(p->step[m].method, i), modality_name(m), value, e)) {
        return -1;
    }
    plan_step_store(&p->step[m], i, value);
    return 0;
}

/* The value that a text stands for; false when the option does not take it. */
static bool text_value(const struct compressor_option *o, const char *text, double *value)
{
    static const char *const truth[] = {"false", "true", NULL};
    if (o->auto_ok && strcmp(text, "auto") == 0) {
        *value = NAN;
        return true;
    }
    const char *const *choices = o->type == OPTION_ENUM   ? o->choices
                                 : o->type == OPTION_BOOL ? truth
                                                          : NULL;
    for (int k = 0; choices && choices[k]; k++) {
        if (strcmp(choices[k], text) == 0) {
            *value = k;
            return true;
        }
    }
    return false;
}

int plan_set_text(struct plan *p, enum modality m, const char *option, const char *value,
                  struct err *e)
{
    int i = find_option(p, m, option, e);
    if (i < 0) {
        return -1;
    }
    const struct compressor_option *o = compressor_option(p->step[m].method, i);
    double v;
    if (!text_value(o, value, &v)) {
        char got[80];
        snprintf(got, sizeof got, "\"%.64s\"", value);
        return option_error(e, o->type == OPTION_ENUM ? ERR_INVALID : ERR_TYPE, modality_name(m), o,
                            got);
    }
    plan_step_store(&p->step[m], i, v);
    return 0;
}

int plan_set_budget(struct plan *p, double ms, struct err *e)
{
    if (!(ms == 0 || (ms >= 1 && ms <= MOST_BUDGET_MS))) {
        err_reason(e, ERR_RANGE, "bad_option_value",
                   "compression.budget_ms is %.9g; it must be a number of milliseconds from 1 to "
                   "%d, or 0 for none",
                   ms, MOST_BUDGET_MS);
        return err_param(e, "compression.budget_ms");
    }
    p->budget_ms = ms;
    return 0;
}

/* ---- what depends on the request ------------------------------------------------------ */

static void turn_off(struct plan_step *out, enum modality m, const char *reason,
                     const char **skipped)
{
    enum stage stage = out->stage;
    plan_step_init(out, m, compressors[0]);
    out->stage = stage;
    *skipped = reason;
}

/* The stronger of the plan and the strongest: low detail asks for as little as possible. */
static void use_strongest(struct plan_step *out, int n_rows)
{
    struct plan_step strong;
    plan_step_init(&strong, MODALITY_IMAGE, compressor_find(STRONGEST_METHOD));
    strong.options[compressor_option_index(strong.method, "ratio")] = STRONGEST_RATIO;
    strong.options[compressor_option_index(strong.method, "protect")] =
        modifier_value(out, MODIFIER_PROTECT);
    int planned = out->method->ops.predict(out->options, n_rows);
    if (planned < 0 || planned > strong.method->ops.predict(strong.options, n_rows)) {
        *out = strong;
    }
}

static double image_ratio(int width, int height, int n_rows)
{
    if (n_rows <= 64) {
        return 1;
    }
    return width > 512 || height > 512 ? 4 : 2;
}

void plan_image_step(const struct plan *p, enum image_detail detail, int width, int height,
                     int n_rows, struct plan_step *out, const char **skipped)
{
    const char *reason = NULL;
    *out = p->step[MODALITY_IMAGE];
    int ratio = compressor_option_index(out->method, "ratio");
    bool is_auto = ratio >= 0 && isnan(out->options[ratio]);
    if (is_auto) {
        out->options[ratio] = image_ratio(width, height, n_rows);
    }
    if (!is_off(out) && detail == DETAIL_HIGH) {
        turn_off(out, MODALITY_IMAGE, "detail_high", &reason);
    } else if (!is_off(out) && detail == DETAIL_LOW) {
        use_strongest(out, n_rows);
    } else if (is_auto && out->options[ratio] <= 1) {
        turn_off(out, MODALITY_IMAGE, "too_few_rows", &reason);
    }
    if (p->cap > 0 && !is_off(out)) {
        plan_step_cap(out, MODALITY_IMAGE, n_rows, p->cap);
        reason = is_off(out) ? "capped" : reason;
    }
    if (skipped) {
        *skipped = reason;
    }
}

bool plan_step_is_adaptive(const struct plan_step *step)
{
    int counts = compressor_option_index(step->method, "counts");
    return counts >= 0 && step->options[counts] != 0;
}

double plan_step_ratio(const struct plan_step *step, int n)
{
    int rows = compressor_option_index(step->method, "rows");
    int ratio = compressor_option_index(step->method, "ratio");
    if (rows >= 0 && step->options[rows] >= 1) {
        return n / step->options[rows];
    }
    return ratio >= 0 ? step->options[ratio] : 1;
}

/* The value of an option by name; `otherwise` for methods that have none of that name. */
static double option_of(const struct plan_step *step, const char *name, double otherwise)
{
    int i = compressor_option_index(step->method, name);
    return i >= 0 ? step->options[i] : otherwise;
}

int plan_step_rungs(const struct plan_step *step)
{
    return (int)option_of(step, "rungs", 1);
}

double plan_step_margin(const struct plan_step *step)
{
    return plan_step_rungs(step) > 1 ? option_of(step, "margin", 0) : 0;
}

int plan_step_tokens(const struct plan_step *step)
{
    return plan_step_rungs(step) > 1 ? (int)option_of(step, "tokens", 0) : 0;
}

void plan_step_set_rung(struct plan_step *step, const struct plan_step *planned, int rung)
{
    int n = plan_step_rungs(planned);
    *step = *planned;
    if (n > 1) {
        int ratio = compressor_option_index(planned->method, "ratio");
        double first = planned->options[ratio];
        double last = fmin(option_of(planned, "last", 1), first);
        step->rung = rung;
        step->options[ratio] = first * pow(last / first, (double)rung / (n - 1));
    }
}

void plan_make_plain(struct plan *p)
{
    for (int m = 0; m < MODALITY_COUNT; m++) {
        plan_step_init(&p->step[m], (enum modality)m, compressors[0]);
    }
}

/* The threshold that merges enough neighbours for `ratio`; NaN when it is not known. */
static double text_threshold(const struct plan_step *step, enum modality m, double ratio,
                             const struct calibration *cal)
{
    int layer = compressor_option_index(step->method, "cutoff");
    int at = m == MODALITY_LM && layer >= 0 ? (int)step->options[layer] : -1;
    return cal ? (double)calibration_threshold(cal, at, 1 - 1 / ratio) : NAN;
}

static double text_ratio(int n_rows)
{
    double ratio = (double)n_rows / 512;
    return ratio < 1 ? 1 : ratio > 2 ? 2 : ratio;
}

/* Resolve a target ratio in place; a reason when that is not possible. */
static const char *resolve_text_ratio(struct plan_step *out, enum modality m, int n_text_rows,
                                      double cap, const struct calibration *cal)
{
    int ratio = compressor_option_index(out->method, "ratio");
    int threshold = compressor_option_index(out->method, "threshold");
    bool rated = ratio >= 0 && compressor_option_is_set(out->method, out->options, ratio);
    if (rated && isnan(out->options[ratio])) {
        out->options[ratio] = text_ratio(n_text_rows);
        if (out->options[ratio] <= 1) {
            return "too_short";
        }
    }
    if (cap > 0) {
        plan_step_cap(out, m, n_text_rows, cap);
    }
    if (is_off(out)) {
        return "capped";
    }
    if (!rated) {
        return NULL;
    }
    double steps = modifier_value(out, MODIFIER_STEPS);
    if (m == MODALITY_LM && steps > 1) {
        out->options[ratio] = pow(out->options[ratio], 1 / steps);
    }
    if (threshold < 0) {
        return NULL;
    }
    double t = text_threshold(out, m, out->options[ratio], cal);
    if (isnan(t)) {
        return "not_calibrated";
    }
    out->options[threshold] = t < -1 ? -1 : t > 1 ? 1 : t;
    return NULL;
}

void plan_text_step(const struct plan *p, enum modality m, int n_text_rows,
                    const struct calibration *cal, struct plan_step *out, const char **skipped)
{
    const char *reason = NULL;
    *out = p->step[m];
    if (!is_off(out)) {
        const char *why = n_text_rows < p->min_text_rows
                              ? "too_short"
                              : resolve_text_ratio(out, m, n_text_rows, p->cap, cal);
        if (why) {
            turn_off(out, m, why, &reason);
        }
    }
    if (skipped) {
        *skipped = reason;
    }
}

int plan_lm_steps(const struct plan *p, int n_layer, int n_text_rows, const struct calibration *cal,
                  struct plan_step out[PLAN_MAX_LM_STEPS], const char **skipped)
{
    struct plan there = *p;
    struct plan_step *step = &there.step[MODALITY_LM];
    int cutoff = compressor_option_index(step->method, "cutoff");
    *skipped = NULL;
    if (is_off(step) || cutoff < 0) {
        return 0;
    }
    int first = (int)step->options[cutoff];
    int behind = n_layer - 1 - first;
    if (behind <= 0) {
        *skipped = "cutoff_out_of_range";
        return 0;
    }
    int steps = (int)modifier_value(step, MODIFIER_STEPS);
    int n = 0;
    for (int k = 0; k < steps; k++) {
        int at = first + k * behind / steps;
        if (n > 0 && at <= (int)out[n - 1].options[cutoff]) {
            continue;
        }
        step->options[cutoff] = at;
        plan_text_step(&there, MODALITY_LM, n_text_rows, cal, &out[n++], skipped);
        if (*skipped) {
            return 0;
        }
    }
    return n;
}

/* ---- canonical form --------------------------------------------------------------------- */

/* Whether another option that is set replaces this one. */
static bool is_hidden(const struct plan_step *step, int i)
{
    const struct compressor_info *info = &step->method->info;
    for (int k = 0; k < info->n_options; k++) {
        const char *hidden = info->options[k].replaces;
        if (hidden && strcmp(hidden, info->options[i].name) == 0 &&
            compressor_option_is_set(step->method, step->options, k)) {
            return true;
        }
    }
    return false;
}

/* Built in place and not in a buf: an id cannot fail for want of memory. */
struct text {
    char s[PRINT_MAX_BYTES];
    size_t n;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->s + t->n, sizeof t->s - t->n, fmt, ap);
    va_end(ap);
    t->n += n > 0 ? (size_t)n : 0;
    t->n = t->n < sizeof t->s ? t->n : sizeof t->s - 1;
}

static void add_value(struct text *t, const struct compressor_option *o, double v)
{
    if (isnan(v)) {
        add(t, "auto");
    } else if (o->type == OPTION_ENUM) {
        add(t, "%s", o->choices[(int)v]);
    } else if (o->type == OPTION_BOOL) {
        add(t, "%s", v != 0 ? "true" : "false");
    } else {
        add(t, "%.9g", v);
    }
}

static void add_step(struct text *t, const struct plan_step *step, enum modality m)
{
    const struct compressor_info *info = &step->method->info;
    add(t, "%s %s", modality_name(m), info->name);
    for (int i = 0; i < info->n_options; i++) {
        const struct compressor_option *o = &info->options[i];
        if (belongs_to(o, m) && compressor_option_is_set(step->method, step->options, i) &&
            !is_hidden(step, i)) {
            add(t, " %s=", o->name);
            add_value(t, o, step->options[i]);
        }
    }
    for (int i = info->n_options; i < compressor_n_options(step->method); i++) {
        const struct compressor_option *o = compressor_option(step->method, i);
        if (step->options[i] != o->def) {
            add(t, " %s=", o->name);
            add_value(t, o, step->options[i]);
        }
    }
}

static void add_guard(struct text *t, const struct guard *g)
{
    add(t, "; guard");
    for (int i = 0; i < N_GUARD_OPTIONS; i++) {
        if (g->value[i] >= guard_options[i].min) {
            add(t, " %s=", guard_options[i].name);
            add_value(t, &guard_options[i], g->value[i]);
        }
    }
}

static void add_plan(struct text *t, const struct plan *p)
{
    for (int m = 0; m < MODALITY_COUNT; m++) {
        if (!is_off(&p->step[m])) {
            add(t, "%s", t->n ? "; " : "");
            add_step(t, &p->step[m], (enum modality)m);
        }
    }
    bool merges = t->n > 0;
    if (!merges) {
        add(t, "off");
    } else if (!is_off(&p->step[MODALITY_TEXT]) || !is_off(&p->step[MODALITY_LM])) {
        add(t, "; protect_system=%s protect_tail=%d min_text_rows=%d",
            p->protect_system ? "true" : "false", p->protect_tail, p->min_text_rows);
    }
    if (merges && p->budget_ms > 0) {
        add(t, "; budget_ms=%.9g", p->budget_ms);
    }
    if (merges && p->guard.on) {
        add_guard(t, &p->guard);
    }
}

int plan_print(const struct plan *p, struct buf *out)
{
    struct text t = {.n = 0};
    add_plan(&t, p);
    buf_append(out, t.s, t.n);
    return buf_failed(out) ? -1 : 0;
}

unsigned long long plan_id(const struct plan *p)
{
    struct text t = {.n = 0};
    struct sha256_ctx sha;
    uint8_t digest[8];
    add_plan(&t, p);
    sha256_init(&sha);
    sha256_update(&sha, t.n, (const uint8_t *)t.s);
    sha256_digest(&sha, sizeof digest, digest);
    unsigned long long id = 0;
    for (size_t i = 0; i < sizeof digest; i++) {
        id = id << 8 | digest[i];
    }
    return id;
}
