/* The arithmetic of one block: norms, linear layers, RoPE, the KV cache, attention, FFN.
 * What a family adds (norms of heads, norms after a sub-layer) is a pointer that is NULL
 * for the others, so that there is one path to read and to test. */
#include "model/decoder_pass.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/vector_ops.h"

#include <math.h>

/* From here on elementwise work is worth waking the pool. */
#define POOL_ROWS 8

struct row_work {
    const struct pass *p;
    const struct decoder_layer *l;
    int il;
    void (*fn)(const struct row_work *w, int begin, int end);
};

static void row_worker(void *ctx, int ith, int nth)
{
    const struct row_work *w = ctx;
    int begin;
    int end;
    pool_slice(w->p->n, 1, ith, nth, &begin, &end);
    w->fn(w, begin, end);
}

/* fn on all rows, by the pool if they are many. Each row is worked on alone, so the
 * result is the same either way. */
static void for_rows(const struct pass *p, int il,
                     void (*fn)(const struct row_work *w, int begin, int end))
{
    struct row_work w = {p, &p->d->layers[il], il, fn};
    pool_run(p->n >= POOL_ROWS ? p->compute.pool : NULL, row_worker, &w);
}

void pass_norm(const struct pass *p, const float *w, int begin, int end)
{
    int n_embd = p->d->hp.n_embd;
    op_rms_norm(row_at(p->y, begin, n_embd), row_at(p->x, begin, n_embd), w, end - begin, n_embd,
                p->d->hp.rms_eps);
}

/* x += y, with the norm that some families put before it. */
static void add_residual(const struct pass *p, const float *post_norm, int begin, int end)
{
    int n_embd = p->d->hp.n_embd;
    float *y = row_at(p->y, begin, n_embd);
    if (post_norm) {
        op_rms_norm(y, y, post_norm, end - begin, n_embd, p->d->hp.rms_eps);
    }
    op_add(row_at(p->x, begin, n_embd), y, (size_t)(end - begin) * (size_t)n_embd);
}

static void attn_norm_rows(const struct row_work *w, int begin, int end)
{
    pass_norm(w->p, w->l->attn_norm, begin, end);
}

static void turn_rows(const struct row_work *w, float *x, const float *norm, int n_head, int begin,
                      int end)
{
    const struct pass *p = w->p;
    const struct hparams *h = &p->d->hp;
    bool local = h->local[w->il];
    const struct rope *rope = local ? &p->d->rope_local : &p->d->rope_global;
    float *angles = local ? p->angles_local : p->angles_global;
    for (int i = begin; i < end; i++) {
        float *heads = row_at(x, i, n_head * h->head_dim);
        if (norm) {
            op_rms_norm(heads, heads, norm, n_head, h->head_dim, h->rms_eps);
        }
        rope_apply(rope, row_at(angles, i, h->n_rot), heads, n_head, h->head_dim);
    }
}

static void turn_keys(const struct row_work *w, int begin, int end)
{
    turn_rows(w, w->p->k, w->l->k_norm, w->p->d->hp.n_head_kv, begin, end);
}

static void turn_queries(const struct row_work *w, int begin, int end)
{
    turn_rows(w, w->p->q, w->l->q_norm, w->p->d->hp.n_head, begin, end);
}

static void attention_to_ffn_rows(const struct row_work *w, int begin, int end)
{
    add_residual(w->p, w->l->attn_post_norm, begin, end);
    pass_norm(w->p, w->l->ffn_norm, begin, end);
}

static void activate_rows(const struct row_work *w, int begin, int end)
{
    int n_ff = w->p->d->hp.n_ff;
    bool gelu = w->p->d->family->activation == ACTIVATION_GELU_TANH;
    (gelu ? op_gelu_tanh_mul : op_silu_mul)(row_at(w->p->gate, begin, n_ff),
                                            row_at(w->p->up, begin, n_ff),
                                            (size_t)(end - begin) * (size_t)n_ff);
}

static void ffn_residual_rows(const struct row_work *w, int begin, int end)
{
    add_residual(w->p, w->l->ffn_post_norm, begin, end);
}

int pass_linear(const struct pass *p, const struct weight *w, const float *x, float *y,
                struct err *e)
{
    return p->n == 0 ? 0 : weight_matmul(w, x, w->n_in, p->n, y, w->n_out, &p->compute, e);
}

/* Several matrices of the same input, p->y, with their adapters. */
static int several_linears(const struct pass *p, int il, const struct weight *const *w,
                           const enum lora_part *parts, float *const *y, int n, struct err *e)
{
    if (p->n == 0) {
        return 0;
    }
    int rc = weight_matmul_shared(w, y, n, p->y, p->n, &p->compute, e);
    for (int i = 0; i < n && rc == 0; i++) {
        rc = pass_lora(p, il, parts[i], p->y, y[i], e);
    }
    return rc;
}

static int block_linear(const struct pass *p, int il, const struct weight *w, enum lora_part part,
                        const float *x, float *y, struct err *e)
{
    return pass_linear(p, w, x, y, e) || pass_lora(p, il, part, x, y, e) ? -1 : 0;
}

