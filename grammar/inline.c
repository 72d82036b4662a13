/* Small rules without loops, such as one character of a string, are written out where they
 * are called. A token of many characters would otherwise leave and enter the rule many times,
 * and what it does would depend on the callers. Larger rules stay apart, so that what is
 * known of them serves all who call them. */
#include "grammar/grammar_impl.h"

#include "base/alloc.h"

#include <string.h>

#define MOST_STATES 48 /* of a small rule */
#define MOST_CALLS  4  /* of large rules out of a small one */
#define MOST_COPIES (GRAMMAR_MAX_NFA_STATES / 2)
#define MOST_ROUNDS 8 /* small rules in small rules */

/* The states of a rule, in the order in which they are found. */
struct body {
    int32_t states[MOST_STATES];
    int n, n_calls;
};

static int index_of(const struct body *body, int32_t state)
{
    for (int i = 0; i < body->n; i++) {
        if (body->states[i] == state) {
            return i;
        }
    }
    return -1;
}

/* False: too many. */
static bool collect(const struct grammar_builder *b, int32_t rule, struct body *body)
{
    body->states[0] = b->rules[rule].start;
    body->n = 1;
    body->n_calls = 0;
    for (int i = 0; i < body->n; i++) {
        for (int32_t k = b->first_edge[body->states[i]]; k >= 0; k = b->edges[k].next) {
            body->n_calls += b->edges[k].kind == EDGE_CALL;
            if (index_of(body, b->edges[k].to) < 0) {
                if (body->n == MOST_STATES) {
                    return false;
                }
                body->states[body->n++] = b->edges[k].to;
            }
        }
    }
    return index_of(body, b->rules[rule].end) >= 0;
}

/* States that nothing leads to are taken away until none is left; what remains is a loop. */
static bool has_loop(const struct grammar_builder *b, const struct body *body)
{
    int n_in[MOST_STATES] = {0};
    int ready[MOST_STATES] = {0};
    int n_ready = 0;
    int n_done = 0;
    for (int i = 0; i < body->n; i++) {
        for (int32_t k = b->first_edge[body->states[i]]; k >= 0; k = b->edges[k].next) {
            n_in[index_of(body, b->edges[k].to)]++;
        }
    }
    if (n_in[0] == 0) {
        ready[n_ready++] = 0;
    }
    for (; n_done < n_ready; n_done++) {
        int32_t state = body->states[ready[n_done]];
        for (int32_t k = b->first_edge[state]; k >= 0; k = b->edges[k].next) {
            int to = index_of(body, b->edges[k].to);
            if (--n_in[to] == 0) {
                ready[n_ready++] = to;
            }
        }
    }
    return n_done < body->n;
}

/* Edge k, a call, becomes a copy of what it calls. */
static void write_out(struct grammar_builder *b, int32_t k, const struct body *body)
{
    int32_t base = b->n_states;
    struct nfa_rule rule = b->rules[b->edges[k].rule];
    for (int i = 0; i < body->n; i++) {
        builder_state(b);
    }
    for (int i = 0; i < body->n && !b->failed; i++) {
        int32_t next;
        for (int32_t j = b->first_edge[body->states[i]]; j >= 0 && !b->failed; j = next) {
            struct nfa_edge edge = b->edges[j];
            next = edge.next;
            int32_t to = base + index_of(body, edge.to);
            if (edge.kind == EDGE_EMPTY) {
                builder_empty(b, base + i, to);
            } else if (edge.kind == EDGE_CALL) {
                builder_call(b, base + i, edge.rule, to);
            } else {
                builder_bytes(b, base + i, edge.lo, edge.hi, to);
            }
        }
    }
    if (!b->failed) {
        int32_t behind = b->edges[k].to;
        b->edges[k].kind = EDGE_EMPTY;
        b->edges[k].to = base;
        builder_empty(b, base + index_of(body, rule.end), behind);
    }
}

/* Rules that became small, with so many calls at most. Returns how many there are. */
static int find_small(const struct grammar_builder *b, int most_calls, bool *small, bool *fresh)
{
    int n = 0;
    struct body body = {.n = 0};
    for (int32_t r = 0; r < b->n_rules; r++) {
        fresh[r] = !small[r] && b->rules[r].start >= 0 && collect(b, r, &body) &&
                   body.n_calls <= most_calls && !has_loop(b, &body);
        small[r] |= fresh[r];
        n += fresh[r];
    }
    return n;
}

void builder_inline(struct grammar_builder *b)
{
    size_t n_rules = (size_t)b->n_rules + 1;
    bool *small = mem_zalloc(n_rules, sizeof *small);
    bool *fresh = mem_zalloc(n_rules, sizeof *fresh);
    if (!small || !fresh) {
        b->failed = true;
        err_no_memory(b->e, n_rules);
    }
    int32_t most = b->n_states + MOST_COPIES;
    /* Whatever still calls in the last round calls large rules, or itself in the end: such
     * calls are copied as they are. */
    for (int round = 0; round < MOST_ROUNDS && !b->failed; round++) {
        bool last = round == MOST_ROUNDS - 1;
        if (find_small(b, last ? MOST_CALLS : 0, small, fresh) == 0) {
            continue;
        }
        int32_t n_edges = b->n_edges;
        for (int32_t k = 0; k < n_edges && !b->failed; k++) {
            struct body body = {.n = 0};
            if (b->edges[k].kind == EDGE_CALL && fresh[b->edges[k].rule] && b->n_states < most &&
                collect(b, b->edges[k].rule, &body)) {
                write_out(b, k, &body);
            }
        }
    }
    mem_free(small);
    mem_free(fresh);
}
