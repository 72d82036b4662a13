/* Order of last use as a ring of nodes inside the entries: the head's next is the entry
 * used last, its previous one the entry to give up first. */
#ifndef TAMP_BASE_LRU_H
#define TAMP_BASE_LRU_H

struct lru {
    struct lru *prev, *next;
};

static inline void lru_init(struct lru *head)
{
    head->prev = head->next = head;
}

static inline void lru_remove(struct lru *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
}

static inline void lru_add(struct lru *head, struct lru *node)
{
    node->prev = head;
    node->next = head->next;
    head->next->prev = node;
    head->next = node;
}

static inline void lru_touch(struct lru *head, struct lru *node)
{
    lru_remove(node);
    lru_add(head, node);
}

#endif
