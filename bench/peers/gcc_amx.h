/* llamacpp.sh puts this behind the includes of llama.cpp's AMX files.
 *
 * GCC's AMX intrinsics do not tell the compiler what memory they read: _tile_loadconfig
 * claims 8 bytes of its 64 (GCC bug 114098, mended in 12.4, 13.3 and 14), _tile_loadd none.
 * Stores before them are dropped as dead or moved behind, and llama.cpp ends with an illegal
 * instruction on every CPU with AMX. These say it. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__AMX_TILE__)
#include <immintrin.h>

#define TILE_NAME(dst) "%%tmm" #dst
#undef _tile_loadconfig
#define _tile_loadconfig(p) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(p)))
#undef _tile_loadd
#define _tile_loadd(dst, base, stride)                                                             \
    __asm__ volatile("tileloadd (%0,%1,1), " TILE_NAME(dst)                                        \
                     :                                                                             \
                     : "r"((const void *)(base)), "r"((long)(stride))                              \
                     : "memory")
#endif
