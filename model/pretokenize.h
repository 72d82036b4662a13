/* Cuts text into the words that byte-pair merges never cross. Each GGUF file names its
 * rule in tokenizer.ggml.pre; a rule is one or two regular expressions, run by PCRE2. */
#ifndef TAMP_MODEL_PRETOKENIZE_H
#define TAMP_MODEL_PRETOKENIZE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct pretokenizer; /* immutable, thread-safe */

/* `pre` (not NUL-terminated) is the name in the file, or an alias of ours. NULL:
 * ERR_UNSUPPORTED with the list of names, or ERR_NO_MEMORY. */
struct pretokenizer *pretokenizer_open(const char *pre, size_t pre_len, struct err *e);
void pretokenizer_close(struct pretokenizer *p);

const char *pretokenizer_name(const struct pretokenizer *p);
/* A word that is a token as it stands is taken whole, merges or not. */
bool pretokenizer_whole_words(const struct pretokenizer *p);
/* Files with this rule want BOS unless they say otherwise. */
bool pretokenizer_adds_bos(const struct pretokenizer *p);

/* One walk over one text; belongs to one thread. */
struct pretokenize_cursor {
    const struct pretokenizer *rule;
    void *match; /* PCRE2's working memory */
    const char *text;
    size_t len;
    size_t next;                 /* first byte not yet looked at */
    size_t stretch, stretch_end; /* valid UTF-8 that is not cut yet */
    size_t section, section_end; /* of the stretch: between two cuts of the first rule */
};

int pretokenize_begin(struct pretokenize_cursor *c, const struct pretokenizer *p, struct err *e);
/* Starts another text with the same cursor. */
void pretokenize_text(struct pretokenize_cursor *c, const char *text, size_t len);
/* 1: *begin..*end is the next word; 0: no more; -1: error. The words follow each other
 * without gap or overlap; a byte that is not UTF-8 is a word of its own. */
int pretokenize_next(struct pretokenize_cursor *c, size_t *begin, size_t *end, struct err *e);
void pretokenize_end(struct pretokenize_cursor *c);

#endif
