/* The products of attend_bulk.h in the bf16 tiles of AMX (TDPBF16PS). Two blocks of rows by
 * two of columns take four sums, so that each operand that is loaded serves two products. */
#if defined(__x86_64__)
#include "tensor/attend_bulk.h"
#include "tensor/packed_kernels.h"

#include <immintrin.h>
#include <string.h>

#define INLINE     static inline __attribute__((always_inline))
#define SIDE       ATTEND_BULK_ROWS
#define DEPTH      ATTEND_BULK_DEPTH
#define WORDS      ATTEND_BULK_WORDS
#define BOTH_PARTS ((size_t)ATTEND_BULK_PARTS * WORDS)

INLINE __m512i as_words(__m512bh v)
{
    __m512i words;
    memcpy(&words, &v, sizeof words);
    return words;
}

/* What bf16 leaves of x: `word` is x rounded, in the low 16 bits of each lane. */
INLINE __m512 rest_of(__m512 x, __m512i word)
{
    return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(word, 16)));
}

/* 32 numbers in ascending order: rounded, and what that leaves of them. */
INLINE void split(const float *x, int n, __m512i part[ATTEND_BULK_PARTS], const int parts)
{
    __mmask32 mask = n >= DEPTH ? 0xffffffffu : n > 0 ? (1u << n) - 1 : 0;
    __m512 low = _mm512_maskz_loadu_ps((__mmask16)(mask & 0xffff), x);
    __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + SIDE);
    part[0] = as_words(_mm512_cvtne2ps_pbh(high, low));
    if (parts > 1) {
        __m512i low_word = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(part[0]));
        __m512i high_word = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(part[0], 1));
        part[1] = as_words(_mm512_cvtne2ps_pbh(rest_of(high, high_word), rest_of(low, low_word)));
    }
}

INLINE void left_parts(uint16_t *tiles, const float *x, size_t ld, int n, int depth,
                       const int parts)
{
    for (int first = 0; first < n; first += SIDE) {
        for (int k = 0; k < depth; k += DEPTH, tiles += BOTH_PARTS) {
            for (int r = 0; r < SIDE; r++) {
                __m512i part[ATTEND_BULK_PARTS];
                bool is_there = first + r < n;
                const float *row = is_there ? x + (size_t)(first + r) * ld + k : x;
                split(row, is_there ? depth - k : 0, part, parts);
                _mm512_storeu_si512(tiles + r * DEPTH, part[0]);
                if (parts > 1) {
                    _mm512_storeu_si512(tiles + WORDS + r * DEPTH, part[1]);
                }
            }
        }
    }
}

static void left(uint16_t *tiles, const float *x, size_t ld, int n, int depth, int parts)
{
    if (parts > 1) {
        left_parts(tiles, x, ld, n, depth, 2);
    } else {
        left_parts(tiles, x, ld, n, depth, 1);
    }
}

/* Sixteen rows of sixteen 32-bit lanes; row i becomes lane i. */
INLINE void transpose(__m512i v[SIDE])
{
    __m512i t[SIDE];
    for (int i = 0; i < SIDE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < SIDE; i += 4) {
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(v[j], v[j + 4], 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(v[j], v[j + 4], 0xdd);
        t[j + 8] = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0x88);
        t[j + 12] = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        v[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
        v[j + 4] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0x88);
        v[j + 12] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0xdd);
    }
}

/* Row k of a tile of right operands has pairs (2 k, 2 k + 1) in depth, column by column. */
static void right_columns(uint16_t *tiles, const float *x, size_t ld, int n, int depth)
{
    for (int first = 0; first < n; first += SIDE) {
        for (int k = 0; k < depth; k += DEPTH, tiles += BOTH_PARTS) {
            __m512i part[ATTEND_BULK_PARTS][SIDE];
            for (int r = 0; r < SIDE; r++) {
                __m512i both[ATTEND_BULK_PARTS];
                bool is_there = first + r < n;
                const float *row = is_there ? x + (size_t)(first + r) * ld + k : x;
                split(row, is_there ? depth - k : 0, both, ATTEND_BULK_PARTS);
                part[0][r] = both[0];
                part[1][r] = both[1];
            }
            for (int i = 0; i < ATTEND_BULK_PARTS; i++) {
                transpose(part[i]);
                for (int r = 0; r < SIDE; r++) {
                    _mm512_storeu_si512(tiles + (size_t)i * WORDS + r * DEPTH, part[i][r]);
                }
            }
        }
    }
}

INLINE __m512i round_to_words(__m512 x)
{
    __m256bh rounded = _mm512_cvtneps_pbh(x);
    __m256i words;
    memcpy(&words, &rounded, sizeof words);
    return _mm512_cvtepu16_epi32(words);
}

