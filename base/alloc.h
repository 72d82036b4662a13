/* The one allocator. Everything that tamp allocates goes through here, so that
 * TAMP_FAIL_ALLOC=n (or alloc_fail_at) can make the n-th allocation fail and the
 * tests can walk every out-of-memory path. Thread-safe. */
#ifndef TAMP_BASE_ALLOC_H
#define TAMP_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* NULL on failure or when the size overflows. `mem_zalloc` zeroes n * size bytes. */
void *mem_alloc(size_t n, size_t size) __attribute__((warn_unused_result));
void *mem_zalloc(size_t n, size_t size) __attribute__((warn_unused_result));
/* On failure the old block stays valid. */
void *mem_realloc(void *p, size_t n, size_t size) __attribute__((warn_unused_result));
/* 64-byte aligned (one cache line, one AVX-512 vector); freed with mem_free. */
void *mem_alloc_aligned(size_t n, size_t size) __attribute__((warn_unused_result));
char *mem_strdup(const char *s) __attribute__((warn_unused_result));
char *mem_strndup(const char *s, size_t n) __attribute__((warn_unused_result));
void mem_free(void *p);

/* Fault injection: the n-th allocation from now fails once (0 = never). */
void alloc_fail_at(long n);
/* Counts an allocation that is made by other means; true: it is to fail. */
bool alloc_must_fail(void);
/* How many allocations have been made since start or the last alloc_fail_at. */
long alloc_count(void);

#endif
