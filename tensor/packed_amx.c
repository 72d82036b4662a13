/* Packed products with the int8 tiles of AMX. They compute what the AVX-512 loops do, bit by
 * bit: the integers are exact in both, and blocks are scaled and added in the same order. So
 * rows that do not fill a tile go through those loops.
 *
 * One tile instruction (TDPBSUD) takes a block of 32 columns of 16 rows by 16 outputs:
 *   4 bits  64 bytes of a row are its 32 high bytes, then its 32 low ones; the tile of weights
 *           has 16 q, then q: one instruction, and its sum is that of 16 high + low
 *   8 bits  16 q does not fit into a byte: one instruction for each byte
 * The sums leave the tile through memory, because only vector registers can scale them. That
 * costs more than the multiplication, so the scaled sums of 16 rows stay in sixteen registers
 * over all blocks, and the tile of block b + 1 is multiplied while block b is scaled. */
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

#define TILE_ROWS  16
#define TILE_BYTES 1024
#define TILE_SUMS  (TILE_ROWS * PACKED_LANES)
/* Blocks of a panel that are unpacked at a time: with the activations of 16 rows they fit
 * into an L1 cache of 48 KiB. */
#define SPLIT_BLOCKS 20

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

void packed_amx_configure(int row_bytes, int weight_rows)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = (uint16_t)(i < 6 ? 64 : row_bytes);
        config.rows[i] = (uint8_t)(i < 3 || i > 5 ? TILE_ROWS : weight_rows);
    }
    /* Not the intrinsic: GCC 12 does not know that it reads memory (its bug 114098). */
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

INLINE __m512 load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Weights of some blocks of a panel as tiles need them, and their factors in fp32. */
struct unpacked {
    uint8_t tiles[SPLIT_BLOCKS * TILE_BYTES] __attribute__((aligned(64)));
    float d[SPLIT_BLOCKS * PACKED_LANES] __attribute__((aligned(64)));
    float m[SPLIT_BLOCKS * PACKED_LANES] __attribute__((aligned(64)));
};

static void unpack(const struct packed *p, int panel, int begin, int end, struct unpacked *u)
{
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i high = _mm512_set1_epi8((char)0xf0);
    for (int b = begin; b < end; b++) {
        const uint8_t *block = packed_block(p, panel, b);
        const uint8_t *factors = packed_factors(p, block);
        packed_fetch_ahead(block, p->block_bytes);
        size_t i = (size_t)(b - begin);
        uint8_t *to = u->tiles + i * TILE_BYTES;
        _mm512_store_ps(u->d + i * PACKED_LANES, load_halves(factors));
        _mm512_store_ps(u->m + i * PACKED_LANES, load_halves(factors + 2 * PACKED_LANES));
        if (p->kind == PACKED_8BIT) {
            memcpy(to, block, 512);
            continue;
        }
        for (size_t j = 0; j < 4; j++, block += 64, to += 64) {
            __m512i w = _mm512_loadu_si512((const void *)block);
            __m512i first = _mm512_and_si512(w, low);
            __m512i second = _mm512_and_si512(w, high); /* 16 q already */
            _mm512_store_si512((void *)to, _mm512_slli_epi16(first, 4));
            _mm512_store_si512((void *)(to + 256), second);
            _mm512_store_si512((void *)(to + 512), first);
            _mm512_store_si512((void *)(to + 768), _mm512_srli_epi16(second, 4));
        }
    }
}

/* A group of sixteen rows from the first block of a split on. */
struct rows16 {
    const int8_t *q; /* a tile a block */
    const float *scale, *scaled_sum;
    const int32_t *offset;
};

/* Add block i of the split to the sums; whole [16, 16], and with 8 bits the sums of the low
 * bytes behind it. */
