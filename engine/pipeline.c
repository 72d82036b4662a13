/* Where vision meets model: text and the rows of pictures (pictures.c) become one sequence
 * of rows with mass, owner and position, merged on the way. Engine thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "engine/chunk.h"

#include <string.h>

/* The reasons of a part for the whole. What lacked memory would differ another time. */
void job_take_skips(struct job *j, const struct report *from)
{
    for (int i = 0; i < from->n_skipped; i++) {
        report_skip(&j->result.report, from->skipped[i].stage, from->skipped[i].reason);
        j->leaves_nothing |= strcmp(from->skipped[i].reason, "out_of_memory") == 0;
    }
}

/* ---- text ------------------------------------------------------------------------ */

static int text_rows(struct engine *en, struct job *j, const struct prompt_run *run,
                     const struct plan_step *step, struct rows *out, struct err *e)
{
    if (rows_init(out, &j->arena, run->n, en->info.n_embd, ROW_TEXT, 0, e)) {
        return -1;
    }
    memcpy(out->flags, run->flags, (size_t)run->n);
    decoder_embed(en->decoder, run->ids, run->n, out->x, &en->compute);
    if (step->method == compressors[0]) {
        return 0;
    }
    struct report one;
    report_init(&one, &j->plan);
    int rc = compress_apply(step, MODALITY_TEXT, -1, en->info.n_layer, out, NULL, 0, &en->scratch,
                            &one, e);
    j->result.report.modality[MODALITY_TEXT].ms += one.modality[MODALITY_TEXT].ms;
    j->result.report.modality[MODALITY_TEXT].dropped += one.modality[MODALITY_TEXT].dropped;
    j->result.compress_ms += one.modality[MODALITY_TEXT].ms;
    return rc;
}

static int all_text(struct engine *en, struct job *j, const struct plan_step *step, int *rows_out,
                    struct err *e)
{
    *rows_out = 0;
    for (int r = 0; r < j->prompt.n_runs; r++) {
        struct prompt_run *run = &j->prompt.runs[r];
        if (run->kind == ROW_TEXT && text_rows(en, j, run, step, &run->rows, e)) {
            return -1;
        }
        *rows_out += run->kind == ROW_TEXT ? run->rows.n : 0;
    }
    return 0;
}

int pipeline_text(struct engine *en, struct job *j, struct err *e)
{
    struct plan_step step;
    const struct guard *g = &j->plan.guard;
    int n = j->prompt.text_rows;
    int left;
    plan_text_step(&j->plan, MODALITY_TEXT, n, &en->calibration, &step, NULL);
    j->text_skipped = NULL;
    if (all_text(en, j, &step, &left, e)) {
        return -1;
    }
    if (!g->on || left == n || left * g->value[GUARD_MIN_RATIO] <= n) {
        return 0;
    }
    j->text_skipped = "too_little_gain";
    step.method = compressors[0];
    return all_text(en, j, &step, &left, e);
}

/* ---- one sequence ----------------------------------------------------------------- */

static int sequence_init(struct rows *seq, struct arena *a, int capacity, int n_source, int n_embd,
                         struct err *e)
{
    if (rows_init(seq, a, capacity, n_embd, ROW_TEXT, 0, e)) {
        return -1;
    }
    seq->owner = arena_alloc(a, (size_t)n_source, sizeof *seq->owner);
    if (!seq->owner) {
        return err_no_memory(e, (size_t)n_source * sizeof *seq->owner);
    }
    seq->n = 0;
    seq->n_source = 0;
    return 0;
}

/* Append part's rows; its sources take the next original positions. */
static void sequence_append(struct rows *seq, const struct rows *part)
{
    int n = seq->n;
    memcpy(seq->x + (size_t)n * (size_t)seq->n_embd, part->x,
           (size_t)part->n * (size_t)seq->n_embd * sizeof *seq->x);
    memcpy(seq->mass + n, part->mass, (size_t)part->n * sizeof *seq->mass);
    memcpy(seq->kind + n, part->kind, (size_t)part->n);
    memcpy(seq->flags + n, part->flags, (size_t)part->n);
    for (int i = 0; i < part->n; i++) {
        seq->position[n + i] = part->position[i] + (float)seq->n_source;
    }
    for (int s = 0; s < part->n_source; s++) {
        seq->owner[seq->n_source + s] = part->owner[s] < 0 ? ROW_DROPPED : part->owner[s] + n;
    }
    seq->n += part->n;
    seq->n_source += part->n_source;
}

