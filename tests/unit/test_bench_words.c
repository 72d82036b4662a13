/* The prompts of `tamp bench`: as many tokens in every run, and no two runs alike. */
#include "base/alloc.h"
#include "cmd/bench_job.h"
#include "model/tokenizer.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#define N_WORDS 5
#define N_RUNS  2401

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

TEST(bench_words_differ, "2,401 runs of five words are 2,401 prompts")
{
    static char *texts[N_RUNS];
    struct buf b;
    buf_init(&b, BENCH_PROMPT_BYTES);
    for (int run = 0; run < N_RUNS; run++) {
        bench_words(&b, N_WORDS, run);
        texts[run] = mem_strdup(buf_str(&b));
        CHECK(texts[run]);
    }
    qsort(texts, N_RUNS, sizeof *texts, by_text);
    for (int i = 1; i < N_RUNS; i++) {
        CHECK(strcmp(texts[i - 1], texts[i]) != 0);
    }
    for (int i = 0; i < N_RUNS; i++) {
        mem_free(texts[i]);
    }
    buf_free(&b);
}

TEST(bench_words_count, "a run has one token for each word, whatever its number")
{
    struct err e = ERR_INIT;
    struct gguf *g = gguf_open(test_model_path(), &e);
    struct tokenizer *t = g ? tokenizer_open(g, &e) : NULL;
    CHECK(t);
    static const int runs[] = {0, 1, 9, 10, 48, 49, 100, 999, 2400};
    static const int counts[] = {1, 4, 50, 700};
    struct arena a;
    struct buf b;
    arena_init(&a, (size_t)64 << 20);
    buf_init(&b, BENCH_PROMPT_BYTES);
    int beside = -1; /* tokens of "Words:" */
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            struct token *tokens = NULL;
            int n = 0;
            bench_words(&b, counts[k], runs[i]);
            CHECK_OK(tokenizer_encode(t, buf_str(&b), b.len, NULL, 0, false, &a, &tokens, &n, &e),
                     e);
            beside = beside < 0 ? n - counts[k] : beside;
            CHECK_INT(n, ==, beside + counts[k]);
        }
    }
    buf_free(&b);
    arena_clear(&a);
    tokenizer_close(t);
    gguf_close(g);
}