/* Keys and values [head_dim] of one head become a row of the cache. */
static void store_row(const struct pass *p, const struct kv_group *g, int il, int head, int row,
                      size_t from)
{
    if (g->type == KV_F16) {
        p->compute.kernels->f32_to_f16(kv_keys(g, il, head, row), p->k + from, g->head_dim);
        p->compute.kernels->f32_to_f16(kv_values(g, il, head, row), p->v + from, g->head_dim);
        return;
    }
    const struct attend_kernels *kernels = vector_ops_used()->attend;
    struct kv_q8 k = kv_q8_keys(g, il, head, row);
    struct kv_q8 v = kv_q8_values(g, il, head, row);
    kernels->round_q8(p->k + from, g->head_dim, k.q, k.scale);
    kernels->round_q8(p->v + from, g->head_dim, v.q, v.scale);
}

/* Append the rows of one slice to its cache in this layer. */
static void store_slice(struct pass *p, int s, int il)
{
    struct segment *segment = &p->segments[s];
    struct rows *rows = p->slices[s].rows;
    struct kv_cache *kv = p->slices[s].kv;
    struct kv_group *g = kv_group_of(kv, il);
    int at = segment->kv_n_before[g - kv->group];
    if (il == g->first_layer) {
        for (int i = 0; i < segment->n; i++) {
            *kv_positions(g, at + i) = rows->position[i];
            *kv_log_masses(g, at + i) = logf(rows->mass[i]);
        }
        g->n = at + segment->n;
    }
    segment->n_keys = at + segment->n;
    for (int head = 0; head < g->n_head_kv; head++) {
        for (int i = 0; i < segment->n; i++) {
            size_t from = ((size_t)(segment->first + i) * (size_t)g->n_head_kv + (size_t)head) *
                          (size_t)g->head_dim;
            store_row(p, g, il, head, at + i, from);
        }
    }
}

/* In the last block the rows that nobody needs afterwards leave between keys and queries. */
static int project(struct pass *p, int il, struct err *e)
{
    const struct decoder_layer *l = &p->d->layers[il];
    const struct weight *const w[] = {&l->k, &l->v, &l->q};
    static const enum lora_part parts[] = {LORA_K, LORA_V, LORA_Q};
    float *const y[] = {p->k, p->v, p->q};
    bool is_last = il == p->d->hp.n_layer - 1;
    if (several_linears(p, il, w, parts, y, is_last ? 2 : 3, e)) {
        return -1;
    }
    for_rows(p, il, turn_keys);
    for (int s = 0; s < p->n_slices; s++) {
        store_slice(p, s, il);
    }
    if (is_last) {
        pass_keep_needed(p);
        if (block_linear(p, il, &l->q, LORA_Q, p->y, p->q, e)) {
            return -1;
        }
    }
    for_rows(p, il, turn_queries);
    return 0;
}

static void show_taps(const struct pass *p, int il)
{
    int width = p->d->hp.n_head * p->d->hp.head_dim;
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        const struct decoder_tap *tap = p->slices[s].tap;
        if (tap) {
            tap->see(tap->ctx, il, &p->attention.shape, row_at(p->q, segment->first, width),
                     segment->n, kv_group_of(p->slices[s].kv, il), segment->n_keys);
        }
    }
}

static void attend(struct pass *p, int il)
{
    int width = p->d->hp.n_head * p->d->hp.head_dim;
    bool in_bulk = p->d->all_packed && !p->d->layers[il].attn_out.is_sensitive;
    for (int s = 0; s < p->n_slices; s++) {
        const struct segment *segment = &p->segments[s];
        p->jobs[s] = (struct attention_job){
            .q = row_at(p->q, segment->first, width),
            .out = row_at(p->attended, segment->first, width),
            .position = p->position + segment->first,
            .n = segment->n,
            .n_keys = segment->n_keys,
            .kv = kv_group_of(p->slices[s].kv, il),
            .layer = il,
            .window = p->d->hp.local[il] ? p->d->hp.window : 0,
            .use_log_mass = p->slices[s].use_log_mass && il >= p->slices[s].log_mass_from,
            .in_bulk = in_bulk && p->slices[s].is_prompt,
        };
    }
    attention_run(&p->attention, p->jobs, p->n_slices);
}

int pass_block(struct pass *p, int il, struct err *e)
{
    const struct decoder_layer *l = &p->d->layers[il];
    for_rows(p, il, attn_norm_rows);
    if (project(p, il, e)) {
        return -1;
    }
    show_taps(p, il);
    attend(p, il);
    if (block_linear(p, il, &l->attn_out, LORA_ATTN_OUT, p->attended, p->y, e)) {
        return -1;
    }
    for_rows(p, il, attention_to_ffn_rows);
    const struct weight *const wide[] = {&l->gate, &l->up};
    static const enum lora_part parts[] = {LORA_GATE, LORA_UP};
    float *const y[] = {p->gate, p->up};
    if (several_linears(p, il, wide, parts, y, 2, e)) {
        return -1;
    }
    for_rows(p, il, activate_rows);
    if (block_linear(p, il, &l->down, LORA_DOWN, p->gate, p->y, e)) {
        return -1;
    }
    for_rows(p, il, ffn_residual_rows);
    return 0;
}
