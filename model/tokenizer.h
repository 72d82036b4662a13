/* Text <-> token ids, as the GGUF file describes it. Immutable, thread-safe. */
#ifndef TAMP_MODEL_TOKENIZER_H
#define TAMP_MODEL_TOKENIZER_H

#include "base/err.h"
#include "compress/router.h"
#include "tensor/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t token_id;

struct tokenizer;

struct tokenizer *tokenizer_open(const struct gguf *g, struct err *e);
void tokenizer_close(struct tokenizer *t);

int tokenizer_n_vocab(const struct tokenizer *t);
const char *tokenizer_kind(const struct tokenizer *t); /* "bpe/smollm", "spm" */
token_id tokenizer_bos(const struct tokenizer *t);     /* -1 = none */
token_id tokenizer_eos(const struct tokenizer *t);
bool tokenizer_add_bos(const struct tokenizer *t);
/* End of generation: eos, eot, <|im_end|>, <end_of_turn>, ... */
bool tokenizer_is_eog(const struct tokenizer *t, token_id id);
bool tokenizer_is_special(const struct tokenizer *t, token_id id); /* control or user-defined */

struct token {
    token_id id;
    uint32_t begin, end; /* bytes of the input this token stands for */
};

/* Tokenise one run of text. Special tokens are recognised only inside the ranges
 * `special` (ascending; where the template speaks): user text is always plain text.
 * first_fragment: the text opens the sequence (SentencePiece's leading space, BOS is NOT
 * added here). *out from the arena. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                     const struct text_range *special, int n_special, bool first_fragment,
                     struct arena *a, struct token **out, int *n_out, struct err *e);

/* Bytes of one token as they appear in output text; control tokens give 0 bytes unless
 * `special`. May be part of a UTF-8 sequence. Valid as long as the tokenizer. */
const char *tokenizer_piece(const struct tokenizer *t, token_id id, bool special, size_t *len);

#endif
