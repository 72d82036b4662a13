/* Answers that have a grammar: which tokens may come next, and when nothing can follow. */
#include "engine/engine_impl.h"

#include <string.h>

/* Masks of a vocabulary of 50,000 have 6 KB each; a schema in use has some hundred. */
#define MASK_CACHE_BYTES ((size_t)64 << 20)

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

int constrain_open(struct engine *en, struct err *e)
{
    struct vocabulary_source src = {
        .n = tokenizer_n_vocab(en->tokenizer), .token = token_of, .ctx = en->tokenizer};
    en->vocabulary = vocabulary_new(&src, e);
    en->mask_cache = en->vocabulary ? mask_cache_new(en->vocabulary, MASK_CACHE_BYTES, e) : NULL;
    return en->mask_cache ? 0 : -1;
}

void constrain_close(struct engine *en)
{
    mask_cache_free(en->mask_cache);
    vocabulary_free(en->vocabulary);
}

int constrain_begin(struct engine *en, struct job *j, struct err *e)
{
    if (!j->gen.grammar) {
        return 0;
    }
    if (!j->constraint) {
        j->constraint = arena_alloc(&j->arena, 1, sizeof *j->constraint);
    }
    if (!j->constraint) {
        return err_no_memory(e, sizeof *j->constraint);
    }
    if (!j->masks) {
        j->masks = mask_cache_get(en->mask_cache, j->gen.grammar, e);
    }
    return j->masks ? constraint_begin(j->constraint, j->masks, e) : -1;
}

int constrain_mask(struct job *j, const uint32_t **allowed, struct err *e)
{
    *allowed = j->gen.grammar ? constraint_mask(j->constraint, e) : NULL;
    return j->gen.grammar && !*allowed ? -1 : 0;
}

int constrain_accept(struct job *j, token_id id, bool *over, struct err *e)
{
    *over = false;
    if (!j->gen.grammar) {
        return 0;
    }
    if (constraint_accept(j->constraint, id, e)) {
        return -1;
    }
    *over = constraint_is_over(j->constraint);
    return 0;
}

void constrain_end(struct job *j)
{
    mask_cache_release(j->masks);
    j->masks = NULL;
    j->constraint = NULL; /* another attempt begins with an arena of its own */
}
