/* Shadows: some compressed requests are run once more without compression while nobody
 * waits, to see whether both prompts lead to the same answer.
 *
 * A shadow is not another answer. The served answer's first tokens are known, so its other
 * prompt and these tokens go through the decoder as one more prompt, and at each of them the
 * most likely token is compared with the one that the served prompt thought most likely
 * (teacher forcing). That costs a prefill, tells as much of sampled answers as of greedy
 * ones, and works both ways: where a plan is only tried (rollout.h) the request is served
 * uncompressed and its shadow compresses.
 *
 * A shadow never delays anybody: it moves only while no request runs or waits, in passes of
 * few rows, looks between two blocks of the tower whether somebody came, and is given up when
 * somebody did. It uses no cache and leaves nothing in one. What it needs of the request
 * (tokens, pixels) is kept for at most two that wait; the next ones have no shadow.
 *
 * Engine thread only, but for shadow_prepare. */
#include "engine/engine_impl.h"

#include "base/log.h"

#include <math.h>
#include <string.h>

#define STEP_ROWS 32

/* ---- which requests -------------------------------------------------------------------- */

static bool merges(const struct plan *p)
{
    bool any = false;
    for (int m = 0; m < MODALITY_COUNT; m++) {
        any |= p->step[m].method != compressors[0];
    }
    return any;
}

/* Every n-th, however many threads ask. */
static bool sampled(struct engine *en)
{
    unsigned share = (unsigned)lrint(en->params.shadow_share * 1e6);
    unsigned before = atomic_fetch_add(&en->shadow.drawn, share);
    return before % 1000000 + share >= 1000000;
}

void shadow_prepare(struct engine *en, struct job *j)
{
    if (en->params.shadow_share <= 0 || j->purpose != JOB_ANSWER || !merges(&j->asked)) {
        return;
    }
    j->rollout_id = plan_id(&j->asked);
    j->level = rollout_level(&en->rollout, j->rollout_id, j->asked.profile);
    j->plan.cap = j->asked.cap = rollout_cap(j->level);
    j->attempt.plain = j->level == ROLLOUT_SHADOW;
    j->result.report.rollout = rollout_names[j->level];
    j->is_sampled = sampled(en);
}

/* ---- what was served ------------------------------------------------------------------- */

