#include "tests/unit/tokenizer_fixture.h"

#include "base/alloc.h"
#include "tests/test.h"

#include <stdio.h>

const char *const tiny_files[N_TINY] = {
    "gemma3", "gpt2-k-quants", "llama-bpe", "llama-spm", "qwen2", "qwen3", "smollm-legacy-quants",
};

struct tokenizer *open_tokenizer(const char *path)
{
    struct err e = ERR_INIT;
    struct gguf *g = gguf_open(path, &e);
    struct tokenizer *t = g ? tokenizer_open(g, &e) : NULL;
    if (!t) {
        FAIL("%s: %s", path, e.msg);
    }
    gguf_close(g);
    return t;
}

struct tokenizer *open_tiny(const char *name)
{
    char rest[64];
    snprintf(rest, sizeof rest, "tiny/%s.gguf", name);
    char *path = test_golden_path(rest);
    struct tokenizer *t = open_tokenizer(path);
    mem_free(path);
    return t;
}

void encode(struct ids *out, const struct tokenizer *t, const char *text, size_t len,
            const struct text_range *special, int n_special)
{
    struct err e = ERR_INIT;
    arena_init(&out->arena, ARENA_BYTES);
    CHECK_OK(tokenizer_encode(t, text, len, special, n_special, true, &out->arena, &out->token,
                              &out->n, &e),
             e);
    size_t at = 0;
    for (int i = 0; i < out->n; i++) {
        CHECK_INT(out->token[i].begin, ==, at);
        CHECK_INT(out->token[i].end, >=, at);
        at = out->token[i].end;
    }
    CHECK_INT(at, ==, out->n ? len : 0);
}
