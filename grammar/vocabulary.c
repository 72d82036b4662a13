#include "grammar/vocabulary.h"

#include "base/alloc.h"
#include "grammar/grammar_impl.h"

#include <stdlib.h>
#include <string.h>

size_t vocabulary_shared(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t n = 0;
    while (n < a_len && n < b_len && a[n] == b[n]) {
        n++;
    }
    return n;
}

static int compare(const void *a, const void *b)
{
    const struct vocabulary_token *x = a;
    const struct vocabulary_token *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int d = memcmp(x->text, y->text, n);
    if (d == 0) {
        d = (int)x->len - (int)y->len;
    }
    return d ? d : (x->id > y->id) - (x->id < y->id);
}

static size_t control_bytes(const struct vocabulary_source *src)
{
    size_t bytes = 1;
    for (int id = 0; id < src->n; id++) {
        const char *text;
        size_t len = 0;
        if (src->token(src->ctx, id, &text, &len) == VOCABULARY_CONTROL &&
            len < GRAMMAR_MAX_TOKEN) {
            bytes += len + 1;
        }
    }
    return bytes;
}

static void add_tokens(struct vocabulary *v, const struct vocabulary_source *src)
{
    char *control = v->control_text;
    for (int id = 0; id < src->n; id++) {
        const char *text = NULL;
        size_t len = 0;
        enum vocabulary_kind kind = src->token(src->ctx, id, &text, &len);
        if (kind == VOCABULARY_END) {
            v->ends[v->n_ends++] = id;
            continue;
        }
        if (kind == VOCABULARY_CONTROL && len > 0 && len < GRAMMAR_MAX_TOKEN) {
            *control = (char)GRAMMAR_CONTROL_BYTE;
            memcpy(control + 1, text, len);
            text = control;
            control += ++len;
        }
        if (len > 0 && len <= GRAMMAR_MAX_TOKEN) {
            v->tokens[v->n_tokens++] =
                (struct vocabulary_token){.text = text, .id = id, .len = (uint8_t)len};
        }
    }
}

struct vocabulary *vocabulary_new(const struct vocabulary_source *src, struct err *e)
{
    size_t n = (size_t)src->n + 1;
    struct vocabulary *v = mem_zalloc(1, sizeof *v);
    if (v) {
        v->n = src->n;
        v->tokens = mem_alloc(n, sizeof *v->tokens);
        v->ends = mem_alloc(n, sizeof *v->ends);
        v->place_of = mem_alloc(n, sizeof *v->place_of);
        v->control_text = mem_alloc(control_bytes(src), 1);
    }
    if (!v || !v->tokens || !v->ends || !v->place_of || !v->control_text) {
        vocabulary_free(v);
        err_no_memory(e, n * sizeof *v->tokens);
        return NULL;
    }
    add_tokens(v, src);
    qsort(v->tokens, (size_t)v->n_tokens, sizeof *v->tokens, compare);
    memset(v->place_of, 0xff, n * sizeof *v->place_of);
    for (int i = 0; i < v->n_tokens; i++) {
        struct vocabulary_token *t = &v->tokens[i];
        v->place_of[t->id] = i;
        t->shared = i ? (uint8_t)vocabulary_shared(t[-1].text, t[-1].len, t->text, t->len) : 0;
    }
    return v;
}

void vocabulary_free(struct vocabulary *v)
{
    if (!v) {
        return;
    }
    mem_free(v->tokens);
    mem_free(v->ends);
    mem_free(v->place_of);
    mem_free(v->control_text);
    mem_free(v);
}
