/* Who runs in the next pass. A step is at most one pass of the tower, and one pass of the
 * decoder over the next rows of all running answers and as many rows of prompts as
 * there is time for: the weights are read once for all of them. (A prompt whose rows are
 * chosen by the question, choose.c, and a preview, take turns with these and have passes of
 * their own.) What a row becomes does not depend on the others (decoder_rows_independent), so a
 * request has the same tokens alone and in any company.
 *
 * While there are answers, a step should take no longer than itl_target_ms, the time that
 * their readers wait for the next token; how many rows of prompts that allows is measured
 * (pace.h). Where the middle of a chunk may not be cut it takes as long as the chunk does.
 *
 * Cancellation is looked at before every step, so a client that leaves frees its slot
 * within one. Engine thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "engine/chunk.h"

/* Rows of prompts in a pass: at most, and, however slow the machine is, at least. Matrix
 * units take sixteen rows at a time. */
#define MOST_ROWS  CHUNK_MAX_ROWS
#define LEAST_ROWS 16

struct pass {
    struct decoder_slice slices[ENGINE_MAX_PARALLEL]; /* answers, then prompts */
    struct rows rows[ENGINE_MAX_PARALLEL];
    int n_rows[ENGINE_MAX_PARALLEL]; /* before they merge on the way */
    struct stage_hook hooks[ENGINE_MAX_PARALLEL];
    struct job *jobs[ENGINE_MAX_PARALLEL];
    struct report reports[ENGINE_MAX_PARALLEL]; /* as before the pass */
    struct draft drafts[ENGINE_MAX_PARALLEL];
    int n;
    int first_block; /* where all of them enter the decoder */
};

/* ---- what goes into a pass -------------------------------------------------------------- */

static int add_answer(struct engine *en, struct pass *p, struct job *j, const struct draft *draft,
                      struct err *e)
{
    struct rows *r = &p->rows[p->n];
    int n = 1 + draft->n;
    float *logits = j->logits;
    if (rows_init(r, &en->scratch, n, en->info.n_embd, ROW_TEXT, (float)j->kv.n_positions, e)) {
        return -1;
    }
    if (n > 1) {
        size_t row_bytes = (size_t)en->info.n_vocab * sizeof *logits;
        logits = arena_alloc(&en->scratch, (size_t)n, row_bytes);
        if (!logits) {
            return err_no_memory(e, (size_t)n * row_bytes);
        }
    }
    decoder_embed(en->decoder, &j->next_token, 1, r->x, &en->compute);
    decoder_embed(en->decoder, draft->ids, draft->n, r->x + en->info.n_embd, &en->compute);
    p->slices[p->n] = (struct decoder_slice){.kv = &j->kv,
                                             .rows = r,
                                             .lora = &j->lora,
                                             .use_log_mass = j->log_mass,
                                             .log_mass_from = j->log_mass_from,
                                             .logits = logits,
                                             .all_logits = true};
    p->n_rows[p->n] = n;
    p->reports[p->n] = j->result.report;
    p->drafts[p->n] = *draft;
    p->jobs[p->n++] = j;
    return 0;
}

/* The next n rows of the prompt. */
static int add_prompt(struct engine *en, struct pass *p, struct job *j, int n, struct err *e)
{
    struct rows *r = &p->rows[p->n];
    p->reports[p->n] = j->result.report;
    report_init(&j->chunk_report, &j->plan);
    if (pipeline_next_rows(j, n, &en->scratch, r, e) ||
        pipeline_lm_hook(en, j, &en->scratch, &p->hooks[p->n], e)) {
        return -1;
    }
    bool last = j->n_rows_done + n == j->sequence.n;
    p->slices[p->n] =
        (struct decoder_slice){.kv = &j->kv,
                               .rows = r,
                               .hook = p->hooks[p->n].run ? &p->hooks[p->n] : NULL,
                               .lora = &j->lora,
                               .is_prompt = true,
                               .use_log_mass = j->log_mass,
                               .log_mass_from = j->log_mass_from,
                               .logits = last && j->purpose == JOB_ANSWER ? j->logits : NULL};
    if (j->purpose == JOB_EMBED) {
        p->slices[p->n].states =
            arena_alloc(&en->scratch, (size_t)n, (size_t)en->info.n_embd * sizeof(float));
        if (!p->slices[p->n].states) {
            return err_no_memory(e, (size_t)n * (size_t)en->info.n_embd * sizeof(float));
        }
    }
    p->n_rows[p->n] = n;
    p->drafts[p->n].n = 0;
    p->jobs[p->n++] = j;
    return 0;
}

/* ---- the pass --------------------------------------------------------------------------- */

static int after_pass(struct engine *en, const struct pass *p, int i, double ms, struct err *e)
{
    struct job *j = p->jobs[i];
    if (p->slices[i].states) {
        embed_add(en, j, p->slices[i].rows, p->slices[i].states);
    }
    return p->slices[i].is_prompt ? batch_prompt_went(en, j, p->n_rows[i], ms, e)
                                  : batch_answer_went(en, j, &p->drafts[i], p->slices[i].logits, e);
}

