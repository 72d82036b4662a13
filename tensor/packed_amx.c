/* Packed products with the bf16 tiles of AMX (TDPBF16PS), for many rows: weights of two
 * panels are widened to bf16 once for all rows, in the order in which a tile wants them,
 * and a step multiplies 32 rows by 32 outputs with four tiles of sums. There is nothing to
 * scale inside the loop. Weights are rounded to bf16 (2^-8), activations are the sum of two
 * bf16 numbers (2^-16). Few rows go through the AVX-512 loops. */
#if defined(__x86_64__)
#include "tensor/packed_kernels.h"

#include <asm/prctl.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INLINE static inline __attribute__((always_inline))
#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_REQ_XCOMP_PERM 0x1023
#endif
#define XFEATURE_TILE_DATA 18

#define TILE_WORDS (16 * 32) /* bf16 numbers in a tile */

bool packed_amx_permitted(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0;
}

struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* All eight tiles are 16 rows of 64 bytes. */
static void configure(void)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
}

/* Sixteen bf16 numbers as fp32. */
INLINE __m512 widen(const uint16_t *p)
{
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static void bulk_row(const float *x, int n_in, uint16_t *to, int n_blocks)
{
    for (int b = 0; b < n_blocks; b++, x += PACKED_BLOCK, n_in -= PACKED_BLOCK) {
        __mmask32 mask = n_in >= PACKED_BLOCK ? 0xffffffffu : (1u << n_in) - 1;
        __m512 low = _mm512_maskz_loadu_ps((__mmask16)(mask & 0xffff), x);
        __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16);
        uint16_t *at = to + (size_t)b * BULK_PARTS * PACKED_BLOCK;
        __m512bh upper = _mm512_cvtne2ps_pbh(high, low);
        memcpy(at, &upper, sizeof upper);
        __m512bh lower =
            _mm512_cvtne2ps_pbh(_mm512_sub_ps(high, widen(at + 16)), _mm512_sub_ps(low, widen(at)));
        memcpy(at + PACKED_BLOCK, &lower, sizeof lower);
    }
}

/* Columns k and k + 1 of sixteen outputs -> one row of a tile: pairs, output by output. */
INLINE void store_pair(__m512 first, __m512 second, uint16_t *to)
{
    __m512i even = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
    __m512i odd = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
    __m512i pair = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
    _mm512_storeu_si512((void *)to, pair);
}

INLINE __m512 column(__m512i quad, int i, int zero, __m512 d, __m512 m)
{
    __m512i q =
        _mm512_and_si512(_mm512_srli_epi32(quad, (unsigned)(8 * i)), _mm512_set1_epi32(255));
    __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(zero)));
    return _mm512_fmadd_ps(d, f, m);
}

/* Four columns of a block: two rows of a tile. */
INLINE void store_quad(__m512i quad, int zero, __m512 d, __m512 m, uint16_t *to)
{
    store_pair(column(quad, 0, zero, d, m), column(quad, 1, zero, d, m), to);
    store_pair(column(quad, 2, zero, d, m), column(quad, 3, zero, d, m), to + 32);
}

INLINE __m512 load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* 16-bit weights lie column by column already. */
static void widen_halves(const struct packed *p, int panel, uint16_t *to, size_t step)
{
    for (int b = 0; b < p->n_blocks; b++, to += step) {
        const uint8_t *block = packed_block(p, panel, b);
        for (int k = 0; k < PACKED_BLOCK; k += 2, block += 4 * PACKED_LANES) {
            const uint16_t *columns = (const uint16_t *)(const void *)block;
            if (p->kind == PACKED_F16) {
                store_pair(load_halves(block), load_halves(block + 2 * PACKED_LANES),
                           to + (size_t)(32 * (k / 2)));
            } else {
                store_pair(widen(columns), widen(columns + PACKED_LANES),
                           to + (size_t)(32 * (k / 2)));
            }
        }
    }
}

