/* Products with 16-bit weights in the bf16 tiles of AMX (TDPBF16PS), for many rows. A half is
 * exactly the sum of two bf16 numbers, an activation nearly (2^-16); of the four products the
 * one of the two small parts is left out (2^-17). Few rows go through the AVX-512 loops, whose
 * results differ in the last bits. Without the small part of the weights (a third faster) the
 * tower's rows were off by enough to change answers.
 *
 * A tile instruction is done every 16 cycles if its operands are there, and those decide:
 *   - the weights of three panels and six blocks (36 KiB) are widened once for all rows and
 *     stay in the L1 cache; columns are therefore worked on in splits
 *   - activations lie in the order in which they are loaded, a tile after the other, and
 *     come from L2 once for each group of panels, past the L1 cache (TILELOADDT1): there
 *     they would take the place of the weights
 *   - the sums of three panels take turns, because a sum is ready only after 52 cycles; with
 *     three, weights, sums and both parts of the activations fit into the eight tiles, and
 *     each is loaded once a block. Four panels or longer splits were up to a tenth slower */
#if defined(__x86_64__)
#include "tensor/packed_kernels.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#define TILE_WORDS   (16 * 32) /* bf16 numbers in a tile: 16 rows of 64 bytes */
#define TILE_ROWS    16
#define GROUP        BULK_PANELS
#define TILE_SUMS    (16 * 16) /* fp32 numbers in one */
#define SPLIT_BLOCKS BULK_BLOCKS
#define LOWER        (GROUP * TILE_WORDS) /* from a tile of weights to the one of small parts */
#define BLOCK_WORDS  (2 * LOWER)          /* weights of one block */

/* Sixteen bf16 numbers as fp32. */
INLINE __m512 widen(const uint16_t *p)
{
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

void packed_amx_bulk_row(const float *x, int n_in, uint16_t *to, int r, int n_blocks, int n_parts)
{
    const size_t step = (size_t)n_parts * TILE_WORDS;
    uint16_t *at = to + (size_t)(r / TILE_ROWS) * (size_t)n_blocks * step +
                   (size_t)(r % TILE_ROWS) * PACKED_BLOCK;
    for (int b = 0; b < n_blocks; b++, x += PACKED_BLOCK, n_in -= PACKED_BLOCK, at += step) {
        __mmask32 mask = n_in >= PACKED_BLOCK ? 0xffffffffu : n_in > 0 ? (1u << n_in) - 1 : 0;
        __m512 low = _mm512_maskz_loadu_ps((__mmask16)(mask & 0xffff), x);
        __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16);
        __m512bh upper = _mm512_cvtne2ps_pbh(high, low);
        memcpy(at, &upper, sizeof upper);
        if (n_parts > 1) {
            __m512bh lower = _mm512_cvtne2ps_pbh(_mm512_sub_ps(high, widen(at + 16)),
                                                 _mm512_sub_ps(low, widen(at)));
            memcpy(at + TILE_WORDS, &lower, sizeof lower);
        }
    }
}

INLINE __m512 load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* A row of a tile of weights is a pair of columns, output by output: [o0k0, o0k1, o1k0, ...].
 * Two registers hold it in fp32, eight outputs each; what bf16 leaves of it goes to the tile
 * of small parts. */
INLINE void store_pairs(__m512 first, __m512 second, uint16_t *to)
{
    __m512bh row = _mm512_cvtne2ps_pbh(second, first);
    memcpy(to, &row, sizeof row);
    row =
        _mm512_cvtne2ps_pbh(_mm512_sub_ps(second, widen(to + 16)), _mm512_sub_ps(first, widen(to)));
    memcpy(to + LOWER, &row, sizeof row);
}

/* 16-bit weights lie column by column already. */
INLINE void widen_halves(const uint8_t *block, const bool is_f16, uint16_t *to)
{
    const __m512i even = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i next = _mm512_set1_epi32(8);
    for (int k = 0; k < PACKED_BLOCK; k += 2, block += 4 * PACKED_LANES, to += 32) {
        const uint16_t *columns = (const uint16_t *)(const void *)block;
        __m512 a = is_f16 ? load_halves(block) : widen(columns);
        __m512 b = is_f16 ? load_halves(block + 2 * PACKED_LANES) : widen(columns + PACKED_LANES);
        store_pairs(_mm512_permutex2var_ps(a, even, b),
                    _mm512_permutex2var_ps(a, _mm512_add_epi32(even, next), b), to);
    }
}

/* A panel's blocks [begin, end) as tiles, one in every GROUP of `to`. */
static void widen_panel(const struct packed *p, int panel, int begin, int end, uint16_t *to)
{
    for (int b = begin; b < end; b++, to += BLOCK_WORDS) {
        const uint8_t *block = packed_block(p, panel, b);
        if (p->kind == PACKED_F16) {
            widen_halves(block, true, to);
        } else {
            widen_halves(block, false, to);
        }
    }
}

/* sums [GROUP, 16, 16] of 16 rows += x [n_blocks, 2 tiles] * weights
 * [n_blocks, 2, GROUP tiles] for the first n panels, a constant wherever this is called. */
