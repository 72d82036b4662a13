/* What is kept of grammars over one vocabulary: automata, parts of masks, whole masks; given
 * up in that order of use when they become too many bytes. */
#include "base/alloc.h"
#include "grammar/grammar_impl.h"
#include "grammar/token_mask_impl.h"

#include <string.h>

/* Calls are kept as long as a grammar is; with so many it starts anew when nobody uses it. */
#define MANY_NODES (1u << 16)

#define PART_OF(node)  ((struct mask_part *)((char *)(node)-offsetof(struct mask_part, lru)))
#define WHOLE_OF(node) ((struct whole_mask *)((char *)(node)-offsetof(struct whole_mask, lru)))
#define MASKS_OF(node) ((struct token_masks *)((char *)(node)-offsetof(struct token_masks, lru)))

struct mask_cache *mask_cache_new(const struct vocabulary *v, size_t max_bytes, struct err *e)
{
    struct mask_cache *c = mem_zalloc(1, sizeof *c);
    if (c) {
        c->vocabulary = v;
        c->max_bytes = max_bytes;
        c->n_words = ((size_t)v->n + 31) / 32;
        c->path = mem_alloc(GRAMMAR_MAX_TOKEN + 1, sizeof *c->path);
        c->escaped = mem_alloc(GRAMMAR_MAX_TOKEN + 1, sizeof *c->escaped);
        c->bits = mem_alloc(c->n_words + 1, sizeof *c->bits);
        c->joined = mem_alloc(c->n_words + 1, sizeof *c->joined);
        c->dependents = mem_alloc((size_t)v->n_tokens + 1, sizeof *c->dependents);
        lru_init(&c->parts);
        lru_init(&c->wholes);
        lru_init(&c->grammars);
    }
    if (!c || !c->path || !c->escaped || !c->bits || !c->joined || !c->dependents) {
        err_no_memory(e, (size_t)v->n_tokens * sizeof *c->dependents);
        mask_cache_free(c);
        return NULL;
    }
    return c;
}

/* ---- giving up ------------------------------------------------------------------------------ */

static void drop_part(struct mask_part *p)
{
    p->owner->parts[p->class] = NULL;
    p->owner->cache->bytes -= p->bytes;
    lru_remove(&p->lru);
    mem_free(p);
}

static struct whole_mask **slot_of(struct token_masks *m, const struct place *places, int n,
                                   bool ends)
{
    uint64_t h = ends;
    for (int i = 0; i < n; i++) {
        h = (h ^ ((uint64_t)places[i].state << 32 | places[i].node)) * 0x9e3779b97f4a7c15u;
        h ^= h >> 31;
    }
    return &m->slots[h % WHOLE_SLOTS];
}

static void drop_whole(struct whole_mask *w)
{
    struct whole_mask **at = slot_of(w->owner, w->places, w->n_places, w->ends);
    while (*at != w) {
        at = &(*at)->next;
    }
    *at = w->next;
    w->owner->cache->bytes -= w->bytes;
    lru_remove(&w->lru);
    mem_free(w);
}

static void drop_grammar(struct token_masks *m)
{
    struct mask_cache *c = m->cache;
    for (int i = 0; m->parts && i < m->grammar->n_classes; i++) {
        if (m->parts[i]) {
            drop_part(m->parts[i]);
        }
    }
    for (size_t i = 0; i < WHOLE_SLOTS; i++) {
        while (m->slots[i]) {
            drop_whole(m->slots[i]);
        }
    }
    lru_remove(&m->lru);
    c->n_grammars--;
    c->bytes -= m->bytes;
    mem_free(m->parts);
    matcher_clear(&m->matcher);
    grammar_unref(m->grammar);
    mem_free(m);
}

static struct token_masks *oldest_idle(struct mask_cache *c)
{
    for (struct lru *at = c->grammars.prev; at != &c->grammars; at = at->prev) {
        if (MASKS_OF(at)->n_users == 0) {
            return MASKS_OF(at);
        }
    }
    return NULL;
}

/* Until `more` bytes fit, or nothing is left that may go. */
static void make_room(struct mask_cache *c, size_t more)
{
    while (c->bytes + more > c->max_bytes) {
        struct token_masks *idle = oldest_idle(c);
        if (idle) {
            drop_grammar(idle);
        } else if (c->wholes.prev != &c->wholes) {
            drop_whole(WHOLE_OF(c->wholes.prev));
        } else if (c->parts.prev != &c->parts) {
            drop_part(PART_OF(c->parts.prev));
        } else {
            return;
        }
    }
}

void mask_cache_free(struct mask_cache *c)
{
    if (!c) {
        return;
    }
    while (c->grammars.prev && c->grammars.prev != &c->grammars) {
        drop_grammar(MASKS_OF(c->grammars.prev));
    }
    mem_free(c->path);
    mem_free(c->escaped);
    mem_free(c->bits);
    mem_free(c->joined);
    mem_free(c->dependents);
    mem_free(c);
}

void mask_cache_counts(const struct mask_cache *c, struct mask_counts *out)
{
    *out = (struct mask_counts){.bytes = c->bytes,
                                .n_asked = c->n_asked,
                                .n_joined = c->n_joined,
                                .n_walked = c->n_walked,
                                .n_steps = c->n_steps,
                                .n_grammars = c->n_grammars};
}

/* ---- grammars ---------------------------------------------------------------------------------
 */

