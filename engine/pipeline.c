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
        seq->owner[seq->n_source + s] = part->owner[s] + n;
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
    while (begin + n < seq->n && !chunk_is_whole(n, seq->flags[begin + n] & ROW_BREAK)) {
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
    struct plan_step step;
    int cutoff;
    struct job *job;
    struct arena *scratch;
};

static int lm_cutoff(const struct engine *en, const struct plan_step *step)
{
    int i = compressor_option_index(step->method, "cutoff");
    if (step->method == compressors[0] || i < 0) {
        return -1;
    }
    int layer = (int)step->options[i];
    return layer >= 0 && layer < en->info.n_layer - 1 ? layer : -1;
}

int pipeline_cutoffs(const struct engine *en, const struct job *j, int *cutoffs)
{
    int layer = lm_cutoff(en, &j->plan.step[MODALITY_LM]);
    if (layer < 0) {
        return 0;
    }
    cutoffs[0] = layer;
    return 1;
}

static bool lm_wants(void *ctx, int layer)
{
    return ((const struct lm_hook *)ctx)->cutoff == layer;
}

static int lm_run(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                  int n_metric, struct err *e)
{
    struct lm_hook *h = ctx;
    struct report one;
    report_init(&one, &h->job->plan);
    int before = rows->n;
    /* Pictures have been merged by their own method: here they stay as they are. */
    for (int i = 0; i < rows->n; i++) {
        if (rows->kind[i] == ROW_IMAGE) {
            rows->flags[i] |= ROW_PROTECTED;
        }
    }
    int rc = compress_apply(&h->step, MODALITY_LM, layer, n_layer, rows, metric, n_metric,
                            h->scratch, &one, e);
    job_take_skips(h->job, &one);
    double ms = one.modality[MODALITY_LM].ms;
    report_add(&h->job->result.report, MODALITY_LM, &h->step, before, rows->n, ms);
    h->job->chunk_report = one;
    h->job->result.compress_ms += ms;
    return rc;
}

void pipeline_lm_step(const struct engine *en, const struct job *j, struct plan_step *step,
                      const char **skipped)
{
    plan_text_step(&j->plan, MODALITY_LM, j->prompt.text_rows, &en->calibration, step, skipped);
    if (step->method != compressors[0] && lm_cutoff(en, step) < 0) {
        step->method = compressors[0];
        *skipped = "cutoff_out_of_range";
    }
}

bool pipeline_merges_inside(const struct engine *en, const struct job *j)
{
    const char *skipped = NULL;
    struct plan_step step;
    pipeline_lm_step(en, j, &step, &skipped);
    return step.method != compressors[0];
}

int pipeline_lm_hook(struct engine *en, struct job *j, struct arena *a, struct stage_hook *hook,
                     struct err *e)
{
    *hook = (struct stage_hook){0};
    const char *skipped = NULL;
    struct plan_step step;
    pipeline_lm_step(en, j, &step, &skipped);
    if (skipped) {
        report_skip(&j->result.report, STAGE_LM_LAYER, skipped);
    }
    if (step.method == compressors[0]) {
        return 0;
    }
    struct lm_hook *h = arena_alloc(a, 1, sizeof *h);
    if (!h) {
        return err_no_memory(e, sizeof *h);
    }
    *h = (struct lm_hook){
        .step = step, .cutoff = lm_cutoff(en, &step), .job = j, .scratch = &en->scratch};
    *hook = (struct stage_hook){.wants = lm_wants, .run = lm_run, .ctx = h};
    return 0;
}
