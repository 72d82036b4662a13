/* One pass through the backbone. The rows of all slices lie one slice after the other in
 * p->x and go through each linear layer together; only attention and the KV cache know
 * which slice a row belongs to. Two things make a slice shorter on its way up: a hook
 * that merges rows between two blocks, and the last block, where only the rows whose
 * logits are wanted go on once all keys and values are stored. In both cases the rows
 * that stay move together, so that the rest of the pass sees fewer rows and nothing else. */
#include "model/decoder.h"

#include "model/decoder_pass.h"
#include "tensor/ops.h"

#include <string.h>

/* ---- which rows are there ---- */

static void fill_positions(struct pass *p)
{
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        /* What is left of a slice is always its end. */
        const float *from = p->slices[s].rows->position + p->slices[s].rows->n - segment->n;
        memcpy(p->position + segment->first, from, (size_t)segment->n * sizeof *from);
    }
    rope_table(&p->d->rope_global, p->position, p->n, p->angles_global);
    if (p->angles_local) {
        rope_table(&p->d->rope_local, p->position, p->n, p->angles_local);
    }
}

static void move_rows(float *base, int to, int from, int n, int width)
{
    if (base && to != from) {
        memmove(row_at(base, to, width), row_at(base, from, width),
                (size_t)n * (size_t)width * sizeof *base);
    }
}

static int rows_wanted(const struct pass *p, int s)
{
    const struct decoder_slice *slice = &p->slices[s];
    return !slice->logits ? 0 : slice->all_logits ? p->segments[s].n : 1;
}

static int rows_seen(const struct pass *p, int s)
{
    return p->slices[s].states ? p->segments[s].n : rows_wanted(p, s);
}

/* How many rows there are and where prompts begin, once the segments have changed. */
static void count_rows(struct pass *p)
{
    p->n = 0;
    p->compute.n_answer_rows = 0;
    for (int s = 0; s < p->n_slices; s++) {
        p->n += p->segments[s].n;
        p->compute.n_answer_rows += p->slices[s].is_prompt ? 0 : p->segments[s].n;
    }
}

/* Keep the last keep(p, s) rows of every segment: their residual, normed input, position. */
static void keep_tails(struct pass *p, int (*keep)(const struct pass *p, int s))
{
    int n_rot = p->d->hp.n_rot;
    int first = 0;
    for (int s = 0; s < p->n_slices; s++) {
        struct segment *segment = &p->segments[s];
        int n = keep(p, s);
        int from = segment->first + segment->n - n;
        move_rows(p->x, first, from, n, p->d->hp.n_embd);
        move_rows(p->y, first, from, n, p->d->hp.n_embd);
        move_rows(p->position, first, from, n, 1);
        move_rows(p->angles_global, first, from, n, n_rot);
        move_rows(p->angles_local, first, from, n, n_rot);
        segment->first = first;
        segment->n = n;
        first += n;
    }
    count_rows(p);
}

static bool hook_wants(const struct decoder_slice *slice, int il)
{
    return slice->hook && slice->hook->wants(slice->hook->ctx, il);
}

/* In the last block: rows that a hook still wants to see must all go on. */
static int rows_beyond_attention(const struct pass *p, int s)
{
    return hook_wants(&p->slices[s], p->d->hp.n_layer - 1) ? p->segments[s].n : rows_seen(p, s);
}

void pass_keep_needed(struct pass *p)
{
    keep_tails(p, rows_beyond_attention);
}

/* ---- hooks ---- */

static int run_hook(struct pass *p, int s, int il, struct err *e)
{
    struct decoder_slice *slice = &p->slices[s];
    struct rows *rows = slice->rows;
    const struct segment *segment = &p->segments[s];
    int n_embd = p->d->hp.n_embd;
    memcpy(rows->x, row_at(p->x, segment->first, n_embd),
           (size_t)segment->n * (size_t)n_embd * sizeof *rows->x);
    if (slice->hook->run(slice->hook->ctx, il, p->d->hp.n_layer, rows, NULL, 0, e)) {
        return -1;
    }
    if (rows->n < 1 || rows->n > segment->n || rows->n_embd != n_embd) {
        return err_set(e, ERR_INTERNAL, "the hook after layer %d made %d rows of %d", il, rows->n,
                       segment->n);
    }
    /* The cache must give a merged slice shorter layers above the merge. */
    if (rows->n < segment->n && il < p->d->hp.n_layer - 1 &&
        kv_group_of(slice->kv, il) == kv_group_of(slice->kv, il + 1)) {
        return err_set(e, ERR_INTERNAL,
                       "rows merged after layer %d, but the KV cache has no cutoff there", il);
    }
    return 0;
}

