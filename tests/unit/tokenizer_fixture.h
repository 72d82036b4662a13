/* What the tests of the tokenizer share. */
#ifndef TAMP_TESTS_TOKENIZER_FIXTURE_H
#define TAMP_TESTS_TOKENIZER_FIXTURE_H

#include "model/tokenizer.h"
#include "model/tokenizer_impl.h"

#define ARENA_BYTES ((size_t)256 << 20)

/* tests/golden/tiny/NAME.gguf */
#define N_TINY 7
extern const char *const tiny_files[N_TINY];

/* The test fails when the file is refused. */
struct tokenizer *open_tokenizer(const char *path);
struct tokenizer *open_tiny(const char *name);

struct ids {
    struct arena arena; /* cleared by the caller */
    struct token *token;
    int n;
};

/* tokenizer_encode of a text that opens a sequence; checks that the tokens' bytes follow
 * each other and cover the text. */
void encode(struct ids *out, const struct tokenizer *t, const char *text, size_t len,
            const struct text_range *special, int n_special);

#endif
