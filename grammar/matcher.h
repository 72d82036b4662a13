/* Where a text may be inside a grammar: a set of places, each a state of the automaton and
 * the calls that led there. Calls are nodes of a tree that grows towards the caller and holds
 * each node once, so that equal places are equal numbers.
 *
 * One thread at a time. */
#ifndef TAMP_GRAMMAR_MATCHER_H
#define TAMP_GRAMMAR_MATCHER_H

#include "grammar/grammar.h"

/* More places at once mean a grammar that is too ambiguous to be followed. */
#define MATCHER_MAX_PLACES 256

/* Where the outermost rule returns to: the end of the text; and where one returns to whose
 * callers are not known. */
#define NODE_ROOT    0u
#define NODE_UNKNOWN 1u

struct place {
    uint32_t state;
    uint32_t node; /* where the state's rule returns to */
};

struct places {
    struct place items[MATCHER_MAX_PLACES];
    int n;
    bool ends;    /* the text may end here */
    bool escapes; /* goes on behind NODE_UNKNOWN */
};

struct call_node {
    uint32_t back, caller, next; /* next: in its slot, 0 = last */
};

struct matcher {
    const struct grammar *grammar;
    struct call_node *nodes;
    uint32_t n_nodes, cap_nodes;
    uint32_t *slots; /* [n_slots], 0 = free */
    uint32_t n_slots;
    uint64_t n_steps; /* comparisons of places, ever: what following costs */
};

int matcher_init(struct matcher *m, const struct grammar *g, struct err *e);
void matcher_clear(struct matcher *m);
size_t matcher_bytes(const struct matcher *m);
/* Where a text begins. -1: no memory, or too ambiguous. */
int matcher_begin(struct matcher *m, struct places *out, struct err *e);
/* Behind one more byte; none are left when the grammar does not have it. */
int matcher_step(struct matcher *m, const struct places *from, uint8_t byte, struct places *out,
                 struct err *e);

#endif
