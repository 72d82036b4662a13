/* Attention of some rows (queries of heads) over keys that come tile by tile, with the
 * running softmax of arXiv 2205.14135. Used by the decoder and by the picture tower.
 *
 *   attend_init once; t->q filled, then attend_begin
 *   for each tile of ATTEND_KEYS keys: attend_load_..., attend_tile, then attend_add
 *   attend_store for each row
 *
 * A tile's result is made alone and then added to the total, in ascending order of keys.
 * The tiles of one row may therefore be computed by several threads and added afterwards:
 * the bits are the same. */
#ifndef TAMP_TENSOR_ATTEND_H
#define TAMP_TENSOR_ATTEND_H

#include "base/arena.h"
#include "tensor/attend_bulk.h"
#include "tensor/attend_kernels.h"

#define ATTEND_ROWS 126 /* rows at most: whole blocks, so that the last is not half empty */

/* What one thread needs. */
struct attend {
    const struct attend_kernels *kernels;
    int dim;                         /* of a head */
    int width;                       /* dim rounded up to ATTEND_PAD */
    float *q;                        /* [ATTEND_ROWS, dim] queries, already scaled */
    float position[ATTEND_ROWS];     /* of the rows; read where a window is set */
    int visible[ATTEND_ROWS];        /* keys of the tile that a row sees: the first ones */
    struct attend_state total, part; /* [ATTEND_ROWS] */
    float *keys;                     /* [dim, ATTEND_LD] */
    float *values;                   /* [ATTEND_KEYS, width] */
    float *scores;                   /* [ATTEND_ROWS, ATTEND_KEYS] */
    /* For one block of rows, values are read once: where they lie, instead of `values`. */
    bool direct;
    struct {
        const uint16_t *v;
        int at;
    } runs[ATTEND_KEYS / 8];
    int n_runs;
    /* For rows in bulk: keys and values wait as rows, `keys` and `values`, until the tile is
     * computed. */
    const struct attend_bulk *matrix_unit; /* NULL = none */
    int parts;                             /* of weights and values; 0 = not in bulk */
    int n_loaded;                          /* keys of the tile */
    uint16_t *q_tiles, *key_tiles, *value_tiles, *weight_tiles;
};

/* Memory from the arena; -1 when it has none. matrix_unit (tensor/attend_bulk.h) NULL: the
 * machine has none, or nobody will ask for it. */
int attend_init(struct attend *t, const struct attend_kernels *kernels,
                const struct attend_bulk *matrix_unit, int dim, struct arena *scratch);

/* Floats that a state of so many rows takes, and a state in such memory. */
size_t attend_state_floats(const struct attend *t, int rows);
struct attend_state attend_state_in(const struct attend *t, float *memory, int rows);

void attend_begin(struct attend *t, int rows); /* no keys yet */
/* The same for rows of prompts and pictures: in the matrix unit, where there is one. Weights
 * and values have so many bf16 parts, 1 or 2. */
void attend_begin_bulk(struct attend *t, int rows, int parts);

/* Keys and values [n, dim] become those of the tile from `at` on, a multiple of 8; runs
 * come in ascending order. ld: elements from row to row. */
/* With few rows halves are read by attend_tile, not here. */
void attend_load_f16(struct attend *t, int at, const uint16_t *k, const uint16_t *v, int n);
void attend_load_q8(struct attend *t, int at, const struct attend_q8 *k, const struct attend_q8 *v,
                    int n);
void attend_load_f32(struct attend *t, int at, const float *k, const float *v, size_t ld, int n);

/* The rows over the keys that were loaded; the pointers in terms are to the tile's first
 * key. Needs t->q and t->visible. */
void attend_tile(struct attend *t, int rows, const struct attend_terms *terms,
                 const struct attend_state *part);
void attend_add(struct attend *t, int rows, const struct attend_state *part);

/* Row r of the total, divided by its norm: dim elements. NaN if it saw no key. */
void attend_store(const struct attend *t, int r, float *out);

#endif
