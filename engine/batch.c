/* Who runs in the next pass. A step is one picture through the tower, and one pass of
 * the decoder over the next rows of all running answers and one chunk of one prompt. An
 * answer's next rows are its last token and what speculation drafted behind it: the
 * sampler runs on the logits of each row in turn, and the first token that differs from
 * the draft ends it, so that an answer has the same tokens with drafts and without.
 * Cancellation is looked at before every step, so a client that leaves frees its slot
 * within one. Engine thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>

/* ---- starting ---------------------------------------------------------------------- */

static int new_sampler(struct engine *en, struct job *j, struct err *e)
{
    const struct generation_params *g = &j->gen;
    struct logit_bias *bias = arena_alloc(&j->arena, (size_t)g->n_logit_bias, sizeof *bias);
    if (!bias) {
        return err_no_memory(e, (size_t)g->n_logit_bias * sizeof *bias);
    }
    for (int i = 0; i < g->n_logit_bias; i++) {
        bias[i] = (struct logit_bias){g->logit_bias[i].token, g->logit_bias[i].bias};
    }
    struct sampler_params p = sampler_params_default;
    p.temperature = g->temperature;
    p.top_k = g->top_k;
    p.top_p = g->top_p;
    p.min_p = g->min_p;
    p.repeat_penalty = g->repeat_penalty;
    p.frequency_penalty = g->frequency_penalty;
    p.presence_penalty = g->presence_penalty;
    p.penalty_last_n = g->penalty_last_n;
    p.seed = g->seed + (uint64_t)j->choice;
    p.logit_bias = bias;
    p.n_logit_bias = g->n_logit_bias;
    p.ignore_eos = g->ignore_eos;
    sampler_free(j->sampler);
    j->sampler = sampler_new(&p, en->tokenizer, e);
    if (!j->sampler) {
        return -1;
    }
    for (int r = 0; r < j->prompt.n_runs; r++) {
        for (int i = 0; i < j->prompt.runs[r].n; i++) {
            sampler_accept(j->sampler, j->prompt.runs[r].ids[i]);
        }
    }
    return 0;
}

static int max_new_tokens(const struct engine *en, const struct job *j)
{
    int room = en->info.n_ctx - j->sequence.n;
    int positions = en->info.n_ctx_train - j->sequence.n_source;
    room = positions < room ? positions : room;
    return j->gen.max_tokens > 0 && j->gen.max_tokens < room ? j->gen.max_tokens : room;
}

void batch_admit(struct job *j)
{
    j->admitted_ms = clock_ms();
    j->result.queue_ms = j->admitted_ms - j->submitted_ms;
    j->state = JOB_ENCODING;
    answer_init(&j->answer, j->gen.stop, j->gen.n_stop);
    /* A lost STARTED event costs a ping, not the request. */
    (void)job_push(j, JOB_EVENT_STARTED, 0, "", 0, NULL, 0, JOB_FINISH_NONE);
    log_event(LOG_DEBUG, "job_start", log_str("id", j->id),
              log_f64("queue_ms", j->result.queue_ms));
}

/* Text becomes rows, and what is known of the prompt's beginning becomes keys and values,
 * before any picture is looked at. */
static int begin_prompt(struct engine *en, struct job *j, struct err *e)
{
    int cutoffs[KV_MAX_GROUPS];
    int n_cutoffs = pipeline_cutoffs(en, j, cutoffs);
    struct kv_shape shape = decoder_kv_shape(en->decoder);
    if (pipeline_text(en, j, e) || kv_init(&j->kv, &shape, cutoffs, n_cutoffs, en->info.n_ctx, e)) {
        return -1;
    }
    j->has_kv = true;
    return kv_reserve(&j->kv, &en->kv_pool, e) || choose_begin(en, j, e) || prefix_begin(en, j, e)
               ? -1
               : 0;
}

