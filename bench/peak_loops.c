#include "bench/peak_loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Enough independent sums that the latency (4 or 5 cycles, two units) never shows. */
#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define N_SUMS    12

#define TARGET(list) __attribute__((target(list)))

/* -- what the CPU has ------------------------------------------------------------------ */

static bool leaf7(unsigned sub, unsigned *eax, unsigned *ecx, unsigned *edx)
{
    unsigned ebx;
    return __get_cpuid_count(7, sub, eax, &ebx, ecx, edx) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

static bool has_avx512_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx_vnni(void)
{
    unsigned a, c, d;
    return has_avx2() && leaf7(1, &a, &c, &d) && (a >> 4 & 1);
}

/* Set by peak_loops_init when the kernel gave the tile registers. */
static bool tiles_allowed;

static bool has_amx_int8(void)
{
    unsigned a, c, d;
    return tiles_allowed && leaf7(0, &a, &c, &d) && (d >> 25 & 1);
}

static bool has_amx_bf16(void)
{
    unsigned a, c, d;
    return tiles_allowed && leaf7(0, &a, &c, &d) && (d >> 22 & 1);
}

void peak_loops_init(void)
{
    enum { ARCH_REQ_XCOMP_PERM_ = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, c, d;
    tiles_allowed = leaf7(0, &a, &c, &d) && (d >> 24 & 1) &&
                    syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_XTILEDATA) == 0;
}

/* -- int8 ------------------------------------------------------------------------------ */

/* The sums may have wrapped; adding their lanes in 64 bits cannot. */
static int64_t sum_lanes(const int32_t *lane, int n)
{
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        total += lane[i];
    }
    return total;
}

TARGET("avx512f,avx512bw,avx512vnni") static int64_t int8_avx512(int64_t n)
{
    const __m512i a = _mm512_set1_epi8(3);
    const __m512i b = _mm512_set1_epi8(5);
#define START(i) __m512i s##i = _mm512_set1_epi32(i);
#define STEP(i)  s##i = _mm512_dpbusd_epi32(s##i, a, b);
#define ADD(i)   total = _mm512_add_epi32(total, s##i);
    EACH12(START)
    for (int64_t k = 0; k < n; k++) {
        EACH12(STEP)
    }
    __m512i total = _mm512_setzero_si512();
    EACH12(ADD)
#undef START
#undef STEP
#undef ADD
    int32_t lane[16];
    _mm512_storeu_si512(lane, total);
    return sum_lanes(lane, 16);
}

TARGET("avx2") static int64_t sum_epi32(__m256i x)
{
    int32_t lane[8];
    _mm256_storeu_si256((__m256i *)(void *)lane, x);
    return sum_lanes(lane, 8);
}

TARGET("avx2,avxvnni") static int64_t int8_avx_vnni(int64_t n)
{
    const __m256i a = _mm256_set1_epi8(3);
    const __m256i b = _mm256_set1_epi8(5);
#define START(i) __m256i s##i = _mm256_set1_epi32(i);
#define STEP(i)  s##i = _mm256_dpbusd_avx_epi32(s##i, a, b);
#define ADD(i)   total = _mm256_add_epi32(total, s##i);
    EACH12(START)
    for (int64_t k = 0; k < n; k++) {
        EACH12(STEP)
    }
    __m256i total = _mm256_setzero_si256();
    EACH12(ADD)
#undef START
#undef STEP
#undef ADD
    return sum_epi32(total);
}

/* Without VNNI three instructions do the work of one: bytes to 16 bits, 16 to 32, add. The
 * products must differ from round to round, or the compiler takes them out of the loop. */
TARGET("avx2") static int64_t int8_avx2(int64_t n)
{
    const __m256i b = _mm256_set1_epi8(5);
    const __m256i one = _mm256_set1_epi16(1);
    __m256i a = _mm256_set1_epi8(3);
#define START(i) __m256i s##i = _mm256_set1_epi32(i);
#define STEP(i)                                                                                    \
    __asm__ volatile("" : "+x"(a));                                                                \
    s##i = _mm256_add_epi32(s##i, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
#define ADD(i) total = _mm256_add_epi32(total, s##i);
    EACH12(START)
    for (int64_t k = 0; k < n; k++) {
        EACH12(STEP)
    }
    __m256i total = _mm256_setzero_si256();
    EACH12(ADD)
#undef START
#undef STEP
#undef ADD
    return sum_epi32(total);
}

/* -- fp32 ------------------------------------------------------------------------------ */

TARGET("avx512f") static int64_t fp32_avx512(int64_t n)
{
    const __m512 a = _mm512_set1_ps(0.5F);
    const __m512 b = _mm512_set1_ps(0.25F);
#define START(i) __m512 s##i = _mm512_set1_ps((float)(i));
#define STEP(i)  s##i = _mm512_fmadd_ps(s##i, a, b);
#define ADD(i)   total = _mm512_add_ps(total, s##i);
    EACH12(START)
    for (int64_t k = 0; k < n; k++) {
        EACH12(STEP)
    }
    __m512 total = _mm512_setzero_ps();
    EACH12(ADD)
#undef START
#undef STEP
#undef ADD
    return (int64_t)_mm512_reduce_add_ps(total);
}

