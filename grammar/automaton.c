/* Rules under construction -> one deterministic automaton for each, by the subset
 * construction with calls as further symbols; then what cannot end is cut off. */
#include "grammar/grammar_impl.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

/* A sorted set of states of the builder. */
struct subset {
    int32_t *items; /* arena */
    int32_t n;
    int32_t next; /* in its slot of the table, -1 = last */
};

struct making {
    struct grammar_builder *b;
    struct arena arena; /* subsets */
    uint32_t *start_of; /* [n_rules] */
    int32_t *pending;   /* rules whose automaton is wanted */
    int32_t n_pending, n_made;

    struct automaton_state *states; /* [n_states] */
    struct byte_edge *edges;
    struct call_edge *calls; /* start: the rule, until all are made */
    int32_t n_states, cap_states, n_edges, cap_edges, n_calls, cap_calls;

    struct subset *subsets; /* [n_subsets] of the rule in hand, its states in order */
    int32_t n_subsets, cap_subsets;
    int32_t *slots; /* [n_slots] of the table of subsets, -1 = free */
    int32_t n_slots;
    uint32_t *seen; /* [b->n_states] = round when it was added to the subset in hand */
    uint32_t round;
    int32_t *stack; /* [b->n_states] */
    size_t work;
};

static bool grow(struct making *m, void **items, int32_t n, int32_t *cap, size_t size, int32_t most)
{
    if (n < *cap) {
        return true;
    }
    if (n >= most) {
        builder_fail(m->b, ERR_TOO_LARGE,
                     "the grammar is too large: its automaton has more than %d states or edges",
                     most);
        return false;
    }
    int32_t want = *cap ? *cap * 2 : 1024;
    want = want < most ? want : most;
    void *more = mem_realloc(*items, (size_t)want, size);
    if (!more) {
        m->b->failed = true;
        err_no_memory(m->b->e, (size_t)want * size);
        return false;
    }
    *items = more;
    *cap = want;
    return true;
}

static void fail_memory(struct making *m, size_t bytes)
{
    m->b->failed = true;
    err_no_memory(m->b->e, bytes);
}

static bool spend(struct making *m, size_t n)
{
    m->work += n;
    if (m->work > GRAMMAR_MAX_WORK) {
        builder_fail(m->b, ERR_TOO_LARGE,
                     "the grammar is too ambiguous: its automaton takes too many steps to build");
    }
    return !m->b->failed;
}

/* ---- subsets -------------------------------------------------------------------------------- */

static int compare_states(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t hash_items(const int32_t *items, int32_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < n; i++) {
        h = (h ^ (uint32_t)items[i]) * 0x100000001b3u;
        h ^= h >> 29;
    }
    return h;
}

static bool rehash(struct making *m)
{
    int32_t n = m->n_slots ? m->n_slots * 2 : 1024;
    int32_t *slots = mem_alloc((size_t)n, sizeof *slots);
    if (!slots) {
        fail_memory(m, (size_t)n * sizeof *slots);
        return false;
    }
    mem_free(m->slots);
    m->slots = slots;
    m->n_slots = n;
    memset(slots, 0xff, (size_t)n * sizeof *slots);
    for (int32_t i = 0; i < m->n_subsets; i++) {
        uint64_t at = hash_items(m->subsets[i].items, m->subsets[i].n) & (uint64_t)(n - 1);
        m->subsets[i].next = slots[at];
        slots[at] = i;
    }
    return true;
}

static bool add_state(struct making *m)
{
    void *items = m->states;
    if (!grow(m, &items, m->n_states, &m->cap_states, sizeof *m->states, GRAMMAR_MAX_STATES)) {
        return false;
    }
    m->states = items;
    m->states[m->n_states++] = (struct automaton_state){0};
    return true;
}

/* The set in stack[n], closed over empty edges, as a state of the rule in hand; NONE when
 * something failed. */
