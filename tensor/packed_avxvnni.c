/* Packed products with AVX-VNNI: vpdpbusd on eight outputs, for CPUs that have it without
 * AVX-512. Everything else is AVX2's. */
#if defined(__x86_64__)
#include "tensor/packed_lanes8.h"

INLINE void add_columns(__m256i w, const int8_t *q, const int n_rows, __m256i high[TILE_ROWS],
                        __m256i low[TILE_ROWS])
{
    for (int r = 0; r < n_rows; r++, q += PACKED_ROW_BLOCK) {
        high[r] = _mm256_dpbusd_avx_epi32(high[r], w, four_columns(q));
        low[r] = _mm256_dpbusd_avx_epi32(low[r], w, four_columns(q + PACKED_BLOCK));
    }
}

INLINE void block_sums(const uint8_t *block, const int8_t *q, const int32_t *offset,
                       const int n_rows, const bool is_4bit, __m256i whole[TILE_ROWS])
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i high[TILE_ROWS];
    __m256i low[TILE_ROWS];
    for (int r = 0; r < n_rows; r++) {
        high[r] = _mm256_setzero_si256();
        low[r] = is_4bit ? _mm256_setzero_si256() : _mm256_set1_epi32(offset[r]);
    }
    for (int j = 0; j < (is_4bit ? 4 : 8); j++, q += 4) {
        __m256i w = load32(block + (size_t)(64 * j));
        if (is_4bit) {
            add_columns(_mm256_and_si256(w, nibble), q, n_rows, high, low);
            w = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
            add_columns(w, q + 16, n_rows, high, low);
        } else {
            add_columns(w, q, n_rows, high, low);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        whole[r] = _mm256_add_epi32(_mm256_slli_epi32(high[r], PACKED_SHIFT), low[r]);
    }
}

#define BLOCK_SUMS block_sums
#include "tensor/packed_loops8.h"

const struct packed_kernels packed_avxvnni = {
    .round_row = packed_avx2_round_row,
    .multiply = multiply_packed,
    .multiply_halves = packed_avx2_multiply_halves,
};
#endif
