/* Methods that act on the whole prompt inside the decoder, such as rows chosen by the question.
 * Which rows of a prompt go on is not known before its end has been read, and a chunk cannot
 * wait for the others in the middle of a pass. So the prompt goes through the decoder in
 * rounds: all its chunks through the blocks up to the cutoff, where their states replace the
 * embeddings in job.sequence and the heads that look things up (heads.h) say what the question's
 * rows attend to; then the method chooses, once; then what is left goes through the next
 * blocks, up to another choice (`steps`) or to the end, chunk by chunk like any prompt. The KV
 * cache's groups are cut at the cutoffs, so each has its own length.
 *
 * What is left depends on the question. What comes before the first choice does not, so it uses
 * and feeds the prefix cache: keys and values of the lower blocks, and the states behind them.
 * Engine thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "compress/modifiers.h"
#include "model/attention_share.h"

#include <string.h>

#define MOST_HEADS 16

struct chooser {
    struct plan_step steps[PLAN_MAX_LM_STEPS];
    int cutoffs[PLAN_MAX_LM_STEPS];
    int n_steps, round;
    struct lookup_head heads[MOST_HEADS]; /* of this round's blocks */
    int n_heads;
    int n;          /* rows of the prompt in this round */
    float *share;   /* [n_heads, n] attention that the question pays to each row */
    bool no_memory; /* for the attention of a block: nothing is chosen */
    double ms;      /* taken by it */
    struct arena *scratch;
    const struct rows *chunk; /* on its way */
};

static double option(const struct plan_step *step, const char *name, double otherwise)
{
    int i = compressor_option_index(step->method, name);
    return i >= 0 ? step->options[i] : otherwise;
}

/* The heads of the blocks that are about to run, and room for what they say of n rows. */
static int begin_round(struct engine *en, struct job *j, int n, struct err *e)
{
    struct chooser *c = j->chooser;
    int most = (int)option(&c->steps[c->round], "heads", 0);
    c->n_heads = heads_best(&en->heads, j->first_block, c->cutoffs[c->round], most, c->heads);
    c->n = n;
    c->share = arena_zalloc(&j->arena, (size_t)n * (size_t)c->n_heads, sizeof *c->share);
    return c->share ? 0 : err_no_memory(e, (size_t)n * (size_t)c->n_heads * sizeof *c->share);
}

int choose_begin(struct engine *en, struct job *j, struct err *e)
{
    struct chooser *c = arena_zalloc(&j->arena, 1, sizeof *c);
    if (!c) {
        return err_no_memory(e, sizeof *c);
    }
    c->scratch = &en->scratch;
    report_init(&j->chunk_report, &j->plan);
    c->n_steps = pipeline_lm_steps(en, j, c->steps, c->cutoffs, NULL);
    if (c->n_steps == 0 || !c->steps[0].method->info.whole_prompt) {
        return 0;
    }
    if (option(&c->steps[0], "heads", 0) > 0 && !en->heads.score &&
        heads_measure(&en->heads, en->decoder, en->tokenizer, en->info.n_ctx, &en->compute,
                      &en->scratch, e)) {
        return -1;
    }
    j->chooser = c;
    return begin_round(en, j, j->prompt.text_rows + j->prompt.image_rows, e);
}

/* Adds what the question's rows [begin, end) of the chunk attend to. */
static void add_share(struct chooser *c, int layer, const struct attention_shape *shape,
                      const float *q, int n, const struct kv_group *kv, int n_keys)
{
    for (int h = 0; h < c->n_heads; h++) {
        struct err no_memory = ERR_INIT;
        if (c->heads[h].layer == layer) {
            c->no_memory |=
                attention_share(shape, q, n, kv, layer, c->heads[h].head, n_keys,
                                c->share + (size_t)h * (size_t)c->n, c->scratch, &no_memory) != 0;
        }
    }
}

static void see(void *ctx, int layer, const struct attention_shape *shape, const float *q, int n,
                const struct kv_group *kv, int n_keys)
{
    struct chooser *c = ctx;
    size_t width = (size_t)shape->n_head * (size_t)shape->head_dim;
    double begin = clock_ms();
    for (int i = 0, end; i < n; i = end + 1) {
        for (end = i; end < n && (c->chunk->flags[end] & ROW_QUESTION); end++) {
        }
        if (end > i) {
            add_share(c, layer, shape, q + (size_t)i * width, end - i, kv, n_keys - (n - end));
        }
    }
    c->ms += clock_ms() - begin;
}

/* metric[n]: what the heads say together. Each head's attention to the text counts as one
 * whole, however much it leaves at the beginning of the sequence or on pictures. */
