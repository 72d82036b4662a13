/* Rotary position embedding (arXiv 2104.09864) with the angles of a pass computed once:
 * every head and every layer of one kind turns by the same sines and cosines. Positions
 * are real numbers, because a merged row may stand between two tokens. */
#ifndef TAMP_MODEL_ROPE_H
#define TAMP_MODEL_ROPE_H

#include <stdbool.h>

#define ROPE_MAX_DIM 1024

struct rope {
    int n_rot; /* even; the first n_rot elements of a head turn, the rest stay */
    bool neox; /* pairs (i, i + n_rot/2); otherwise neighbours (2i, 2i+1) */
    double frequency[ROPE_MAX_DIM / 2]; /* radians for each unit of position */
};

/* frequency_i = base^(-2i/n_rot) * scale / factors[i]; factors [n_rot/2] may be NULL. */
void rope_init(struct rope *r, int n_rot, bool neox, float base, float scale, const float *factors);
/* table [n, n_rot]: for each position n_rot/2 cosines, then n_rot/2 sines. */
void rope_table(const struct rope *r, const float *position, int n, float *table);
/* Turn n_head consecutive heads of head_dim elements by one row of the table. */
void rope_apply(const struct rope *r, const float *table_row, float *x, int n_head, int head_dim);

#endif
