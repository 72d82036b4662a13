/* Causal attention of new rows over the KV cache of one layer (tensor/attend.h). The query
 * heads that share a KV head are worked on together and read its keys and values once.
 *
 * Tiles of keys begin at multiples of ATTEND_KEYS of the cache and are added up in that
 * order. A query's result is therefore the same bits alone, in a chunk of many queries,
 * beside other jobs, and whether one thread or several share its keys.
 *
 * A query sees the keys that were stored before it and itself. In a layer with a window
 * it sees of these only the ones less than `window` positions back: positions of the
 * original prompt, so that merging rows does not widen the window. */
#ifndef TAMP_MODEL_ATTENTION_H
#define TAMP_MODEL_ATTENTION_H

#include "base/arena.h"
#include "base/err.h"
#include "model/kv_cache.h"
#include "tensor/attend.h"
#include "tensor/compute.h"

#include <stdbool.h>

struct attention_shape {
    int n_head, n_head_kv, head_dim;
    float scale;   /* of q k^T */
    float softcap; /* cap * tanh(score / cap); 0 = none */
};

/* One slice at one layer. Its rows are in the cache already. */
struct attention_job {
    const float *q;        /* [n, n_head * head_dim] RoPE applied */
    float *out;            /* [n, n_head * head_dim] */
    const float *position; /* [n] of the queries */
    int n;                 /* queries, >= 0 */
    int n_keys;            /* keys the last query sees; one fewer for each query before it */
    const struct kv_group *kv;
    int layer;
    int window; /* 0 = none */
    bool use_log_mass;
    bool in_bulk; /* rows of a prompt: through the matrix unit, where there is one */
};

/* Scratch of each thread, made once for a pass; lives in the arena, which attention_run
 * uses too: when it is full, few queries over many keys keep fewer threads busy. */
struct attention {
    struct attention_shape shape;
    const struct compute *compute;
    struct arena *scratch;
    struct attend *tiles; /* [threads] */
};

int attention_init(struct attention *a, const struct attention_shape *shape,
                   const struct compute *c, struct arena *scratch, struct err *e);

/* Cannot fail. A query's result depends on its keys alone, not on other queries, jobs or
 * the threads. */
void attention_run(const struct attention *a, const struct attention_job *jobs, int n_jobs);

#endif
