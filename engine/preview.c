/* What a plan makes of a prompt, without an answer: text and pictures become rows as for any
 * request, and then it ends. Where rows merge inside the decoder, they go through the blocks
 * below that, for which rows are alike is not known before; nothing is predicted. */
#include "engine/engine_impl.h"

#include "base/utf8.h"
#include "engine/chunk.h"

#include <string.h>

struct preview {
    int32_t *owner; /* [sequence.n_source] row behind the cutoff */
    int n_rows;     /* there so far */
    int cutoff;     /* -1: nothing merges inside the decoder */
    struct job_preview out;
};

/* ---- words, on the caller's thread ------------------------------------------------------- */

/* Tokens of one source. One that reaches over its border stands for what of it lies inside. */
static void take_words(const struct prompt_piece *piece, const struct prompt_source *src,
                       const struct token *tokens, int n, struct prompt_words *words)
{
    for (int i = 0; i < n && tokens[i].begin < src->end; i++) {
        size_t begin = tokens[i].begin < src->begin ? src->begin : tokens[i].begin;
        size_t end = tokens[i].end > src->end ? src->end : tokens[i].end;
        if (end > begin) {
            words[i] = (struct prompt_words){.text = piece->text + begin,
                                             .len = end - begin,
                                             .message = src->message,
                                             .part = src->part};
        }
    }
}

int preview_words(struct job *j, const struct prompt_piece *piece, const struct token *tokens,
                  int n, struct prompt_run *run, struct err *e)
{
    struct prompt_words *words = arena_alloc(&j->arena, (size_t)run->n + 1, sizeof *words);
    if (!words) {
        return err_no_memory(e, (size_t)run->n * sizeof *words);
    }
    for (int i = 0; i < run->n; i++) {
        words[i] = (struct prompt_words){.message = -1};
    }
    int at = 0; /* sources ascend */
    for (int s = 0; piece && s < piece->n_sources; s++) {
        while (at < n && tokens[at].end <= piece->sources[s].begin) {
            at++;
        }
        take_words(piece, &piece->sources[s], tokens + at, n - at, words + (run->n - n) + at);
    }
    for (int i = 0; i < run->n && j->plan.static_prefix; i++) {
        words[i].message -= words[i].message >= 0; /* the client's come behind the operator's */
    }
    run->words = words;
    return 0;
}

/* ---- pieces -------------------------------------------------------------------------------- */

static bool continues(const struct preview_piece *p, const struct prompt_words *w)
{
    return p->message == w->message && p->part == w->part && p->text + p->len == w->text &&
           utf8_whole(p->text, p->len) < p->len;
}

static void add_piece(struct job_preview *out, struct preview_piece *pieces,
                      const struct prompt_words *w, int row, bool fixed)
{
    struct preview_piece *last = out->n_pieces > 0 ? &pieces[out->n_pieces - 1] : NULL;
    if (last && continues(last, w)) {
        last->len += w->len;
        last->n_tokens++;
        return;
    }
    pieces[out->n_pieces++] = (struct preview_piece){.text = w->text,
                                                     .len = w->len,
                                                     .message = w->message,
                                                     .part = w->part,
                                                     .n_tokens = 1,
                                                     .row = row,
                                                     .fixed = fixed};
}

static int make_pieces(struct job *j, struct job_preview *out, struct err *e)
{
    const struct prompt *p = &j->prompt;
    struct preview_piece *pieces = arena_alloc(&j->arena, (size_t)p->text_rows, sizeof *pieces);
    if (!pieces) {
        return err_no_memory(e, (size_t)p->text_rows * sizeof *pieces);
    }
    int source = 0;
    for (int r = 0; r < p->n_runs; r++) {
        const struct prompt_run *run = &p->runs[r];
        if (run->kind == ROW_IMAGE) {
            source += p->images[run->image].rows.n_source;
            continue;
        }
        for (int i = 0; i < run->n; i++, source++) {
            if (run->words[i].message >= 0) {
                int row = j->sequence.owner[source];
                add_piece(out, pieces, &run->words[i], row < 0 ? -1 : row,
                          run->flags[i] & ROW_PROTECTED);
            }
        }
    }
    out->pieces = pieces;
    return 0;
}

static int describe_pictures(struct engine *en, struct job *j, struct job_preview *out,
                             struct err *e)
{
    int n = j->prompt.n_images;
    struct preview_picture *pictures = arena_alloc(&j->arena, (size_t)n, sizeof *pictures);
    if (!pictures) {
        return err_no_memory(e, (size_t)n * sizeof *pictures);
    }
    for (int i = 0; i < n; i++) {
        const struct prompt_image *im = &j->prompt.images[i];
        pictures[i] = (struct preview_picture){.width = im->width,
                                               .height = im->height,
                                               .n_rows = im->info.n_rows,
                                               .n_whole = vision_info(en->vision)->n_rows};
    }
    out->pictures = pictures;
    out->n_pictures = n;
    return 0;
}

/* ---- what it would take ---------------------------------------------------------------------- */

struct cost {
    double tower_rows;   /* of all pictures, in a block of the tower */
    double decoder_rows; /* in a block of the decoder */
    int n_rows;          /* that enter the decoder */
};

/* Of what all threads do together. */
static double parallel_ms(const struct engine *en, const struct cost *c)
{
    const struct pace *pace = en->pace.large.rows > 0 ? &en->pace : &en->first_pass;
    int n_passes = (c->n_rows + CHUNK_MAX_ROWS - 1) / CHUNK_MAX_ROWS;
    return c->tower_rows * en->tower_ms_per_row + pace_ms(pace, n_passes, c->decoder_rows);
}

