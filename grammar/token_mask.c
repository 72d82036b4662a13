#include "grammar/token_mask.h"

#include "grammar/grammar_impl.h"
#include "grammar/token_mask_impl.h"

#include <string.h>

/* A walk over a large vocabulary takes a few million comparisons; one of so many would hold up
 * everybody's answers. */
#define MOST_STEPS 20000000u

static void allow(uint32_t *bits, int32_t id)
{
    bits[id / 32] |= 1u << (id % 32);
}

/* ---- following tokens -------------------------------------------------------------------------
 */

/* Tokens in ascending order from one place: what neighbours share is done once. */
struct walk {
    struct token_masks *masks;
    int reached;    /* path[0..reached] are those of the token before */
    bool stuck;     /* its byte `reached` led nowhere */
    uint64_t limit; /* of the matcher's steps */
};

static void walk_begin(struct walk *w, struct token_masks *m, struct place from)
{
    struct mask_cache *c = m->cache;
    c->path[0].items[0] = from;
    c->path[0].n = 1;
    c->path[0].ends = c->path[0].escapes = false;
    c->escaped[0] = false;
    *w = (struct walk){.masks = m, .limit = m->matcher.n_steps + MOST_STEPS};
}

enum outcome { FAILED = -1, NO, YES, DEPENDS };

/* `shared`: first bytes that are those of the token before. */
static enum outcome walk_token(struct walk *w, const struct vocabulary_token *t, int shared,
                               struct err *e)
{
    struct token_masks *m = w->masks;
    struct mask_cache *c = m->cache;
    if (!(w->stuck && shared > w->reached)) {
        int at = shared < w->reached ? shared : w->reached;
        w->stuck = false;
        while (at < t->len && !w->stuck) {
            struct places *to = &c->path[at + 1];
            if (matcher_step(&m->matcher, &c->path[at], (uint8_t)t->text[at], to, e)) {
                return FAILED;
            }
            w->stuck = to->n == 0 && !to->ends && !to->escapes;
            if (!w->stuck) {
                c->escaped[at + 1] = c->escaped[at] || to->escapes;
                at++;
            }
        }
        w->reached = at;
        if (m->matcher.n_steps > w->limit) {
            err_reason(e, ERR_TOO_LARGE, "grammar_too_ambiguous",
                       "the grammar is too ambiguous: its next tokens take too long to find");
            return FAILED;
        }
    }
    return !w->stuck ? YES : c->escaped[w->reached] ? DEPENDS : NO;
}

/* All tokens from a state whose callers are not known. */
static struct mask_part *make_part(struct token_masks *m, uint32_t state, struct err *e)
{
    struct mask_cache *c = m->cache;
    const struct vocabulary *v = c->vocabulary;
    struct walk w;
    int n_allowed = 0;
    int n_dependents = 0;
    int shared = 0; /* with the dependent before */
    memset(c->bits, 0, c->n_words * sizeof *c->bits);
    walk_begin(&w, m, (struct place){state, NODE_UNKNOWN});
    for (int i = 0; i < v->n_tokens; i++) {
        const struct vocabulary_token *t = &v->tokens[i];
        shared = t->shared < shared ? t->shared : shared;
        enum outcome o = walk_token(&w, t, t->shared, e);
        if (o == FAILED) {
            return NULL;
        }
        if (o == YES) {
            allow(c->bits, t->id);
            n_allowed++;
        } else if (o == DEPENDS) {
            c->dependents[n_dependents++] = (struct dependent){i, (uint8_t)shared};
            shared = t->len;
        }
    }
    c->n_walked++;
    return mask_cache_keep_part(m, m->grammar->class_of[state], n_allowed, n_dependents, e);
}

static struct mask_part *part_of(struct token_masks *m, uint32_t state, struct err *e)
{
    struct mask_part *p = m->parts[m->grammar->class_of[state]];
    if (p) {
        lru_touch(&m->cache->parts, &p->lru);
    }
    return p ? p : make_part(m, state, e);
}

/* What the part settles, and its dependents with the callers of this place. */
static int add_place(struct token_masks *m, const struct mask_part *p, struct place place,
                     uint32_t *bits, struct err *e)
{
    const struct vocabulary *v = m->cache->vocabulary;
    for (size_t i = 0; p->bits && i < m->cache->n_words; i++) {
        bits[i] |= p->bits[i];
    }
    for (int i = 0; i < p->n_ids; i++) {
        allow(bits, p->ids[i]);
    }
    struct walk w;
    walk_begin(&w, m, place);
    for (int i = 0; i < p->n_dependents; i++) {
        const struct vocabulary_token *t = &v->tokens[p->dependents[i].token];
        enum outcome o = walk_token(&w, t, p->dependents[i].shared, e);
        if (o == FAILED) {
            return -1;
        }
        if (o == YES) {
            allow(bits, t->id);
        }
    }
    return 0;
}

/* The mask of these places. A part may be given up when the next one is made, so each is used
 * at once. */
static struct whole_mask *join(struct token_masks *m, const struct places *p, struct err *e)
{
    struct mask_cache *c = m->cache;
    memset(c->joined, 0, c->n_words * sizeof *c->joined);
    for (int i = 0; i < p->n; i++) {
        const struct mask_part *part = part_of(m, p->items[i].state, e);
        if (!part || add_place(m, part, p->items[i], c->joined, e)) {
            return NULL;
        }
    }
    for (int i = 0; p->ends && i < c->vocabulary->n_ends; i++) {
        allow(c->joined, c->vocabulary->ends[i]);
    }
    bool empty = true;
    for (size_t i = 0; i < c->n_words && empty; i++) {
        empty = c->joined[i] == 0;
    }
    c->n_joined++;
    return mask_cache_keep(m, p, empty, e);
}

/* ---- one answer ---------------------------------------------------------------------------------
 */

int constraint_begin(struct constraint *c, struct token_masks *m, struct err *e)
{
    c->masks = m;
    return matcher_begin(&m->matcher, &c->places, e);
}

const uint32_t *constraint_mask(struct constraint *c, struct err *e)
{
    struct token_masks *m = c->masks;
    struct mask_cache *cache = m->cache;
    uint64_t before = m->matcher.n_steps;
    cache->n_asked++;
    struct whole_mask *w = mask_cache_find(m, &c->places);
    if (!w) {
        w = join(m, &c->places, e);
        mask_cache_account(m);
    }
    cache->n_steps += m->matcher.n_steps - before;
    if (w && w->empty) {
        err_reason(e, ERR_UNSUPPORTED, "grammar_not_writable",
                   "no token of the model's vocabulary can go on where the grammar is now");
        return NULL;
    }
    return w ? w->bits : NULL;
}

int constraint_accept(struct constraint *c, int32_t id, struct err *e)
{
    struct token_masks *m = c->masks;
    const struct vocabulary *v = m->cache->vocabulary;
    int place = id >= 0 && id < v->n ? v->place_of[id] : -1;
    if (place < 0) {
        return 0;
    }
    const struct vocabulary_token *t = &v->tokens[place];
    struct places *from = &c->places;
    struct places *to = m->cache->path;
    for (int i = 0; i < t->len; i++, from = to++) {
        if (matcher_step(&m->matcher, from, (uint8_t)t->text[i], to, e)) {
            return -1;
        }
    }
    if (from->n == 0 && !from->ends) {
        return err_set(e, ERR_INTERNAL, "token %d is outside the grammar", id);
    }
    c->places = *from;
    return 0;
}

bool constraint_is_over(const struct constraint *c)
{
    return c->places.n == 0;
}
