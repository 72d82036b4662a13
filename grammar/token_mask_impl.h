/* What mask_cache.c keeps and token_mask.c computes. */
#ifndef TAMP_GRAMMAR_TOKEN_MASK_IMPL_H
#define TAMP_GRAMMAR_TOKEN_MASK_IMPL_H

#include "base/lru.h"
#include "grammar/token_mask.h"

/* A token that, from some place, returns to the caller in the middle. */
struct dependent {
    int32_t token;  /* index into the vocabulary's tokens */
    uint8_t shared; /* first bytes that are those of the dependent before */
};

/* What is known of all places whose states are of one class, callers left open. */
struct mask_part {
    struct lru lru;
    struct token_masks *owner;
    uint32_t class;
    size_t bytes;
    const uint32_t *bits; /* [n_words] tokens that stay inside; NULL: they are listed */
    const int32_t *ids;   /* [n_ids] */
    int n_ids;
    const struct dependent *dependents; /* [n_dependents] ascending */
    int n_dependents;
};

/* A mask that was put together. */
struct whole_mask {
    struct lru lru;
    struct token_masks *owner;
    struct whole_mask *next; /* in its slot */
    size_t bytes;
    const struct place *places; /* [n_places] the key, and `ends` */
    int n_places;
    bool ends;
    bool empty;           /* no token is allowed */
    const uint32_t *bits; /* [n_words] */
};

#define WHOLE_SLOTS 256u

struct token_masks {
    struct lru lru;
    struct mask_cache *cache;
    struct grammar *grammar;
    struct matcher matcher;
    struct mask_part **parts; /* [n_classes] */
    struct whole_mask *slots[WHOLE_SLOTS];
    size_t bytes; /* accounted for, without parts and whole masks */
    int n_users;
};

struct mask_cache {
    const struct vocabulary *vocabulary;
    size_t n_words, max_bytes, bytes;
    struct lru parts, wholes, grammars;
    int n_grammars;
    uint64_t n_asked, n_joined, n_walked, n_steps;
    /* of the walk under way */
    struct places *path;          /* [GRAMMAR_MAX_TOKEN + 1] behind so many bytes */
    bool *escaped;                /* [GRAMMAR_MAX_TOKEN + 1] some place before could return */
    uint32_t *bits;               /* [n_words] of the part that is made */
    uint32_t *joined;             /* [n_words] of the whole mask */
    struct dependent *dependents; /* [n_tokens] */
};

/* mask_cache.c: what was computed into the cache's working memory is kept. NULL: no memory. */
struct mask_part *mask_cache_keep_part(struct token_masks *m, uint32_t class, int n_allowed,
                                       int n_dependents, struct err *e);
struct whole_mask *mask_cache_find(struct token_masks *m, const struct places *p);
struct whole_mask *mask_cache_keep(struct token_masks *m, const struct places *p, bool empty,
                                   struct err *e);
/* The calls of a grammar may have grown. */
void mask_cache_account(struct token_masks *m);

#endif
