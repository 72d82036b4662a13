/* What the tests of grammar/ share: whole texts against a grammar, and vocabularies. */
#ifndef TAMP_TESTS_UNIT_GRAMMAR_FIXTURE_H
#define TAMP_TESTS_UNIT_GRAMMAR_FIXTURE_H

#include "base/rng.h"
#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "grammar/vocabulary.h"
#include "model/tokenizer.h"

struct grammar *gbnf(const char *text);   /* the test fails when it is refused */
struct grammar *schema(const char *json); /* the same */
/* Why it is refused; *e is filled. The test fails when it is not. */
void refused_gbnf(const char *text, struct err *e);
void refused_schema(const char *json, struct err *e);

enum fit { NO_FIT, PREFIX, WHOLE };
enum fit fit(const struct grammar *g, const char *text, size_t n);
enum fit fit_text(const struct grammar *g, const char *text);

/* A text of the grammar by random steps, cut after max bytes (then *whole is false). */
size_t random_text(const struct grammar *g, struct rng *r, char *out, size_t max, bool *whole);

/* The vocabulary of tests/golden/tiny/NAME.gguf, as the engine sees it; it borrows from *t. */
struct vocabulary *tiny_vocabulary(const char *name, struct tokenizer **t);

#endif
