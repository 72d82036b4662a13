/* Which states let pass the same next GRAMMAR_MAX_TOKEN bytes: refined from "all are alike"
 * round by round, a byte further each. A string of up to a thousand characters has a state
 * for every length, but only those near its end differ for a token. */
#include "grammar/grammar_impl.h"

#include "base/alloc.h"

#include <string.h>

struct refinement {
    struct grammar *g;
    uint32_t *next;    /* [n_states] classes of the round */
    uint32_t *example; /* [n_states] the first state of a class */
    uint32_t *slots;   /* [n_slots] class + 1, 0 = free */
    size_t n_slots;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t hash_state(const struct grammar *g, uint32_t i)
{
    const struct automaton_state *s = &g->states[i];
    uint64_t h = mix(s->flags, (uint64_t)s->n_edges << 16 | s->n_calls);
    for (uint32_t k = 0; k < s->n_edges; k++) {
        const struct byte_edge *edge = &g->edges[s->first_edge + k];
        h = mix(h, (uint64_t)g->class_of[edge->to] << 16 | (uint64_t)edge->lo << 8 | edge->hi);
    }
    for (uint32_t k = 0; k < s->n_calls; k++) {
        const struct call_edge *call = &g->calls[s->first_call + k];
        h = mix(h, (uint64_t)g->class_of[call->back] << 32 | call->start);
    }
    return h;
}

static bool alike(const struct grammar *g, uint32_t a, uint32_t b)
{
    const struct automaton_state *x = &g->states[a];
    const struct automaton_state *y = &g->states[b];
    if (x->flags != y->flags || x->n_edges != y->n_edges || x->n_calls != y->n_calls) {
        return false;
    }
    for (uint32_t k = 0; k < x->n_edges; k++) {
        const struct byte_edge *p = &g->edges[x->first_edge + k];
        const struct byte_edge *q = &g->edges[y->first_edge + k];
        if (p->lo != q->lo || p->hi != q->hi || g->class_of[p->to] != g->class_of[q->to]) {
            return false;
        }
    }
    for (uint32_t k = 0; k < x->n_calls; k++) {
        const struct call_edge *p = &g->calls[x->first_call + k];
        const struct call_edge *q = &g->calls[y->first_call + k];
        if (p->start != q->start || g->class_of[p->back] != g->class_of[q->back]) {
            return false;
        }
    }
    return true;
}

/* One byte further. Returns how many classes there are now. */
static int refine(struct refinement *r)
{
    struct grammar *g = r->g;
    uint32_t n = 0;
    memset(r->slots, 0, r->n_slots * sizeof *r->slots);
    for (uint32_t i = 0; i < (uint32_t)g->n_states; i++) {
        size_t at = hash_state(g, i) & (r->n_slots - 1);
        while (r->slots[at] && !alike(g, r->example[r->slots[at] - 1], i)) {
            at = (at + 1) & (r->n_slots - 1);
        }
        if (!r->slots[at]) {
            r->example[n++] = i;
            r->slots[at] = n;
        }
        r->next[i] = r->slots[at] - 1;
    }
    memcpy(g->class_of, r->next, (size_t)g->n_states * sizeof *r->next);
    return (int)n;
}

int automaton_classes(struct grammar *g, struct err *e)
{
    struct refinement r = {.g = g, .n_slots = 2};
    size_t n = (size_t)g->n_states;
    while (r.n_slots < 2 * n) {
        r.n_slots *= 2;
    }
    r.next = mem_alloc(n, sizeof *r.next);
    r.example = mem_alloc(n, sizeof *r.example);
    r.slots = mem_alloc(r.n_slots, sizeof *r.slots);
    int rc = 0;
    if (!r.next || !r.example || !r.slots) {
        rc = err_no_memory(e, (2 * n + r.n_slots) * sizeof *r.next);
    } else {
        int before = 0;
        for (int round = 0; round < GRAMMAR_MAX_TOKEN; round++) {
            g->n_classes = refine(&r);
            if (g->n_classes == before) {
                break;
            }
            before = g->n_classes;
        }
    }
    mem_free(r.next);
    mem_free(r.example);
    mem_free(r.slots);
    return rc;
}