static int32_t intern(struct making *m, int32_t n)
{
    const struct grammar_builder *b = m->b;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = b->first_edge[m->stack[i]]; k >= 0; k = b->edges[k].next) {
            const struct nfa_edge *edge = &b->edges[k];
            if (edge->kind == EDGE_EMPTY && m->seen[edge->to] != m->round) {
                m->seen[edge->to] = m->round;
                m->stack[n++] = edge->to;
            }
        }
    }
    if (!spend(m, (size_t)n + 1)) {
        return -1;
    }
    qsort(m->stack, (size_t)n, sizeof *m->stack, compare_states);
    if (m->n_subsets * 2 >= m->n_slots && !rehash(m)) {
        return -1;
    }
    uint64_t at = hash_items(m->stack, n) & (uint64_t)(m->n_slots - 1);
    for (int32_t i = m->slots[at]; i >= 0; i = m->subsets[i].next) {
        if (m->subsets[i].n == n &&
            memcmp(m->subsets[i].items, m->stack, (size_t)n * sizeof *m->stack) == 0) {
            return i;
        }
    }
    void *items = m->subsets;
    if (!grow(m, &items, m->n_subsets, &m->cap_subsets, sizeof *m->subsets, GRAMMAR_MAX_STATES)) {
        return -1;
    }
    m->subsets = items;
    struct subset s = {.items = arena_alloc(&m->arena, (size_t)n, sizeof *s.items), .n = n};
    if (!s.items || !add_state(m)) {
        if (!b->failed) {
            fail_memory(m, (size_t)n * sizeof *s.items);
        }
        return -1;
    }
    memcpy(s.items, m->stack, (size_t)n * sizeof *s.items);
    s.next = m->slots[at];
    m->slots[at] = m->n_subsets;
    m->subsets[m->n_subsets] = s;
    return m->n_subsets++;
}

/* ---- one rule ---------------------------------------------------------------------------------
 */

static bool add_byte_edge(struct making *m, struct automaton_state *s, int lo, int hi, uint32_t to)
{
    if (s->n_edges > 0) { /* the one before may only need to become longer */
        struct byte_edge *last = &m->edges[m->n_edges - 1];
        if (last->to == to && last->hi + 1 == lo) {
            last->hi = (uint16_t)hi;
            return true;
        }
    }
    void *items = m->edges;
    if (!grow(m, &items, m->n_edges, &m->cap_edges, sizeof *m->edges, 8 * GRAMMAR_MAX_STATES)) {
        return false;
    }
    m->edges = items;
    m->edges[m->n_edges++] = (struct byte_edge){.to = to, .lo = (uint16_t)lo, .hi = (uint16_t)hi};
    s->n_edges++;
    return true;
}

/* All byte edges out of the subset, cut where any of them begins or ends. */
static void make_byte_edges(struct making *m, int32_t index, uint32_t base)
{
    const struct grammar_builder *b = m->b;
    bool cut[257] = {false};
    struct subset s = m->subsets[index];
    size_t n_edges = 0;
    for (int32_t i = 0; i < s.n; i++) {
        for (int32_t k = b->first_edge[s.items[i]]; k >= 0; k = b->edges[k].next) {
            const struct nfa_edge *edge = &b->edges[k];
            if (edge->kind == EDGE_BYTES) {
                cut[edge->lo] = cut[edge->hi + 1] = true;
                n_edges++;
            }
        }
    }
    struct automaton_state out = m->states[base + (uint32_t)index];
    out.first_edge = (uint32_t)m->n_edges;
    for (int lo = 0, hi; n_edges > 0 && lo < 256; lo = hi) {
        for (hi = lo + 1; hi < 256 && !cut[hi]; hi++) {
        }
        int32_t n = 0;
        m->round++;
        for (int32_t i = 0; i < s.n; i++) {
            for (int32_t k = b->first_edge[s.items[i]]; k >= 0; k = b->edges[k].next) {
                const struct nfa_edge *edge = &b->edges[k];
                if (edge->kind == EDGE_BYTES && edge->lo <= lo && edge->hi >= lo &&
                    m->seen[edge->to] != m->round) {
                    m->seen[edge->to] = m->round;
                    m->stack[n++] = edge->to;
                }
            }
        }
        if (!spend(m, n_edges)) {
            return;
        }
        int32_t to = n > 0 ? intern(m, n) : -1;
        if (b->failed || (n > 0 && !add_byte_edge(m, &out, lo, hi - 1, base + (uint32_t)to))) {
            return;
        }
    }
    m->states[base + (uint32_t)index] = out;
}

static void want_rule(struct making *m, int32_t rule)
{
    if (m->start_of[rule] == NONE) {
        m->start_of[rule] = NONE - 1;
        m->pending[m->n_pending++] = rule;
    }
}

