/* Memory that lives as long as one thing (a request, a pass): many allocations,
 * one owner, one free. Has a ceiling given at birth. Not thread-safe. */
#ifndef TAMP_BASE_ARENA_H
#define TAMP_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *head; /* newest block first */
    size_t used_bytes;        /* handed out, with alignment */
    size_t peak_bytes;        /* largest used_bytes ever */
    size_t max_bytes;         /* ceiling for used_bytes */
};

void arena_init(struct arena *a, size_t max_bytes);
/* n * size bytes, 64-byte aligned, not zeroed. NULL: no memory or over the ceiling. */
void *arena_alloc(struct arena *a, size_t n, size_t size) __attribute__((warn_unused_result));
void *arena_zalloc(struct arena *a, size_t n, size_t size) __attribute__((warn_unused_result));
char *arena_strndup(struct arena *a, const char *s, size_t n) __attribute__((warn_unused_result));
/* A mark and a way back to it: everything allocated since is given back. */
struct arena_mark {
    struct arena_block *head;
    size_t block_used;
    size_t used_bytes;
};
struct arena_mark arena_mark(const struct arena *a);
void arena_rewind(struct arena *a, struct arena_mark mark);
/* Give everything back; the arena may be used again. */
void arena_clear(struct arena *a);

#endif