static void right_rows(uint16_t *tiles, const float *x, size_t ld, int n, int depth, int parts)
{
    for (int first = 0; first < n; first += SIDE) {
        int left_over = n - first;
        __mmask16 mask = left_over >= SIDE ? 0xffff : (__mmask16)((1u << left_over) - 1);
        for (int k = 0; k < depth; k += DEPTH, tiles += BOTH_PARTS) {
            for (int r = 0; r < SIDE; r++) {
                int at = k + 2 * r;
                const float *row = x + (size_t)at * ld + first;
                __m512 a = _mm512_maskz_loadu_ps(at < depth ? mask : 0, row);
                __m512 b = _mm512_maskz_loadu_ps(at + 1 < depth ? mask : 0, row + ld);
                __m512i wa = round_to_words(a);
                __m512i wb = round_to_words(b);
                _mm512_storeu_si512(tiles + r * DEPTH,
                                    _mm512_or_si512(wa, _mm512_slli_epi32(wb, 16)));
                if (parts > 1) {
                    wa = round_to_words(rest_of(a, wa));
                    wb = round_to_words(rest_of(b, wb));
                    _mm512_storeu_si512(tiles + WORDS + r * DEPTH,
                                        _mm512_or_si512(wa, _mm512_slli_epi32(wb, 16)));
                }
            }
        }
    }
}

struct operands {
    const uint16_t *a, *b; /* tiles of the first 16 rows and of the first 16 columns */
    size_t a_step, b_step; /* words to the next 16 */
    int n_blocks, parts;
};

/* One block in depth of the parts that begin at a and b. */
INLINE void add_block(const struct operands *o, const uint16_t *a, const uint16_t *b, const int n_a,
                      const int n_b)
{
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (n_b > 1) {
        _tile_loadd(7, b + o->b_step, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (n_a > 1) {
        _tile_loadd(5, a + o->a_step, 64);
        _tile_dpbf16ps(2, 5, 6);
    }
    if (n_a > 1 && n_b > 1) {
        _tile_dpbf16ps(3, 5, 7);
    }
}

INLINE void four_tiles(const struct operands *o, const int n_a, const int n_b, float *c, size_t ldc)
{
    const uint16_t *a = o->a;
    const uint16_t *b = o->b;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int i = 0; i < o->n_blocks; i++, a += BOTH_PARTS, b += BOTH_PARTS) {
        add_block(o, a, b, n_a, n_b);
        if (o->parts > 1) {
            add_block(o, a, b + WORDS, n_a, n_b);
            add_block(o, a + WORDS, b, n_a, n_b);
        }
    }
    const size_t bytes = ldc * sizeof(float);
    _tile_stored(0, c, bytes);
    if (n_b > 1) {
        _tile_stored(1, c + SIDE, bytes);
    }
    if (n_a > 1) {
        _tile_stored(2, c + SIDE * ldc, bytes);
    }
    if (n_a > 1 && n_b > 1) {
        _tile_stored(3, c + SIDE * ldc + SIDE, bytes);
    }
}

static void product(float *c, size_t ldc, const uint16_t *left_tiles, int left_depth,
                    const uint16_t *right_tiles, int right_depth, int rows, int depth, int cols,
                    int parts)
{
    struct operands o = {
        .a_step = (size_t)attend_bulk_blocks(left_depth, DEPTH) * BOTH_PARTS,
        .b_step = (size_t)attend_bulk_blocks(right_depth, DEPTH) * BOTH_PARTS,
        .n_blocks = attend_bulk_blocks(depth, DEPTH),
        .parts = parts,
    };
    packed_amx_configure(64, SIDE);
    for (int r = 0; r < rows; r += 2 * SIDE) {
        o.a = left_tiles + (size_t)(r / SIDE) * o.a_step;
        for (int i = 0; i < cols; i += 2 * SIDE) {
            o.b = right_tiles + (size_t)(i / SIDE) * o.b_step;
            float *to = c + (size_t)r * ldc + i;
            bool two_rows = rows - r > SIDE;
            bool two_cols = cols - i > SIDE;
            if (two_rows && two_cols) {
                four_tiles(&o, 2, 2, to, ldc);
            } else if (two_rows) {
                four_tiles(&o, 2, 1, to, ldc);
            } else if (two_cols) {
                four_tiles(&o, 1, 2, to, ldc);
            } else {
                four_tiles(&o, 1, 1, to, ldc);
            }
        }
    }
    _tile_release();
}

const struct attend_bulk attend_amx = {
    .left = left, .right_columns = right_columns, .right_rows = right_rows, .product = product};
#endif