static void run_pass(struct engine *en, struct pass *p);

/* A pass failed (no memory, a row that is not a number): only the request that caused it
 * may suffer, so each gets a pass of its own, without drafts, for those belong to no
 * answer yet. The kv caches are as before the failure. */
static void run_each_alone(struct engine *en, const struct pass *failed)
{
    for (int i = 0; i < failed->n; i++) {
        struct pass one = {.first_block = failed->first_block};
        struct job *j = failed->jobs[i];
        struct err e = ERR_INIT;
        j->result.report = failed->reports[i];
        const struct draft none = {.n = 0};
        if (failed->slices[i].is_prompt ? add_prompt(en, &one, j, failed->n_rows[i], &e)
                                        : add_answer(en, &one, j, &none, &e)) {
            batch_finish(en, j, &e);
        } else {
            run_pass(en, &one);
        }
    }
}

static void run_pass(struct engine *en, struct pass *p)
{
    if (p->n == 0) {
        return;
    }
    double begin = clock_ms();
    struct err e = ERR_INIT;
    if (decoder_run_blocks(en->decoder, p->first_block, en->info.n_layer, p->slices, p->n,
                           &en->compute, &en->scratch, &e)) {
        if (p->n > 1 || p->drafts[0].n > 0) {
            run_each_alone(en, p);
        } else {
            batch_finish(en, p->jobs[0], &e);
        }
        return;
    }
    double ms = clock_ms() - begin;
    for (int i = 0; i < p->n; i++) {
        struct err own = ERR_INIT;
        if (after_pass(en, p, i, ms, &own)) {
            batch_finish(en, p->jobs[i], &own);
        }
    }
}

/* ---- whose turn it is --------------------------------------------------------------------- */

static bool drop_if_cancelled(struct engine *en, struct job *j)
{
    if (!atomic_load(&j->cancelled)) {
        return false;
    }
    struct err e = ERR_INIT;
    err_reason(&e, ERR_CANCELLED, "cancelled", "the request was cancelled while it ran");
    batch_finish(en, j, &e);
    return true;
}

/* The next rows of all running answers. Returns how many rows there are. */
static int add_answers(struct engine *en, struct pass *p)
{
    struct job *jobs[ENGINE_MAX_PARALLEL];
    struct draft drafts[ENGINE_MAX_PARALLEL];
    int n = 0;
    for (int i = en->n_running - 1; i >= 0; i--) {
        if (en->running[i]->state == JOB_DECODE) {
            jobs[n++] = en->running[i];
        }
    }
    draft_plan(jobs, n, drafts);
    int n_rows = 0;
    for (int i = 0; i < n; i++) {
        struct err e = ERR_INIT;
        if (add_answer(en, p, jobs[i], &drafts[i], &e)) {
            batch_finish(en, jobs[i], &e);
        } else {
            n_rows += 1 + drafts[i].n;
        }
    }
    return n_rows;
}

/* Turns are between keys, and between the requests of one key first come, first served. */
static bool before(const struct engine *en, const struct job *a, const struct job *b)
{
    double x = fair_service(&en->prompt_turns, a->prompt_turn);
    double y = fair_service(&en->prompt_turns, b->prompt_turn);
    return x < y || (x <= y && a->submitted_ms < b->submitted_ms);
}

/* Jobs that have work before their first token, in the order in which they get it. */
static int prompts_in_order(const struct engine *en, struct job **jobs)
{
    int n = 0;
    for (int i = 0; i < en->n_running; i++) {
        struct job *j = en->running[i];
        if (j->state == JOB_DECODE) {
            continue;
        }
        int at = n++;
        for (; at > 0 && before(en, j, jobs[at - 1]); at--) {
            jobs[at] = jobs[at - 1];
        }
        jobs[at] = j;
    }
    return n;
}

/* Whether one of the first n jobs is about to leave rows that this one would use. */
static bool waits_for_prefix(struct job *const *jobs, int n, const struct job *j)
{
    for (int i = 0; i < n && !j->has_kv; i++) {
        if (jobs[i] && prefix_is_shared(jobs[i], j)) {
            return true;
        }
    }
    return false;
}

/* Brings jobs[n] to their rows until a pass would be full; those that are not there yet, or
 * failed, become NULL. One pass of pictures goes through the tower; returns the milliseconds. */
static double prepare_prompts(struct engine *en, struct job **jobs, int n)
{
    double ms = 0;
    bool encoded = false;
    int rows = 0;
    for (int i = 0; i < n; i++) {
        struct job *j = jobs[i];
        struct err e = ERR_INIT;
        if (j->state == JOB_ENCODING && (rows >= MOST_ROWS || encoded)) {
            jobs[i] = NULL;
            continue;
        }
        if (j->state == JOB_ENCODING && !waits_for_prefix(jobs, i, j)) {
            double begin = clock_ms();
            if (batch_advance_encoding(en, j, &encoded, &e)) {
                batch_finish(en, j, &e);
                jobs[i] = NULL;
                continue;
            }
            ms += encoded ? clock_ms() - begin : 0;
        }
        if (j->state == JOB_SEEN) {
            batch_finish(en, j, NULL);
            jobs[i] = NULL;
            continue;
        }
        rows += j->state != JOB_ENCODING ? j->sequence.n - j->n_rows_done : 0;
    }
    return ms;
}

