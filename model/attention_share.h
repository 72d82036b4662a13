/* How much attention some queries pay to each key: one row of scores for each query,
 * never the matrix of all rows. For choosing rows by what is asked (compress/query.c). */
#ifndef TAMP_MODEL_ATTENTION_SHARE_H
#define TAMP_MODEL_ATTENTION_SHARE_H

#include "base/arena.h"
#include "base/err.h"
#include "model/attention.h"

/* share[n_keys] += the attention of n queries of one query head, each a distribution over the
 * keys it sees. q: [n, n_head * head_dim] with RoPE applied; the last query sees n_keys rows
 * of the layer, each one before it one fewer. Windows and masses are left out. One thread
 * adds in one order. Temporaries from scratch. */
int attention_share(const struct attention_shape *shape, const float *q, int n,
                    const struct kv_group *kv, int layer, int head, int n_keys, float *share,
                    struct arena *scratch, struct err *e);

#endif
