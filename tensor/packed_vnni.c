/* Packed products with AVX-512 VNNI: one register is four columns of sixteen outputs, and
 * vpdpbusd adds their products with four activations, which every output shares and the
 * instruction itself spreads from memory.
 *
 * A tile is up to sixteen rows by one panel: the weights of a block are unpacked into eight
 * registers once for all rows of the tile. For each row a block costs sixteen vpdpbusd,
 * eight for each byte of the activations, and six other operations on the same two ports,
 * so 73 % of the peak is the ceiling; the chains of eight are independent and overlap by
 * themselves. */
#if defined(__x86_64__)
#include "tensor/packed_kernels.h"

#include <immintrin.h>
#include <string.h>

#define INLINE     static inline __attribute__((always_inline))
#define TILE_ROWS  16
#define N_REGISTER 8

INLINE __m512 load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

INLINE __m512 load_bias(const struct packed *p, int panel, const float *bias)
{
    int left = p->n_out - panel * PACKED_LANES;
    __mmask16 mask = left >= PACKED_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
    return bias ? _mm512_maskz_loadu_ps(mask, bias + (size_t)panel * PACKED_LANES)
                : _mm512_setzero_ps();
}

INLINE __m512i load64(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

/* The integers of a block as eight registers of four columns each. */
INLINE void unpack(const uint8_t *block, bool is_4bit, __m512i w[N_REGISTER])
{
    for (int j = 0; j < (is_4bit ? 4 : 8); j++) {
        w[j] = load64(block + (size_t)(64 * j));
    }
    if (is_4bit) {
        const __m512i low = _mm512_set1_epi8(15);
        for (int j = 0; j < 4; j++) {
            w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(w[j], 4), low);
            w[j] = _mm512_and_si512(w[j], low);
        }
    }
}

INLINE __m512i four_columns(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Rows [first, first + n_rows) of a group; n_rows and is_4bit are constants wherever this is
 * called. y is where the first of them goes. */
INLINE void tile(const struct packed *p, int panel, const struct packed_rows *x, int group,
                 int first, const int n_rows, const bool is_4bit, __m512 bias, float *y, int ldy)
{
    __m512 sum[TILE_ROWS];
    const uint8_t *block = packed_block(p, panel, 0);
    size_t at = packed_at(x, group * x->group + first, 0);
    bool is_from_memory = group == 0 && first == 0;
    for (int r = 0; r < n_rows; r++) {
        sum[r] = _mm512_setzero_ps();
    }
    for (int b = 0; b < p->n_blocks; b++, at += (size_t)x->group) {
        const int8_t *q = x->q + at * PACKED_ROW_BLOCK;
        const float *scale = x->scale + at;
        const float *scaled_sum = x->scaled_sum + at;
        const int32_t *offset = x->offset + at;
        __m512i w[N_REGISTER];
        if (is_from_memory) {
            packed_fetch_ahead(block, is_4bit ? PACKED_4BIT_SIZE : PACKED_8BIT_SIZE);
        }
        unpack(block, is_4bit, w);
        const uint8_t *factors = block + (is_4bit ? 256 : 512);
        __m512 d = load_halves(factors);
        __m512 m = load_halves(factors + 2 * PACKED_LANES);
        block += is_4bit ? PACKED_4BIT_SIZE : PACKED_8BIT_SIZE;
        _Pragma("GCC unroll 16") for (int r = 0; r < n_rows; r++, q += PACKED_ROW_BLOCK)
        {
            __m512i high = _mm512_setzero_si512();
            __m512i low = is_4bit ? _mm512_setzero_si512() : _mm512_set1_epi32(offset[r]);
            _Pragma("GCC unroll 8") for (int j = 0; j < N_REGISTER; j++)
            {
                const int8_t *four = q + (size_t)(4 * j);
                high = _mm512_dpbusd_epi32(high, w[j], four_columns(four));
                low = _mm512_dpbusd_epi32(low, w[j], four_columns(four + PACKED_BLOCK));
            }
            __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(high, PACKED_SHIFT), low);
            __m512 scaled = _mm512_mul_ps(d, _mm512_set1_ps(scale[r]));
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scaled, sum[r]);
            sum[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(scaled_sum[r]), sum[r]);
        }
    }
    int left = p->n_out - panel * PACKED_LANES;
    __mmask16 mask = left >= PACKED_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
    for (int r = 0; r < n_rows; r++) {
        float *to = y + (size_t)r * (size_t)ldy + (size_t)panel * PACKED_LANES;
        _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(sum[r], bias));
    }
}