/* Rows of prompts beside so many rows of answers, when a part of the time has passed. */
static int rows_in_time(const struct engine *en, int n_answer_rows, double ms_passed)
{
    double target = en->params.itl_target_ms;
    if (n_answer_rows == 0 || target <= 0) {
        return MOST_ROWS;
    }
    int n = pace_rows(&en->pace, target - ms_passed, n_answer_rows + MOST_ROWS) - n_answer_rows;
    return n < LEAST_ROWS ? LEAST_ROWS : n / LEAST_ROWS * LEAST_ROWS;
}

/* Rows of prompts up to `most`, in order. Returns how many there are. */
static int add_prompts(struct engine *en, struct pass *p, struct job *const *jobs, int n, int most)
{
    int n_rows = 0;
    for (int i = 0; i < n && n_rows < most; i++) {
        struct job *j = jobs[i];
        if (!j || j->state != JOB_PREFILL || job_goes_alone(j)) {
            continue;
        }
        int left = j->sequence.n - j->n_rows_done;
        int now = left < most - n_rows ? left : most - n_rows;
        if (j->whole_chunks) {
            now = pipeline_chunk_rows(j);
        }
        if (n_rows > 0 && (n_rows + now > most || !decoder_rows_independent(en->decoder))) {
            continue;
        }
        struct err e = ERR_INIT;
        if (add_prompt(en, p, j, now, &e)) {
            batch_finish(en, j, &e);
        } else {
            n_rows += now;
            fair_charge(&en->prompt_turns, j->prompt_turn, now);
        }
    }
    return n_rows;
}

/* The job whose turn it is, if it shares no pass. NULL: it is another's turn. */
static struct job *loner_in_turn(struct job *const *jobs, int n)
{
    for (int i = 0; i < n; i++) {
        if (jobs[i] && jobs[i]->state != JOB_ENCODING) {
            return job_goes_alone(jobs[i]) ? jobs[i] : NULL;
        }
    }
    return NULL;
}

/* Its next chunk, through the blocks that it is at. Returns how many rows that is. */
static int run_loner(struct engine *en, struct job *j)
{
    struct err e = ERR_INIT;
    struct pass own = {.first_block = j->first_block};
    int n = pipeline_chunk_rows(j);
    if (j->first_block == 0) { /* later rounds of a chooser are of the same rows */
        fair_charge(&en->prompt_turns, j->prompt_turn, n);
    }
    int rc = j->purpose == JOB_PREVIEW  ? preview_step(en, j, &e)
             : j->state == JOB_CHOOSING ? choose_step(en, j, &e)
                                        : add_prompt(en, &own, j, n, &e);
    if (rc || j->state == JOB_SEEN) {
        batch_finish(en, j, rc ? &e : NULL);
        return n;
    }
    run_pass(en, &own);
    return n;
}

const int engine_pass_bounds[ENGINE_PASS_BOUNDS] = {1, 8, 16, 32, 64, 128, 256, 512};

static void count_pass(struct engine_passes *c, int n_answer_rows, int n_prompt_rows)
{
    int n = n_answer_rows + n_prompt_rows;
    int bucket = 0;
    while (bucket < ENGINE_PASS_BOUNDS && n > engine_pass_bounds[bucket]) {
        bucket++;
    }
    c->n++;
    c->n_mixed += n_answer_rows > 0 && n_prompt_rows > 0;
    c->n_rows += (uint64_t)n;
    c->by_rows[bucket]++;
}

void step_run(struct engine *en)
{
    for (int i = en->n_running - 1; i >= 0; i--) {
        (void)drop_if_cancelled(en, en->running[i]);
    }
    struct arena_mark mark = arena_mark(&en->scratch);
    en->scratch.peak_bytes = en->scratch.used_bytes;
    struct job *prompts[ENGINE_MAX_PARALLEL];
    int n_prompts = prompts_in_order(en, prompts);
    double tower_ms = prepare_prompts(en, prompts, n_prompts);
    struct pass pass = {.n = 0};
    double begin = clock_ms();
    int n_answer = add_answers(en, &pass);
    struct job *loner = loner_in_turn(prompts, n_prompts);
    int n_prompt =
        loner ? 0
              : add_prompts(en, &pass, prompts, n_prompts, rows_in_time(en, n_answer, tower_ms));
    run_pass(en, &pass);
    if (pass.n > 0) {
        pace_add(&en->pace, n_answer + n_prompt, clock_ms() - begin);
        count_pass(&en->passes, n_answer, n_prompt);
    }
    if (loner) {
        count_pass(&en->passes, 0, run_loner(en, loner));
    }
    arena_rewind(&en->scratch, mark);
}
