/* The loops of packed products with eight outputs in a register, half a panel. Included by
 * packed_avx2.c and packed_avxvnni.c, each after its own
 *
 *   static void block_sums(const uint8_t *block, const int8_t *q, const int32_t *offset,
 *                          const int n_rows, const bool is_4bit, __m256i whole[TILE_ROWS])
 *
 *   #define BLOCK_SUMS block_sums
 *
 * : the integer sums of one block for the rows of a tile; block is where the integers of the
 * eight outputs begin, q and offset belong to the first row. n_rows and is_4bit are
 * constants wherever it is called.
 *
 * A tile is up to four rows: the weights of a block do not fit into sixteen registers with
 * the sums, so they are unpacked 32 columns of eight outputs at a time. */
#ifndef TAMP_TENSOR_PACKED_LOOPS8_H
#define TAMP_TENSOR_PACKED_LOOPS8_H

#if defined(BLOCK_SUMS)

#include "tensor/packed_lanes8.h"

/* n_rows and is_4bit are constants wherever this is called; o is the first output. */
INLINE void tile(const struct packed *p, int o, const struct packed_rows *x, int row,
                 const int n_rows, const bool is_4bit, const float *bias, float *y, int ldy)
{
    __m256 sum[TILE_ROWS];
    size_t half = (size_t)(o % PACKED_LANES / HALF);
    const uint8_t *block = packed_block(p, o / PACKED_LANES, 0);
    size_t at = packed_at(x, row, 0);
    for (int r = 0; r < n_rows; r++) {
        sum[r] = _mm256_setzero_ps();
    }
    for (int b = 0; b < p->n_blocks; b++, at += (size_t)x->group) {
        __m256i whole[TILE_ROWS];
        const uint8_t *factors = block + (is_4bit ? 256 : 512) + half * 16;
        if (row == 0 && half == 0) {
            packed_fetch_ahead(block, is_4bit ? PACKED_4BIT_SIZE : PACKED_8BIT_SIZE);
        }
        BLOCK_SUMS(block + half * 32, x->q + at * PACKED_ROW_BLOCK, x->offset + at, n_rows, is_4bit,
                   whole);
        block += is_4bit ? PACKED_4BIT_SIZE : PACKED_8BIT_SIZE;
        __m256 d = load_halves(factors);
        __m256 m = load_halves(factors + 2 * PACKED_LANES);
        for (int r = 0; r < n_rows; r++) {
            size_t i = at + (size_t)r;
            __m256 scaled = _mm256_mul_ps(d, _mm256_set1_ps(x->scale[i]));
            sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[r]), scaled, sum[r]);
            sum[r] = _mm256_fmadd_ps(m, _mm256_set1_ps(x->scaled_sum[i]), sum[r]);
        }
    }
    __m256i mask = store_mask(p->n_out - o);
    __m256 add = bias ? _mm256_maskload_ps(bias + o, mask) : _mm256_setzero_ps();
    for (int r = 0; r < n_rows; r++) {
        _mm256_maskstore_ps(y + (size_t)(row + r) * (size_t)ldy + o, mask,
                            _mm256_add_ps(sum[r], add));
    }
}

INLINE void all_rows(const struct packed *p, int o, const struct packed_rows *x, const bool is_4bit,
                     const float *bias, float *y, int ldy)
{
    int row = 0;
    for (; x->n_rows - row >= 4; row += 4) {
        tile(p, o, x, row, 4, is_4bit, bias, y, ldy);
    }
    if (x->n_rows - row >= 2) {
        tile(p, o, x, row, 2, is_4bit, bias, y, ldy);
        row += 2;
    }
    if (x->n_rows - row >= 1) {
        tile(p, o, x, row, 1, is_4bit, bias, y, ldy);
    }
}

static void multiply_packed(const struct packed *p, int begin, int end, const struct packed_rows *x,
                            const float *bias, float *y, int ldy)
{
    for (int o = begin * PACKED_LANES; o < end * PACKED_LANES && o < p->n_out; o += HALF) {
        if (p->kind == PACKED_4BIT) {
            all_rows(p, o, x, true, bias, y, ldy);
        } else {
            all_rows(p, o, x, false, bias, y, ldy);
        }
    }
}

#endif
#endif