/* All pictures are rows now: join them with the text behind what is known already. */
static int begin_prefill(struct engine *en, struct job *j, struct err *e)
{
    if (pipeline_assemble(en, j, e)) {
        return -1;
    }
    j->n_rows_done = j->n_rows_found;
    j->max_new = max_new_tokens(en, j);
    if (draft_begin(en, j, e)) {
        return -1;
    }
    size_t n_vocab = (size_t)en->info.n_vocab;
    j->logits = arena_alloc(&j->arena, n_vocab, sizeof *j->logits);
    j->first_logits =
        j->gen.n_choices > 1 ? arena_alloc(&j->arena, n_vocab, sizeof *j->first_logits) : j->logits;
    if (!j->logits || !j->first_logits) {
        return err_no_memory(e, n_vocab * sizeof *j->logits);
    }
    j->state = j->chooser ? JOB_CHOOSING : JOB_PREFILL;
    return new_sampler(en, j, e);
}

/* ---- finishing ----------------------------------------------------------------------- */

static void fill_result(struct engine *en, struct job *j)
{
    struct job_result *r = &j->result;
    double now = clock_ms();
    r->total_ms = now - j->submitted_ms;
    if (j->first_token_at_ms > 0) {
        r->first_token_ms = j->first_token_at_ms - j->submitted_ms;
        r->predicted_ms = now - j->first_token_at_ms;
    }
    if (!j->has_kv) {
        r->peak_bytes = j->arena.peak_bytes;
        return;
    }
    struct kv_shape s = j->kv.shape;
    size_t row_bytes = (size_t)s.n_head_kv * (size_t)s.head_dim * 2 * sizeof(uint16_t);
    double layer_rows = 0;
    for (int g = 0; g < j->kv.n_groups; g++) {
        const struct kv_group *group = &j->kv.group[g];
        int saved = r->report.original_rows - j->prompt_group_rows[g];
        layer_rows += (double)j->prompt_group_rows[g] * group->n_layer;
        r->kv_bytes_saved += (size_t)(saved > 0 ? saved : 0) * (size_t)group->n_layer * row_bytes;
    }
    r->report.mean_rows_per_layer = layer_rows / s.n_layer;
    r->kv_bytes = kv_used_bytes(&j->kv);
    r->peak_bytes = j->arena.peak_bytes + kv_bytes(&j->kv) + en->scratch.peak_bytes;
}

void batch_finish(struct engine *en, struct job *j, const struct err *error)
{
    fill_result(en, j);
    if (j->has_kv) {
        kv_clear(&j->kv);
        j->has_kv = false;
    }
    sampler_free(j->sampler);
    j->sampler = NULL;
    answer_free(&j->answer);

    pthread_mutex_lock(&en->lock);
    for (int i = 0; i < en->n_running; i++) {
        if (en->running[i] == j) {
            en->running[i] = en->running[--en->n_running];
            break;
        }
    }
    if (!error) {
        en->n_done++;
        double service = clock_ms() - j->admitted_ms;
        en->mean_service_ms =
            en->mean_service_ms > 0 ? 0.8 * en->mean_service_ms + 0.2 * service : service;
    } else if (error->code == ERR_CANCELLED) {
        en->n_cancelled++;
    } else {
        en->n_failed++;
    }
    pthread_mutex_unlock(&en->lock);
    job_push_end(j, error);
    job_unref(j);
}

/* ---- tokens --------------------------------------------------------------------------- */

static void fill_token_info(const struct job *j, const float *logits, int n_vocab, token_id id,
                            struct token_info *out)
{
    struct token_logprob chosen;
    struct token_logprob top[20];
    sampler_logprobs(logits, n_vocab, id, j->gen.n_top_logprobs, &chosen, top);
    *out =
        (struct token_info){.token = id, .logprob = chosen.logprob, .n_top = j->gen.n_top_logprobs};
    for (int i = 0; i < j->gen.n_top_logprobs; i++) {
        out->top[i].token = top[i].id;
        out->top[i].logprob = top[i].logprob;
    }
}

/* Rows of the prompt and of the first n tokens of the answer stay. */
static void keep_rows(struct job *j, int n)
{
    for (int g = 0; g < j->kv.n_groups; g++) {
        j->kv.group[g].n = j->prompt_group_rows[g] + n;
    }
    j->kv.n_positions = j->sequence.n_source + n;
}

static int take_token(struct engine *en, struct job *j, const float *logits, bool *goes_on,
                      struct err *e);

