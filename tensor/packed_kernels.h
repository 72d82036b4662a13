/* The inner loops over packed weights (tensor/packed.h), one table for each instruction
 * set. packed_ref.c is the specification. Integer sums are the same in all of them; sets
 * differ only in whether a product and a sum are rounded once (FMA) or twice. */
#ifndef TAMP_TENSOR_PACKED_KERNELS_H
#define TAMP_TENSOR_PACKED_KERNELS_H

#include "tensor/packed.h"

struct packed_kernels {
    /* Row r of the destination from x [n_in]; columns beyond n_in become zero. A block
     * that holds a NaN or an infinity gets a scale that is none either, so that the
     * result shows it. */
    void (*round_row)(const float *x, int n_in, struct packed_rows *to, int r);

    /* y[r * ldy + o] = sum over blocks + bias[o] for the outputs of panels [begin, end)
     * and all rows of x. bias [n_out] or NULL. */
    void (*multiply)(const struct packed *p, int begin, int end, const struct packed_rows *x,
                     const float *bias, float *y, int ldy);

    /* The same for 16-bit weights and rows x [n_rows, n_in] as they are. */
    void (*multiply_halves)(const struct packed *p, int begin, int end, const float *x, int ldx,
                            int n_rows, const float *bias, float *y, int ldy);

    /* Matrix units that take bf16 (AMX): NULL where there are none. Rows of prompts and
     * pictures go through them, answers do not: the two differ in their last bits.
     * An activation is the sum of two bf16 numbers, which keep 16 of its 24 bits.
     * bulk_row: x [n_in] -> to [n_blocks, 2, 32], first the upper parts; the rest zero.
     * bulk_multiply: like multiply, any layout; rows beyond n_rows up to a multiple of
     * BULK_ROWS exist and are zero; scratch is bulk_scratch_bytes(p) of the thread. */
    void (*bulk_row)(const float *x, int n_in, uint16_t *to, int n_blocks);
    void (*bulk_multiply)(const struct packed *p, int begin, int end, const uint16_t *x, int n_rows,
                          const float *bias, float *y, int ldy, void *scratch);
};

#define BULK_ROWS   32 /* rows come in such units */
#define BULK_PARTS  2  /* bf16 numbers in an activation */
#define BULK_PANELS 2  /* panels are worked on in pairs */

/* For one thread: two panels of weights as bf16, and a tile of results. */
static inline size_t bulk_scratch_bytes(const struct packed *p)
{
    return (size_t)p->n_blocks * BULK_PANELS * PACKED_LANES * PACKED_BLOCK * sizeof(uint16_t) +
           (size_t)BULK_ROWS * BULK_PANELS * PACKED_LANES * sizeof(float);
}

extern const struct packed_kernels packed_ref;
#if defined(__x86_64__)
extern const struct packed_kernels packed_avx2;
extern const struct packed_kernels packed_vnni;
extern const struct packed_kernels packed_amx;
/* The AMX set has the AVX-512 loops for few rows. */
void packed_vnni_round_row(const float *x, int n_in, struct packed_rows *to, int r);
void packed_vnni_multiply(const struct packed *p, int begin, int end, const struct packed_rows *x,
                          const float *bias, float *y, int ldy);
void packed_vnni_multiply_halves(const struct packed *p, int begin, int end, const float *x,
                                 int ldx, int n_rows, const float *bias, float *y, int ldy);
/* Asks the system for the tile registers; false where it does not give them. */
bool packed_amx_permitted(void);
#endif

/* Where the integers, d and m of a block begin. */
static inline const uint8_t *packed_factors(const struct packed *p, const uint8_t *block)
{
    return block + p->block_bytes - 2 * PACKED_LANES * sizeof(uint16_t);
}

/* Below this a block of activations is rounded to zeros: PACKED_MOST / largest must be
 * finite. */
#define PACKED_SMALLEST 1e-30f

#endif