/* The hooks that want layer il, then the rows close up. */
static int run_hooks(struct pass *p, int il, struct err *e)
{
    int n_embd = p->d->hp.n_embd;
    bool any = false;
    int first = 0;
    for (int s = 0; s < p->n_slices; s++) {
        struct segment *segment = &p->segments[s];
        if (hook_wants(&p->slices[s], il)) {
            if (run_hook(p, s, il, e)) {
                return -1;
            }
            any = true;
            segment->n = p->slices[s].rows->n;
            memcpy(row_at(p->x, first, n_embd), p->slices[s].rows->x,
                   (size_t)segment->n * (size_t)n_embd * sizeof *p->x);
        } else {
            move_rows(p->x, first, segment->first, segment->n, n_embd);
        }
        segment->first = first;
        first += segment->n;
    }
    count_rows(p);
    if (any) {
        fill_positions(p);
    }
    return 0;
}

/* ---- logits ---- */

static bool all_finite(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
    }
    return bad == 0;
}

static int finish_logits(const struct pass *p, float *logits, int n, struct err *e)
{
    size_t total = (size_t)n * (size_t)p->d->hp.n_vocab;
    if (p->d->hp.final_softcap > 0) {
        op_softcap(logits, total, p->d->hp.final_softcap);
    }
    if (!all_finite(logits, total)) {
        return err_set(e, ERR_NUMERICAL,
                       "the logits are not finite: damaged weights, or activations too large for "
                       "a half-precision KV cache");
    }
    return 0;
}

/* Where the logits of all rows can be made in one product: the caller's memory when one
 * slice wants them, else scratch. */
static float *logits_memory(struct pass *p)
{
    float *only = NULL;
    int n_wanted = 0;
    for (int s = 0; s < p->n_slices; s++) {
        if (p->slices[s].logits) {
            only = p->slices[s].logits;
            n_wanted++;
        }
    }
    return n_wanted == 1
               ? only
               : arena_alloc(p->scratch, (size_t)p->n, (size_t)p->d->hp.n_vocab * sizeof(float));
}

/* To those who want the states themselves; the rows are normed. */
static int hand_out_states(struct pass *p, struct err *e)
{
    int n_embd = p->d->hp.n_embd;
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        size_t total = (size_t)segment->n * (size_t)n_embd;
        if (!p->slices[s].states) {
            continue;
        }
        const float *from = row_at(p->y, segment->first, n_embd);
        if (!all_finite(from, total)) {
            return err_set(e, ERR_NUMERICAL,
                           "the states are not finite: damaged weights, or "
                           "activations too large for a half-precision KV cache");
        }
        memcpy(p->slices[s].states, from, total * sizeof *from);
    }
    return 0;
}

static int run_output(struct pass *p, struct err *e)
{
    int n_vocab = p->d->hp.n_vocab;
    keep_tails(p, rows_seen);
    if (p->n == 0) {
        return 0;
    }
    pass_norm(p, p->d->output_norm, 0, p->n);
    if (hand_out_states(p, e)) {
        return -1;
    }
    keep_tails(p, rows_wanted); /* with their norms */
    if (p->n == 0) {
        return 0;
    }
    float *logits = logits_memory(p);
    if (!logits) {
        return err_no_memory(e, (size_t)p->n * (size_t)n_vocab * sizeof *logits);
    }
    if (pass_linear(p, &p->d->output, p->y, logits, e) || finish_logits(p, logits, p->n, e)) {
        return -1;
    }
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        const float *from = row_at(logits, segment->first, n_vocab);
        if (segment->n > 0 && from != p->slices[s].logits) {
            memcpy(p->slices[s].logits, from,
                   (size_t)segment->n * (size_t)n_vocab * sizeof *logits);
        }
    }
    return 0;
}

/* ---- the pass ---- */

static int check_slice(const struct pass *p, const struct decoder_slice *slice, struct err *e)
{
    const struct decoder *d = p->d;
    const struct kv_cache *kv = slice->kv;
    const struct kv_shape want = decoder_kv_shape(d);
    if (slice->rows->n < 1 || slice->rows->n_embd != d->hp.n_embd) {
        return err_set(e, ERR_INTERNAL, "a slice of %d rows of width %d; the model's is %d",
                       slice->rows->n, slice->rows->n_embd, d->hp.n_embd);
    }
    if (kv->shape.n_layer != want.n_layer || kv->shape.n_head_kv != want.n_head_kv ||
        kv->shape.head_dim != want.head_dim) {
        return err_set(e, ERR_INTERNAL, "the KV cache was made for another model");
    }
    /* A hook only makes upper groups need less than this. */
    return kv_prepare_layers(slice->kv, p->first_block, p->end_block, slice->rows->n, e);
}

static int pass_alloc(struct pass *p, struct err *e)
{
    const struct hparams *h = &p->d->hp;
    size_t before = p->scratch->used_bytes;
    struct {
        float **at;
        int width;
    } buffers[] = {
        {&p->x, h->n_embd},
        {&p->y, h->n_embd},
        {&p->q, h->n_head * h->head_dim},
        {&p->k, h->n_head_kv * h->head_dim},
        {&p->v, h->n_head_kv * h->head_dim},
        {&p->attended, h->n_head * h->head_dim},
        {&p->gate, h->n_ff},
        {&p->up, h->n_ff},
        {&p->position, 1},
        {&p->angles_global, h->n_rot},
        {&p->angles_local, h->window > 0 ? h->n_rot : 0},
    };
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        size_t row_bytes = (size_t)buffers[i].width * sizeof(float);
        if (row_bytes == 0) {
            continue;
        }
        *buffers[i].at = arena_alloc(p->scratch, (size_t)p->n, row_bytes);
        if (!*buffers[i].at) {
            return err_set(e, ERR_NO_MEMORY,
                           "no scratch memory left for a pass of %d rows (%zu of %zu bytes taken)",
                           p->n, before, p->scratch->max_bytes);
        }
    }
    return 0;
}