/* The smallest rule called out of the subset that is larger than `after`; -1 = none. */
static int32_t next_called(const struct making *m, const struct subset *s, int32_t after)
{
    const struct grammar_builder *b = m->b;
    int32_t rule = -1;
    for (int32_t i = 0; i < s->n; i++) {
        for (int32_t k = b->first_edge[s->items[i]]; k >= 0; k = b->edges[k].next) {
            const struct nfa_edge *edge = &b->edges[k];
            if (edge->kind == EDGE_CALL && edge->rule > after && (rule < 0 || edge->rule < rule)) {
                rule = edge->rule;
            }
        }
    }
    return rule;
}

static void make_call_edges(struct making *m, int32_t index, uint32_t base)
{
    const struct grammar_builder *b = m->b;
    struct subset s = m->subsets[index];
    struct automaton_state out = m->states[base + (uint32_t)index];
    out.first_call = (uint32_t)m->n_calls;
    for (int32_t rule = next_called(m, &s, -1); rule >= 0; rule = next_called(m, &s, rule)) {
        int32_t n = 0;
        m->round++;
        for (int32_t i = 0; i < s.n; i++) {
            for (int32_t k = b->first_edge[s.items[i]]; k >= 0; k = b->edges[k].next) {
                const struct nfa_edge *edge = &b->edges[k];
                if (edge->kind == EDGE_CALL && edge->rule == rule &&
                    m->seen[edge->to] != m->round) {
                    m->seen[edge->to] = m->round;
                    m->stack[n++] = edge->to;
                }
            }
        }
        int32_t back = spend(m, (size_t)s.n) ? intern(m, n) : -1;
        void *items = m->calls;
        if (b->failed || out.n_calls == UINT16_MAX ||
            !grow(m, &items, m->n_calls, &m->cap_calls, sizeof *m->calls, GRAMMAR_MAX_STATES)) {
            builder_fail(m->b, ERR_TOO_LARGE, "the grammar is too large: too many alternatives");
            return;
        }
        m->calls = items;
        m->calls[m->n_calls++] =
            (struct call_edge){.start = (uint32_t)rule, .back = base + (uint32_t)back};
        out.n_calls++;
        want_rule(m, rule);
    }
    m->states[base + (uint32_t)index] = out;
}

static bool holds_state(const struct subset *s, int32_t state)
{
    return bsearch(&state, s->items, (size_t)s->n, sizeof state, compare_states) != NULL;
}

static void make_rule(struct making *m, int32_t rule)
{
    struct nfa_rule r = m->b->rules[rule];
    struct arena_mark mark = arena_mark(&m->arena);
    uint32_t base = (uint32_t)m->n_states;
    m->start_of[rule] = base;
    m->n_subsets = 0;
    if (m->n_slots > 0) {
        memset(m->slots, 0xff, (size_t)m->n_slots * sizeof *m->slots);
    }
    m->round++;
    m->seen[r.start] = m->round;
    m->stack[0] = r.start;
    intern(m, 1);
    for (int32_t i = 0; i < m->n_subsets && !m->b->failed; i++) {
        make_byte_edges(m, i, base);
        if (!m->b->failed) {
            make_call_edges(m, i, base);
        }
        if (!m->b->failed && holds_state(&m->subsets[i], r.end)) {
            m->states[base + (uint32_t)i].flags |= STATE_ACCEPTS;
        }
    }
    arena_rewind(&m->arena, mark);
}

static void make_all(struct making *m, int32_t root)
{
    memset(m->start_of, 0xff, (size_t)m->b->n_rules * sizeof *m->start_of);
    want_rule(m, root);
    while (m->n_made < m->n_pending && !m->b->failed) {
        make_rule(m, m->pending[m->n_made++]);
    }
    for (int32_t i = 0; i < m->n_calls && !m->b->failed; i++) {
        m->calls[i].start = m->start_of[m->calls[i].start];
    }
}

/* ---- what cannot end, and what never begins
 * ------------------------------------------------------ */

static bool call_lives(const struct call_edge *call, const bool *live)
{
    return live[call->start] && live[call->back];
}

static bool state_lives(const struct making *m, int32_t i, const bool *live)
{
    const struct automaton_state *s = &m->states[i];
    bool lives = (s->flags & STATE_ACCEPTS) != 0;
    for (int k = 0; k < s->n_edges && !lives; k++) {
        lives = live[m->edges[s->first_edge + (uint32_t)k].to];
    }
    for (int k = 0; k < s->n_calls && !lives; k++) {
        lives = call_lives(&m->calls[s->first_call + (uint32_t)k], live);
    }
    return lives;
}

