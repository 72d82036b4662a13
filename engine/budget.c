/* Milliseconds to the first token as a budget: of what the plan may do, as little as keeps it.
 * The plan's own rates are the strongest; the mildest cap (compress/plan_cap.c) whose
 * prompt is expected to be read in the time that is left is taken when the request leaves the
 * queue, so the wait is known. What passes take is measured (pace.h, tower_ms_per_row); prompts
 * that run beside this one are expected to be read first.
 *
 * Here the clock decides what is merged, so the same request may be answered otherwise
 * another time. Engine thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "engine/chunk.h"

#include <math.h>

/* Few, so that caches meet the same plans again. */
static const double caps[] = {1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48};

struct work {
    double tower_rows, decoder_rows;
};

static void capped_step(const struct prompt_image *im, int n, double cap, struct plan_step *step)
{
    *step = im->planned;
    if (cap > 0 && step->stage != STAGE_PIXELS) { /* the size of the picture is decided */
        plan_step_cap(step, MODALITY_IMAGE, n, cap);
    }
}

/* Rows of text behind merging at a rate; without one nothing is counted on. */
static double text_left(const struct job *j, double cap)
{
    const struct plan_step *step = &j->plan.step[MODALITY_TEXT];
    int ratio = compressor_option_index(step->method, "ratio");
    bool rated = ratio >= 0 && compressor_option_is_set(step->method, step->options, ratio) &&
                 !isnan(step->options[ratio]) && j->prompt.text_rows >= j->plan.min_text_rows;
    double rate = rated ? step->options[ratio] : 1;
    return j->prompt.text_rows / (cap > 0 && cap < rate ? cap : rate);
}

static struct work work_of(const struct engine *en, const struct job *j, double cap)
{
    struct work w = {.decoder_rows = text_left(j, cap)};
    for (int i = 0; i < j->prompt.n_images; i++) {
        const struct prompt_image *im = &j->prompt.images[i];
        int n = vision_info(en->vision)->n_rows;
        int patches = vision_info(en->vision)->n_patches;
        struct plan_step step;
        capped_step(im, n, cap, &step);
        int left = picture_bound(im, &step, n);
        bool merges = step.stage == STAGE_VIT_LAYER && step.method != compressors[0];
        w.decoder_rows += left;
        w.tower_rows += im->small_side > 0 ? im->small_side * im->small_side
                        : merges           ? patches * (1 + (double)left / n) / 2
                                           : patches;
    }
    return w;
}

static double first_token_ms(const struct engine *en, const struct work *w)
{
    const struct pace *pace = en->pace.large.rows > 0 ? &en->pace : &en->first_pass;
    int n_passes = (int)ceil(w->decoder_rows / CHUNK_MAX_ROWS);
    return w->tower_rows * en->tower_ms_per_row + pace_ms(pace, n_passes, w->decoder_rows);
}

/* What other prompts have left. */
static struct work beside(const struct engine *en, const struct job *j)
{
    struct work w = {0};
    for (int i = 0; i < en->n_running; i++) {
        const struct job *other = en->running[i];
        if (other != j && other->state == JOB_ENCODING) {
            struct work all = work_of(en, other, other->plan.cap);
            w.tower_rows += all.tower_rows;
            w.decoder_rows += all.decoder_rows;
        } else if (other != j && other->state != JOB_DECODE) {
            w.decoder_rows += other->sequence.n - other->n_rows_done;
        }
    }
    return w;
}

static void apply(struct engine *en, struct job *j, double cap)
{
    j->plan.cap = j->asked.cap = cap;
    for (int i = 0; i < j->prompt.n_images; i++) {
        struct prompt_image *im = &j->prompt.images[i];
        struct plan_step step;
        capped_step(im, vision_info(en->vision)->n_rows, cap, &step);
        if (step.method == compressors[0] && im->planned.method != compressors[0]) {
            report_skip(&j->result.report, im->planned.stage, "capped");
        }
        im->planned = step;
        picture_begin(j, i);
    }
    j->attempt.prepared = j->result.report;
}

/* Milliseconds from now to the first token at a cap, others included; *rows: of the prompt. */
static double expect(const struct engine *en, const struct job *j, double cap, double *rows)
{
    const struct work others = beside(en, j);
    struct work w = work_of(en, j, cap);
    *rows = w.decoder_rows;
    w.tower_rows += others.tower_rows;
    w.decoder_rows += others.decoder_rows;
    return first_token_ms(en, &w);
}

/* The mildest cap with which the first token is expected in `ms`; 0: as planned. */
static double choose(const struct engine *en, const struct job *j, double ms, double *expected)
{
    bool unknown = j->prompt.n_images > 0 && en->tower_ms_per_row <= 0;
    double rows;
    for (size_t i = 0; !unknown && i < sizeof caps / sizeof *caps; i++) {
        if (j->plan.cap > 0 && caps[i] >= j->plan.cap) {
            break; /* a roll-out holds it below that already */
        }
        *expected = expect(en, j, caps[i], &rows);
        if (rows < en->info.n_ctx && *expected <= ms) {
            return caps[i];
        }
    }
    *expected = expect(en, j, 0, &rows);
    return 0;
}

void budget_apply(struct engine *en, struct job *j)
{
    double waited = clock_ms() - j->submitted_ms;
    double expected;
    if (j->plan.budget_ms <= 0 || j->attempt.plain || j->purpose != JOB_ANSWER) {
        return;
    }
    double cap = choose(en, j, j->plan.budget_ms - waited, &expected);
    j->result.budget_ms = j->plan.budget_ms;
    j->result.budget_expected_ms = waited + expected;
    j->result.budget_cap = cap > 0 ? cap : j->plan.cap;
    if (cap > 0) {
        apply(en, j, cap);
    }
}
