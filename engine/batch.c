/* The life of a request that runs: its prompt becomes rows, rows that went through the
 * decoder become chunks of the prefix cache or tokens of the answer, and it ends. Which rows
 * go through the decoder when is decided in step.c.
 *
 * An answer's rows in a pass are its last token and what speculation drafted behind it: the
 * sampler runs on the logits of each row in turn, and the first token that differs from the
 * draft ends it, so that an answer has the same tokens with drafts and without. Engine
 * thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "compress/modifiers.h"

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
    return constrain_begin(en, j, e);
}

static int max_new_tokens(const struct engine *en, const struct job *j)
{
    int room = en->info.n_ctx - j->sequence.n;
    int positions = en->info.n_ctx_train - j->sequence.n_source;
    room = positions < room ? positions : room;
    return j->gen.max_tokens > 0 && j->gen.max_tokens < room ? j->gen.max_tokens : room;
}

/* The prompt is done, or will never be. */
static void leave_prompt_turns(struct engine *en, struct job *j)
{
    if (j->wants_prompt_turn) {
        j->wants_prompt_turn = false;
        fair_leave(&en->prompt_turns, j->prompt_turn);
        fair_release(&en->prompt_turns, j->prompt_turn);
    }
}

static void begin(struct engine *en, struct job *j)
{
    j->prompt_turn = fair_hold(&en->prompt_turns, j->scope);
    fair_enter(&en->prompt_turns, j->prompt_turn);
    j->wants_prompt_turn = true;
    j->state = JOB_ENCODING;
    answer_init(&j->answer, j->gen.stop, j->gen.n_stop);
}

void batch_admit(struct engine *en, struct job *j)
{
    j->admitted_ms = clock_ms();
    j->result.queue_ms = j->admitted_ms - j->submitted_ms;
    budget_apply(en, j);
    begin(en, j);
    /* A lost STARTED event costs a ping, not the request. */
    (void)job_push(j, JOB_EVENT_STARTED, 0, "", 0, NULL, 0, JOB_FINISH_NONE);
    log_event(LOG_DEBUG, "job_start", log_str("id", j->id),
              log_f64("queue_ms", j->result.queue_ms));
}

/* Rows merged inside the decoder count for more only behind their cutoff: below it rows have
 * not merged, and where the text or pictures did, their own plan says what they count for. */
static void set_log_mass(struct job *j, const struct plan_step *lm, int cutoff)
{
    bool before = modifier_value(&j->plan.step[MODALITY_IMAGE], MODIFIER_LOG_MASS) != 0 ||
                  modifier_value(&j->plan.step[MODALITY_TEXT], MODIFIER_LOG_MASS) != 0;
    bool inside = lm && modifier_value(lm, MODIFIER_LOG_MASS) != 0;
    j->log_mass = before || inside;
    j->log_mass_from = before || !inside ? 0 : cutoff + 1;
}

/* Text becomes rows, and what is known of the prompt's beginning becomes keys and values,
 * before any picture is looked at. */
static int begin_prompt(struct engine *en, struct job *j, struct err *e)
{
    struct plan_step steps[PLAN_MAX_LM_STEPS];
    int cutoffs[PLAN_MAX_LM_STEPS];
    int n_steps = pipeline_lm_steps(en, j, steps, cutoffs, NULL);
    if (pipeline_text(en, j, e) ||
        kv_init(&j->kv, &en->kv_pool.shape, cutoffs, n_steps, en->info.n_ctx, e)) {
        return -1;
    }
    set_log_mass(j, n_steps > 0 ? &steps[0] : NULL, cutoffs[0]);
    j->merges_inside = n_steps > 0;
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
    if (j->purpose == JOB_PREVIEW) {
        return preview_begin(en, j, e);
    }
    if (j->purpose == JOB_EMBED && embed_begin(en, j, e)) {
        return -1;
    }
    j->n_rows_done = j->n_rows_found;
    prefix_give_states(j);
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
    j->whole_chunks = j->merges_inside || !decoder_rows_independent(en->decoder);
    j->state = j->chooser ? JOB_CHOOSING : JOB_PREFILL;
    return new_sampler(en, j, e);
}

int batch_advance_encoding(struct engine *en, struct job *j, bool *encoded, struct err *e)
{
    bool done;
    *encoded = false;
    if ((!j->has_kv && begin_prompt(en, j, e)) || pictures_advance(en, j, &done, encoded, e)) {
        return -1;
    }
    return done ? begin_prefill(en, j, e) : 0;
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
    size_t row_bytes = kv_row_bytes(&s);
    double layer_rows = 0;
    for (int g = 0; g < j->kv.n_groups; g++) {
        const struct kv_group *group = &j->kv.group[g];
        int saved = r->report.original_rows - j->prompt_group_rows[g];
        layer_rows += (double)j->prompt_group_rows[g] * group->n_layer;
        r->kv_bytes_saved += (size_t)(saved > 0 ? saved : 0) * (size_t)group->n_layer * row_bytes;
    }
    r->report.compressed_rows = r->prompt_rows > 0 ? r->prompt_rows : r->report.compressed_rows;
    r->report.mean_rows_per_layer = (j->attempt.layer_rows + layer_rows) / s.n_layer;
    r->kv_bytes = kv_used_bytes(&j->kv);
    r->peak_bytes = j->arena.peak_bytes + j->attempt.kept.peak_bytes + kv_bytes(&j->kv) +
                    en->scratch.peak_bytes;
}