/* The rows of one group by powers of two: a kernel for each. */
INLINE void one_group(const struct packed *p, int panel, const struct packed_rows *x, int group,
                      int n_rows, const bool is_4bit, __m512 bias, float *y, int ldy)
{
    int row = 0;
#define TILE(n)                                                                                    \
    if (n_rows - row >= (n)) {                                                                     \
        tile(p, panel, x, group, row, (n), is_4bit, bias, y + (size_t)row * (size_t)ldy, ldy);     \
        row += (n);                                                                                \
    }
    TILE(16)
    TILE(8)
    TILE(4)
    TILE(2)
    TILE(1)
#undef TILE
}

INLINE void one_panel(const struct packed *p, int panel, const struct packed_rows *x,
                      const bool is_4bit, __m512 bias, float *y, int ldy)
{
    for (int row = 0; row < x->n_rows; row += x->group) {
        int n = x->n_rows - row < x->group ? x->n_rows - row : x->group;
        one_group(p, panel, x, row / x->group, n, is_4bit, bias, y + (size_t)row * (size_t)ldy,
                  ldy);
    }
}

static void panels_4bit(const struct packed *p, int panel, const struct packed_rows *x, __m512 bias,
                        float *y, int ldy)
{
    one_panel(p, panel, x, true, bias, y, ldy);
}

static void panels_8bit(const struct packed *p, int panel, const struct packed_rows *x, __m512 bias,
                        float *y, int ldy)
{
    one_panel(p, panel, x, false, bias, y, ldy);
}

void packed_vnni_multiply(const struct packed *p, int begin, int end, const struct packed_rows *x,
                          const float *bias, float *y, int ldy)
{
    for (int panel = begin; panel < end; panel++) {
        __m512 b = load_bias(p, panel, bias);
        (p->kind == PACKED_4BIT ? panels_4bit : panels_8bit)(p, panel, x, b, y, ldy);
    }
}

/* Column k of a block of 16-bit weights. */
INLINE __m512 load_column(const uint8_t *block, int k, const bool is_f16)
{
    const uint8_t *p = block + (size_t)(2 * PACKED_LANES * k);
    if (is_f16) {
        return load_halves(p);
    }
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE void tile_of_halves(const struct packed *p, int panel, const float *x, int ldx,
                           const int n_rows, const bool is_f16, __m512 bias, float *y, int ldy)
{
    __m512 sum[TILE_ROWS];
    const uint8_t *block = packed_block(p, panel, 0);
    for (int r = 0; r < n_rows; r++) {
        sum[r] = _mm512_setzero_ps();
    }
    for (int first = 0; first < p->n_in; first += PACKED_BLOCK, block += PACKED_16BIT_SIZE) {
        int left = p->n_in - first;
        int n = left < PACKED_BLOCK ? left : PACKED_BLOCK;
        packed_fetch_ahead(block, PACKED_16BIT_SIZE);
        for (int k = 0; k < n; k++) {
            __m512 w = load_column(block, k, is_f16);
            const float *column = x + first + k;
            _Pragma("GCC unroll 16") for (int r = 0; r < n_rows; r++)
            {
                sum[r] =
                    _mm512_fmadd_ps(w, _mm512_set1_ps(column[(size_t)r * (size_t)ldx]), sum[r]);
            }
        }
    }
    int left = p->n_out - panel * PACKED_LANES;
    __mmask16 mask = left >= PACKED_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
    for (int r = 0; r < n_rows; r++) {
        float *to = y + (size_t)r * (size_t)ldy + (size_t)panel * PACKED_LANES;
        _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(sum[r], bias));
    }
}

