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
    float *log_mass; /* [capacity] log of the mass of each row, for slices that use it */
};

struct kv_cache {
    struct kv_shape shape;
    struct kv_group group[KV_MAX_GROUPS];
    int n_groups;
    int n_positions; /* original rows so far = position of the next row */
};

/* cutoffs: ascending layer indices after which rows may merge. Group k holds the layers
 * (cutoff k-1, cutoff k]. Before the first block (-1) and after the last one (n_layer - 1)
 * a merge shortens no layer's cache: these two need no group of their own.
 * capacity: rows each group can hold. On failure nothing is left allocated. */
int kv_init(struct kv_cache *kv, const struct kv_shape *shape, const int *cutoffs, int n_cutoffs,
            int capacity, struct err *e);
void kv_clear(struct kv_cache *kv);         /* frees; zeroed structs and a second call are fine */
size_t kv_bytes(const struct kv_cache *kv); /* allocated */
size_t kv_used_bytes(const struct kv_cache *kv); /* by rows that are stored */
struct kv_group *kv_group_of(struct kv_cache *kv, int layer);

/* Elements from the start of k or v to row 0 of one layer and head. */
static inline size_t kv_head_offset(const struct kv_group *g, const struct kv_shape *shape,
                                    int layer, int head)
{
    size_t index = (size_t)(layer - g->first_layer) * (size_t)shape->n_head_kv + (size_t)head;
    return index * (size_t)g->capacity * (size_t)shape->head_dim;
}

#endif