/* What the engine thread holds for a job. */
void batch_let_go(struct engine *en, struct job *j)
{
    leave_prompt_turns(en, j);
    if (j->has_kv) {
        kv_clear(&j->kv);
        j->has_kv = false;
    }
    sampler_free(j->sampler);
    j->sampler = NULL;
    constrain_end(j);
    answer_free(&j->answer);
}

void batch_restart(struct engine *en, struct job *j)
{
    batch_let_go(en, j);
    j->pieces = NULL;
    j->chunks = NULL;
    j->n_pieces = j->n_chunks = j->max_chunks = 0;
    j->chooser = NULL;
    j->states_found = NULL;
    j->leaves_nothing = false;
    j->first_block = 0;
    j->n_rows_found = j->n_rows_done = j->n_chunk_rows = 0;
    j->logits = j->first_logits = NULL;
    j->lookup = (struct lookup){.n = 0};
    j->n_generated = 0;
    j->first_token_at_ms = 0;
    begin(en, j);
}

void batch_finish(struct engine *en, struct job *j, const struct err *error)
{
    attempt_close(j, NULL);
    if (!error) {
        attempt_count(en, j);
    }
    fill_result(en, j);
    if (!error) {
        shadow_offer(en, j);
    }
    batch_let_go(en, j);

    pthread_mutex_lock(&en->lock);
    queue_job_ended(en, j);
    for (int i = 0; i < en->n_running; i++) {
        if (en->running[i] == j) {
            en->running[i] = en->running[--en->n_running];
            break;
        }
    }
    if (!error) {
        en->n_done++;
        double service = clock_ms() - j->admitted_ms;
        double mean = en->mean_service_ms;
        if (j->purpose == JOB_ANSWER) {
            en->mean_service_ms = mean > 0 ? 0.8 * mean + 0.2 * service : service;
        }
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
    attempt_accept(j);
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
    if (attempt_look(en, j, logits)) {
        return 0;
    }
    const uint32_t *allowed;
    bool over;
    if (constrain_mask(j, &allowed, e)) {
        return -1;
    }
    token_id id = sampler_sample(j->sampler, logits, allowed);
    if (constrain_accept(j, id, &over, e)) {
        return -1;
    }
    shadow_saw(en, j, logits, id);
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
    if (over || j->n_generated >= j->max_new) {
        if (answer_end(&j->answer) || send_text(j, NULL, e)) {
            return err_no_memory(e, j->answer.held.len);
        }
        return next_choice(en, j, over ? JOB_FINISH_STOP : JOB_FINISH_LENGTH, e);
    }
    j->next_token = id;
    j->state = JOB_DECODE;
    *goes_on = true;
    return 0;
}

/* ---- after a pass ----------------------------------------------------------------------- */

/* A pass may end inside a chunk or behind several. */
static void close_chunks(struct job *j, int n_rows)
{
    while (n_rows > 0) {
        int size = pipeline_chunk_rows(j);
        int n = size - j->n_chunk_rows < n_rows ? size - j->n_chunk_rows : n_rows;
        j->n_rows_done += n;
        j->n_chunk_rows += n;
        n_rows -= n;
        if (j->n_chunk_rows == size) {
            if (!j->chooser) {
                prefix_chunk_done(j, size, n_rows);
            }
            j->n_chunk_rows = 0;
        }
    }
}

int batch_prompt_went(struct engine *en, struct job *j, int n_rows, double ms, struct err *e)
{
    close_chunks(j, n_rows);
    j->result.prompt_ms += ms;
    job_push_progress(j, j->n_rows_done, j->sequence.n);
    if (j->n_rows_done < j->sequence.n) {
        return 0;
    }
    leave_prompt_turns(en, j);
    kv_trim(&j->kv);
    if (!j->chooser) {
        prefix_keep(en, j);
    }
    j->result.prompt_rows += j->result.report.compressed_rows;
    j->result.looked_up_rows += job_uses_prefix_cache(j) ? j->result.report.compressed_rows : 0;
    j->result.cached_rows += j->n_rows_found;
    j->kv.n_positions = j->sequence.n_source;
    for (int g = 0; g < j->kv.n_groups; g++) {
        j->prompt_group_rows[g] = j->kv.group[g].n;
    }
    if (j->purpose == JOB_EMBED) {
        if (embed_end(en, j, e)) {
            return -1;
        }
        batch_finish(en, j, NULL);
        return 0;
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
int batch_answer_went(struct engine *en, struct job *j, const struct draft *draft,
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