INLINE void panel_of_halves(const struct packed *p, int panel, const float *x, int ldx, int n_rows,
                            const bool is_f16, __m512 bias, float *y, int ldy)
{
    int row = 0;
#define TILES(n)                                                                                   \
    for (; n_rows - row >= (n); row += (n)) {                                                      \
        tile_of_halves(p, panel, x + (size_t)row * (size_t)ldx, ldx, (n), is_f16, bias,            \
                       y + (size_t)row * (size_t)ldy, ldy);                                        \
    }
    TILES(16)
    TILES(4)
    TILES(1)
#undef TILES
}

void packed_vnni_multiply_halves(const struct packed *p, int begin, int end, const float *x,
                                 int ldx, int n_rows, const float *bias, float *y, int ldy)
{
    for (int panel = begin; panel < end; panel++) {
        __m512 b = load_bias(p, panel, bias);
        if (p->kind == PACKED_F16) {
            panel_of_halves(p, panel, x, ldx, n_rows, true, b, y, ldy);
        } else {
            panel_of_halves(p, panel, x, ldx, n_rows, false, b, y, ldy);
        }
    }
}

/* Sixteen whole numbers -> their high bytes at q[0], their low bytes 32 bytes on. */
INLINE void store_bytes(__m512i whole, __m128i *q)
{
    __m512i half = _mm512_set1_epi32(PACKED_RADIX / 2);
    __m512i high = _mm512_srai_epi32(_mm512_add_epi32(whole, half), PACKED_SHIFT);
    __m512i low = _mm512_sub_epi32(whole, _mm512_slli_epi32(high, PACKED_SHIFT));
    _mm_storeu_si128(q, _mm512_cvtepi32_epi8(high));
    _mm_storeu_si128(q + 2, _mm512_cvtepi32_epi8(low));
}

void packed_vnni_round_row(const float *x, int n_in, struct packed_rows *to, int r)
{
    size_t at = packed_at(to, r, 0);
    for (int b = 0; b < to->n_blocks; b++, x += PACKED_BLOCK, n_in -= PACKED_BLOCK) {
        __mmask32 mask = n_in >= PACKED_BLOCK ? 0xffffffffu : (1u << n_in) - 1;
        __m512 low = _mm512_maskz_loadu_ps((__mmask16)(mask & 0xffff), x);
        __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16);
        const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
        __m512i most = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(low), no_sign),
                                        _mm512_and_si512(_mm512_castps_si512(high), no_sign));
        int bits = _mm512_reduce_max_epi32(most);
        float largest;
        memcpy(&largest, &bits, sizeof largest);
        float inverse = largest >= PACKED_SMALLEST && largest < __builtin_inff()
                            ? (float)PACKED_MOST / largest
                            : 0;
        __m512i sum = _mm512_setzero_si512();
        __m128i *q = (__m128i *)(void *)(to->q + at * PACKED_ROW_BLOCK);
        if (inverse > 0) {
            __m512 by = _mm512_set1_ps(inverse);
            __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, by));
            __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(high, by));
            sum = _mm512_add_epi32(a, c);
            store_bytes(a, q);
            store_bytes(c, q + 1);
        } else {
            memset(q, 0, PACKED_ROW_BLOCK);
        }
        int total = _mm512_reduce_add_epi32(sum);
        float scale = largest / (float)PACKED_MOST;
        to->scale[at] = scale;
        to->scaled_sum[at] = scale * (float)total;
        to->offset[at] = -128 * total;
        at += (size_t)to->group;
    }
}

const struct packed_kernels packed_vnni = {
    .round_row = packed_vnni_round_row,
    .multiply = packed_vnni_multiply,
    .multiply_halves = packed_vnni_multiply_halves,
};
#endif