static int next_choice(struct engine *en, struct job *j, enum job_finish finish, struct err *e)
{
    if (job_push(j, JOB_EVENT_DONE, j->choice, "", 0, NULL, 0, finish)) {
        return err_no_memory(e, sizeof(struct job_event));
    }
    if (++j->choice == j->gen.n_choices) {
        batch_finish(en, j, NULL);
        return 0;
    }
    answer_free(&j->answer);
    answer_init(&j->answer, j->gen.stop, j->gen.n_stop);
    j->n_generated = 0;
    keep_rows(j, 0);
    lookup_rewind(&j->lookup, j->n_lookup_prompt);
    if (new_sampler(en, j, e)) {
        return -1;
    }
    bool goes_on;
    return take_token(en, j, j->first_logits, &goes_on, e);
}

/* Send what the answer released. A token's logprob is sent even when its text is held. */
static int send_text(struct job *j, const struct token_info *info, struct err *e)
{
    if (j->answer.out.len == 0 && !info) {
        return 0;
    }
    return job_push(j, JOB_EVENT_TEXT, j->choice, buf_str(&j->answer.out), j->answer.out.len, info,
                    info ? 1 : 0, JOB_FINISH_NONE)
               ? err_no_memory(e, j->answer.out.len)
               : 0;
}

/* Choose a token from the logits. *goes_on: the answer goes on with it. Otherwise the next
 * choice has begun, or the job has ended and may be gone. */
static int take_token(struct engine *en, struct job *j, const float *logits, bool *goes_on,
                      struct err *e)
{
    *goes_on = false;
    token_id id = sampler_sample(j->sampler, logits);
    sampler_accept(j->sampler, id);
    lookup_add(&j->lookup, id);
    j->n_generated++;
    j->result.completion_tokens++;
    if (tokenizer_is_eog(en->tokenizer, id) && !j->gen.ignore_eos) {
        if (answer_end(&j->answer) || send_text(j, NULL, e)) {
            return err_no_memory(e, j->answer.held.len);
        }
        return next_choice(en, j, JOB_FINISH_STOP, e);
    }
    struct token_info info;
    bool want_info = j->gen.n_top_logprobs >= 0;
    if (want_info) {
        fill_token_info(j, logits, en->info.n_vocab, id, &info);
    }
    size_t len = 0;
    const char *piece = tokenizer_piece(en->tokenizer, id, false, &len);
    bool stopped = false;
    if (answer_add(&j->answer, piece, len, &stopped)) {
        return err_no_memory(e, len);
    }
    if (send_text(j, want_info ? &info : NULL, e)) {
        return -1;
    }
    if (stopped) {
        return next_choice(en, j, JOB_FINISH_STOP, e);
    }
    if (j->n_generated >= j->max_new) {
        if (answer_end(&j->answer) || send_text(j, NULL, e)) {
            return err_no_memory(e, j->answer.held.len);
        }
        return next_choice(en, j, JOB_FINISH_LENGTH, e);
    }
    j->next_token = id;
    j->state = JOB_DECODE;
    *goes_on = true;
    return 0;
}

/* ---- one pass --------------------------------------------------------------------------- */

struct pass {
    struct decoder_slice slices[ENGINE_MAX_PARALLEL];
    struct rows rows[ENGINE_MAX_PARALLEL];
    struct stage_hook hooks[ENGINE_MAX_PARALLEL];
    struct job *jobs[ENGINE_MAX_PARALLEL];
    struct report reports[ENGINE_MAX_PARALLEL]; /* as before the pass */
    struct draft drafts[ENGINE_MAX_PARALLEL];
    int n;
    int prefill_rows; /* rows of the one prompt chunk, the last slice; 0 = none */
};

static int add_decode(struct engine *en, struct pass *p, struct job *j, const struct draft *draft,
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
    p->slices[p->n] =
        (struct decoder_slice){.kv = &j->kv, .rows = r, .logits = logits, .all_logits = true};
    p->reports[p->n] = j->result.report;
    p->drafts[p->n] = *draft;
    p->jobs[p->n++] = j;
    return 0;
}

