/* Products with 4- and 8-bit weights in the bf16 tiles of AMX (TDPBF16PS), for rows of
 * prompts. A weight d q + m and an activation are rounded to one bf16 number each (2^-9):
 * on a file of 4-bit weights that is far below what the file itself lost, and a tenth of
 * the error of activations in 8 bits a block. The int8 tiles (packed_amx.c) keep 12 bits
 * of an activation, but their sums must be scaled block by block, which costs three times
 * as much as the multiplying.
 *
 * What decides the speed:
 *   - the weights of two panels are widened once for all rows, at most MOST_BLOCKS blocks of
 *     them (36 KiB) at a time, which stay in the L1 cache
 *   - activations come from L2 past the L1 cache (TILELOADDT1): there they would take the
 *     place of the weights, which are read again for the next rows. So few rows are worked
 *     on at a time that L2 keeps them
 *   - two panels by 32 rows take four sums, two tiles of weights and two of activations:
 *     all eight tiles, and each operand that is loaded serves two products
 *   - sums stay in tiles over all blocks and go straight to y; a bias is what they start
 *     from */
#if defined(__x86_64__)
#include "tensor/packed_kernels.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

#define TILE_WORDS  (16 * 32) /* bf16 numbers in a tile: 16 rows of 64 bytes */
#define TILE_ROWS   16
#define PAIR        BULK_WIDE_PANELS
#define PAIR_WORDS  (PAIR * TILE_WORDS) /* weights of one block */
#define PAIR_LANES  (PAIR * PACKED_LANES)
#define MOST_BLOCKS BULK_WIDE_BLOCKS
/* BULK_MOST_ROWS rows of so many blocks are 1 MiB, half of an L2 cache. */
#define L2_BLOCKS 32

/* Two vectors of fp32 as one of pairs, the first in the lower halves; ties away from 0. */
INLINE __m512i round_pairs(__m512 first, __m512 second)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(first), half), 16);
    __m512i high = _mm512_add_epi32(_mm512_castps_si512(second), half);
    return _mm512_mask_blend_epi16(0xaaaaaaaau, low, high);
}

INLINE __m512 load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* A row of a tile of weights is a pair of columns, output by output. The four columns of an
 * output that a 32-bit lane holds give two such rows; the high nibbles those of columns 16
 * and on. A table look-up makes a number of the lowest four bits of a lane. */
INLINE void widen_4bit(const uint8_t *block, uint16_t *to)
{
    const __m512 number = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 d = load_halves(block + PACKED_4BIT_SIZE - 4 * PACKED_LANES);
    __m512 m = load_halves(block + PACKED_4BIT_SIZE - 2 * PACKED_LANES);
    for (int j = 0; j < 4; j++, block += 64, to += 64) {
        __m512i q = _mm512_loadu_si512(block);
        __m512 value[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m512i index = _mm512_srli_epi32(q, (unsigned)(4 * i));
            value[i] = _mm512_fmadd_ps(_mm512_permutexvar_ps(index, number), d, m);
        }
        _mm512_storeu_si512(to, round_pairs(value[0], value[2]));
        _mm512_storeu_si512(to + 32, round_pairs(value[4], value[6]));
        _mm512_storeu_si512(to + 8 * 32, round_pairs(value[1], value[3]));
        _mm512_storeu_si512(to + 9 * 32, round_pairs(value[5], value[7]));
    }
}

INLINE void widen_8bit(const uint8_t *block, uint16_t *to)
{
    const __m512i byte = _mm512_set1_epi32(0xff);
    __m512 d = load_halves(block + PACKED_8BIT_SIZE - 4 * PACKED_LANES);
    __m512 m = load_halves(block + PACKED_8BIT_SIZE - 2 * PACKED_LANES);
    for (int j = 0; j < 8; j++, block += 64, to += 64) {
        __m512i q = _mm512_loadu_si512(block);
        __m512 value[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m512i n = _mm512_and_si512(_mm512_srli_epi32(q, (unsigned)(8 * i)), byte);
            n = _mm512_sub_epi32(n, _mm512_set1_epi32(128));
            value[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(n), d, m);
        }
        _mm512_storeu_si512(to, round_pairs(value[0], value[1]));
        _mm512_storeu_si512(to + 32, round_pairs(value[2], value[3]));
    }
}

