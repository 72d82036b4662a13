/* The texts of a vocabulary's tokens in order, so that a walk over all of them does the bytes
 * that neighbours share only once. Immutable. */
#ifndef TAMP_GRAMMAR_VOCABULARY_H
#define TAMP_GRAMMAR_VOCABULARY_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vocabulary_kind {
    VOCABULARY_TEXT,    /* writes its bytes */
    VOCABULARY_CONTROL, /* writes nothing; its bytes are its name */
    VOCABULARY_END,     /* ends the answer */
};

/* Where tokens come from; texts must stay valid as long as the vocabulary. */
struct vocabulary_source {
    int n; /* ids are 0..n-1 */
    enum vocabulary_kind (*token)(const void *ctx, int id, const char **text, size_t *len);
    const void *ctx;
};

struct vocabulary_token {
    const char *text;
    int32_t id;
    uint8_t len;    /* 1..GRAMMAR_MAX_TOKEN */
    uint8_t shared; /* first bytes that are those of the token before */
};

struct vocabulary {
    int n;                           /* ids */
    struct vocabulary_token *tokens; /* [n_tokens], ascending by bytes */
    int n_tokens;
    int32_t *ends; /* [n_ends] */
    int n_ends;
    int *place_of;      /* [n] index into tokens, -1 = none */
    char *control_text; /* names of control tokens behind GRAMMAR_CONTROL_BYTE */
};

struct vocabulary *vocabulary_new(const struct vocabulary_source *src, struct err *e);
void vocabulary_free(struct vocabulary *v);

/* The number of first bytes that two texts have in common. */
size_t vocabulary_shared(const char *a, size_t a_len, const char *b, size_t b_len);

#endif
