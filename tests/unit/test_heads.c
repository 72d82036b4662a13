/* Heads that look things up: the choice by hand, and on the real model against what an
 * analysis of its attention on other texts (support chats, numpy) found: block 8 head 0 and
 * block 2 head 4 stand out up to block 8, block 14 head 3 beyond. */
#include "base/alloc.h"
#include "engine/heads.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"

#include <unistd.h>

#define MODEL "models/SmolLM2-135M-Instruct.Q4_1.gguf"

TEST(heads_best_by_hand, "best first, the lower one of equals, none without a score")
{
    float score[2 * 3] = {0.5f, -1, 2, 2, 0, 3};
    const struct lookup_heads h = {.n_layer = 2, .n_head = 3, .score = score};
    struct lookup_head out[4];
    CHECK_INT(heads_best(&h, 0, 1, 4, out), ==, 4);
    CHECK_INT(out[0].layer * 3 + out[0].head, ==, 5);
    CHECK_INT(out[1].layer * 3 + out[1].head, ==, 2);
    CHECK_INT(out[2].layer * 3 + out[2].head, ==, 3);
    CHECK_INT(out[3].layer * 3 + out[3].head, ==, 0);
    CHECK_DOUBLE(out[0].weight, ==, 9);
    CHECK_INT(heads_best(&h, 0, 0, 4, out), ==, 2);
    CHECK_INT(heads_best(&h, 0, 9, 1, out), ==, 1);
    CHECK_INT(out[0].head, ==, 2);
    const struct lookup_heads none = {0};
    CHECK_INT(heads_best(&none, 0, 1, 4, out), ==, 0);
}

static bool has(const struct lookup_head *heads, int n, int layer, int head)
{
    for (int i = 0; i < n; i++) {
        if (heads[i].layer == layer && heads[i].head == head) {
            return true;
        }
    }
    return false;
}

TEST(heads_of_the_model, "the heads that a text of our own finds are those of other texts")
{
    struct fixture f;
    struct tokenizer *t;
    struct lookup_heads h;
    struct lookup_head best[4];
    struct err e = ERR_INIT;
    if (access(MODEL, R_OK)) {
        SKIP("no %s", MODEL);
    }
    fixture_open(&f, MODEL, 2);
    t = tokenizer_open(f.g, &e);
    CHECK(t);
    CHECK_OK(decoder_pack(f.d, &f.compute, &e), e);
    CHECK_OK(heads_measure(&h, f.d, t, 2048, &f.compute, &f.scratch, &e), e);
    CHECK_INT(f.scratch.used_bytes, ==, 0);
    CHECK_INT(heads_best(&h, 0, 8, 4, best), ==, 4);
    CHECK(has(best, 4, 8, 0));
    CHECK(has(best, 4, 2, 4));
    CHECK_INT(heads_best(&h, 0, 14, 4, best), ==, 4);
    CHECK(has(best, 4, 14, 3));
    heads_clear(&h);
    CHECK_OK(heads_measure(&h, f.d, t, 100, &f.compute, &f.scratch, &e), e); /* no room */
    CHECK_INT(heads_best(&h, 0, 29, 4, best), ==, 0);
    heads_clear(&h);
    heads_clear(&h);
    tokenizer_close(t);
    fixture_close(&f);
}
