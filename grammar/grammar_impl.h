/* The inside of a grammar, shared by the files of grammar/ and their tests.
 *
 *   builder.c      rules under construction: states, byte ranges, calls, copies
 *   inline.c       small rules into their callers
 *   gbnf.c         GBNF text -> builder
 *   regex.c        `pattern` of JSON schema -> builder
 *   json_rules.c   the parts of JSON, as GBNF
 *   json_schema*.c JSON schema -> builder
 *   automaton.c    builder -> struct grammar: deterministic, trimmed, checked
 *   matcher.c      where a text may be inside a grammar
 *   token_mask.c   which tokens may come next */
#ifndef TAMP_GRAMMAR_GRAMMAR_IMPL_H
#define TAMP_GRAMMAR_GRAMMAR_IMPL_H

#include "base/arena.h"
#include "grammar/grammar.h"

#include <stdatomic.h>

/* Ceilings. A schema of a thousand properties has some ten thousand states. */
#define GRAMMAR_MAX_BYTES      ((size_t)1 << 20) /* of a GBNF text */
#define GRAMMAR_MAX_RULES      (1 << 14)
#define GRAMMAR_MAX_NFA_STATES (1 << 19)
#define GRAMMAR_MAX_STATES     (1 << 17)         /* deterministic ones */
#define GRAMMAR_MAX_WORK       ((size_t)1 << 26) /* steps of the subset construction */
#define GRAMMAR_MAX_REPEAT     8192              /* {n} of an item */
#define GRAMMAR_MAX_DEPTH      64                /* brackets in brackets */
#define GRAMMAR_MAX_BUILD      ((size_t)256 << 20)
/* Longer tokens are never allowed: the same text can be written with shorter ones. */
#define GRAMMAR_MAX_TOKEN 64

/* ---- under construction ---------------------------------------------------------------- */

enum edge_kind { EDGE_EMPTY, EDGE_BYTES, EDGE_CALL };

struct nfa_edge {
    int32_t to, next; /* next: of the same state, -1 = last */
    int32_t rule;     /* EDGE_CALL */
    uint8_t kind, lo, hi;
};

struct nfa_rule {
    int32_t start, end; /* -1 until defined */
};

/* The first failure sticks; what follows does nothing, so it is looked at once. */
struct grammar_builder {
    struct err *e;
    bool failed;
    int32_t *first_edge; /* [n_states], -1 = none */
    int32_t n_states, cap_states;
    struct nfa_edge *edges;
    int32_t n_edges, cap_edges;
    struct nfa_rule *rules;
    int32_t n_rules, cap_rules;
};

/* From `start` to `end`; its states have numbers that follow each other. */
struct fragment {
    int32_t start, end;
};

struct codepoint_range {
    uint32_t lo, hi; /* both included; surrogates inside are left out */
};

void builder_init(struct grammar_builder *b, struct err *e);
void builder_clear(struct grammar_builder *b);
int32_t builder_state(struct grammar_builder *b);
int32_t builder_rule(struct grammar_builder *b); /* not defined yet */
void builder_define(struct grammar_builder *b, int32_t rule, struct fragment f);
void builder_empty(struct grammar_builder *b, int32_t from, int32_t to);
void builder_bytes(struct grammar_builder *b, int32_t from, uint8_t lo, uint8_t hi, int32_t to);
void builder_call(struct grammar_builder *b, int32_t from, int32_t rule, int32_t to);
/* Bytes one after the other; the state behind them. */
int32_t builder_text(struct grammar_builder *b, int32_t from, const char *text, size_t n);
/* One character of the ranges, in UTF-8. */
void builder_codepoints(struct grammar_builder *b, int32_t from,
                        const struct codepoint_range *ranges, int n, int32_t to);
/* A copy of the states first..n_states-1 and their edges, of which `f` is the whole. */
struct fragment builder_copy(struct grammar_builder *b, int32_t first, int32_t behind,
                             struct fragment f);
/* f, whose states are first..n_states-1, from min to max times; max -1: without end. */
struct fragment builder_repeat(struct grammar_builder *b, int32_t first, struct fragment f, int min,
                               int max);
/* inline.c: small rules are written out where they are called. */
void builder_inline(struct grammar_builder *b);
void builder_fail(struct grammar_builder *b, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Sorted, joined; `negated`: all other characters. Returns how many, at most n + 1. */
int codepoint_normalise(struct codepoint_range *ranges, int n, bool negated);

/* ---- compiled ---------------------------------------------------------------------------- */

struct byte_edge {
    uint32_t to;
    uint16_t lo, hi; /* both included */
};

struct call_edge {
    uint32_t start; /* of the called rule */
    uint32_t back;  /* where it returns */
};

#define STATE_ACCEPTS 1u /* the rule may end here */
#define STATE_LAST    2u /* and does nothing else: a call that returns here need not return */

struct automaton_state {
    uint32_t first_edge, first_call;
    uint16_t n_edges, n_calls;
    uint32_t flags;
};

struct grammar {
    atomic_int n_refs;
    uint32_t start;
    int n_states, n_edges, n_calls;
    struct automaton_state *states;
    struct byte_edge *edges; /* of a state ascending, not overlapping */
    struct call_edge *calls;
    /* [n_states] States of one class let pass the same bytes, GRAMMAR_MAX_TOKEN of them, as
     * far as the rule itself decides: they share their tokens. */
    uint32_t *class_of;
    int n_classes;
    uint64_t digest;
    size_t bytes;
};

/* The grammar whose root is that rule; the builder stays the caller's. NULL with *e set. */
struct grammar *automaton_build(struct grammar_builder *b, int32_t root);
/* automaton_recursion.c: -1 when a rule may call itself before any byte. */
int automaton_check_recursion(const struct grammar *g, struct err *e);
/* automaton_classes.c: fills class_of. */
int automaton_classes(struct grammar *g, struct err *e);

/* ---- front ends ---------------------------------------------------------------------------- */

/* Adds the rules of a GBNF text; rules [n_names] get the rules of these names. -1: the
 * builder failed. */
int gbnf_add(struct grammar_builder *b, const char *text, size_t len, const char *const *names,
             int n_names, int32_t *rules);
/* One of the texts that the regular expression finds itself in, as the inside of a JSON
 * string, from `from`; the state behind it, or -1 with a reason. */
int32_t regex_add(struct grammar_builder *b, const char *pattern, int32_t from,
                  const char **reason);

extern const char json_rules[];

#endif
