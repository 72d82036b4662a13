/* Keys and values of one sequence. The length is kept for each group of layers, not
 * for the sequence: a merge at a cutoff layer makes the upper layers shorter. fp16. */
#ifndef TAMP_MODEL_KV_CACHE_H
#define TAMP_MODEL_KV_CACHE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define KV_MAX_GROUPS 4

struct kv_shape {
    int n_layer;
    int n_head_kv;
    int head_dim; /* of keys and of values */
};

struct kv_group {
    int first_layer, n_layer;
    int n;           /* rows stored */
    int capacity;    /* rows allocated */
    uint16_t *k;     /* [n_layer, n_head_kv, capacity, head_dim] fp16, RoPE applied */
    uint16_t *v;     /* [n_layer, n_head_kv, capacity, head_dim] fp16 */
    float *position; /* [capacity] original position of each row (sliding windows) */
    float *log_mass; /* [capacity] added to the attention logits; NULL = never used */
};

struct kv_cache {
    struct kv_shape shape;
    struct kv_group group[KV_MAX_GROUPS];
    int n_groups;
    int n_positions; /* original rows so far = position of the next row */
};

/* cutoffs: ascending layer indices after which rows may merge (layer -1 = before the
 * first block, needs no group of its own). capacity: rows each group can hold. */
int kv_init(struct kv_cache *kv, const struct kv_shape *shape, const int *cutoffs, int n_cutoffs,
            int capacity, struct err *e);
void kv_clear(struct kv_cache *kv);
size_t kv_bytes(const struct kv_cache *kv);      /* allocated */
size_t kv_used_bytes(const struct kv_cache *kv); /* by rows that are stored */
struct kv_group *kv_group_of(struct kv_cache *kv, int layer);

#endif