/* A picture whose keys and values are there already: its place, and no rows. */
static void sequence_skip(struct rows *seq, const struct prefix_picture *p)
{
    for (int i = 0; i < p->n_rows; i++) {
        seq->mass[seq->n + i] = 1;
        seq->position[seq->n + i] = (float)seq->n_source;
        seq->kind[seq->n + i] = ROW_IMAGE;
        seq->flags[seq->n + i] = 0;
    }
    for (int s = 0; s < p->n_source; s++) {
        seq->owner[seq->n_source + s] = seq->n;
    }
    seq->n += p->n_rows;
    seq->n_source += p->n_source;
}

static void report_text(struct job *j, const struct plan_step *step, const char *skipped,
                        int rows_out)
{
    skipped = skipped ? skipped : j->text_skipped;
    if (skipped) {
        report_skip(&j->result.report, step->stage, skipped);
    } else if (step->method != compressors[0] && rows_out == j->prompt.text_rows) {
        report_skip(&j->result.report, step->stage, "nothing_similar");
    }
    report_add(&j->result.report, MODALITY_TEXT, step, j->prompt.text_rows, rows_out, 0);
}

int pipeline_assemble(struct engine *en, struct job *j, struct err *e)
{
    const struct prompt *p = &j->prompt;
    struct plan_step step;
    const char *skipped = NULL;
    plan_text_step(&j->plan, MODALITY_TEXT, p->text_rows, &en->calibration, &step, &skipped);
    if (sequence_init(&j->sequence, &j->arena, p->text_rows + p->image_rows,
                      p->text_rows + p->image_rows, en->info.n_embd, e)) {
        return -1;
    }
    int text_out = 0;
    for (int r = 0; r < p->n_runs; r++) {
        const struct prompt_run *run = &p->runs[r];
        if (run->kind == ROW_TEXT) {
            text_out += run->rows.n;
            sequence_append(&j->sequence, &run->rows);
        } else if (p->images[run->image].in_prefix) {
            sequence_skip(&j->sequence, &p->images[run->image].info);
        } else {
            struct rows *image = &p->images[run->image].rows;
            image->flags[0] |= ROW_BREAK;
            sequence_append(&j->sequence, image);
        }
    }
    report_text(j, &step, skipped, text_out);
    j->result.report.compressed_rows = j->sequence.n;
    return 0;
}

int pipeline_chunk_rows(const struct job *j)
{
    const struct rows *seq = &j->sequence;
    int begin = j->n_rows_done - j->n_chunk_rows;
    int n = 1;
    while (begin + n < seq->n && !chunk_is_whole(n, seq->flags[begin + n])) {
        n++;
    }
    return n;
}

int pipeline_next_rows(struct job *j, int n, struct arena *a, struct rows *chunk, struct err *e)
{
    const struct rows *seq = &j->sequence;
    int begin = j->n_rows_done;
    if (rows_init(chunk, a, n, seq->n_embd, ROW_TEXT, 0, e)) {
        return -1;
    }
    size_t row = (size_t)seq->n_embd;
    memcpy(chunk->x, seq->x + (size_t)begin * row, (size_t)n * row * sizeof *chunk->x);
    memcpy(chunk->mass, seq->mass + begin, (size_t)n * sizeof *chunk->mass);
    memcpy(chunk->position, seq->position + begin, (size_t)n * sizeof *chunk->position);
    memcpy(chunk->kind, seq->kind + begin, (size_t)n);
    memcpy(chunk->flags, seq->flags + begin, (size_t)n);
    chunk->flags[0] |= ROW_BREAK;
    chunk->owner = arena_alloc(a, (size_t)seq->n_source, sizeof *chunk->owner);
    if (!chunk->owner) {
        return err_no_memory(e, (size_t)seq->n_source * sizeof *chunk->owner);
    }
    chunk->n_source = 0;
    for (int s = 0; s < seq->n_source; s++) {
        if (seq->owner[s] >= begin && seq->owner[s] < begin + n) {
            chunk->owner[chunk->n_source++] = seq->owner[s] - begin;
        }
    }
    return 0;
}

