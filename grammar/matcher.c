#include "grammar/matcher.h"

#include "base/alloc.h"
#include "grammar/grammar_impl.h"

#include <string.h>

#define MAX_NODES (1u << 22)

int matcher_init(struct matcher *m, const struct grammar *g, struct err *e)
{
    *m = (struct matcher){.grammar = g, .n_nodes = 2, .cap_nodes = 64, .n_slots = 128};
    m->nodes = mem_zalloc(m->cap_nodes, sizeof *m->nodes);
    m->slots = mem_zalloc(m->n_slots, sizeof *m->slots);
    if (!m->nodes || !m->slots) {
        matcher_clear(m);
        return err_no_memory(e, m->cap_nodes * sizeof *m->nodes);
    }
    return 0;
}

void matcher_clear(struct matcher *m)
{
    mem_free(m->nodes);
    mem_free(m->slots);
    *m = (struct matcher){.grammar = NULL};
}

size_t matcher_bytes(const struct matcher *m)
{
    return m->cap_nodes * sizeof *m->nodes + m->n_slots * sizeof *m->slots;
}

static uint32_t slot_of(const struct matcher *m, uint32_t back, uint32_t caller)
{
    uint64_t h = ((uint64_t)back << 32 | caller) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 40) & (m->n_slots - 1);
}

/* Twice as many nodes and slots. */
static int grow(struct matcher *m, struct err *e)
{
    if (m->cap_nodes >= MAX_NODES) {
        return err_set(e, ERR_TOO_LARGE, "the answer nests deeper than the grammar's memory");
    }
    void *nodes = mem_realloc(m->nodes, 2 * (size_t)m->cap_nodes, sizeof *m->nodes);
    if (!nodes) {
        return err_no_memory(e, 2 * (size_t)m->cap_nodes * sizeof *m->nodes);
    }
    m->nodes = nodes;
    uint32_t *slots = mem_zalloc(2 * (size_t)m->n_slots, sizeof *slots);
    if (!slots) {
        return err_no_memory(e, 2 * (size_t)m->n_slots * sizeof *slots);
    }
    mem_free(m->slots);
    m->slots = slots;
    m->cap_nodes *= 2;
    m->n_slots *= 2;
    for (uint32_t i = 2; i < m->n_nodes; i++) {
        uint32_t at = slot_of(m, m->nodes[i].back, m->nodes[i].caller);
        m->nodes[i].next = slots[at];
        slots[at] = i;
    }
    return 0;
}

/* The node of a call; 0 = no memory. */
static uint32_t call(struct matcher *m, uint32_t back, uint32_t caller, struct err *e)
{
    for (uint32_t i = m->slots[slot_of(m, back, caller)]; i; i = m->nodes[i].next) {
        if (m->nodes[i].back == back && m->nodes[i].caller == caller) {
            return i;
        }
    }
    if (m->n_nodes == m->cap_nodes && grow(m, e)) {
        return 0;
    }
    uint32_t at = slot_of(m, back, caller);
    m->nodes[m->n_nodes] = (struct call_node){back, caller, m->slots[at]};
    m->slots[at] = m->n_nodes;
    return m->n_nodes++;
}

static int add(struct matcher *m, struct places *p, uint32_t state, uint32_t node, struct err *e)
{
    m->n_steps += (uint64_t)p->n + 1;
    for (int i = 0; i < p->n; i++) {
        if (p->items[i].state == state && p->items[i].node == node) {
            return 0;
        }
    }
    if (p->n == MATCHER_MAX_PLACES) {
        return err_reason(e, ERR_TOO_LARGE, "grammar_too_ambiguous",
                          "the grammar is too ambiguous: the answer may be at more than %d places "
                          "of it at once",
                          MATCHER_MAX_PLACES);
    }
    p->items[p->n++] = (struct place){state, node};
    return 0;
}

/* Follow calls and returns, and forget places that take no byte. */
static int close_places(struct matcher *m, struct places *p, struct err *e)
{
    const struct grammar *g = m->grammar;
    for (int i = 0; i < p->n; i++) {
        struct place at = p->items[i];
        const struct automaton_state *s = &g->states[at.state];
        if ((s->flags & STATE_ACCEPTS) && at.node > NODE_UNKNOWN) {
            const struct call_node *n = &m->nodes[at.node];
            if (add(m, p, n->back, n->caller, e)) {
                return -1;
            }
        }
        p->ends |= (s->flags & STATE_ACCEPTS) && at.node == NODE_ROOT;
        p->escapes |= (s->flags & STATE_ACCEPTS) && at.node == NODE_UNKNOWN;
        for (uint32_t k = 0; k < s->n_calls; k++) {
            const struct call_edge *c = &g->calls[s->first_call + k];
            bool returns = !(g->states[c->back].flags & STATE_LAST);
            uint32_t node = returns ? call(m, c->back, at.node, e) : at.node;
            if ((returns && node == 0) || add(m, p, c->start, node, e)) {
                return -1;
            }
        }
    }
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        if (g->states[p->items[i].state].n_edges > 0) {
            p->items[n++] = p->items[i];
        }
    }
    p->n = n;
    return 0;
}

int matcher_begin(struct matcher *m, struct places *out, struct err *e)
{
    out->n = 0;
    out->ends = out->escapes = false;
    return add(m, out, m->grammar->start, NODE_ROOT, e) ? -1 : close_places(m, out, e);
}

int matcher_step(struct matcher *m, const struct places *from, uint8_t byte, struct places *out,
                 struct err *e)
{
    const struct grammar *g = m->grammar;
    out->n = 0;
    out->ends = out->escapes = false;
    for (int i = 0; i < from->n; i++) {
        const struct automaton_state *s = &g->states[from->items[i].state];
        const struct byte_edge *edges = &g->edges[s->first_edge];
        int low = 0;
        int high = s->n_edges;
        while (low < high) {
            int mid = (low + high) / 2;
            if (edges[mid].hi < byte) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        if (low < s->n_edges && edges[low].lo <= byte &&
            add(m, out, edges[low].to, from->items[i].node, e)) {
            return -1;
        }
    }
    return close_places(m, out, e);
}
