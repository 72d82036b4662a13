#include "tests/unit/grammar_fixture.h"

#include "grammar/grammar_impl.h"
#include "tests/test.h"
#include "tests/unit/tokenizer_fixture.h"

#include <cjson/cJSON.h>
#include <string.h>

struct grammar *gbnf(const char *text)
{
    struct err e = ERR_INIT;
    struct grammar *g = grammar_from_gbnf(text, strlen(text), &e);
    if (!g) {
        FAIL("%s: %s", text, e.msg);
    }
    return g;
}

static struct grammar *compile_schema(const char *json, struct err *e)
{
    cJSON *tree = cJSON_Parse(json);
    if (!tree) {
        FAIL("not JSON: %s", json);
    }
    struct grammar *g = grammar_from_schema(tree, "S", e);
    cJSON_Delete(tree);
    return g;
}

struct grammar *schema(const char *json)
{
    struct err e = ERR_INIT;
    struct grammar *g = compile_schema(json, &e);
    if (!g) {
        FAIL("%s: [%s] %s", json, e.param, e.msg);
    }
    return g;
}

void refused_gbnf(const char *text, struct err *e)
{
    *e = (struct err)ERR_INIT;
    if (grammar_from_gbnf(text, strlen(text), e)) {
        FAIL("taken: %s", text);
    }
    CHECK(e->code != ERR_NONE && e->msg[0]);
}

void refused_schema(const char *json, struct err *e)
{
    *e = (struct err)ERR_INIT;
    if (compile_schema(json, e)) {
        FAIL("taken: %s", json);
    }
    CHECK(e->code != ERR_NONE && e->msg[0]);
}

enum fit fit(const struct grammar *g, const char *text, size_t n)
{
    struct err e = ERR_INIT;
    struct matcher m;
    struct places at;
    struct places next;
    CHECK_OK(matcher_init(&m, g, &e), e);
    CHECK_OK(matcher_begin(&m, &at, &e), e);
    for (size_t i = 0; i < n; i++) {
        CHECK_OK(matcher_step(&m, &at, (uint8_t)text[i], &next, &e), e);
        at = next;
    }
    matcher_clear(&m);
    return at.ends ? WHOLE : at.n > 0 ? PREFIX : NO_FIT;
}

enum fit fit_text(const struct grammar *g, const char *text)
{
    return fit(g, text, strlen(text));
}

size_t random_text(const struct grammar *g, struct rng *r, char *out, size_t max, bool *whole)
{
    struct err e = ERR_INIT;
    struct matcher m;
    struct places at;
    struct places next;
    size_t n = 0;
    CHECK_OK(matcher_init(&m, g, &e), e);
    CHECK_OK(matcher_begin(&m, &at, &e), e);
    while (n < max && at.n > 0 && !(at.ends && rng_below(r, 2))) {
        struct place p = at.items[rng_below(r, (uint64_t)at.n)];
        const struct automaton_state *s = &g->states[p.state];
        const struct byte_edge *edge = &g->edges[s->first_edge + rng_below(r, s->n_edges)];
        uint8_t byte = (uint8_t)(edge->lo + rng_below(r, edge->hi - edge->lo + 1u));
        CHECK_OK(matcher_step(&m, &at, byte, &next, &e), e);
        CHECK(next.n > 0 || next.ends);
        out[n++] = (char)byte;
        at = next;
    }
    *whole = at.ends;
    matcher_clear(&m);
    return n;
}

static enum vocabulary_kind token_of(const void *ctx, int id, const char **text, size_t *len)
{
    const struct tokenizer *t = ctx;
    if (tokenizer_is_eog(t, id)) {
        return VOCABULARY_END;
    }
    *text = tokenizer_piece(t, id, false, len);
    if (*len > 0) {
        return VOCABULARY_TEXT;
    }
    *text = tokenizer_piece(t, id, true, len);
    return VOCABULARY_CONTROL;
}

struct vocabulary *tiny_vocabulary(const char *name, struct tokenizer **t)
{
    struct err e = ERR_INIT;
    *t = open_tiny(name);
    struct vocabulary_source src = {.n = tokenizer_n_vocab(*t), .token = token_of, .ctx = *t};
    struct vocabulary *v = vocabulary_new(&src, &e);
    if (!v) {
        FAIL("%s", e.msg);
    }
    return v;
}