static float *together(struct chooser *c, const struct rows *r, struct arena *a)
{
    float *metric = arena_zalloc(a, (size_t)r->n, sizeof *metric);
    for (int h = 0; metric && h < c->n_heads; h++) {
        const float *share = c->share + (size_t)h * (size_t)c->n;
        double total = 0;
        for (int i = 0; i < r->n; i++) {
            total += rows_is_text(r, i) ? (double)share[i] : 0;
        }
        float weight = total > 0 ? (float)((double)c->heads[h].weight / total) : 0;
        for (int i = 0; i < r->n; i++) {
            metric[i] += weight * share[i];
        }
    }
    return metric;
}

/* Exact text may leave with its sentence where the plan says so. */
static void set_protection(const struct plan_step *step, struct rows *r)
{
    bool exact_leaves = option(step, "exact", 0) != 0;
    for (int i = 0; i < r->n; i++) {
        if (exact_leaves && (r->flags[i] & ROW_EXACT)) {
            r->flags[i] &= (uint8_t)~ROW_PROTECTED;
        }
    }
}

/* For `reweight`: what each source got of its row's attention. */
static int give_attention(const struct plan_step *step, const float *metric, struct rows *r,
                          struct arena *a, struct err *e)
{
    if (modifier_value(step, MODIFIER_REWEIGHT) == 0) {
        return 0;
    }
    r->attention = arena_zalloc(a, (size_t)r->n_source, sizeof *r->attention);
    for (int s = 0; r->attention && s < r->n_source; s++) {
        int row = r->owner[s];
        r->attention[s] = row < 0 ? 0 : metric[row] / r->mass[row];
    }
    return r->attention ? 0 : err_no_memory(e, (size_t)r->n_source * sizeof *r->attention);
}

/* The states of all rows behind the cutoff are there. */
static int choose_rows(struct engine *en, struct job *j, struct err *e)
{
    struct chooser *c = j->chooser;
    const struct plan_step *step = &c->steps[c->round];
    pipeline_protect_pictures(&j->sequence);
    set_protection(step, &j->sequence);
    float *metric = c->no_memory ? NULL : together(c, &j->sequence, &j->arena);
    if (!metric) {
        report_skip(&j->result.report, STAGE_LM_LAYER, "out_of_memory");
    } else if (give_attention(step, metric, &j->sequence, &j->arena, e) ||
               pipeline_lm_apply(j, step, c->round == 0, c->cutoffs[c->round], &j->sequence,
                                 c->n_heads > 0 ? metric : NULL, 1, e)) {
        return -1;
    }
    j->result.report.modality[MODALITY_LM].ms += c->ms;
    j->result.compress_ms += c->ms;
    c->ms = 0;
    j->first_block = c->cutoffs[c->round] + 1;
    j->n_rows_done = 0;
    if (++c->round < c->n_steps) {
        return begin_round(en, j, j->sequence.n, e);
    }
    j->state = JOB_PREFILL;
    return 0;
}

int choose_step(struct engine *en, struct job *j, struct err *e)
{
    struct chooser *c = j->chooser;
    struct rows chunk;
    struct arena_mark mark = arena_mark(&en->scratch);
    const struct decoder_tap tap = {see, c};
    double begin = clock_ms();
    if (pipeline_next_rows(j, pipeline_chunk_rows(j), &en->scratch, &chunk, e)) {
        return -1;
    }
    c->chunk = &chunk;
    struct decoder_slice slice = {.kv = &j->kv,
                                  .rows = &chunk,
                                  .tap = &tap,
                                  .lora = &j->lora,
                                  .is_prompt = true,
                                  .use_log_mass = j->log_mass,
                                  .log_mass_from = j->log_mass_from};
    if (decoder_run_blocks(en->decoder, j->first_block, c->cutoffs[c->round] + 1, &slice, 1,
                           &en->compute, &en->scratch, e)) {
        return -1;
    }
    size_t width = (size_t)j->sequence.n_embd;
    memcpy(j->sequence.x + (size_t)j->n_rows_done * width, chunk.x,
           (size_t)chunk.n * width * sizeof *chunk.x);
    j->n_rows_done += chunk.n;
    j->result.prompt_ms += clock_ms() - begin;
    arena_rewind(&en->scratch, mark);
    if (c->round == 0) {
        prefix_chunk_done(j, chunk.n, 0);
    }
    if (j->n_rows_done < j->sequence.n) {
        return 0;
    }
    if (c->round == 0) {
        prefix_keep(en, j);
    }
    return choose_rows(en, j, e);
}