/* Blocks [begin, end) of a panel as tiles, one in every PAIR of `to`. */
static void widen_panel(const struct packed *p, int panel, int begin, int end, uint16_t *to)
{
    for (int b = begin; b < end; b++, to += PAIR_WORDS) {
        packed_fetch_ahead(packed_block(p, panel, b), p->block_bytes);
        if (p->kind == PACKED_4BIT) {
            widen_4bit(packed_block(p, panel, b), to);
        } else {
            widen_8bit(packed_block(p, panel, b), to);
        }
    }
}

/* Where 16 or 32 rows begin: x [n_blocks] tiles, the next 16 rows x_step words behind. */
struct tile_job {
    const uint16_t *x; /* [n_blocks] tiles */
    size_t x_step;
    const uint16_t *weights; /* [n_blocks, PAIR] tiles */
    int n_blocks;
    const float *start; /* what sums start from: [.., start_step] or NULL = 0 */
    int start_step;     /* 0: each row from the same numbers */
    float *sums;        /* [16 or 32 rows, step] */
    int step;
};

INLINE void multiply_tiles(const struct tile_job *t, const int n_panels, const int n_groups)
{
    const size_t in = (size_t)t->start_step * sizeof(float);
    const size_t out = (size_t)t->step * sizeof(float);
    if (t->start) {
        const float *below = t->start + (size_t)TILE_ROWS * (size_t)t->start_step;
        _tile_loadd(0, t->start, in);
        if (n_panels > 1) {
            _tile_loadd(1, t->start + PACKED_LANES, in);
        }
        if (n_groups > 1) {
            _tile_loadd(2, below, in);
        }
        if (n_panels > 1 && n_groups > 1) {
            _tile_loadd(3, below + PACKED_LANES, in);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const uint16_t *x = t->x;
    const uint16_t *w = t->weights;
    for (int b = 0; b < t->n_blocks; b++, x += TILE_WORDS, w += PAIR_WORDS) {
        _tile_loadd(4, w, 64);
        if (n_panels > 1) {
            _tile_loadd(5, w + TILE_WORDS, 64);
        }
        _tile_stream_loadd(6, x, 64);
        if (n_groups > 1) {
            _tile_stream_loadd(7, x + t->x_step, 64);
        }
        _tile_dpbf16ps(0, 6, 4);
        if (n_panels > 1) {
            _tile_dpbf16ps(1, 6, 5);
        }
        if (n_groups > 1) {
            _tile_dpbf16ps(2, 7, 4);
        }
        if (n_panels > 1 && n_groups > 1) {
            _tile_dpbf16ps(3, 7, 5);
        }
    }
    float *below = t->sums + (size_t)TILE_ROWS * (size_t)t->step;
    _tile_stored(0, t->sums, out);
    if (n_panels > 1) {
        _tile_stored(1, t->sums + PACKED_LANES, out);
    }
    if (n_groups > 1) {
        _tile_stored(2, below, out);
    }
    if (n_panels > 1 && n_groups > 1) {
        _tile_stored(3, below + PACKED_LANES, out);
    }
}

static void multiply(const struct tile_job *t, int n_panels, int n_groups)
{
    if (n_panels > 1) {
        if (n_groups > 1) {
            multiply_tiles(t, 2, 2);
        } else {
            multiply_tiles(t, 2, 1);
        }
    } else {
        if (n_groups > 1) {
            multiply_tiles(t, 1, 2);
        } else {
            multiply_tiles(t, 1, 1);
        }
    }
}

static void copy_sums(const float *sums, int n_rows, int n_out, float *y, int ldy)
{
    for (int r = 0; r < n_rows; r++, sums += PAIR_LANES, y += ldy) {
        for (int o = 0; o < n_out; o += PACKED_LANES) {
            int left = n_out - o;
            __mmask16 mask = left >= PACKED_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
            _mm512_mask_storeu_ps(y + o, mask, _mm512_loadu_ps(sums + o));
        }
    }
}

struct pair {
    const struct packed *p;
    int panel, n;      /* n panels from here on */
    int n_out;         /* outputs that they have */
    const float *bias; /* [PAIR_LANES], padded, or NULL */
    const uint16_t *x;
    int n_rows;
    float *y;
    int ldy;
    float *sums;       /* [BULK_MOST_ROWS, PAIR_LANES] */
    uint16_t *weights; /* [MOST_BLOCKS, PAIR] tiles */
};

/* Blocks [begin, end) for all rows. Sums wait in t->sums between splits, and there at the
 * end, too, where y has no room for whole tiles. */
static void multiply_split(const struct pair *t, int begin, int end)
{
    bool first = begin == 0;
    bool last = end == t->p->n_blocks;
    for (int i = 0; i < t->n; i++) {
        widen_panel(t->p, t->panel + i, begin, end, t->weights + (size_t)i * TILE_WORDS);
    }
    const size_t group_words = (size_t)t->p->n_blocks * TILE_WORDS;
    for (int r = 0; r < t->n_rows; r += 2 * TILE_ROWS) {
        int left = t->n_rows - r;
        int n_groups = left > TILE_ROWS ? 2 : 1;
        bool whole = left >= n_groups * TILE_ROWS && t->n_out == t->n * PACKED_LANES;
        float *waiting = t->sums + (size_t)r * PAIR_LANES;
        float *y = t->y + (size_t)r * (size_t)t->ldy;
        struct tile_job job = {
            .x = t->x + (size_t)(r / TILE_ROWS) * group_words + (size_t)begin * TILE_WORDS,
            .x_step = group_words,
            .weights = t->weights,
            .n_blocks = end - begin,
            .start = first ? t->bias : waiting,
            .start_step = first ? 0 : PAIR_LANES,
            .sums = last && whole ? y : waiting,
            .step = last && whole ? t->ldy : PAIR_LANES,
        };
        multiply(&job, t->n, n_groups);
        if (last && !whole) {
            copy_sums(waiting, left < 2 * TILE_ROWS ? left : 2 * TILE_ROWS, t->n_out, y, t->ldy);
        }
    }
}

void packed_amx_wide_multiply(const struct packed *p, int begin, int end, const uint16_t *x,
                              int n_rows, const float *bias, float *y, int ldy, void *scratch)
{
    int n_splits = (p->n_blocks + MOST_BLOCKS - 1) / MOST_BLOCKS;
    int split = (p->n_blocks + n_splits - 1) / n_splits;
    int most_rows = p->n_blocks > L2_BLOCKS ? BULK_MOST_ROWS / 2 : BULK_MOST_ROWS;
    packed_amx_configure(64, 16);
    for (int row = 0; row < n_rows; row += most_rows) {
        for (int panel = begin; panel < end; panel += PAIR) {
            float start[PAIR_LANES] = {0};
            int o = panel * PACKED_LANES;
            struct pair t = {
                .p = p,
                .panel = panel,
                .n = end - panel < PAIR ? end - panel : PAIR,
                .x = x + (size_t)row * (size_t)p->n_blocks * PACKED_BLOCK,
                .n_rows = n_rows - row < most_rows ? n_rows - row : most_rows,
                .y = y + (size_t)row * (size_t)ldy + o,
                .ldy = ldy,
                .sums = scratch,
                .weights = (uint16_t *)scratch + (size_t)2 * BULK_MOST_ROWS * PAIR_LANES,
            };
            t.n_out = p->n_out - o < t.n * PACKED_LANES ? p->n_out - o : t.n * PACKED_LANES;
            if (bias) {
                for (int i = 0; i < t.n_out; i++) {
                    start[i] = bias[o + i];
                }
                t.bias = start;
            }
            for (int b = 0; b < p->n_blocks; b += split) {
                multiply_split(&t, b, b + split < p->n_blocks ? b + split : p->n_blocks);
            }
        }
    }
    _tile_release();
}
#endif
