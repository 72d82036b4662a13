#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_long made;
static atomic_long fail_at = -1; /* -1: TAMP_FAIL_ALLOC not read yet */

bool alloc_must_fail(void)
{
    long at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (at < 0) {
        const char *env = getenv("TAMP_FAIL_ALLOC");
        at = env ? strtol(env, NULL, 10) : 0;
        atomic_store_explicit(&fail_at, at < 0 ? 0 : at, memory_order_relaxed);
    }
    long n = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    return at > 0 && n == at;
}

void alloc_fail_at(long n)
{
    atomic_store(&made, 0);
    atomic_store(&fail_at, n < 0 ? 0 : n);
}

long alloc_count(void)
{
    return atomic_load(&made);
}

void *mem_alloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || alloc_must_fail()) {
        return NULL;
    }
    return malloc(bytes ? bytes : 1);
}

void *mem_zalloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || alloc_must_fail()) {
        return NULL;
    }
    return calloc(bytes ? bytes : 1, 1);
}

void *mem_realloc(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || alloc_must_fail()) {
        return NULL;
    }
    return realloc(p, bytes ? bytes : 1);
}

void *mem_alloc_aligned(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > (size_t)-1 - 63 || alloc_must_fail()) {
        return NULL;
    }
    bytes = (bytes + 63) & ~(size_t)63;
    return aligned_alloc(64, bytes ? bytes : 64);
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = n == (size_t)-1 ? NULL : mem_alloc(n + 1, 1);
    if (copy) {
        memcpy(copy, s, n);
        copy[n] = '\0';
    }
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

void mem_free(void *p)
{
    free(p);
}