INLINE void multiply_tile(const uint16_t *x, const uint16_t *weights, int n_blocks, const int n,
                          bool first, float *sums)
{
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + TILE_SUMS, 64);
        _tile_loadd(2, sums + 2 * TILE_SUMS, 64);
    }
    for (int b = 0; b < n_blocks; b++) {
        _tile_loadd(3, weights, 64);
        if (n > 1) {
            _tile_loadd(4, weights + TILE_WORDS, 64);
        }
        if (n > 2) {
            _tile_loadd(5, weights + 2 * TILE_WORDS, 64);
        }
        _tile_stream_loadd(6, x, 64);
        _tile_stream_loadd(7, x + TILE_WORDS, 64);
        _tile_dpbf16ps(0, 6, 3);
        if (n > 1) {
            _tile_dpbf16ps(1, 6, 4);
        }
        if (n > 2) {
            _tile_dpbf16ps(2, 6, 5);
        }
        _tile_dpbf16ps(0, 7, 3);
        if (n > 1) {
            _tile_dpbf16ps(1, 7, 4);
        }
        if (n > 2) {
            _tile_dpbf16ps(2, 7, 5);
        }
        _tile_loadd(3, weights + LOWER, 64);
        _tile_dpbf16ps(0, 6, 3);
        if (n > 1) {
            _tile_loadd(4, weights + LOWER + TILE_WORDS, 64);
            _tile_dpbf16ps(1, 6, 4);
        }
        if (n > 2) {
            _tile_loadd(5, weights + LOWER + 2 * TILE_WORDS, 64);
            _tile_dpbf16ps(2, 6, 5);
        }
        x += BULK_PARTS * TILE_WORDS;
        weights += BLOCK_WORDS;
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + TILE_SUMS, 64);
    _tile_stored(2, sums + 2 * TILE_SUMS, 64);
}

static void multiply_tiles(const uint16_t *x, const uint16_t *weights, int n_blocks, int n,
                           bool first, float *sums)
{
    switch (n) {
    case 1:
        multiply_tile(x, weights, n_blocks, 1, first, sums);
        return;
    case 2:
        multiply_tile(x, weights, n_blocks, 2, first, sums);
        return;
    default:
        multiply_tile(x, weights, n_blocks, 3, first, sums);
        return;
    }
}

static void store_rows(const float *sums, int n_rows, int n_out, const float *bias, float *y,
                       int ldy)
{
    for (int o = 0; o < n_out; o += PACKED_LANES, sums += TILE_SUMS) {
        int left = n_out - o;
        __mmask16 mask = left >= PACKED_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
        __m512 b = bias ? _mm512_maskz_loadu_ps(mask, bias + o) : _mm512_setzero_ps();
        for (int r = 0; r < n_rows; r++) {
            _mm512_mask_storeu_ps(y + (size_t)r * (size_t)ldy + o, mask,
                                  _mm512_add_ps(_mm512_loadu_ps(sums + r * PACKED_LANES), b));
        }
    }
}

/* At most BULK_MOST_ROWS rows times n <= GROUP panels. */
static void multiply_group(const struct packed *p, int panel, int n, const uint16_t *x, int n_rows,
                           const float *bias, float *y, int ldy, void *scratch)
{
    float *sums = scratch;
    uint16_t *weights = (uint16_t *)(void *)(sums + BULK_MOST_ROWS * GROUP * PACKED_LANES);
    const size_t tile_sums = (size_t)GROUP * TILE_SUMS;
    int n_splits = (p->n_blocks + SPLIT_BLOCKS - 1) / SPLIT_BLOCKS;
    int split = (p->n_blocks + n_splits - 1) / n_splits;
    int n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int begin = 0; begin < p->n_blocks; begin += split) {
        int end = begin + split < p->n_blocks ? begin + split : p->n_blocks;
        for (int i = 0; i < n; i++) {
            widen_panel(p, panel + i, begin, end, weights + (size_t)i * TILE_WORDS);
        }
        for (int t = 0; t < n_tiles; t++) {
            size_t at = ((size_t)t * (size_t)p->n_blocks + (size_t)begin) * BULK_PARTS * TILE_WORDS;
            multiply_tiles(x + at, weights, end - begin, n, begin == 0,
                           sums + (size_t)t * tile_sums);
        }
    }
    int o = panel * PACKED_LANES;
    int n_out = p->n_out - o < n * PACKED_LANES ? p->n_out - o : n * PACKED_LANES;
    for (int t = 0; t < n_tiles; t++) {
        int left = n_rows - t * TILE_ROWS;
        store_rows(sums + (size_t)t * tile_sums, left < TILE_ROWS ? left : TILE_ROWS, n_out,
                   bias ? bias + o : NULL, y + (size_t)(t * TILE_ROWS) * (size_t)ldy + o, ldy);
    }
}

void packed_amx_halves_multiply(const struct packed *p, int begin, int end, const uint16_t *x,
                                int n_rows, const float *bias, float *y, int ldy, void *scratch)
{
    size_t row_words = (size_t)p->n_blocks * BULK_PARTS * PACKED_BLOCK;
    packed_amx_configure(64, 16);
    for (int row = 0; row < n_rows; row += BULK_MOST_ROWS) {
        int rows = n_rows - row < BULK_MOST_ROWS ? n_rows - row : BULK_MOST_ROWS;
        for (int panel = begin; panel < end; panel += GROUP) {
            multiply_group(p, panel, end - panel < GROUP ? end - panel : GROUP,
                           x + (size_t)row * row_words, rows, bias, y + (size_t)row * (size_t)ldy,
                           ldy, scratch);
        }
    }
    _tile_release();
}
#endif