static int add_prefill(struct engine *en, struct pass *p, struct job *j, struct err *e)
{
    struct rows *r = &p->rows[p->n];
    p->reports[p->n] = j->result.report;
    report_init(&j->chunk_report, &j->plan);
    if (pipeline_chunk(j, &en->scratch, r, e) ||
        pipeline_lm_hook(en, j, &en->scratch, &p->hooks[p->n], e)) {
        return -1;
    }
    bool last = j->n_rows_done + r->n == j->sequence.n;
    p->slices[p->n] = (struct decoder_slice){.kv = &j->kv,
                                             .rows = r,
                                             .hook = p->hooks[p->n].run ? &p->hooks[p->n] : NULL,
                                             .is_prompt = true,
                                             .logits = last ? j->logits : NULL};
    p->prefill_rows = r->n;
    p->jobs[p->n++] = j;
    return 0;
}

static int after_prefill(struct engine *en, struct job *j, int n_rows, double ms, struct err *e)
{
    j->n_rows_done += n_rows;
    j->result.prompt_ms += ms;
    prefix_chunk_done(j, n_rows);
    job_push_progress(j, j->n_rows_done, j->sequence.n);
    if (j->n_rows_done < j->sequence.n) {
        return 0;
    }
    kv_trim(&j->kv);
    prefix_keep(en, j);
    j->result.prompt_rows = j->result.report.compressed_rows;
    j->result.looked_up_rows = job_uses_prefix_cache(j) ? j->sequence.n : 0;
    j->result.cached_rows = j->n_rows_found;
    j->kv.n_positions = j->sequence.n_source;
    for (int g = 0; g < j->kv.n_groups; g++) {
        j->prompt_group_rows[g] = j->kv.group[g].n;
    }
    j->first_token_at_ms = clock_ms();
    if (j->first_logits != j->logits) {
        memcpy(j->first_logits, j->logits, (size_t)en->info.n_vocab * sizeof *j->logits);
    }
    bool goes_on;
    return take_token(en, j, j->logits, &goes_on, e);
}

/* The tokens that follow from the rows of an answer, until one is not what was drafted:
 * whatever was computed behind it belongs to another text. */
static int after_decode(struct engine *en, struct job *j, const struct draft *draft,
                        const float *logits, struct err *e)
{
    j->result.draft_tokens += draft->n;
    for (int row = 0;; row++, logits += en->info.n_vocab) {
        bool goes_on;
        keep_rows(j, j->n_generated);
        if (take_token(en, j, logits, &goes_on, e)) {
            return -1;
        }
        if (!goes_on) {
            return 0;
        }
        if (row == draft->n || j->next_token != draft->ids[row]) {
            if (draft->n > 0) {
                lookup_result(&j->lookup, draft->n, row);
            }
            return 0;
        }
        j->result.draft_tokens_accepted++;
    }
}

static int after_pass(struct engine *en, const struct pass *p, int i, double ms, struct err *e)
{
    struct job *j = p->jobs[i];
    if (j->state == JOB_PREFILL) {
        return after_prefill(en, j, p->prefill_rows, ms, e);
    }
    return after_decode(en, j, &p->drafts[i], p->slices[i].logits, e);
}

static void run_part(struct engine *en, struct pass *p, int first, int n);

/* A pass failed (no memory, a row that is not a number): only the request that caused it
 * may suffer, so each gets a pass of its own, without drafts, for those belong to no
 * answer yet. The kv caches are as before the failure. */
static void run_each_alone(struct engine *en, const struct pass *failed, int first, int n)
{
    for (int i = first; i < first + n; i++) {
        struct pass one = {.n = 0};
        struct job *j = failed->jobs[i];
        struct err e = ERR_INIT;
        j->result.report = failed->reports[i];
        const struct draft none = {.n = 0};
        int rc = j->state == JOB_DECODE ? add_decode(en, &one, j, &none, &e)
                                        : add_prefill(en, &one, j, &e);
        if (rc) {
            batch_finish(en, j, &e);
        } else {
            run_part(en, &one, 0, 1);
        }
    }
}