static int pass_begin(struct pass *p, struct err *e)
{
    const struct hparams *h = &p->d->hp;
    const struct attention_shape shape = {h->n_head, h->n_head_kv, h->head_dim, h->attention_scale,
                                          h->attention_softcap};
    int first = 0;
    for (int s = 0; s < p->n_slices; s++) {
        p->segments[s].first = first;
        p->segments[s].n = p->slices[s].rows->n;
        first += p->segments[s].n;
    }
    count_rows(p);
    if (pass_alloc(p, e) || attention_init(&p->attention, &shape, &p->compute, p->scratch, e)) {
        return -1;
    }
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        memcpy(row_at(p->x, segment->first, h->n_embd), p->slices[s].rows->x,
               (size_t)segment->n * (size_t)h->n_embd * sizeof *p->x);
    }
    fill_positions(p);
    return 0;
}

/* For a pass that ends before the last block. */
static void hand_back(struct pass *p)
{
    int n_embd = p->d->hp.n_embd;
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        memcpy(p->slices[s].rows->x, row_at(p->x, segment->first, n_embd),
               (size_t)segment->n * (size_t)n_embd * sizeof *p->x);
    }
}

static int pass_run(struct pass *p, struct err *e)
{
    if (pass_begin(p, e)) {
        return -1;
    }
    for (int il = p->first_block; il < p->end_block; il++) {
        if (pass_block(p, il, e) || run_hooks(p, il, e)) {
            return -1;
        }
    }
    if (p->end_block < p->d->hp.n_layer) {
        hand_back(p);
        return 0;
    }
    return run_output(p, e);
}

static void remember_lengths(struct pass *p)
{
    for (int s = 0; s < p->n_slices; s++) {
        const struct kv_cache *kv = p->slices[s].kv;
        for (int i = 0; i < kv->n_groups; i++) {
            p->segments[s].kv_n_before[i] = kv->group[i].n;
        }
    }
}

static void restore_lengths(struct pass *p)
{
    for (int s = 0; s < p->n_slices; s++) {
        struct kv_cache *kv = p->slices[s].kv;
        for (int i = 0; i < kv->n_groups; i++) {
            kv->group[i].n = p->segments[s].kv_n_before[i];
        }
    }
}

int decoder_run(const struct decoder *d, struct decoder_slice *slices, int n_slices,
                const struct compute *c, struct arena *scratch, struct err *e)
{
    return decoder_run_blocks(d, 0, d->hp.n_layer, slices, n_slices, c, scratch, e);
}

int decoder_run_blocks(const struct decoder *d, int first, int end, struct decoder_slice *slices,
                       int n_slices, const struct compute *c, struct arena *scratch, struct err *e)
{
    struct arena_mark mark = arena_mark(scratch);
    struct pass p = {.d = d,
                     .slices = slices,
                     .n_slices = n_slices,
                     .first_block = first,
                     .end_block = end,
                     .compute = *c,
                     .scratch = scratch};
    if (first < 0 || first >= end || end > d->hp.n_layer) {
        return err_set(e, ERR_INTERNAL, "no blocks %d to %d of %d", first, end, d->hp.n_layer);
    }
    p.compute.bulk = slices[n_slices - 1].is_prompt;
    for (int s = 0; s < n_slices; s++) {
        if (check_slice(&p, &slices[s], e)) {
            return -1;
        }
        if (s > 0 && slices[s - 1].is_prompt && !slices[s].is_prompt) {
            return err_set(e, ERR_INTERNAL, "a slice of an answer comes after one of a prompt");
        }
    }
    p.segments = arena_zalloc(scratch, (size_t)n_slices, sizeof *p.segments);
    p.jobs = arena_alloc(scratch, (size_t)n_slices, sizeof *p.jobs);
    int rc = -1;
    if (p.segments && p.jobs) {
        remember_lengths(&p);
        rc = pass_run(&p, e);
        if (rc) {
            restore_lengths(&p);
        }
    } else {
        err_set(e, ERR_NO_MEMORY, "no scratch memory left for a pass");
    }
    arena_rewind(scratch, mark);
    return rc;
}

void decoder_embed(const struct decoder *d, const token_id *ids, int n, float *x,
                   const struct compute *c)
{
    int n_embd = d->hp.n_embd;
    for (int i = 0; i < n; i++) {
        float *row = row_at(x, i, n_embd);
        weight_row(&d->token_embd, ids[i], row, c);
        if (d->family->scale_embedding) {
            op_scale(row, d->hp.embedding_scale, (size_t)n_embd);
        }
    }
}