/* live[i]: from state i the rule can end. States are numbered so that few edges lead back,
 * so going through them from the last to the first settles nearly all at once. */
static void find_live(struct making *m, bool *live)
{
    for (bool changed = true; changed && spend(m, (size_t)m->n_states);) {
        changed = false;
        for (int32_t i = m->n_states - 1; i >= 0; i--) {
            if (!live[i] && state_lives(m, i, live)) {
                live[i] = changed = true;
            }
        }
    }
}

static void cut_dead(struct making *m, const bool *live)
{
    for (int32_t i = 0; i < m->n_states; i++) {
        struct automaton_state *s = &m->states[i];
        uint16_t n = 0;
        for (uint32_t k = s->first_edge; k < s->first_edge + s->n_edges; k++) {
            if (live[m->edges[k].to]) {
                m->edges[s->first_edge + n++] = m->edges[k];
            }
        }
        s->n_edges = n;
        n = 0;
        for (uint32_t k = s->first_call; k < s->first_call + s->n_calls; k++) {
            if (call_lives(&m->calls[k], live)) {
                m->calls[s->first_call + n++] = m->calls[k];
            }
        }
        s->n_calls = n;
        if ((s->flags & STATE_ACCEPTS) && s->n_edges == 0 && s->n_calls == 0) {
            s->flags |= STATE_LAST;
        }
    }
}

/* ---- the finished grammar
 * ---------------------------------------------------------------------------- */

/* New numbers for the states that can be reached, in the order in which they are found;
 * returns how many. */
static int32_t number_reached(const struct making *m, uint32_t start, uint32_t *number,
                              int32_t *order)
{
    int32_t n = 0;
    memset(number, 0xff, (size_t)m->n_states * sizeof *number);
    number[start] = 0;
    order[n++] = (int32_t)start;
    for (int32_t i = 0; i < n; i++) {
        const struct automaton_state *s = &m->states[order[i]];
        for (uint32_t k = 0; k < s->n_edges; k++) {
            uint32_t to = m->edges[s->first_edge + k].to;
            if (number[to] == NONE) {
                number[to] = (uint32_t)n;
                order[n++] = (int32_t)to;
            }
        }
        for (uint32_t k = 0; k < s->n_calls; k++) {
            const struct call_edge *call = &m->calls[s->first_call + k];
            const uint32_t to[2] = {call->start, call->back};
            for (int j = 0; j < 2; j++) {
                if (number[to[j]] == NONE) {
                    number[to[j]] = (uint32_t)n;
                    order[n++] = (int32_t)to[j];
                }
            }
        }
    }
    return n;
}

