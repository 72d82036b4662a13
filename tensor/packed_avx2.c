/* Packed products with AVX2: half a panel, eight outputs, in a register.
 *
 * vpmaddubsw adds two products of an unsigned and a signed byte in 16 bits.
 *   4 bits  2 * 15 * 127 a pair: all eight pairs of a block fit into 16 bits, so they are
 *           added there and widened once
 *   8 bits  a pair of 255 * 127 does not fit: the weight's sign moves to the activation
 *           (|w| <= 128, and 2 * 128 * 127 fits), and each pair is widened at once
 * Both are done for the high and for the low byte of the activations. */
#if defined(__x86_64__)
#include "tensor/packed_lanes8.h"

/* Sums with one byte of the activations, for each row of the tile. */
INLINE void sums_4bit(const uint8_t *block, const int8_t *q, const int n_rows,
                      __m256i whole[TILE_ROWS])
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256i pairs[TILE_ROWS];
    for (int r = 0; r < n_rows; r++) {
        pairs[r] = _mm256_setzero_si256();
    }
    for (int j = 0; j < 4; j++) {
        __m256i w = load32(block + (size_t)(64 * j));
        __m256i first = _mm256_and_si256(w, low);
        __m256i second = _mm256_and_si256(_mm256_srli_epi16(w, 4), low);
        for (int r = 0; r < n_rows; r++) {
            const int8_t *x = q + PACKED_ROW_BLOCK * r + (size_t)(4 * j);
            pairs[r] = _mm256_add_epi16(pairs[r], _mm256_maddubs_epi16(first, four_columns(x)));
            pairs[r] =
                _mm256_add_epi16(pairs[r], _mm256_maddubs_epi16(second, four_columns(x + 16)));
        }
    }
    for (int r = 0; r < n_rows; r++) {
        whole[r] = _mm256_madd_epi16(pairs[r], _mm256_set1_epi16(1));
    }
}

INLINE void sums_8bit(const uint8_t *block, const int8_t *q, const int n_rows,
                      __m256i whole[TILE_ROWS])
{
    for (int r = 0; r < n_rows; r++) {
        whole[r] = _mm256_setzero_si256();
    }
    for (int j = 0; j < 8; j++) {
        __m256i w =
            _mm256_xor_si256(load32(block + (size_t)(64 * j)), _mm256_set1_epi8((char)0x80));
        __m256i size = _mm256_abs_epi8(w);
        for (int r = 0; r < n_rows; r++) {
            const int8_t *x = q + PACKED_ROW_BLOCK * r + (size_t)(4 * j);
            __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four_columns(x), w));
            whole[r] = _mm256_add_epi32(whole[r], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
    }
}

INLINE void block_sums(const uint8_t *block, const int8_t *q, const int32_t *offset,
                       const int n_rows, const bool is_4bit, __m256i whole[TILE_ROWS])
{
    __m256i high[TILE_ROWS];
    __m256i low[TILE_ROWS];
    (void)offset; /* 8-bit weights are made signed */
    if (is_4bit) {
        sums_4bit(block, q, n_rows, high);
        sums_4bit(block, q + PACKED_BLOCK, n_rows, low);
    } else {
        sums_8bit(block, q, n_rows, high);
        sums_8bit(block, q + PACKED_BLOCK, n_rows, low);
    }
    for (int r = 0; r < n_rows; r++) {
        whole[r] = _mm256_add_epi32(_mm256_slli_epi32(high[r], PACKED_SHIFT), low[r]);
    }
}

#define BLOCK_SUMS block_sums
#include "tensor/packed_loops8.h"

INLINE float largest_of(const __m256 v[4])
{
    const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(v[i]), no_sign));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    int bits = _mm_cvtsi128_si32(m);
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* 32 whole numbers as bytes. Packing works within 128-bit halves: the groups of four bytes
 * are put back in order. */
INLINE void store_bytes(const __m256i v[4], int8_t *to)
{
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)to, bytes);
}

