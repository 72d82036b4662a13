/* What an answer may look like: a set of byte strings, as a pushdown automaton.
 *
 * A rule is a deterministic automaton over bytes and calls of rules; a call continues in the
 * other rule and returns. So a rule is compiled once however often it is used, recursion is
 * natural, and two alternatives that begin alike are one path. What is left of ambiguity
 * (a call beside a byte) is followed side by side by grammar/matcher.h.
 *
 * Immutable once compiled, counted by reference, shared by threads. */
#ifndef TAMP_GRAMMAR_GRAMMAR_H
#define TAMP_GRAMMAR_GRAMMAR_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct grammar;

/* A byte that no text has stands before the name of a control token: only a grammar that
 * says so can ask for one. */
#define GRAMMAR_CONTROL_BYTE 0xff

/* GBNF, llama.cpp's dialect; `root` is where it begins. Errors name the line. */
struct grammar *grammar_from_gbnf(const char *text, size_t len, struct err *e);
/* Exactly the JSON texts (with bounded white space) that the schema accepts, or a part of
 * them where nothing shorter is regular: properties come in the schema's order, and others
 * only where additionalProperties asks for them. A keyword that cannot be kept is refused
 * with its path. `param` is what the paths begin with. */
struct grammar *grammar_from_schema(const struct cJSON *schema, const char *param, struct err *e);
/* Any JSON object. */
struct grammar *grammar_json_object(struct err *e);

struct grammar *grammar_ref(struct grammar *g); /* NULL is fine */
void grammar_unref(struct grammar *g);
/* The same automaton, compared in full. */
bool grammar_equal(const struct grammar *a, const struct grammar *b);
int grammar_n_states(const struct grammar *g);
size_t grammar_bytes(const struct grammar *g);

#endif
