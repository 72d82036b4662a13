/* Arithmetic on sizes that come from outside: fails instead of wrapping. */
#ifndef TAMP_BASE_CHECKED_H
#define TAMP_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* true = it fits and *out is set; false = it would wrap, *out is undefined. */
static inline bool ck_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool ck_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool ck_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool ck_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Round up to a power of two. */
static inline bool ck_align(size_t n, size_t alignment, size_t *out)
{
    size_t sum;
    if (!ck_add(n, alignment - 1, &sum)) {
        return false;
    }
    *out = sum & ~(alignment - 1);
    return true;
}

#endif
