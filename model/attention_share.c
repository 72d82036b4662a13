#include "model/attention_share.h"

#include "compress/merge.h"
#include "tensor/ops.h"

#include <math.h>

static void load_f16(const uint16_t *from, int dim, float *to)
{
    for (int d = 0; d < dim; d++) {
        to[d] = op_f16_to_f32(from[d]);
    }
}

static void load_q8(const struct kv_q8 *from, int dim, float *to)
{
    for (int d = 0; d < dim; d++) {
        to[d] = op_f16_to_f32(from->scale[d / ATTEND_Q8_BLOCK]) * (float)from->q[d];
    }
}

/* The keys of one head: [n, head_dim] fp32. */
static void load_keys(const struct kv_group *kv, int layer, int head, int n, float *keys)
{
    for (int i = 0; i < n; i++, keys += kv->head_dim) {
        if (kv->type == KV_Q8_0) {
            struct kv_q8 from = kv_q8_keys(kv, layer, head, i);
            load_q8(&from, kv->head_dim, keys);
        } else {
            load_f16(kv_keys(kv, layer, head, i), kv->head_dim, keys);
        }
    }
}

/* share += softmax(q K^T) */
static void add_query(const struct attention_shape *shape, const float *q, const float *keys,
                      int n_keys, float *score, float *share)
{
    float most = -INFINITY;
    for (int i = 0; i < n_keys; i++) {
        const float *key = keys + (size_t)i * (size_t)shape->head_dim;
        float s = merge_dot(q, key, shape->head_dim) * shape->scale;
        s = shape->softcap > 0 ? shape->softcap * tanhf(s / shape->softcap) : s;
        most = s > most ? s : most;
        score[i] = s;
    }
    float total = 0;
    for (int i = 0; i < n_keys; i++) {
        score[i] = expf(score[i] - most);
        total += score[i];
    }
    for (int i = 0; i < n_keys; i++) {
        share[i] += score[i] / total;
    }
}

int attention_share(const struct attention_shape *shape, const float *q, int n,
                    const struct kv_group *kv, int layer, int head, int n_keys, float *share,
                    struct arena *scratch, struct err *e)
{
    struct arena_mark mark = arena_mark(scratch);
    size_t dim = (size_t)shape->head_dim;
    float *keys = arena_alloc(scratch, (size_t)n_keys, dim * sizeof *keys);
    float *score = arena_alloc(scratch, (size_t)n_keys, sizeof *score);
    if (!keys || !score) {
        return err_no_memory(e, (size_t)n_keys * dim * sizeof *keys);
    }
    load_keys(kv, layer, head / (shape->n_head / shape->n_head_kv), n_keys, keys);
    for (int i = 0; i < n; i++) {
        add_query(shape, q + ((size_t)i * (size_t)shape->n_head + (size_t)head) * dim, keys,
                  n_keys - (n - 1 - i), score, share);
    }
    arena_rewind(scratch, mark);
    return 0;
}
