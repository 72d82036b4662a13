/* Keys and values of one sequence, in blocks. The length is kept for each group of layers,
 * not for the sequence: a merge at a cutoff layer makes the upper layers shorter, and these
 * take fewer blocks. */
#ifndef TAMP_MODEL_KV_CACHE_H
#define TAMP_MODEL_KV_CACHE_H

#include "model/kv_block.h"

#define KV_MAX_GROUPS 4

struct kv_group {
    int first_layer, n_layer;
    int n_head_kv, head_dim;
    enum kv_type type;
    int n;                    /* rows stored; it may be set back to forget the last ones */
    int capacity;             /* rows it may grow to */
    struct kv_block **blocks; /* [n_blocks], room for the capacity. Row i is row
                                 i % KV_BLOCK_ROWS of block i / KV_BLOCK_ROWS */
    int n_blocks;
};

struct kv_cache {
    struct kv_shape shape;
    struct kv_pool *pool; /* NULL: no budget */
    size_t reserved_bytes;
    struct kv_group group[KV_MAX_GROUPS];
    int n_groups;
    int n_positions; /* original rows so far = position of the next row */
};

/* cutoffs: ascending layer indices after which rows may merge. Group k holds the layers
 * (cutoff k-1, cutoff k]. Before the first block (-1) and after the last one (n_layer - 1)
 * a merge shortens no layer's cache: these two need no group of their own.
 * capacity: rows each group may hold; they are allocated as rows come. On failure nothing
 * is left allocated. */
int kv_init(struct kv_cache *kv, const struct kv_shape *shape, const int *cutoffs, int n_cutoffs,
            int capacity, struct err *e);
/* Take blocks from this pool, which must outlive the cache, and reserve the whole capacity
 * there, before the first row. ERR_BUSY: the pool's other sequences may need too much. */
int kv_reserve(struct kv_cache *kv, struct kv_pool *pool, struct err *e);
void kv_clear(struct kv_cache *kv); /* frees; zeroed structs and a second call are fine */

/* Room for n more rows in every group. On failure what the cache holds is as before. */
int kv_prepare(struct kv_cache *kv, int n, struct err *e);
/* The same in the groups of layers [first, end) alone. */
int kv_prepare_layers(struct kv_cache *kv, int first, int end, int n, struct err *e);
/* Free the blocks behind the rows that are stored. */
void kv_trim(struct kv_cache *kv);

/* Block `index` of a group becomes one that others use, too; the one before it must be
 * there. The caller then sets the group's n. */
void kv_share(struct kv_cache *kv, struct kv_group *g, int index, struct kv_block *b);
/* After sharing: a last block that is not full is replaced by a copy, for the next rows go
 * there. On failure the cache is empty. */
int kv_own_tail(struct kv_cache *kv, struct err *e);

size_t kv_bytes(const struct kv_cache *kv);      /* of the blocks it refers to */
size_t kv_used_bytes(const struct kv_cache *kv); /* by rows that are stored */
/* Keys and values of one row in one layer. */
size_t kv_row_bytes(const struct kv_shape *shape);
struct kv_group *kv_group_of(struct kv_cache *kv, int layer);

/* Blocks that n rows take. */
static inline int kv_blocks_for(int n)
{
    return n / KV_BLOCK_ROWS + (n % KV_BLOCK_ROWS > 0);
}

/* Halves from the start of a block's k or v to the plane of a head. */
static inline size_t kv_plane_offset(const struct kv_group *g, int layer, int head)
{
    size_t plane = (size_t)(layer - g->first_layer) * (size_t)g->n_head_kv + (size_t)head;
    return plane * kv_plane_halves(g->head_dim, g->type);
}

static inline size_t kv_row_offset(const struct kv_group *g, int layer, int head, int row)
{
    return kv_plane_offset(g, layer, head) + (size_t)(row % KV_BLOCK_ROWS) * (size_t)g->head_dim;
}

/* KV_F16: the keys of one head from this row on, up to the end of its block; values the
 * same. */
static inline uint16_t *kv_keys(const struct kv_group *g, int layer, int head, int row)
{
    return g->blocks[row / KV_BLOCK_ROWS]->k + kv_row_offset(g, layer, head, row);
}

static inline uint16_t *kv_values(const struct kv_group *g, int layer, int head, int row)
{
    return g->blocks[row / KV_BLOCK_ROWS]->v + kv_row_offset(g, layer, head, row);
}

/* KV_Q8_0: a row of a plane and all behind it, to be written; read as struct attend_q8. */
struct kv_q8 {
    int8_t *q;
    uint16_t *scale;
};

static inline struct kv_q8 kv_q8_row(const struct kv_group *g, uint16_t *plane, int row)
{
    size_t i = (size_t)(row % KV_BLOCK_ROWS);
    uint16_t *scales = plane + (size_t)(KV_BLOCK_ROWS / 2) * (size_t)g->head_dim;
    return (struct kv_q8){(int8_t *)(void *)plane + i * (size_t)g->head_dim,
                          scales + i * (size_t)attend_q8_blocks(g->head_dim)};
}

static inline struct kv_q8 kv_q8_keys(const struct kv_group *g, int layer, int head, int row)
{
    return kv_q8_row(g, g->blocks[row / KV_BLOCK_ROWS]->k + kv_plane_offset(g, layer, head), row);
}

static inline struct kv_q8 kv_q8_values(const struct kv_group *g, int layer, int head, int row)
{
    return kv_q8_row(g, g->blocks[row / KV_BLOCK_ROWS]->v + kv_plane_offset(g, layer, head), row);
}

static inline float *kv_positions(const struct kv_group *g, int row)
{
    return g->blocks[row / KV_BLOCK_ROWS]->position + row % KV_BLOCK_ROWS;
}

static inline float *kv_log_masses(const struct kv_group *g, int row)
{
    return g->blocks[row / KV_BLOCK_ROWS]->log_mass + row % KV_BLOCK_ROWS;
}

#endif
