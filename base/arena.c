#include "base/arena.h"

#include "base/alloc.h"

#include <string.h>

#define ARENA_ALIGN       64u
#define ARENA_BLOCK_BYTES (256u * 1024u)

struct arena_block {
    struct arena_block *next;
    size_t size; /* bytes of data */
    size_t used;
    unsigned char *data; /* 64-byte aligned */
};

void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){.max_bytes = max_bytes};
}

static struct arena_block *block_new(size_t size)
{
    struct arena_block *b = mem_alloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->data = mem_alloc_aligned(size, 1);
    if (!b->data) {
        mem_free(b);
        return NULL;
    }
    b->size = size;
    b->used = 0;
    return b;
}

static void block_free(struct arena_block *b)
{
    mem_free(b->data);
    mem_free(b);
}

void *arena_alloc(struct arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > (size_t)-1 - ARENA_ALIGN) {
        return NULL;
    }
    bytes = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (bytes > a->max_bytes || a->used_bytes > a->max_bytes - bytes) {
        return NULL;
    }
    if (!a->head || a->head->size - a->head->used < bytes) {
        struct arena_block *b = block_new(bytes > ARENA_BLOCK_BYTES ? bytes : ARENA_BLOCK_BYTES);
        if (!b) {
            return NULL;
        }
        b->next = a->head;
        a->head = b;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += bytes;
    a->used_bytes += bytes;
    if (a->used_bytes > a->peak_bytes) {
        a->peak_bytes = a->used_bytes;
    }
    return p;
}

void *arena_zalloc(struct arena *a, size_t n, size_t size)
{
    void *p = arena_alloc(a, n, size);
    if (p) {
        memset(p, 0, n * size);
    }
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *copy = n == (size_t)-1 ? NULL : arena_alloc(a, n + 1, 1);
    if (copy) {
        memcpy(copy, s, n);
        copy[n] = '\0';
    }
    return copy;
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){a->head, a->head ? a->head->used : 0, a->used_bytes};
}

void arena_rewind(struct arena *a, struct arena_mark mark)
{
    while (a->head != mark.head) {
        struct arena_block *b = a->head;
        a->head = b->next;
        block_free(b);
    }
    if (a->head) {
        a->head->used = mark.block_used;
    }
    a->used_bytes = mark.used_bytes;
}

void arena_clear(struct arena *a)
{
    arena_rewind(a, (struct arena_mark){NULL, 0, 0});
}