/* Decoding of pictures and merging have a thread each. */
static void estimate(const struct engine *en, const struct job *j, struct job_preview *out)
{
    const struct report *r = &j->result.report;
    struct cost now = {.decoder_rows = r->mean_rows_per_layer, .n_rows = r->compressed_rows};
    struct cost whole = {.decoder_rows = r->original_rows, .n_rows = r->original_rows};
    for (int i = 0; i < j->prompt.n_images; i++) {
        now.tower_rows += j->prompt.images[i].layers.mean_rows_per_layer;
        whole.tower_rows += vision_info(en->vision)->n_patches;
    }
    double decode = j->result.image_decode_ms;
    double merge = j->result.compress_ms;
    double threads = en->info.n_threads;
    out->first_token_ms = decode + merge + parallel_ms(en, &now);
    out->cpu_ms = decode + merge + threads * parallel_ms(en, &now);
    double uncompressed = decode + threads * parallel_ms(en, &whole);
    out->cost_ratio = out->cpu_ms > 0 ? uncompressed / out->cpu_ms : 1;
}

/* Keys and values of the prompt, with a length for each group of layers. n_above: rows behind
 * the cutoff. */
static void measure(struct engine *en, struct job *j, int n_above)
{
    struct job_preview *out = &j->preview->out;
    size_t row_bytes = kv_row_bytes(&j->kv.shape);
    double layer_rows = 0;
    for (int g = 0; g < j->kv.n_groups; g++) {
        const struct kv_group *group = &j->kv.group[g];
        int n = group->first_layer > j->preview->cutoff ? n_above : group->n;
        j->prompt_group_rows[g] = n;
        layer_rows += (double)n * group->n_layer;
        out->kv_bytes += (size_t)n * (size_t)group->n_layer * row_bytes;
    }
    j->result.report.mean_rows_per_layer = layer_rows / en->info.n_layer;
    j->result.prompt_rows = j->result.report.compressed_rows;
}

static int finish(struct engine *en, struct job *j, int n_above, struct err *e)
{
    struct job_preview *out = &j->preview->out;
    measure(en, j, n_above);
    if (make_pieces(j, out, e) || describe_pictures(en, j, out, e)) {
        return -1;
    }
    estimate(en, j, out);
    j->result.preview = out;
    j->state = JOB_SEEN;
    return 0;
}

/* ---- through the lower blocks --------------------------------------------------------------- */

int preview_begin(struct engine *en, struct job *j, struct err *e)
{
    struct preview *p = arena_zalloc(&j->arena, 1, sizeof *p);
    struct plan_step steps[PLAN_MAX_LM_STEPS];
    const char *skipped = NULL;
    int cutoffs[PLAN_MAX_LM_STEPS];
    if (!p) {
        return err_no_memory(e, sizeof *p);
    }
    j->preview = p;
    p->cutoff = -1;
    int n_steps = pipeline_lm_steps(en, j, steps, cutoffs, &skipped);
    if (skipped) {
        report_skip(&j->result.report, STAGE_LM_LAYER, skipped);
    }
    if (n_steps == 0) {
        return finish(en, j, j->sequence.n, e);
    }
    p->cutoff = cutoffs[n_steps - 1];
    p->owner = arena_alloc(&j->arena, (size_t)j->sequence.n_source, sizeof *p->owner);
    if (!p->owner) {
        return err_no_memory(e, (size_t)j->sequence.n_source * sizeof *p->owner);
    }
    memset(p->owner, 0xff, (size_t)j->sequence.n_source * sizeof *p->owner); /* ROW_DROPPED */
    j->state = j->chooser ? JOB_CHOOSING : JOB_PREFILL;
    return 0;
}

/* Where the sources of rows [begin, begin + n) of the sequence are now. */
static void take_owners(struct preview *p, const struct rows *seq, int begin, int n,
                        const struct rows *chunk)
{
    int k = 0;
    for (int s = 0; s < seq->n_source; s++) {
        if (seq->owner[s] >= begin && seq->owner[s] < begin + n) {
            int32_t owner = chunk->owner[k++];
            p->owner[s] = owner < 0 ? ROW_DROPPED : owner + p->n_rows;
        }
    }
    p->n_rows += chunk->n;
}

static int merge_chunk(struct engine *en, struct job *j, struct err *e)
{
    struct preview *p = j->preview;
    struct stage_hook hook;
    struct rows chunk;
    int n = pipeline_chunk_rows(j);
    if (pipeline_next_rows(j, n, &en->scratch, &chunk, e) ||
        pipeline_lm_hook(en, j, &en->scratch, &hook, e)) {
        return -1;
    }
    struct decoder_slice slice = {.kv = &j->kv,
                                  .rows = &chunk,
                                  .hook = &hook,
                                  .lora = &j->lora,
                                  .is_prompt = true,
                                  .use_log_mass = j->log_mass,
                                  .log_mass_from = j->log_mass_from};
    if (decoder_run_blocks(en->decoder, 0, p->cutoff + 1, &slice, 1, &en->compute, &en->scratch,
                           e)) {
        return -1;
    }
    take_owners(p, &j->sequence, j->n_rows_done, n, &chunk);
    j->n_rows_done += n;
    return 0;
}

int preview_step(struct engine *en, struct job *j, struct err *e)
{
    if (j->state == JOB_CHOOSING) { /* which makes the sequence shorter itself */
        if (choose_step(en, j, e)) {
            return -1;
        }
        return j->state == JOB_CHOOSING ? 0 : finish(en, j, j->sequence.n, e);
    }
    if (merge_chunk(en, j, e)) {
        return -1;
    }
    if (j->n_rows_done < j->sequence.n) {
        return 0;
    }
    j->sequence.owner = j->preview->owner;
    return finish(en, j, j->preview->n_rows, e);
}