/* ---- merging inside the decoder ----------------------------------------------------- */

struct lm_hook {
    struct plan_step steps[PLAN_MAX_LM_STEPS];
    int cutoffs[PLAN_MAX_LM_STEPS];
    int n;
    struct job *job;
};

int pipeline_lm_steps(const struct engine *en, const struct job *j,
                      struct plan_step steps[PLAN_MAX_LM_STEPS], int cutoffs[PLAN_MAX_LM_STEPS],
                      const char **skipped)
{
    const char *why = NULL;
    int n = plan_lm_steps(&j->plan, en->info.n_layer, j->prompt.text_rows, &en->calibration, steps,
                          skipped ? skipped : &why);
    for (int i = 0; i < n; i++) {
        int cutoff = compressor_option_index(steps[i].method, "cutoff");
        cutoffs[i] = (int)steps[i].options[cutoff];
    }
    return n;
}

static int step_at(const struct lm_hook *h, int layer)
{
    int i = 0;
    while (i < h->n && h->cutoffs[i] != layer) {
        i++;
    }
    return i;
}

static bool lm_wants(void *ctx, int layer)
{
    const struct lm_hook *h = ctx;
    return step_at(h, layer) < h->n;
}

/* Rows go into the first step and come out of the last one. */
static void report_lm(struct report *r, const struct plan_step *step, bool first, int before,
                      int after, const struct report_stage *one)
{
    report_add(r, MODALITY_LM, step, first ? before : 0, first ? after : after - before, one->ms);
    r->modality[MODALITY_LM].dropped += one->dropped;
}

void pipeline_protect_pictures(struct rows *rows)
{
    for (int r = 0; r < rows->n; r++) {
        if (rows->kind[r] == ROW_IMAGE) {
            rows->flags[r] |= ROW_PROTECTED;
        }
    }
}

int pipeline_lm_apply(struct job *j, const struct plan_step *step, bool first, int layer,
                      struct rows *rows, const float *metric, int n_metric, struct err *e)
{
    struct engine *en = j->engine;
    struct report one;
    report_init(&one, &j->plan);
    int before = rows->n;
    pipeline_protect_pictures(rows);
    for (int r = 0; r < rows->n && step->method->info.static_part; r++) {
        rows->flags[r] |= rows->flags[r] & ROW_STATIC ? 0 : ROW_PROTECTED;
    }
    int rc = compress_apply(step, MODALITY_LM, layer, en->info.n_layer, rows, metric, n_metric,
                            &en->scratch, &one, e);
    job_take_skips(j, &one);
    const struct report_stage *stage = &one.modality[MODALITY_LM];
    report_lm(&j->result.report, step, first, before, rows->n, stage);
    report_lm(&j->chunk_report, step, first, before, rows->n, stage);
    for (int k = 0; k < one.n_skipped; k++) {
        report_skip(&j->chunk_report, one.skipped[k].stage, one.skipped[k].reason);
    }
    j->result.compress_ms += stage->ms;
    return rc;
}

static int lm_run(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                  int n_metric, struct err *e)
{
    struct lm_hook *h = ctx;
    int i = step_at(h, layer);
    (void)n_layer;
    return pipeline_lm_apply(h->job, &h->steps[i], i == 0, layer, rows, metric, n_metric, e);
}

int pipeline_lm_hook(struct engine *en, struct job *j, struct arena *a, struct stage_hook *hook,
                     struct err *e)
{
    *hook = (struct stage_hook){0};
    const char *skipped = NULL;
    struct lm_hook *h = arena_alloc(a, 1, sizeof *h);
    if (!h) {
        return err_no_memory(e, sizeof *h);
    }
    *h = (struct lm_hook){.job = j};
    h->n = pipeline_lm_steps(en, j, h->steps, h->cutoffs, &skipped);
    if (skipped) {
        report_skip(&j->result.report, STAGE_LM_LAYER, skipped);
    }
    if (h->n > 0 && !j->chooser) {
        *hook = (struct stage_hook){.wants = lm_wants, .run = lm_run, .ctx = h};
    }
    return 0;
}