static int32_t most_likely(const float *logits, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

void shadow_saw(const struct engine *en, struct job *j, const float *logits, token_id token)
{
    int n_vocab = en->info.n_vocab;
    if (!j->is_sampled || j->choice > 0 || j->n_tape == SHADOW_TOKENS) {
        return;
    }
    if (j->n_tape == 0) {
        j->tape_logits = arena_alloc(&j->attempt.kept, (size_t)n_vocab, sizeof *logits);
        if (!j->tape_logits) {
            j->is_sampled = false; /* a shadow less */
            return;
        }
        memcpy(j->tape_logits, logits, (size_t)n_vocab * sizeof *logits);
    }
    j->tape[j->n_tape].likely = most_likely(logits, n_vocab);
    j->tape[j->n_tape++].token = token;
}

static void conclude(struct engine *en, const struct job *served, double agreement)
{
    struct rollout_change c;
    if (!rollout_add(&en->rollout, served->rollout_id, served->level, agreement, &c)) {
        return;
    }
    log_event(c.to < c.from ? LOG_WARN : LOG_INFO, "rollout", log_str("profile", c.profile),
              log_str("from", rollout_names[c.from]), log_str("to", rollout_names[c.to]),
              log_f64("agreement", c.agreement), log_f64("target", en->rollout.target));
    pthread_mutex_lock(&en->lock);
    *(c.to < c.from ? &en->shadow.stats.n_falls : &en->shadow.stats.n_climbs) += 1;
    pthread_mutex_unlock(&en->lock);
}

void shadow_offer(struct engine *en, struct job *j)
{
    struct shadow *s = &en->shadow;
    const struct report *r = &j->result.report;
    const struct report_stage *lm = &r->modality[MODALITY_LM];
    bool merged = r->compressed_rows < r->original_rows || lm->rows_out < lm->rows_in;
    if (!j->is_sampled || j->n_tape == 0) {
        return;
    }
    if (j->result.n_attempts > 1 && j->attempt.plain) {
        conclude(en, j, 1); /* the guard served what its shadow would be */
    } else if (j->level != ROLLOUT_SHADOW && !merged) {
        return;
    } else if (s->n_pending == SHADOW_PENDING) {
        pthread_mutex_lock(&en->lock);
        s->stats.n_abandoned++;
        pthread_mutex_unlock(&en->lock);
    } else {
        atomic_fetch_add(&j->n_refs, 1);
        s->pending[s->n_pending++] = j;
    }
}

/* ---- a shadow -------------------------------------------------------------------------- */

bool shadow_waits(const struct engine *en)
{
    return en->shadow.job || en->shadow.n_pending > 0;
}

bool shadow_is_disturbed(struct engine *en)
{
    pthread_mutex_lock(&en->lock);
    bool disturbed = en->queue_head || en->stopping;
    pthread_mutex_unlock(&en->lock);
    return disturbed;
}

static int copy_prompt(struct job *to, const struct job *from, struct err *e)
{
    struct prompt *p = &to->prompt;
    *p = from->prompt;
    p->runs = arena_alloc(&to->arena, (size_t)p->n_runs, sizeof *p->runs);
    p->images = arena_alloc(&to->arena, (size_t)p->n_images, sizeof *p->images);
    if (!p->runs || !p->images) {
        return err_no_memory(e, (size_t)p->n_images * sizeof *p->images);
    }
    memcpy(p->runs, from->prompt.runs, (size_t)p->n_runs * sizeof *p->runs);
    memcpy(p->images, from->prompt.images, (size_t)p->n_images * sizeof *p->images);
    return 0;
}

/* The other prompt of the oldest that waits. */
static int begin(struct engine *en, struct shadow *s, struct err *e)
{
    s->served = s->pending[0];
    s->pending[0] = s->pending[--s->n_pending];
    s->job = job_new(en, e);
    if (!s->job) {
        return -1;
    }
    struct job *j = s->job;
    j->is_shadow = true;
    j->purpose = JOB_ANSWER;
    j->lora = s->served->lora;
    j->gen = generation_params_default;
    j->gen.max_draft = 0;
    j->asked = j->plan = s->served->asked;
    j->attempt.plain = !s->served->attempt.plain;
    j->attempt.n_rungs = 1;
    j->state = JOB_ENCODING;
    answer_init(&j->answer, NULL, 0);
    if (copy_prompt(j, s->served, e)) {
        return -1;
    }
    report_init(&j->result.report, &j->plan);
    j->result.report.original_rows = j->prompt.text_rows + j->prompt.image_rows;
    if (j->attempt.plain) {
        plan_make_plain(&j->plan);
    }
    for (int i = 0; i < j->prompt.n_images; i++) {
        picture_begin(j, i);
    }
    return j->result.report.original_rows < en->info.n_ctx
               ? 0
               : err_set(e, ERR_CONTEXT_LENGTH, "the context does not hold the shadow");
}

static void drop(struct engine *en, uint64_t *counter)
{
    struct shadow *s = &en->shadow;
    if (s->job) {
        batch_let_go(en, s->job);
        job_unref(s->job);
    }
    if (s->served) {
        job_unref(s->served);
    }
    s->job = s->served = NULL;
    pthread_mutex_lock(&en->lock);
    *counter += 1;
    pthread_mutex_unlock(&en->lock);
}

static int run_prompt(struct engine *en, struct job *j, struct err *e)
{
    struct rows rows;
    struct stage_hook hook;
    int left = j->sequence.n - j->n_rows_done;
    int n = j->whole_chunks || j->chooser ? pipeline_chunk_rows(j)
            : left < STEP_ROWS            ? left
                                          : STEP_ROWS;
    if (pipeline_next_rows(j, n, &en->scratch, &rows, e) ||
        pipeline_lm_hook(en, j, &en->scratch, &hook, e)) {
        return -1;
    }
    struct decoder_slice slice = {.kv = &j->kv,
                                  .rows = &rows,
                                  .hook = hook.run ? &hook : NULL,
                                  .lora = &j->lora,
                                  .is_prompt = true,
                                  .logits = n == left ? j->logits : NULL};
    j->n_rows_done += n;
    return decoder_run_blocks(en->decoder, j->first_block, en->info.n_layer, &slice, 1,
                              &en->compute, &en->scratch, e);
}

/* KL(uncompressed || compressed) of the answer's first token. */
static double divergence(const float *whole, const float *compressed, int n)
{
    double sum[2] = {0};
    double most[2] = {(double)whole[most_likely(whole, n)],
                      (double)compressed[most_likely(compressed, n)]};
    double kl = 0;
    for (int i = 0; i < n; i++) {
        sum[0] += exp((double)whole[i] - most[0]);
        sum[1] += exp((double)compressed[i] - most[1]);
    }
    for (int i = 0; i < n; i++) {
        double a = (double)whole[i] - most[0] - log(sum[0]);
        double b = (double)compressed[i] - most[1] - log(sum[1]);
        kl += exp(a) * (a - b);
    }
    return kl > 0 ? kl : 0;
}

/* The served answer through the decoder, behind the prompt. */
static int run_answer(struct engine *en, struct shadow *s, struct err *e)
{
    struct job *j = s->job;
    const struct job *served = s->served;
    int n = served->n_tape - 1; /* nothing follows from the last */
    size_t n_vocab = (size_t)en->info.n_vocab;
    int n_agreed = most_likely(j->logits, en->info.n_vocab) == served->tape[0].likely;
    struct rows rows;
    float *logits = arena_alloc(&en->scratch, (size_t)n + 1, n_vocab * sizeof *logits);
    j->kv.n_positions = j->sequence.n_source;
    if (!logits ||
        rows_init(&rows, &en->scratch, n, en->info.n_embd, ROW_TEXT, (float)j->kv.n_positions, e)) {
        return logits ? -1 : err_no_memory(e, (size_t)n * n_vocab * sizeof *logits);
    }
    for (int i = 0; i < n; i++) {
        decoder_embed(en->decoder, &served->tape[i].token, 1,
                      rows.x + (size_t)i * (size_t)en->info.n_embd, &en->compute);
    }
    struct decoder_slice slice = {
        .kv = &j->kv, .rows = &rows, .lora = &j->lora, .logits = logits, .all_logits = true};
    if (n > 0 && decoder_run_blocks(en->decoder, 0, en->info.n_layer, &slice, 1, &en->compute,
                                    &en->scratch, e)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        const float *row = logits + (size_t)i * n_vocab;
        n_agreed += most_likely(row, en->info.n_vocab) == served->tape[i + 1].likely;
    }
    const float *whole = j->attempt.plain ? j->logits : served->tape_logits;
    const float *compressed = j->attempt.plain ? served->tape_logits : j->logits;
    double kl = divergence(whole, compressed, en->info.n_vocab);
    pthread_mutex_lock(&en->lock);
    s->stats.n_tokens += (uint64_t)served->n_tape;
    s->stats.n_agreed += (uint64_t)n_agreed;
    s->stats.divergence += kl;
    pthread_mutex_unlock(&en->lock);
    conclude(en, served, (double)n_agreed / served->n_tape);
    return 0;
}

static int advance(struct engine *en, struct shadow *s, bool *done, struct err *e)
{
    struct job *j = s->job;
    bool encoded;
    switch (j->state) {
    case JOB_ENCODING:
        return batch_advance_encoding(en, j, &encoded, e);
    case JOB_CHOOSING:
        return choose_step(en, j, e);
    default:
        *done = j->n_rows_done == j->sequence.n;
        return *done ? run_answer(en, s, e) : run_prompt(en, j, e);
    }
}

void shadow_step(struct engine *en)
{
    struct shadow *s = &en->shadow;
    struct err e = ERR_INIT;
    bool done = false;
    struct arena_mark mark = arena_mark(&en->scratch);
    if (s->job ? advance(en, s, &done, &e) : begin(en, s, &e)) {
        log_event(LOG_DEBUG, "shadow_ended", log_str("why", e.msg));
        drop(en, &s->stats.n_abandoned);
    } else if (done) {
        drop(en, &s->stats.n_done);
    }
    arena_rewind(&en->scratch, mark);
}

void shadow_abandon(struct engine *en)
{
    if (en->shadow.job) {
        drop(en, &en->shadow.stats.n_abandoned);
    }
}

void shadow_clear(struct engine *en)
{
    shadow_abandon(en);
    while (en->shadow.n_pending > 0) {
        job_unref(en->shadow.pending[--en->shadow.n_pending]);
    }
}