void packed_avx2_round_row(const float *x, int n_in, struct packed_rows *to, int r)
{
    size_t at = packed_at(to, r, 0);
    for (int b = 0; b < to->n_blocks; b++, x += PACKED_BLOCK, n_in -= PACKED_BLOCK) {
        __m256 v[4];
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_maskload_ps(x + (size_t)(8 * i), store_mask(n_in - 8 * i));
        }
        float most = largest_of(v);
        float inverse =
            most >= PACKED_SMALLEST && most < __builtin_inff() ? (float)PACKED_MOST / most : 0;
        __m256i q[4];
        for (int i = 0; i < 4; i++) {
            q[i] = inverse > 0 ? _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)))
                               : _mm256_setzero_si256();
        }
        __m256i sums = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
        int total = _mm_cvtsi128_si32(s);
        __m256i high[4];
        __m256i low[4];
        for (int i = 0; i < 4; i++) {
            high[i] = _mm256_add_epi32(q[i], _mm256_set1_epi32(PACKED_RADIX / 2));
            high[i] = _mm256_srai_epi32(high[i], PACKED_SHIFT);
            low[i] = _mm256_sub_epi32(q[i], _mm256_slli_epi32(high[i], PACKED_SHIFT));
        }
        store_bytes(high, to->q + at * PACKED_ROW_BLOCK);
        store_bytes(low, to->q + at * PACKED_ROW_BLOCK + PACKED_BLOCK);
        float scale = most / (float)PACKED_MOST;
        to->scale[at] = scale;
        to->scaled_sum[at] = scale * (float)total;
        to->offset[at] = -128 * total;
        at += (size_t)to->group;
    }
}

/* Column k of half a block of 16-bit weights. */
INLINE __m256 load_column(const uint8_t *block, int k, const bool is_f16)
{
    const uint8_t *p = block + (size_t)(2 * PACKED_LANES * k);
    if (is_f16) {
        return load_halves(p);
    }
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

#define HALVES_ROWS 6 /* rows of a tile of both halves of a panel: twelve sums */

INLINE void tile_of_halves(const struct packed *p, int panel, const float *x, int ldx,
                           const int n_rows, const bool is_f16, const float *bias, float *y,
                           int ldy)
{
    __m256 sum[2][HALVES_ROWS];
    const uint8_t *block = packed_block(p, panel, 0);
    for (int r = 0; r < n_rows; r++) {
        sum[0][r] = _mm256_setzero_ps();
        sum[1][r] = _mm256_setzero_ps();
    }
    for (int first = 0; first < p->n_in; first += PACKED_BLOCK, block += PACKED_16BIT_SIZE) {
        int left = p->n_in - first;
        int n = left < PACKED_BLOCK ? left : PACKED_BLOCK;
        for (int k = 0; k < n; k++) {
            __m256 w0 = load_column(block, k, is_f16);
            __m256 w1 = load_column(block + 2 * HALF, k, is_f16);
            const float *column = x + first + k;
            for (int r = 0; r < n_rows; r++) {
                __m256 v = _mm256_set1_ps(column[(size_t)r * (size_t)ldx]);
                sum[0][r] = _mm256_fmadd_ps(w0, v, sum[0][r]);
                sum[1][r] = _mm256_fmadd_ps(w1, v, sum[1][r]);
            }
        }
    }
    for (int h = 0; h < 2; h++) {
        int o = panel * PACKED_LANES + h * HALF;
        __m256i mask = store_mask(p->n_out - o);
        __m256 add = bias ? _mm256_maskload_ps(bias + o, mask) : _mm256_setzero_ps();
        for (int r = 0; r < n_rows; r++) {
            _mm256_maskstore_ps(y + (size_t)r * (size_t)ldy + o, mask,
                                _mm256_add_ps(sum[h][r], add));
        }
    }
}

INLINE void panel_of_halves(const struct packed *p, int panel, const float *x, int ldx, int n_rows,
                            const bool is_f16, const float *bias, float *y, int ldy)
{
    int row = 0;
    for (; n_rows - row >= HALVES_ROWS; row += HALVES_ROWS) {
        tile_of_halves(p, panel, x + (size_t)row * (size_t)ldx, ldx, HALVES_ROWS, is_f16, bias,
                       y + (size_t)row * (size_t)ldy, ldy);
    }
    for (; row < n_rows; row++) {
        tile_of_halves(p, panel, x + (size_t)row * (size_t)ldx, ldx, 1, is_f16, bias,
                       y + (size_t)row * (size_t)ldy, ldy);
    }
}

void packed_avx2_multiply_halves(const struct packed *p, int begin, int end, const float *x,
                                 int ldx, int n_rows, const float *bias, float *y, int ldy)
{
    for (int panel = begin; panel < end; panel++) {
        if (p->kind == PACKED_F16) {
            panel_of_halves(p, panel, x, ldx, n_rows, true, bias, y, ldy);
        } else {
            panel_of_halves(p, panel, x, ldx, n_rows, false, bias, y, ldy);
        }
    }
}

const struct packed_kernels packed_avx2 = {
    .round_row = packed_avx2_round_row,
    .multiply = multiply_packed,
    .multiply_halves = packed_avx2_multiply_halves,
};
#endif
