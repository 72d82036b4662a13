/* Candidate merges, smallest key first: a binary heap in memory of the caller, who knows
 * how many there can be at once. */
#ifndef TAMP_MODEL_MERGE_HEAP_H
#define TAMP_MODEL_MERGE_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct merge_candidate {
    uint64_t key;   /* order of merging in the high half, position of the left symbol below */
    uint32_t check; /* what tells an outdated candidate from a valid one */
};

struct merge_heap {
    struct merge_candidate *items;
    size_t n;
};

static inline void merge_heap_push(struct merge_heap *h, struct merge_candidate c)
{
    size_t i = h->n++;
    while (i > 0 && c.key < h->items[(i - 1) / 2].key) {
        h->items[i] = h->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->items[i] = c;
}

/* The heap must not be empty. */
static inline struct merge_candidate merge_heap_pop(struct merge_heap *h)
{
    struct merge_candidate top = h->items[0];
    struct merge_candidate last = h->items[--h->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n) {
            break;
        }
        if (child + 1 < h->n && h->items[child + 1].key < h->items[child].key) {
            child++;
        }
        if (last.key <= h->items[child].key) {
            break;
        }
        h->items[i] = h->items[child];
        i = child;
    }
    h->items[i] = last;
    return top;
}

#endif