TARGET("avx2,fma") static int64_t fp32_avx2(int64_t n)
{
    const __m256 a = _mm256_set1_ps(0.5F);
    const __m256 b = _mm256_set1_ps(0.25F);
#define START(i) __m256 s##i = _mm256_set1_ps((float)(i));
#define STEP(i)  s##i = _mm256_fmadd_ps(s##i, a, b);
#define ADD(i)   total = _mm256_add_ps(total, s##i);
    EACH12(START)
    for (int64_t k = 0; k < n; k++) {
        EACH12(STEP)
    }
    __m256 total = _mm256_setzero_ps();
    EACH12(ADD)
#undef START
#undef STEP
#undef ADD
    return sum_epi32(_mm256_cvtps_epi32(total));
}

/* -- AMX: four sums of 16 x 16 in tiles 0-3, operands in 4-7 ---------------------------- */

struct tile_config {
    uint8_t palette, start_row, zero[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

TARGET("amx-tile") static void tiles_begin(void)
{
    struct tile_config c;
    uint8_t zeros[1024] = {0};
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) {
        c.bytes_per_row[i] = 64;
        c.rows[i] = 16;
    }
    /* GCC 12 believes that the intrinsics read nothing (its bug 114098). */
    __asm__ volatile("" : : "r"(&c), "r"(zeros) : "memory");
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
}

TARGET("amx-tile") static int64_t tiles_end(void)
{
    int32_t sum[256];
    _tile_stored(0, sum, 64);
    _tile_release();
    return sum[0];
}

TARGET("amx-tile,amx-int8") static int64_t int8_amx(int64_t n)
{
    tiles_begin();
    for (int64_t k = 0; k < n; k++) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    return tiles_end();
}

TARGET("amx-tile,amx-bf16") static int64_t bf16_amx(int64_t n)
{
    tiles_begin();
    for (int64_t k = 0; k < n; k++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return tiles_end();
}

/* -- memory ---------------------------------------------------------------------------- */

TARGET("avx2") static uint64_t read_avx2(const uint8_t *bytes, size_t n)
{
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
    for (size_t i = 0; i < n; i += 128) {
        const __m256i *p = (const __m256i *)(const void *)(bytes + i);
        s[0] = _mm256_add_epi64(s[0], _mm256_load_si256(p));
        s[1] = _mm256_add_epi64(s[1], _mm256_load_si256(p + 1));
        s[2] = _mm256_add_epi64(s[2], _mm256_load_si256(p + 2));
        s[3] = _mm256_add_epi64(s[3], _mm256_load_si256(p + 3));
    }
    uint64_t lane[4];
    _mm256_storeu_si256((__m256i *)(void *)lane, _mm256_add_epi64(_mm256_add_epi64(s[0], s[1]),
                                                                  _mm256_add_epi64(s[2], s[3])));
    return lane[0] + lane[1] + lane[2] + lane[3];
}

const struct peak_loop peak_loops[] = {
    {"int8", "amx tdpbusd", has_amx_int8, int8_amx, 4 * 2 * 16 * 16 * 64},
    {"int8", "avx512 vpdpbusd", has_avx512_vnni, int8_avx512, N_SUMS * 2 * 64},
    {"int8", "avx vpdpbusd", has_avx_vnni, int8_avx_vnni, N_SUMS * 2 * 32},
    {"int8", "avx2 vpmaddubsw", has_avx2, int8_avx2, N_SUMS * 2 * 32},
    {"bf16", "amx tdpbf16ps", has_amx_bf16, bf16_amx, 4 * 2 * 16 * 16 * 32},
    {"fp32", "avx512 fma", has_avx512, fp32_avx512, N_SUMS * 2 * 16},
    {"fp32", "avx2 fma", has_avx2, fp32_avx2, N_SUMS * 2 * 8},
    {NULL, NULL, NULL, NULL, 0},
};

#else

void peak_loops_init(void)
{
}

const struct peak_loop peak_loops[] = {{NULL, NULL, NULL, NULL, 0}};

#endif

static uint64_t read_portable(const uint8_t *bytes, size_t n)
{
    const uint64_t *p = (const uint64_t *)(const void *)bytes;
    uint64_t s[8] = {0};
    for (size_t i = 0; i < n / 8; i += 8) {
        for (int k = 0; k < 8; k++) {
            s[k] += p[i + (size_t)k];
        }
    }
    return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

uint64_t peak_read(const uint8_t *bytes, size_t n)
{
#if defined(__x86_64__)
    if (has_avx2()) {
        return read_avx2(bytes, n);
    }
#endif
    return read_portable(bytes, n);
}
