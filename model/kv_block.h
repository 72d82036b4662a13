/* Keys and values in blocks of a fixed number of rows: what a sequence is stored in, and
 * what sequences with the same beginning share.
 *
 * A block belongs to one layer group of one sequence and has room for KV_BLOCK_ROWS rows
 * of all layers of that group. Whoever refers to it counts: sequences that run, and the
 * entries of a prefix cache. A row that more than one of them relies on is never written
 * again: a sequence writes only behind its last row, and only into blocks it made itself.
 *
 * A pool is a budget and its books, not memory taken in advance: a block is allocated when
 * rows come and freed when the last one lets go of it. Sequences reserve what they may
 * come to need before they start; the prefix cache only holds blocks that exist already
 * and gives them up when a sequence needs room (`evict`). So a sequence that runs never
 * finds the pool full:
 *   blocks of running sequences <= what these reserved <= max_bytes,
 * and everything else can be evicted. One thread only. */
#ifndef TAMP_MODEL_KV_BLOCK_H
#define TAMP_MODEL_KV_BLOCK_H

#include "base/err.h"
#include "tensor/attend_kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Attention reads tiles of 128 keys, so a block is one run for it. A sequence wastes half
 * a block on average, and a copied block is a copy of at most this many rows. */
#define KV_BLOCK_ROWS 128

/* How an element is stored: as a half, or in 8 bits with a scale for 32 of them
 * (struct attend_q8), which is 8.5 bits. */
enum kv_type { KV_F16, KV_Q8_0 };

struct kv_shape {
    int n_layer;
    int n_head_kv;
    int head_dim; /* of keys and of values */
    enum kv_type type;
};

struct kv_block {
    int n_running;   /* sequences that run and refer to it */
    int n_held;      /* entries of a prefix cache that do */
    size_t bytes;    /* this struct included */
    float *position; /* [KV_BLOCK_ROWS] original position of each row (sliding windows) */
    float *log_mass; /* [KV_BLOCK_ROWS] log of the mass of each row, for slices that use it */
    uint16_t *k;     /* [n_layer, n_head_kv, plane] RoPE applied. A plane is KV_F16: halves
                        [KV_BLOCK_ROWS, head_dim]; KV_Q8_0: bytes [KV_BLOCK_ROWS, head_dim],
                        then scales [KV_BLOCK_ROWS, attend_q8_blocks] */
    uint16_t *v;     /* the same */
};

struct kv_pool {
    struct kv_shape shape;
    size_t max_bytes;
    size_t used_bytes;     /* of all blocks */
    size_t running_bytes;  /* of blocks that a running sequence refers to */
    size_t held_bytes;     /* of blocks that the prefix cache holds; they may run, too */
    size_t reserved_bytes; /* what running sequences may come to need */
    /* Lets go of something that only the prefix cache needs; false: there is nothing. */
    bool (*evict)(void *ctx);
    void *evict_ctx;
};

/* Halves that the rows of one head take in one layer of a block. */
static inline size_t kv_plane_halves(int head_dim, enum kv_type type)
{
    size_t dim = (size_t)head_dim;
    size_t q8 = KV_BLOCK_ROWS / 2 * dim + KV_BLOCK_ROWS * (size_t)attend_q8_blocks(head_dim);
    return type == KV_Q8_0 ? q8 : KV_BLOCK_ROWS * dim;
}

/* Bytes of a block for n_layer layers; false when they are no size. */
bool kv_block_bytes(const struct kv_shape *shape, int n_layer, size_t *out);

void kv_pool_init(struct kv_pool *p, const struct kv_shape *shape, size_t max_bytes);

/* A block with n_running = 1, evicting what is in its way. Rows are not initialised.
 * NULL: the pool is full of running sequences, or there is no memory. pool == NULL: no
 * budget. */
struct kv_block *kv_block_new(struct kv_pool *pool, const struct kv_shape *shape, int n_layer,
                              struct err *e);
/* One more and one fewer sequence; the last reference frees it. */
void kv_block_use(struct kv_pool *pool, struct kv_block *b);
void kv_block_drop(struct kv_pool *pool, struct kv_block *b);
/* The same for the prefix cache. True when the cache now holds it for the first time, or
 * no longer: its bytes are to be counted. */
bool kv_block_hold(struct kv_pool *pool, struct kv_block *b);
bool kv_block_release(struct kv_pool *pool, struct kv_block *b);

#endif
