/* Rows chosen by the question. Which rows of a prompt go on is not known before its end has
 * been read, and a chunk cannot wait for the others in the middle of a pass. So the prompt
 * goes through the decoder in two rounds: all its chunks through the blocks up to the
 * cutoff, where their states replace the embeddings in job.sequence and the queries of the
 * question's rows are compared with all keys; then the method chooses, once; then what is
 * left goes through the upper blocks, chunk by chunk like any prompt. The KV cache's groups
 * are cut at the cutoff, so each has its own length.
 *
 * What is left depends on the question, so these prompts neither use nor feed the prefix
 * cache. Engine thread only. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "model/attention_share.h"

#include <string.h>

struct chooser {
    struct plan_step step;
    int cutoff;
    int n_layers;   /* whose attention counts, up to the cutoff */
    float *share;   /* [rows of the prompt] attention that the question pays to each */
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

int choose_begin(struct engine *en, struct job *j, struct err *e)
{
    struct plan_step step;
    const char *skipped = NULL;
    int cutoffs[KV_MAX_GROUPS];
    pipeline_lm_step(en, j, &step, &skipped);
    if (!step.method->info.by_question || pipeline_cutoffs(en, j, cutoffs) == 0) {
        return 0;
    }
    size_t n = (size_t)j->prompt.text_rows + (size_t)j->prompt.image_rows;
    struct chooser *c = arena_alloc(&j->arena, 1, sizeof *c);
    float *share = arena_zalloc(&j->arena, n, sizeof *share);
    if (!c || !share) {
        return err_no_memory(e, n * sizeof *share);
    }
    *c = (struct chooser){.step = step,
                          .cutoff = cutoffs[0],
                          .n_layers = (int)option(&step, "layers", 1),
                          .share = share,
                          .scratch = &en->scratch};
    j->chooser = c;
    return 0;
}

/* Adds what the question's rows of this chunk attend to. */
static void see(void *ctx, int layer, const struct attention_shape *shape, const float *q, int n,
                const struct kv_group *kv, int n_keys)
{
    struct chooser *c = ctx;
    size_t width = (size_t)shape->n_head * (size_t)shape->head_dim;
    if (layer <= c->cutoff - c->n_layers || layer > c->cutoff) {
        return;
    }
    double begin = clock_ms();
    for (int i = 0, end; i < n; i = end + 1) {
        for (end = i; end < n && (c->chunk->flags[end] & ROW_QUESTION); end++) {
        }
        struct err no_memory = ERR_INIT;
        c->no_memory |=
            end > i && attention_share(shape, q + (size_t)i * width, end - i, kv, layer,
                                       n_keys - (n - end), c->share, c->scratch, &no_memory) != 0;
    }
    c->ms += clock_ms() - begin;
}

/* Pictures have been merged by their own method; exact text may leave with its sentence
 * where the plan says so. */
static void set_protection(const struct chooser *c, struct rows *r)
{
    bool exact_leaves = option(&c->step, "exact", 0) != 0;
    for (int i = 0; i < r->n; i++) {
        if (r->kind[i] == ROW_IMAGE) {
            r->flags[i] |= ROW_PROTECTED;
        } else if (exact_leaves && (r->flags[i] & ROW_EXACT)) {
            r->flags[i] &= (uint8_t)~ROW_PROTECTED;
        }
    }
}

/* The states of all rows behind the cutoff are there. */
static int choose_rows(struct engine *en, struct job *j, struct err *e)
{
    struct chooser *c = j->chooser;
    struct report_stage *lm = &j->result.report.modality[MODALITY_LM];
    if (c->no_memory) {
        report_skip(&j->result.report, STAGE_LM_LAYER, "out_of_memory");
    } else {
        set_protection(c, &j->sequence);
        if (compress_apply(&c->step, MODALITY_LM, c->cutoff, en->info.n_layer, &j->sequence,
                           c->share, 1, &en->scratch, &j->result.report, e)) {
            return -1;
        }
    }
    lm->ms += c->ms;
    j->result.compress_ms += lm->ms;
    j->first_block = c->cutoff + 1;
    j->n_rows_done = 0;
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
    if (pipeline_chunk(j, &en->scratch, &chunk, e)) {
        return -1;
    }
    c->chunk = &chunk;
    struct decoder_slice slice = {.kv = &j->kv, .rows = &chunk, .tap = &tap, .is_prompt = true};
    if (decoder_run_blocks(en->decoder, 0, c->cutoff + 1, &slice, 1, &en->compute, &en->scratch,
                           e)) {
        return -1;
    }
    size_t width = (size_t)j->sequence.n_embd;
    memcpy(j->sequence.x + (size_t)j->n_rows_done * width, chunk.x,
           (size_t)chunk.n * width * sizeof *chunk.x);
    j->n_rows_done += chunk.n;
    j->result.prompt_ms += clock_ms() - begin;
    arena_rewind(&en->scratch, mark);
    return j->n_rows_done < j->sequence.n ? 0 : choose_rows(en, j, e);
}
