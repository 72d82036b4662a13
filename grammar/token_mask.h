/* Which tokens may come next, so that an answer stays inside its grammar.
 *
 * What a token does at one place of a grammar is found out once: a token that stays inside
 * the place's rule, or leaves every way, is settled for good; one that returns to the caller
 * in the middle depends on who that is, and only those few are followed when the callers are
 * known. (The division is that of XGrammar, arXiv 2411.15100.) Both the parts and the masks
 * put together from them are kept, least recently used given up first.
 *
 * One thread: that which samples. */
#ifndef TAMP_GRAMMAR_TOKEN_MASK_H
#define TAMP_GRAMMAR_TOKEN_MASK_H

#include "grammar/matcher.h"
#include "grammar/vocabulary.h"

struct mask_cache;
struct token_masks; /* one grammar over the cache's vocabulary */

/* The vocabulary stays the caller's and must live longer. */
struct mask_cache *mask_cache_new(const struct vocabulary *v, size_t max_bytes, struct err *e);
void mask_cache_free(struct mask_cache *c); /* nobody uses a token_masks any more */

struct mask_counts {
    size_t bytes;
    uint64_t n_asked;  /* masks that were wanted */
    uint64_t n_joined; /* of these, put together anew */
    uint64_t n_walked; /* walks over the whole vocabulary */
    uint64_t n_steps;  /* matcher's, of all grammars that are there */
    int n_grammars;
};
void mask_cache_counts(const struct mask_cache *c, struct mask_counts *out);

/* The masks of an equal grammar, or new ones; until mask_cache_release. */
struct token_masks *mask_cache_get(struct mask_cache *c, struct grammar *g, struct err *e);
void mask_cache_release(struct token_masks *m); /* NULL is fine */

/* One answer on its way through a grammar. */
struct constraint {
    struct token_masks *masks;
    struct places places;
};

int constraint_begin(struct constraint *c, struct token_masks *m, struct err *e);
/* Bit id % 32 of word id / 32: token id may come next; valid until the next call for any
 * constraint of the cache. NULL with *e set: no memory, too ambiguous, or no token of the
 * vocabulary can go on. */
const uint32_t *constraint_mask(struct constraint *c, struct err *e);
/* The token that came; one that ends the answer changes nothing. -1: it was not allowed. */
int constraint_accept(struct constraint *c, int32_t id, struct err *e);
/* Nothing can follow. */
bool constraint_is_over(const struct constraint *c);

#endif