static void run_part(struct engine *en, struct pass *p, int first, int n)
{
    double begin = clock_ms();
    struct err e = ERR_INIT;
    const struct job *j = p->jobs[first];
    int first_block = j->state == JOB_PREFILL ? j->first_block : 0;
    if (decoder_run_blocks(en->decoder, first_block, en->info.n_layer, p->slices + first, n,
                           &en->compute, &en->scratch, &e)) {
        if (n > 1 || p->drafts[first].n > 0) {
            run_each_alone(en, p, first, n);
        } else {
            batch_finish(en, p->jobs[first], &e);
        }
        return;
    }
    double ms = clock_ms() - begin;
    for (int i = first; i < first + n; i++) {
        struct err own = ERR_INIT;
        if (after_pass(en, p, i, ms, &own)) {
            batch_finish(en, p->jobs[i], &own);
        }
    }
}

/* Answers go through the decoder as many at a time as keep their bits whoever is beside them
 * (all of them with packed weights), and the prompt chunk by itself: and the same request gives the
 * same tokens alone and in any batch. The chunk is the last slice. */
static void run_pass(struct engine *en, struct pass *p)
{
    int n_decode = p->prefill_rows > 0 ? p->n - 1 : p->n;
    int most_rows = decoder_exact_rows(en->decoder);
    for (int first = 0, n; first < n_decode; first += n) {
        int rows = p->rows[first].n;
        for (n = 1; first + n < n_decode; n++) {
            rows += p->rows[first + n].n;
            if (rows > most_rows) {
                break;
            }
        }
        run_part(en, p, first, n);
    }
    if (p->prefill_rows > 0) {
        run_part(en, p, p->n - 1, 1);
    }
}

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

/* The oldest job that still has work before its first token. */
static struct job *next_to_prefill(const struct engine *en)
{
    struct job *oldest = NULL;
    for (int i = 0; i < en->n_running; i++) {
        struct job *j = en->running[i];
        if (j->state != JOB_DECODE && (!oldest || j->submitted_ms < oldest->submitted_ms)) {
            oldest = j;
        }
    }
    return oldest;
}

/* Pictures up to one that had to be encoded, or the change from pictures to rows. -1: this
 * job failed. */
static int advance_encoding(struct engine *en, struct job *j, struct err *e)
{
    if (!j->has_kv && begin_prompt(en, j, e)) {
        return -1;
    }
    bool cached = true;
    while (cached && j->n_images_done < j->prompt.n_images) {
        if (pipeline_encode_image(en, j, &cached, e)) {
            return -1;
        }
    }
    return j->n_images_done == j->prompt.n_images ? begin_prefill(en, j, e) : 0;
}

/* The next rows of all running answers. */
static void add_answers(struct engine *en, struct pass *p)
{
    struct job *jobs[ENGINE_MAX_PARALLEL];
    struct draft drafts[ENGINE_MAX_PARALLEL];
    int n = 0;
    for (int i = en->n_running - 1; i >= 0; i--) {
        if (en->running[i]->state == JOB_DECODE) {
            jobs[n++] = en->running[i];
        }
    }
    draft_plan(en, jobs, n, drafts);
    for (int i = 0; i < n; i++) {
        struct err e = ERR_INIT;
        if (add_decode(en, p, jobs[i], &drafts[i], &e)) {
            batch_finish(en, jobs[i], &e);
        }
    }
}

void batch_step(struct engine *en)
{
    for (int i = en->n_running - 1; i >= 0; i--) {
        (void)drop_if_cancelled(en, en->running[i]);
    }
    struct arena_mark mark = arena_mark(&en->scratch);
    en->scratch.peak_bytes = en->scratch.used_bytes;
    struct pass pass = {.n = 0};
    struct job *prompt = next_to_prefill(en);
    struct err e = ERR_INIT;
    if (prompt && prompt->state == JOB_ENCODING && advance_encoding(en, prompt, &e)) {
        batch_finish(en, prompt, &e);
        prompt = NULL;
    }
    if (prompt && prompt->state == JOB_CHOOSING && choose_step(en, prompt, &e)) {
        batch_finish(en, prompt, &e);
        prompt = NULL;
    }
    add_answers(en, &pass);
    struct err own = ERR_INIT;
    if (prompt && prompt->state == JOB_PREFILL && add_prefill(en, &pass, prompt, &own)) {
        batch_finish(en, prompt, &own);
    }
    run_pass(en, &pass);
    arena_rewind(&en->scratch, mark);
}