static struct token_masks *find(struct mask_cache *c, const struct grammar *g)
{
    for (struct lru *at = c->grammars.next; at != &c->grammars; at = at->next) {
        if (grammar_equal(MASKS_OF(at)->grammar, g)) {
            return MASKS_OF(at);
        }
    }
    return NULL;
}

void mask_cache_account(struct token_masks *m)
{
    size_t bytes = sizeof *m + m->grammar->bytes + matcher_bytes(&m->matcher) +
                   (size_t)m->grammar->n_classes * sizeof(void *);
    m->cache->bytes += bytes - m->bytes;
    m->bytes = bytes;
}

static struct token_masks *add(struct mask_cache *c, struct grammar *g, struct err *e)
{
    struct token_masks *m = mem_zalloc(1, sizeof *m);
    if (!m) {
        err_no_memory(e, sizeof *m);
        return NULL;
    }
    m->cache = c;
    m->grammar = grammar_ref(g);
    c->n_grammars++;
    lru_add(&c->grammars, &m->lru);
    m->parts = mem_zalloc((size_t)g->n_classes, sizeof(void *));
    if (!m->parts || matcher_init(&m->matcher, g, e)) {
        drop_grammar(m);
        err_no_memory(e, (size_t)g->n_classes * sizeof(void *));
        return NULL;
    }
    m->n_users = 1; /* making room must not take it */
    mask_cache_account(m);
    make_room(c, 0);
    return m;
}

struct token_masks *mask_cache_get(struct mask_cache *c, struct grammar *g, struct err *e)
{
    struct token_masks *m = find(c, g);
    if (m && m->n_users == 0 && m->matcher.n_nodes > MANY_NODES) {
        drop_grammar(m);
        m = NULL;
    }
    if (!m) {
        return add(c, g, e);
    }
    m->n_users++;
    lru_touch(&c->grammars, &m->lru);
    return m;
}

void mask_cache_release(struct token_masks *m)
{
    if (m) {
        m->n_users--;
        make_room(m->cache, 0);
    }
}

/* ---- parts and whole masks --------------------------------------------------------------------
 */

struct mask_part *mask_cache_keep_part(struct token_masks *m, uint32_t class, int n_allowed,
                                       int n_dependents, struct err *e)
{
    struct mask_cache *c = m->cache;
    bool listed = (size_t)n_allowed < c->n_words;
    size_t words = listed ? (size_t)n_allowed : c->n_words;
    size_t own = (sizeof(struct mask_part) + 7) & ~(size_t)7;
    size_t bytes = own + words * sizeof(uint32_t) + (size_t)n_dependents * sizeof *c->dependents;
    make_room(c, bytes);
    struct mask_part *p = mem_zalloc(bytes, 1);
    if (!p) {
        err_no_memory(e, bytes);
        return NULL;
    }
    p->owner = m;
    p->class = class;
    p->bytes = bytes;
    uint32_t *data = (uint32_t *)(void *)((char *)p + own);
    if (listed) {
        int32_t *ids = (int32_t *)data;
        for (size_t w = 0; w < c->n_words; w++) {
            for (uint32_t left = c->bits[w]; left; left &= left - 1) {
                ids[p->n_ids++] = (int32_t)(32 * w) + __builtin_ctz(left);
            }
        }
        p->ids = ids;
    } else {
        memcpy(data, c->bits, words * sizeof *data);
        p->bits = data;
    }
    struct dependent *dependents = (struct dependent *)(void *)(data + words);
    memcpy(dependents, c->dependents, (size_t)n_dependents * sizeof *dependents);
    p->dependents = dependents;
    p->n_dependents = n_dependents;
    c->bytes += bytes;
    lru_add(&c->parts, &p->lru);
    m->parts[class] = p;
    return p;
}

struct whole_mask *mask_cache_find(struct token_masks *m, const struct places *p)
{
    struct whole_mask *w = *slot_of(m, p->items, p->n, p->ends);
    while (w && !(w->n_places == p->n && w->ends == p->ends &&
                  memcmp(w->places, p->items, (size_t)p->n * sizeof *p->items) == 0)) {
        w = w->next;
    }
    if (w) {
        lru_touch(&m->cache->wholes, &w->lru);
    }
    return w;
}

struct whole_mask *mask_cache_keep(struct token_masks *m, const struct places *p, bool empty,
                                   struct err *e)
{
    struct mask_cache *c = m->cache;
    size_t own = (sizeof(struct whole_mask) + 7) & ~(size_t)7;
    size_t key = (size_t)p->n * sizeof *p->items;
    size_t bytes = own + key + c->n_words * sizeof *c->bits;
    make_room(c, bytes);
    struct whole_mask *w = mem_zalloc(bytes, 1);
    if (!w) {
        err_no_memory(e, bytes);
        return NULL;
    }
    struct place *places = (struct place *)(void *)((char *)w + own);
    uint32_t *bits = (uint32_t *)(void *)((char *)places + key);
    memcpy(places, p->items, key);
    memcpy(bits, c->joined, c->n_words * sizeof *bits);
    w->owner = m;
    w->bytes = bytes;
    w->places = places;
    w->n_places = p->n;
    w->ends = p->ends;
    w->empty = empty;
    w->bits = bits;
    struct whole_mask **slot = slot_of(m, p->items, p->n, p->ends);
    w->next = *slot;
    *slot = w;
    c->bytes += bytes;
    lru_add(&c->wholes, &w->lru);
    return w;
}
