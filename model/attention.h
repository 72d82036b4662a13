/* Causal attention of new rows over the KV cache of one layer: tiles of queries against
 * tiles of keys with the running softmax of arXiv 2205.14135, so that no score matrix is
 * ever whole. The query heads that share a KV head are worked on together and read its
 * keys and values once.
 *
 * A query sees the keys that were stored before it and itself. In a layer with a window
 * it sees of these only the ones less than `window` positions back: positions of the
 * original prompt, so that merging rows does not widen the window. */
#ifndef TAMP_MODEL_ATTENTION_H
#define TAMP_MODEL_ATTENTION_H

#include "base/arena.h"
#include "base/err.h"
#include "model/kv_cache.h"
#include "tensor/compute.h"

#include <stdbool.h>

/* With up to so many queries in a job, a query's result has the same bits as alone: drafted
 * tokens that are checked together rely on it. With more, inside BLAS, it may differ. */
#define ATTENTION_EXACT_QUERIES 8

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
};

/* Scratch of each thread, made once for a pass; lives in the arena. */
struct attention {
    struct attention_shape shape;
    const struct compute *compute;
    struct attention_tile *tiles; /* [threads] */
};

int attention_init(struct attention *a, const struct attention_shape *shape,
                   const struct compute *c, struct arena *scratch, struct err *e);

/* Cannot fail. A job's result depends on that job alone, not on the others or on the
 * threads. */
void attention_run(const struct attention *a, const struct attention_job *jobs, int n_jobs);

#endif
