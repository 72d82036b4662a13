/* How often a prompt is run. A request whose answer is in doubt (compress/guard.h) begins
 * again before anything of the answer was sent: a cascade climbs to its next rung, and from
 * the last one, or without a cascade, the guard takes the prompt as it came. Both are the
 * same here: another attempt of the same job, in the same slot, with another step for each
 * picture. What the tower made stays, so a rung more encodes nothing.
 *
 * The plain attempt is to the bit the request without compression: plan, sampler, seed and
 * cuts of the prompt are those, and which attempt it was leaves no trace but in the bill. The
 * doubt follows from the request's own logits, so what is run does not depend on what else
 * runs. The bill has the rows of all attempts.
 *
 * Engine thread only, but for attempt_prepare and attempt_clear. */
#include "engine/engine_impl.h"

#include "base/clock.h"

#include <math.h>

void attempt_prepare(struct job *j)
{
    struct attempt *a = &j->attempt;
    a->n_rungs = 1;
    for (int i = 0; i < j->prompt.n_images; i++) {
        int n = plan_step_rungs(&j->prompt.images[i].planned);
        a->n_rungs = n > a->n_rungs ? n : a->n_rungs;
    }
    if (a->plain) { /* served as it came, and compressed in its shadow */
        plan_make_plain(&j->plan);
    }
    a->prepared = j->result.report;
    a->begin = arena_mark(&j->arena);
}

void attempt_clear(struct job *j)
{
    arena_clear(&j->attempt.kept);
}

bool attempt_may_follow(const struct job *j)
{
    const struct attempt *a = &j->attempt;
    return !a->plain && (a->rung + 1 < a->n_rungs || j->asked.guard.on);
}

/* ---- the doubt ------------------------------------------------------------------------ */

static bool merged(const struct job *j)
{
    const struct report *r = &j->result.report;
    const struct report_stage *lm = &r->modality[MODALITY_LM];
    return r->compressed_rows < r->original_rows || lm->rows_out < lm->rows_in;
}

static bool climbs(const struct job *j)
{
    return j->attempt.rung + 1 < j->attempt.n_rungs;
}

/* First tokens that the guard looks at. */
static int guarded(const struct job *j)
{
    return j->asked.guard.on ? (int)j->asked.guard.value[GUARD_TOKENS] : 0;
}

static const char *doubt(const struct job *j, const struct guard_signal *s)
{
    const char *reason = j->n_generated < guarded(j) ? guard_doubts(&j->asked.guard, s) : NULL;
    for (int i = 0; !reason && climbs(j) && i < j->prompt.n_images; i++) {
        const struct plan_step *cascade = &j->prompt.images[i].planned;
        bool narrow = s->margin < plan_step_margin(cascade);
        reason = narrow && j->n_generated < plan_step_tokens(cascade) ? "narrow_margin" : NULL;
    }
    return reason;
}

/* Tokens to look at before any is sent. */
static int n_tokens(const struct job *j)
{
    int n = guarded(j);
    for (int i = 0; climbs(j) && i < j->prompt.n_images; i++) {
        int m = plan_step_tokens(&j->prompt.images[i].planned);
        n = m > n ? m : n;
    }
    return n;
}

/* ---- another attempt ------------------------------------------------------------------ */

/* Whether the context holds the rows of the next attempt. */
static bool fits(const struct engine *en, const struct job *j)
{
    int rows = j->prompt.text_rows;
    for (int i = 0; i < j->prompt.n_images; i++) {
        const struct prompt_image *im = &j->prompt.images[i];
        int n = vision_info(en->vision)->n_rows;
        struct plan_step step;
        plan_step_set_rung(&step, &im->planned, j->attempt.rung + 1);
        rows += climbs(j) ? picture_bound(im, &step, n) : n;
    }
    return rows < en->info.n_ctx;
}

void attempt_close(struct job *j, const char *why)
{
    struct job_result *r = &j->result;
    const struct attempt *a = &j->attempt;
    if (r->n_attempts == JOB_MAX_ATTEMPTS) {
        return;
    }
    r->attempts[r->n_attempts++] = (struct job_attempt){.rows = r->prompt_rows - r->rerun_rows,
                                                        .rung = a->rung,
                                                        .plain = a->plain,
                                                        .looked = a->looked,
                                                        .margin = a->seen.margin,
                                                        .entropy = a->seen.entropy,
                                                        .doubt = why};
}

void attempt_count(struct engine *en, struct job *j)
{
    struct job_result *r = &j->result;
    const struct report_stage *image = &r->report.modality[MODALITY_IMAGE];
    if (j->attempt.n_rungs > 1 && j->purpose == JOB_ANSWER) {
        en->cascade_rows_in += r->image_rows;
        en->cascade_rows_out += image->rows_out + r->rerun_image_rows;
        r->cascade_ratio = en->cascade_rows_in / en->cascade_rows_out;
    }
}

/* Nobody will see its answer, but its rows were run. */
static void write_off(struct job *j)
{
    struct job_result *r = &j->result;
    const struct report_stage *image = &r->report.modality[MODALITY_IMAGE];
    r->rerun_rows = r->prompt_rows;
    r->rerun_image_rows += image->method ? image->rows_out : 0;
    r->completion_tokens -= j->n_generated;
    j->attempt.n_discarded += j->n_generated;
    for (int g = 0; g < j->kv.n_groups; g++) {
        j->attempt.layer_rows += (double)j->prompt_group_rows[g] * j->kv.group[g].n_layer;
    }
}

static void begin_again(struct engine *en, struct job *j, const char *why)
{
    struct attempt *a = &j->attempt;
    attempt_close(j, why);
    write_off(j);
    job_drop_held(j);
    a->plain = !climbs(j);
    a->rung += !a->plain;
    a->looked = false;
    j->n_tape = 0;
    batch_restart(en, j);
    arena_rewind(&j->arena, a->begin);
    if (a->plain) {
        plan_make_plain(&j->plan);
    }
    j->result.report = a->prepared;
    j->result.n_overlays = 0;
    j->overlays = NULL;
    int rows = j->prompt.text_rows;
    for (int i = 0; i < j->prompt.n_images; i++) {
        const struct prompt_image *im = &j->prompt.images[i];
        picture_begin(j, i);
        rows += picture_bound(im, &im->step, vision_info(en->vision)->n_rows);
    }
    pthread_mutex_lock(&en->lock);
    fair_charge(&en->turns, j->turn, rows);
    pthread_mutex_unlock(&en->lock);
}

bool attempt_look(struct engine *en, struct job *j, const float *logits)
{
    struct attempt *a = &j->attempt;
    struct guard_signal now;
    if (j->choice > 0 || j->n_generated >= n_tokens(j) || !attempt_may_follow(j) || !merged(j)) {
        attempt_accept(j);
        return false;
    }
    guard_measure(logits, en->info.n_vocab, &now);
    a->seen.margin = a->looked ? fmin(a->seen.margin, now.margin) : now.margin;
    a->seen.entropy = a->looked ? fmax(a->seen.entropy, now.entropy) : now.entropy;
    a->looked = true;
    const char *why = doubt(j, &now);
    if (why && !fits(en, j)) {
        report_skip(&j->result.report, STAGE_LM_LAYER, "no_room_to_redo");
        why = NULL;
    }
    if (why) {
        begin_again(en, j, why);
        return true;
    }
    if (j->n_generated + 1 < n_tokens(j)) {
        j->holds = true;
    } else {
        attempt_accept(j);
    }
    return false;
}

void attempt_accept(struct job *j)
{
    if (j->holds) {
        j->first_token_at_ms = clock_ms();
        job_release_held(j);
    }
}
