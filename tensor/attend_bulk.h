/* Products of attention in matrix units, for the rows of prompts and pictures. Answers go
 * through the loops of attend_kernels.h: the two differ in their last bits, and which of
 * them a row meets follows from what it is, never from its neighbours.
 *
 * A number is taken as the sum of bf16 numbers: `parts` = 2 keeps 16 bits of it, 1 keeps 8.
 * Of the four products of two such sums the one of the small parts is left out (2^-16).
 * Scores always have two parts, for an error of a score is one of the exponent; weights and
 * values have as many as the caller asks for. Sums are fp32, in ascending order of the
 * blocks of 32 that a tile takes: a row's bits do not depend on the rows beside it. */
#ifndef TAMP_TENSOR_ATTEND_BULK_H
#define TAMP_TENSOR_ATTEND_BULK_H

#include "tensor/attend_kernels.h"

#define ATTEND_BULK_ROWS  16 /* rows, keys or elements on a side of a tile */
#define ATTEND_BULK_DEPTH 32 /* what one tile instruction adds up */
#define ATTEND_BULK_WORDS (ATTEND_BULK_ROWS * ATTEND_BULK_DEPTH)
#define ATTEND_BULK_PARTS 2

static inline int attend_bulk_blocks(int n, int size)
{
    return (n + size - 1) / size;
}

/* 16-bit words of n rows (or columns) of `depth` numbers as tiles of two parts. */
static inline size_t attend_bulk_words(int n, int depth)
{
    return (size_t)attend_bulk_blocks(n, ATTEND_BULK_ROWS) *
           (size_t)attend_bulk_blocks(depth, ATTEND_BULK_DEPTH) * ATTEND_BULK_PARTS *
           ATTEND_BULK_WORDS;
}

/* Tiles lie [blocks of 16 rows or columns, blocks of 32 in depth, 2 parts]; what is behind
 * the last row, column or element is zero. */
struct attend_bulk {
    /* Rows x [n, depth], ld apart, as left operands. With parts 1 the second is not written. */
    void (*left)(uint16_t *tiles, const float *x, size_t ld, int n, int depth, int parts);
    /* Rows x [n, depth], ld apart, as the columns of right operands: of q k^T the k. */
    void (*right_columns)(uint16_t *tiles, const float *x, size_t ld, int n, int depth);
    /* Rows x [depth, n], ld apart, as they are as right operands: the v of weights v. */
    void (*right_rows)(uint16_t *tiles, const float *x, size_t ld, int n, int depth, int parts);
    /* c [rows, cols] = left right over `depth`; rows and cols are rounded up to 16 and
     * written, left_depth is what `left` was made for (>= depth), right_depth likewise. */
    void (*product)(float *c, size_t ldc, const uint16_t *left, int left_depth,
                    const uint16_t *right, int right_depth, int rows, int depth, int cols,
                    int parts);
};

#if defined(__x86_64__)
extern const struct attend_bulk attend_amx;
#endif

#endif
