/* The inner loops of attention, one table for each instruction set (a member of struct
 * vector_ops); attend_ref.c is the specification. attend.h puts them together.
 *
 * Every number is made by a chain of its own: a score by head_dim FMAs in ascending order,
 * an element of the weighted sum by one FMA for each key in ascending order. So a row has
 * the same bits whatever rows are computed beside it. */
#ifndef TAMP_TENSOR_ATTEND_KERNELS_H
#define TAMP_TENSOR_ATTEND_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATTEND_KEYS 128 /* keys of one tile */
#define ATTEND_LD                                                                                  \
    144                 /* from column element to element: not a power of two, which maps          \
                         * them to few sets of the first cache */
#define ATTEND_BLOCK 6  /* rows of one call of product */
#define ATTEND_PAD   16 /* lengths of rows are multiples of it */

/* Rows in 8 bits: x = scale q, q in -127..127, one scale (a half) for each 32 elements of a
 * row; the last block of a row may be shorter. */
#define ATTEND_Q8_BLOCK 32
struct attend_q8 {
    const int8_t *q;       /* [n, dim] */
    const uint16_t *scale; /* [n, attend_q8_blocks(dim)] */
};

static inline int attend_q8_blocks(int dim)
{
    return (dim + ATTEND_Q8_BLOCK - 1) / ATTEND_Q8_BLOCK;
}

/* What is done to a score before the softmax, in this order. */
struct attend_terms {
    float softcap;             /* cap * tanh(score / cap); 0 = none */
    const float *bias;         /* [keys] added; NULL = none */
    const float *key_position; /* [keys]; read where window > 0 */
    float window;              /* > 0: keys this far back or farther are masked */
};

/* Result for some rows over some keys: softmax-weighted values relative to the maximum of
 * each row. max and norm have room for a multiple of ATTEND_PAD. */
struct attend_state {
    float *sum;  /* [rows, width] sum of e^(score - max) v */
    float *max;  /* [rows] largest score, -inf when all keys are masked */
    float *norm; /* [rows] sum of e^(score - max) */
};

struct attend_kernels {
    /* Key j, element i -> to[i * ATTEND_LD + j]: n rows of dim elements. Columns up to
     * the next multiple of 8 are written too. */
    void (*columns_f16)(float *to, const uint16_t *from, int n, int dim);
    void (*columns_f32)(float *to, const float *from, size_t ld, int n, int dim);
    /* Rows of dim halves -> rows of width floats, 0 behind dim. */
    void (*rows_f16)(float *to, const uint16_t *from, int n, int dim, int width);
    /* Both from rows in 8 bits: each element is scale * q, rounded once. */
    void (*columns_q8)(float *to, const struct attend_q8 *from, int n, int dim);
    void (*rows_q8)(float *to, const struct attend_q8 *from, int n, int dim, int width);
    /* A row x [dim] to 8 bits: scale = largest of the block / 127, rounded to a half; q to
     * the nearest, even in the middle. A block that holds a NaN or an infinity, or needs a
     * scale that no half is, gets a scale that is no number, so that the result shows it. */
    void (*round_q8)(const float *x, int dim, int8_t *q, uint16_t *scale);
    /* c[rows, cols] = a[rows, depth] b[depth, cols]; rows 1..ATTEND_BLOCK, cols a multiple
     * of ATTEND_PAD. */
    void (*product)(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
                    int rows, int depth, int cols);
    /* The same with halves for b, to c or, with add, on top of it. */
    void (*product_f16)(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b,
                        size_t ldb, int rows, int depth, int cols, bool add);
    /* scores[0, n_visible) become e^(score - max), those up to n_keys 0. Scores have room
     * for a multiple of ATTEND_PAD. NaN stays, so that whoever checks the result sees it. */
    void (*weigh)(float *scores, int n_visible, int n_keys, const struct attend_terms *terms,
                  float position, float *max, float *norm);
    /* total += part, where part has the keys that follow those of total. */
    void (*merge)(const struct attend_state *total, const struct attend_state *part, int rows,
                  int width);
};

extern const struct attend_kernels attend_ref;
#if defined(__x86_64__)
extern const struct attend_kernels attend_avx2;
extern const struct attend_kernels attend_avx512;
#endif

#endif