INLINE void scale_block(const struct rows16 *x, const struct unpacked *u, int i,
                        const int32_t *whole, const bool is_4bit, __m512 sum[TILE_ROWS])
{
    __m512 d = _mm512_load_ps(u->d + (size_t)i * PACKED_LANES);
    __m512 m = _mm512_load_ps(u->m + (size_t)i * PACKED_LANES);
    const float *scale = x->scale + (size_t)i * TILE_ROWS;
    const float *scaled_sum = x->scaled_sum + (size_t)i * TILE_ROWS;
    const int32_t *offset = x->offset + (size_t)i * TILE_ROWS;
    _Pragma("GCC unroll 16") for (int r = 0; r < TILE_ROWS; r++)
    {
        __m512i w = _mm512_load_si512((const void *)(whole + r * PACKED_LANES));
        if (!is_4bit) {
            __m512i low = _mm512_load_si512((const void *)(whole + TILE_SUMS + r * PACKED_LANES));
            low = _mm512_add_epi32(low, _mm512_set1_epi32(offset[r]));
            w = _mm512_add_epi32(_mm512_slli_epi32(w, PACKED_SHIFT), low);
        }
        __m512 scaled = _mm512_mul_ps(d, _mm512_set1_ps(scale[r]));
        sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(w), scaled, sum[r]);
        sum[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(scaled_sum[r]), sum[r]);
    }
}

/* Block i of sixteen rows by the tiles of one panel -> whole. A tile that was read is zeroed
 * by the next call. `odd` is a constant: two sets of tiles take turns. */
INLINE void multiply_block(const struct rows16 *x, const struct unpacked *u, int i, const bool odd,
                           const bool is_4bit, int32_t *whole)
{
    const int8_t *q = x->q + (size_t)i * TILE_BYTES;
    const uint8_t *w = u->tiles + (size_t)i * TILE_BYTES;
    if (is_4bit && !odd) {
        _tile_zero(0);
        _tile_loadd(4, w, 64);
        _tile_loadd(6, q, 64);
        _tile_dpbsud(0, 6, 4);
        _tile_stored(0, whole, 64);
    } else if (is_4bit) {
        _tile_zero(1);
        _tile_loadd(5, w, 64);
        _tile_loadd(7, q, 64);
        _tile_dpbsud(1, 7, 5);
        _tile_stored(1, whole, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(4, w, 64);
        _tile_loadd(6, q, 64);
        _tile_loadd(7, q + PACKED_BLOCK, 64);
        _tile_dpbsud(0, 6, 4);
        _tile_dpbsud(1, 7, 4);
        _tile_stored(0, whole, 64);
        _tile_stored(1, whole + TILE_SUMS, 64);
    }
}

/* sums [16, 16] = (first ? 0 : sums) + the n blocks of the split. */
INLINE void multiply_rows(const struct rows16 *x, const struct unpacked *u, int n, bool first,
                          const bool is_4bit, float *sums)
{
    int32_t whole[2][2 * TILE_SUMS] __attribute__((aligned(64)));
    __m512 sum[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++) {
        sum[r] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + r * PACKED_LANES);
    }
    multiply_block(x, u, 0, false, is_4bit, whole[0]);
    for (int i = 0; i < n; i += 2) {
        if (i + 1 < n) {
            multiply_block(x, u, i + 1, true, is_4bit, whole[1]);
        }
        scale_block(x, u, i, whole[0], is_4bit, sum);
        if (i + 2 < n) {
            multiply_block(x, u, i + 2, false, is_4bit, whole[0]);
        }
        if (i + 1 < n) {
            scale_block(x, u, i + 1, whole[1], is_4bit, sum);
        }
    }
    for (int r = 0; r < TILE_ROWS; r++) {
        _mm512_storeu_ps(sums + r * PACKED_LANES, sum[r]);
    }
}

static void multiply_rows_4bit(const struct rows16 *x, const struct unpacked *u, int n, bool first,
                               float *sums)
{
    multiply_rows(x, u, n, first, true, sums);
}

static void multiply_rows_8bit(const struct rows16 *x, const struct unpacked *u, int n, bool first,
                               float *sums)
{
    multiply_rows(x, u, n, first, false, sums);
}