static void widen_integers(const struct packed *p, int panel, uint16_t *to, size_t step)
{
    bool is_4bit = p->kind == PACKED_4BIT;
    const __m512i low = _mm512_set1_epi8(15);
    for (int b = 0; b < p->n_blocks; b++, to += step) {
        const uint8_t *block = packed_block(p, panel, b);
        const uint8_t *factors = packed_factors(p, block);
        __m512 d = load_halves(factors);
        __m512 m = load_halves(factors + 2 * PACKED_LANES);
        for (int j = 0; j < (is_4bit ? 4 : 8); j++) {
            __m512i w = _mm512_loadu_si512((const void *)(block + (size_t)(64 * j)));
            if (is_4bit) {
                store_quad(_mm512_and_si512(w, low), 0, d, m, to + (size_t)(64 * j));
                store_quad(_mm512_and_si512(_mm512_srli_epi16(w, 4), low), 0, d, m,
                           to + (size_t)(64 * (j + 4)));
            } else {
                store_quad(w, 128, d, m, to + (size_t)(64 * j));
            }
        }
    }
}

static void widen_panel(const struct packed *p, int panel, uint16_t *to, size_t step)
{
    (packed_is_integer(p) ? widen_integers : widen_halves)(p, panel, to, step);
}

/* 32 rows by 32 outputs into `sums` [32, 32]. */
static void multiply_unit(const uint16_t *weights, int n_blocks, const uint16_t *x, float *sums)
{
    size_t width = (size_t)n_blocks * BULK_PARTS * PACKED_BLOCK;
    size_t stride = width * sizeof *x;
    const uint16_t *second = x + 16 * width;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int b = 0; b < n_blocks; b++) {
        _tile_loadd(6, weights, 64);
        _tile_loadd(7, weights + TILE_WORDS, 64);
        weights += BULK_PANELS * TILE_WORDS;
        for (int part = 0; part < BULK_PARTS; part++) {
            _tile_loadd(4, x, stride);
            _tile_loadd(5, second, stride);
            x += PACKED_BLOCK;
            second += PACKED_BLOCK;
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    _tile_stored(2, sums + (size_t)16 * 32, 128);
    _tile_stored(3, sums + (size_t)16 * 32 + 16, 128);
}

static void store_unit(const float *sums, int n_rows, int n_out, const float *bias, float *y,
                       int ldy)
{
    __mmask16 low = n_out >= 16 ? 0xffff : (__mmask16)((1u << n_out) - 1);
    __mmask16 high = n_out >= 32 ? 0xffff : n_out > 16 ? (__mmask16)((1u << (n_out - 16)) - 1) : 0;
    __m512 b0 = bias ? _mm512_maskz_loadu_ps(low, bias) : _mm512_setzero_ps();
    __m512 b1 = bias ? _mm512_maskz_loadu_ps(high, bias + 16) : _mm512_setzero_ps();
    for (int r = 0; r < n_rows; r++, sums += 32, y += ldy) {
        _mm512_mask_storeu_ps(y, low, _mm512_add_ps(_mm512_loadu_ps(sums), b0));
        _mm512_mask_storeu_ps(y + 16, high, _mm512_add_ps(_mm512_loadu_ps(sums + 16), b1));
    }
}

static void bulk_multiply(const struct packed *p, int begin, int end, const uint16_t *x, int n_rows,
                          const float *bias, float *y, int ldy, void *scratch)
{
    float *sums = scratch;
    uint16_t *weights = (uint16_t *)(void *)(sums + BULK_ROWS * BULK_PANELS * PACKED_LANES);
    const size_t step = BULK_PANELS * TILE_WORDS;
    size_t width = (size_t)p->n_blocks * BULK_PARTS * PACKED_BLOCK;
    configure();
    for (int panel = begin; panel < end; panel += BULK_PANELS) {
        int o = panel * PACKED_LANES;
        widen_panel(p, panel, weights, step);
        if (panel + 1 < end) {
            widen_panel(p, panel + 1, weights + TILE_WORDS, step);
        }
        /* With no second panel its tile holds what was there before: those sums are not
         * stored. */
        int n_out = p->n_out - o;
        n_out = panel + 1 < end || n_out < PACKED_LANES ? n_out : PACKED_LANES;
        for (int r = 0; r < n_rows; r += BULK_ROWS) {
            int left = n_rows - r;
            multiply_unit(weights, p->n_blocks, x + (size_t)r * width, sums);
            store_unit(sums, left < BULK_ROWS ? left : BULK_ROWS, n_out, bias ? bias + o : NULL,
                       y + (size_t)r * (size_t)ldy + o, ldy);
        }
    }
    _tile_release();
}

const struct packed_kernels packed_amx = {
    .round_row = packed_vnni_round_row,
    .multiply = packed_vnni_multiply,
    .multiply_halves = packed_vnni_multiply_halves,
    .bulk_row = bulk_row,
    .bulk_multiply = bulk_multiply,
};
#endif
