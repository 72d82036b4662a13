/* The bill: what went in, what came out, what it took, and what was not done and why.
 * compress_apply is the one place where a method runs, so that nothing can be merged
 * without being timed and counted. */
#include "compress/report.h"

#include "base/clock.h"
#include "compress/modifiers.h"

#include <stdio.h>
#include <string.h>

void report_init(struct report *r, const struct plan *p)
{
    *r = (struct report){0};
    snprintf(r->profile, sizeof r->profile, "%s", p->profile);
}

void report_skip(struct report *r, enum stage stage, const char *reason)
{
    for (int i = 0; i < r->n_skipped; i++) {
        if (r->skipped[i].stage == stage && strcmp(r->skipped[i].reason, reason) == 0) {
            return;
        }
    }
    if (r->n_skipped < REPORT_MAX_SKIPPED) {
        r->skipped[r->n_skipped].stage = stage;
        r->skipped[r->n_skipped].reason = reason;
        r->n_skipped++;
    }
}

void report_add(struct report *r, enum modality m, const struct plan_step *step, int rows_in,
                int rows_out, double ms)
{
    struct report_stage *s = &r->modality[m];
    if (!s->method || step->method != compressors[0]) {
        s->method = step->method->info.name;
        s->stage = step->stage;
        s->rung = step->rung;
        s->n_rungs = plan_step_rungs(step) > 1 ? plan_step_rungs(step) : 0;
    }
    s->rows_in += rows_in;
    s->rows_out += rows_out;
    s->ms += ms;
}

double report_ratio(const struct report *r)
{
    return r->compressed_rows > 0 ? (double)r->original_rows / (double)r->compressed_rows : 1.0;
}

/* The method with what norm=direction needs around it. */
static int run(const struct plan_step *step, const struct compress_call *call, struct rows *rows,
               struct arena *scratch, struct compress_outcome *out, struct err *e)
{
    struct norms norms;
    if (norms_before(&norms, step, rows, scratch, e) ||
        step->method->ops.apply(call, rows, scratch, out, e)) {
        return -1;
    }
    norms_after(&norms, rows);
    return 0;
}

/* Of a picture the modifiers wait for its last stage. */
static int run_modified(const struct plan_step *step, enum modality m,
                        const struct compress_call *call, struct rows *rows, struct arena *scratch,
                        struct compress_outcome *out, struct err *e)
{
    return run(step, call, rows, scratch, out, e) ||
                   (m != MODALITY_IMAGE && modifiers_finish(step, rows, scratch, e))
               ? -1
               : 0;
}

static int apply(const struct plan_step *step, enum modality m, const struct compress_call *call,
                 struct rows *rows, struct arena *scratch, struct report *report, struct err *e)
{
    const struct compressor *c = step->method;
    if (!(c->info.stages & STAGE_BIT(step->stage))) {
        return err_set(e, ERR_INTERNAL, "%s cannot act at stage %s", c->info.name,
                       stage_name(step->stage));
    }
    struct compress_outcome out = {0};
    struct err failure = ERR_INIT;
    struct arena_mark mark = arena_mark(scratch);
    int before = rows->n;
    int dropped = c->info.drops ? rows_dropped(rows) : 0;
    double begin = clock_ms();
    int rc = run_modified(step, m, call, rows, scratch, &out, &failure);
    double ms = clock_ms() - begin;
    arena_rewind(scratch, mark);
    if (rc && failure.code != ERR_NO_MEMORY) {
        if (e) {
            *e = failure;
        }
        return -1;
    }
    const char *skipped = rc ? "out_of_memory" : out.skipped;
    if (skipped) {
        report_skip(report, step->stage, skipped);
    }
    bool first = step->stage != STAGE_VIT_LAYER || call->layer <= 0;
    report_add(report, m, step, first ? before : 0, first ? rows->n : rows->n - before, ms);
    report->modality[m].dropped += c->info.drops ? rows_dropped(rows) - dropped : 0;
    return 0;
}

int compress_apply(const struct plan_step *step, enum modality m, int layer, int n_layer,
                   struct rows *rows, const float *metric, int n_metric, struct arena *scratch,
                   struct report *report, struct err *e)
{
    struct compress_call call = {.stage = step->stage,
                                 .layer = layer,
                                 .n_layer = n_layer,
                                 .metric = metric,
                                 .n_metric = n_metric,
                                 .options = step->options,
                                 .thresholds = step->thresholds};
    return apply(step, m, &call, rows, scratch, report, e);
}

int compress_apply_picture(const struct plan_step *step, const struct picture_facts *picture,
                           struct rows *rows, struct arena *scratch, struct report *report,
                           struct err *e)
{
    struct compress_call call = {
        .stage = step->stage, .layer = -1, .options = step->options, .picture = picture};
    return apply(step, MODALITY_IMAGE, &call, rows, scratch, report, e);
}