static void store_rows(const struct packed *p, int panel, const float *sums, const float *bias,
                       float *y, int ldy)
{
    int left = p->n_out - panel * PACKED_LANES;
    __mmask16 mask = left >= PACKED_LANES ? 0xffff : (__mmask16)((1u << left) - 1);
    __m512 b = bias ? _mm512_maskz_loadu_ps(mask, bias + (size_t)panel * PACKED_LANES)
                    : _mm512_setzero_ps();
    y += (size_t)panel * PACKED_LANES;
    for (int r = 0; r < TILE_ROWS; r++, y += ldy) {
        _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(_mm512_loadu_ps(sums + r * PACKED_LANES), b));
    }
}

/* One panel by at most MOST_ROWS rows, a multiple of 16. */
#define MOST_ROWS 256

static void multiply_panel(const struct packed *p, int panel, const struct packed_rows *x, int row,
                           int n_rows, const float *bias, float *y, int ldy)
{
    struct unpacked u;
    float sums[MOST_ROWS * PACKED_LANES];
    int n_splits = (p->n_blocks + SPLIT_BLOCKS - 1) / SPLIT_BLOCKS;
    int split = (p->n_blocks + n_splits - 1) / n_splits;
    for (int begin = 0; begin < p->n_blocks; begin += split) {
        int n = begin + split < p->n_blocks ? split : p->n_blocks - begin;
        unpack(p, panel, begin, begin + n, &u);
        for (int r = 0; r < n_rows; r += TILE_ROWS) {
            size_t at = packed_at(x, row + r, begin);
            struct rows16 rows = {x->q + at * PACKED_ROW_BLOCK, x->scale + at, x->scaled_sum + at,
                                  x->offset + at};
            (p->kind == PACKED_4BIT ? multiply_rows_4bit : multiply_rows_8bit)(
                &rows, &u, n, begin == 0, sums + r * PACKED_LANES);
        }
    }
    for (int r = 0; r < n_rows; r += TILE_ROWS) {
        store_rows(p, panel, sums + r * PACKED_LANES, bias, y + (size_t)(row + r) * (size_t)ldy,
                   ldy);
    }
}

static void multiply(const struct packed *p, int begin, int end, const struct packed_rows *x,
                     const float *bias, float *y, int ldy)
{
    int whole = x->n_rows / TILE_ROWS * TILE_ROWS;
    if (whole > 0) {
        bool is_4bit = p->kind == PACKED_4BIT;
        packed_amx_configure(is_4bit ? 64 : 32, is_4bit ? 16 : 8);
        for (int row = 0; row < whole; row += MOST_ROWS) {
            int n = whole - row < MOST_ROWS ? whole - row : MOST_ROWS;
            for (int panel = begin; panel < end; panel++) {
                multiply_panel(p, panel, x, row, n, bias, y, ldy);
            }
        }
        _tile_release();
    }
    if (whole == x->n_rows) {
        return;
    }
    size_t at = (size_t)whole * (size_t)x->n_blocks;
    struct packed_rows rest = {.n_rows = x->n_rows - whole,
                               .n_blocks = x->n_blocks,
                               .group = x->group,
                               .q = x->q + at * PACKED_ROW_BLOCK,
                               .scale = x->scale + at,
                               .scaled_sum = x->scaled_sum + at,
                               .offset = x->offset + at};
    packed_vnni_multiply(p, begin, end, &rest, bias, y + (size_t)whole * (size_t)ldy, ldy);
}

static void bulk_multiply(const struct packed *p, int begin, int end, const uint16_t *x, int n_rows,
                          const float *bias, float *y, int ldy, void *scratch)
{
    (packed_is_integer(p) ? packed_amx_wide_multiply : packed_amx_halves_multiply)(
        p, begin, end, x, n_rows, bias, y, ldy, scratch);
}

const struct packed_kernels packed_amx = {
    .round_row = packed_vnni_round_row,
    .multiply = multiply,
    .multiply_halves = packed_vnni_multiply_halves,
    .bulk_row = packed_amx_bulk_row,
    .bulk_multiply = bulk_multiply,
};
#endif
