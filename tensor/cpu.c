#include "tensor/cpu.h"

#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>

#define LEAF1_ECX_FMA     (1u << 12)
#define LEAF1_ECX_OSXSAVE (1u << 27)
#define LEAF1_ECX_F16C    (1u << 29)
#define LEAF7_EBX_AVX2    (1u << 5)
/* F, DQ, BW, VL */
#define LEAF7_EBX_AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)
/* Register state that the system saves: SSE and AVX; opmask and both ZMM halves. */
#define XCR0_AVX             0x06u
#define XCR0_AVX512          0xe6u
#define XCR0_AMX             0x60000u /* tile configuration and tiles */
#define LEAF7_ECX_VNNI       (1u << 11)
#define LEAF7_EDX_AMX        (1u << 22 | 1u << 24) /* bf16, tiles */
#define LEAF7_EDX_AMX_INT8   (1u << 25)
#define LEAF7_1_EAX_AVX_VNNI (1u << 4)
#define LEAF7_1_EAX_BF16     (1u << 5)

static uint32_t saved_state(void)
{
    uint32_t low;
    uint32_t high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

struct cpu_features cpu_features(void)
{
    struct cpu_features f = {0};
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;
    const unsigned leaf1 = LEAF1_ECX_FMA | LEAF1_ECX_OSXSAVE | LEAF1_ECX_F16C;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1) != leaf1) {
        return f;
    }
    uint32_t saved = saved_state();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return f;
    }
    f.avx2 = (b & LEAF7_EBX_AVX2) && (saved & XCR0_AVX) == XCR0_AVX;
    f.avx512 = f.avx2 && (b & LEAF7_EBX_AVX512) == LEAF7_EBX_AVX512 &&
               (saved & XCR0_AVX512) == XCR0_AVX512;
    f.avx512_vnni = f.avx512 && (c & LEAF7_ECX_VNNI);
    bool tiles = (d & LEAF7_EDX_AMX) == LEAF7_EDX_AMX && (saved & XCR0_AMX) == XCR0_AMX;
    bool int8_tiles = d & LEAF7_EDX_AMX_INT8;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        f.avx_vnni = f.avx2 && (a & LEAF7_1_EAX_AVX_VNNI);
        f.amx = f.avx512_vnni && tiles && int8_tiles && (a & LEAF7_1_EAX_BF16);
    }
    return f;
}
#else
struct cpu_features cpu_features(void)
{
    return (struct cpu_features){0};
}
#endif
