/* Left recursion: a rule that calls itself before any byte would be called without end.
 *
 * The graph of what takes no byte has an edge into each called rule and one over a call that
 * may be empty. A call inside a strongly connected component (Tarjan, 1972) recurses. */
#include "grammar/grammar_impl.h"

#include "base/alloc.h"

struct search {
    const struct grammar *g;
    bool *empty;                /* [n_states] the rule can end here without a byte */
    uint32_t *index, *low;      /* [n_states] 0 = not visited */
    bool *open;                 /* [n_states] on `component` */
    uint32_t *path, *component; /* [n_states] */
    uint32_t *step;             /* [n_states] next edge: two for each call */
    uint32_t n_path, n_component, n_visited;
};

static void find_empty(const struct grammar *g, bool *empty)
{
    for (int i = 0; i < g->n_states; i++) {
        empty[i] = (g->states[i].flags & STATE_ACCEPTS) != 0;
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = g->n_states - 1; i >= 0; i--) {
            const struct automaton_state *s = &g->states[i];
            for (uint32_t k = 0; k < s->n_calls && !empty[i]; k++) {
                const struct call_edge *call = &g->calls[s->first_call + k];
                empty[i] = empty[call->start] && empty[call->back];
                changed |= empty[i];
            }
        }
    }
}

static void visit(struct search *s, uint32_t i)
{
    s->index[i] = s->low[i] = ++s->n_visited;
    s->open[i] = true;
    s->component[s->n_component++] = i;
    s->path[s->n_path++] = i;
}

static bool same_component(struct search *s, uint32_t root)
{
    const struct grammar *g = s->g;
    uint32_t first = s->n_component;
    do {
        first--;
    } while (s->component[first] != root);
    bool recursive = false;
    /* all of the component, and nothing else behind it, is still open */
    for (uint32_t c = first; c < s->n_component; c++) {
        const struct automaton_state *state = &g->states[s->component[c]];
        for (uint32_t k = 0; k < state->n_calls; k++) {
            uint32_t start = g->calls[state->first_call + k].start;
            recursive |= s->open[start] && s->index[start] >= s->index[root];
        }
    }
    while (s->n_component > first) {
        s->open[s->component[--s->n_component]] = false;
    }
    return recursive;
}

/* The component of every state that can be reached from `root`. */
static bool recurses_from(struct search *s, uint32_t root)
{
    visit(s, root);
    while (s->n_path > 0) {
        uint32_t i = s->path[s->n_path - 1];
        const struct automaton_state *state = &s->g->states[i];
        if (s->step[i] < 2u * state->n_calls) {
            const struct call_edge *call = &s->g->calls[state->first_call + s->step[i] / 2];
            bool over = s->step[i]++ % 2 == 1;
            uint32_t to = over ? call->back : call->start;
            if (over && !s->empty[call->start]) {
                continue;
            }
            if (s->index[to] == 0) {
                visit(s, to);
            } else if (s->open[to] && s->index[to] < s->low[i]) {
                s->low[i] = s->index[to];
            }
            continue;
        }
        s->n_path--;
        if (s->n_path > 0 && s->low[i] < s->low[s->path[s->n_path - 1]]) {
            s->low[s->path[s->n_path - 1]] = s->low[i];
        }
        if (s->low[i] == s->index[i] && same_component(s, i)) {
            return true;
        }
    }
    return false;
}

int automaton_check_recursion(const struct grammar *g, struct err *e)
{
    size_t n = (size_t)g->n_states;
    struct search s = {.g = g};
    s.empty = mem_zalloc(n, sizeof *s.empty);
    s.open = mem_zalloc(n, sizeof *s.open);
    uint32_t *numbers = mem_zalloc(5 * n, sizeof *numbers);
    int rc = 0;
    if (!s.empty || !s.open || !numbers) {
        rc = err_no_memory(e, 5 * n * sizeof *numbers);
    } else {
        s.index = numbers;
        s.low = numbers + n;
        s.path = numbers + 2 * n;
        s.component = numbers + 3 * n;
        s.step = numbers + 4 * n;
        find_empty(g, s.empty);
        for (uint32_t i = 0; i < n && rc == 0; i++) {
            if (s.index[i] == 0 && recurses_from(&s, i)) {
                rc = err_reason(e, ERR_INVALID, "invalid_value",
                                "the grammar is left-recursive: a rule calls itself before any "
                                "character; turn the rule round, or use *");
            }
        }
    }
    mem_free(s.empty);
    mem_free(s.open);
    mem_free(numbers);
    return rc;
}
