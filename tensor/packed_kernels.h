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
     * An activation is the sum of packed_bulk_parts bf16 numbers: two for 16-bit weights
     * (16 of its 24 bits), one for integers.
     * bulk_row: row r of x -> to [n_rows / 16, n_blocks, n_parts, 16, 32], the upper parts
     * of sixteen rows, then the lower ones; columns beyond n_in become zero.
     * bulk_multiply: like multiply; rows beyond n_rows up to a multiple of BULK_ROWS exist
     * and are zero; scratch is BULK_SCRATCH_BYTES of the thread. */
    void (*bulk_row)(const float *x, int n_in, uint16_t *to, int r, int n_blocks, int n_parts);
    void (*bulk_multiply)(const struct packed *p, int begin, int end, const uint16_t *x, int n_rows,
                          const float *bias, float *y, int ldy, void *scratch);
};

#define BULK_ROWS        16 /* rows come in such units */
#define BULK_PARTS       2  /* bf16 numbers in an activation, at most */
#define BULK_PANELS      3  /* panels of 16-bit weights that are worked on together */
#define BULK_BLOCKS      6  /* blocks of them that are widened at a time, at most */
#define BULK_WIDE_PANELS 2  /* the same for integer weights */
#define BULK_WIDE_BLOCKS 18
#define BULK_GROUP       6   /* whole groups of both kinds */
#define BULK_MOST_ROWS   512 /* rows for which weights are widened once */
/* Sums of all rows and panels of a group in fp32; its widened blocks in bf16. */
#define BULK_SUM_BYTES(panels) ((size_t)BULK_MOST_ROWS * (panels)*PACKED_LANES * 4)
#define BULK_HALVES_BYTES                                                                          \
    (BULK_SUM_BYTES(BULK_PANELS) +                                                                 \
     (size_t)BULK_BLOCKS * 2 * BULK_PANELS * PACKED_LANES * PACKED_BLOCK * 2)
#define BULK_WIDE_BYTES                                                                            \
    (BULK_SUM_BYTES(BULK_WIDE_PANELS) +                                                            \
     (size_t)BULK_WIDE_BLOCKS * BULK_WIDE_PANELS * PACKED_LANES * PACKED_BLOCK * 2)
#define BULK_SCRATCH_BYTES                                                                         \
    (BULK_WIDE_BYTES > BULK_HALVES_BYTES ? BULK_WIDE_BYTES : BULK_HALVES_BYTES)

static inline int packed_bulk_parts(const struct packed *p)
{
    return packed_is_integer(p) ? 1 : BULK_PARTS;
}

extern const struct packed_kernels packed_ref;
#if defined(__x86_64__)
extern const struct packed_kernels packed_avx2;
extern const struct packed_kernels packed_avxvnni;
extern const struct packed_kernels packed_vnni;
extern const struct packed_kernels packed_amx;
/* What the AVX-VNNI set has of AVX2. */
void packed_avx2_round_row(const float *x, int n_in, struct packed_rows *to, int r);
void packed_avx2_multiply_halves(const struct packed *p, int begin, int end, const float *x,
                                 int ldx, int n_rows, const float *bias, float *y, int ldy);
/* What the AMX set has of AVX-512. */
void packed_vnni_round_row(const float *x, int n_in, struct packed_rows *to, int r);
void packed_vnni_multiply(const struct packed *p, int begin, int end, const struct packed_rows *x,
                          const float *bias, float *y, int ldy);
void packed_vnni_multiply_halves(const struct packed *p, int begin, int end, const float *x,
                                 int ldx, int n_rows, const float *bias, float *y, int ldy);
/* Parts of the AMX set: activations, products with 16-bit and with integer weights. */
void packed_amx_bulk_row(const float *x, int n_in, uint16_t *to, int r, int n_blocks, int n_parts);
void packed_amx_halves_multiply(const struct packed *p, int begin, int end, const uint16_t *x,
                                int n_rows, const float *bias, float *y, int ldy, void *scratch);
void packed_amx_wide_multiply(const struct packed *p, int begin, int end, const uint16_t *x,
                              int n_rows, const float *bias, float *y, int ldy, void *scratch);
/* Shapes the tiles of this thread: 0..3 of 16 rows of 64 bytes, for sums; 4..7 for operands:
 * 4 and 5 weights, `weight_rows` rows of 64 bytes; 6 and 7 activations, 16 rows of
 * `row_bytes`. Tile 3 has weight_rows rows, too. */
void packed_amx_configure(int row_bytes, int weight_rows);
/* Asks the system for the tile registers; false where it does not give them. */
bool packed_amx_permitted(void);
#endif

/* Where the integers, d and m of a block begin. */
static inline const uint8_t *packed_factors(const struct packed *p, const uint8_t *block)
{
    return block + p->block_bytes - 2 * PACKED_LANES * sizeof(uint16_t);
}

/* Weights are read once, from memory, in short runs: a panel is a few pages, and what the CPU
 * fetches ahead by itself ends with a page. Whoever reads a block asks for as much that lies
 * PACKED_AHEAD behind it, in the next panel where this one ends. */
#define PACKED_AHEAD 8192

static inline void packed_fetch_ahead(const uint8_t *block, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(block + PACKED_AHEAD + i);
    }
}

/* Below this a block of activations is rounded to zeros: PACKED_MOST / largest must be
 * finite. */
#define PACKED_SMALLEST 1e-30f

#endif