static int alloc_grammar(struct grammar *g, int n_states, int n_edges, int n_calls)
{
    g->n_states = n_states;
    g->states = mem_zalloc((size_t)n_states, sizeof *g->states);
    g->edges = mem_zalloc((size_t)n_edges + 1, sizeof *g->edges);
    g->calls = mem_zalloc((size_t)n_calls + 1, sizeof *g->calls);
    g->class_of = mem_zalloc((size_t)n_states, sizeof *g->class_of);
    g->bytes = sizeof *g + (size_t)n_states * (sizeof *g->states + sizeof *g->class_of) +
               ((size_t)n_edges + 1) * sizeof *g->edges + ((size_t)n_calls + 1) * sizeof *g->calls;
    return g->states && g->edges && g->calls && g->class_of ? 0 : -1;
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

static void fill_grammar(const struct making *m, struct grammar *g, const uint32_t *number,
                         const int32_t *order)
{
    for (int i = 0; i < g->n_states; i++) {
        const struct automaton_state *s = &m->states[order[i]];
        struct automaton_state *out = &g->states[i];
        *out = *s;
        out->first_edge = (uint32_t)g->n_edges;
        out->first_call = (uint32_t)g->n_calls;
        for (uint32_t k = 0; k < s->n_edges; k++) {
            g->edges[g->n_edges] = m->edges[s->first_edge + k];
            g->edges[g->n_edges].to = number[g->edges[g->n_edges].to];
            g->n_edges++;
        }
        for (uint32_t k = 0; k < s->n_calls; k++) {
            const struct call_edge *call = &m->calls[s->first_call + k];
            g->calls[g->n_calls++] =
                (struct call_edge){.start = number[call->start], .back = number[call->back]};
        }
    }
    uint64_t h = 0xcbf29ce484222325u;
    h = hash_bytes(h, g->states, (size_t)g->n_states * sizeof *g->states);
    h = hash_bytes(h, g->edges, (size_t)g->n_edges * sizeof *g->edges);
    g->digest = hash_bytes(h, g->calls, (size_t)g->n_calls * sizeof *g->calls);
}

static struct grammar *finish(struct making *m)
{
    size_t n = (size_t)m->n_states;
    bool *live = mem_zalloc(n, sizeof *live);
    uint32_t *number = mem_alloc(n, sizeof *number);
    int32_t *order = mem_alloc(n, sizeof *order);
    struct grammar *g = mem_zalloc(1, sizeof *g);
    if (!live || !number || !order || !g) {
        fail_memory(m, n * sizeof *number);
    } else {
        find_live(m, live);
        if (!m->b->failed && !live[0]) {
            builder_fail(m->b, ERR_INVALID,
                         "the grammar allows no text at all: nothing that "
                         "`root` begins can end");
        }
        cut_dead(m, live);
    }
    if (!m->b->failed) {
        int32_t reached = number_reached(m, 0, number, order);
        if (alloc_grammar(g, reached, m->n_edges, m->n_calls)) {
            fail_memory(m, n * sizeof *g->states);
        } else {
            fill_grammar(m, g, number, order);
            m->b->failed = automaton_check_recursion(g, m->b->e) || automaton_classes(g, m->b->e);
        }
    }
    mem_free(live);
    mem_free(number);
    mem_free(order);
    if (g) {
        atomic_init(&g->n_refs, 1);
        if (m->b->failed) {
            grammar_unref(g);
            g = NULL;
        }
    }
    return g;
}

struct grammar *automaton_build(struct grammar_builder *b, int32_t root)
{
    if (!b->failed) {
        builder_inline(b);
    }
    if (b->failed) {
        return NULL;
    }
    struct making m = {.b = b};
    arena_init(&m.arena, GRAMMAR_MAX_BUILD);
    size_t n_rules = (size_t)b->n_rules;
    size_t n_states = (size_t)b->n_states + 1;
    struct grammar *g = NULL;
    m.start_of = mem_alloc(n_rules, sizeof *m.start_of);
    m.pending = mem_alloc(n_rules, sizeof *m.pending);
    m.seen = mem_zalloc(n_states, sizeof *m.seen);
    m.stack = mem_alloc(n_states, sizeof *m.stack);
    if (!m.start_of || !m.pending || !m.seen || !m.stack) {
        fail_memory(&m, n_states * sizeof *m.stack);
    } else {
        make_all(&m, root);
    }
    if (!b->failed) {
        g = finish(&m);
    }
    mem_free(m.start_of);
    mem_free(m.pending);
    mem_free(m.seen);
    mem_free(m.stack);
    mem_free(m.states);
    mem_free(m.edges);
    mem_free(m.calls);
    mem_free(m.subsets);
    mem_free(m.slots);
    arena_clear(&m.arena);
    return g;
}

/* ---- what users of a finished one need
 * --------------------------------------------------------------- */

struct grammar *grammar_ref(struct grammar *g)
{
    if (g) {
        atomic_fetch_add(&g->n_refs, 1);
    }
    return g;
}

void grammar_unref(struct grammar *g)
{
    if (!g || atomic_fetch_sub(&g->n_refs, 1) > 1) {
        return;
    }
    mem_free(g->states);
    mem_free(g->edges);
    mem_free(g->calls);
    mem_free(g->class_of);
    mem_free(g);
}

bool grammar_equal(const struct grammar *a, const struct grammar *b)
{
    return a == b || (a->digest == b->digest && a->n_states == b->n_states &&
                      a->n_edges == b->n_edges && a->n_calls == b->n_calls &&
                      memcmp(a->states, b->states, (size_t)a->n_states * sizeof *a->states) == 0 &&
                      memcmp(a->edges, b->edges, (size_t)a->n_edges * sizeof *a->edges) == 0 &&
                      memcmp(a->calls, b->calls, (size_t)a->n_calls * sizeof *a->calls) == 0);
}

int grammar_n_states(const struct grammar *g)
{
    return g->n_states;
}

size_t grammar_bytes(const struct grammar *g)
{
    return g->bytes;
}
