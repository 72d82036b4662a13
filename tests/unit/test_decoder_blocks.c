/* A pass in two rounds: the lower blocks on all chunks first, the upper ones afterwards. To
 * the bit what one pass after the other gives, in the caches too; and the queries and keys
 * that a tap sees are those the attention uses. */
#include "base/alloc.h"
#include "model/attention_share.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"

#include <math.h>
#include <string.h>

#define N_FIRST 20

/* ids in two chunks through blocks [first, end); x: [n, n_embd] comes and goes. */
static void run_chunks(struct tiny *t, struct kv_cache *kv, float *x, int first, int end,
                       float *logits)
{
    struct err e = ERR_INIT;
    for (int at = 0, n = N_FIRST; at < t->n_prompt; at += n, n = t->n_prompt - N_FIRST) {
        struct rows rows = fixture_rows(&t->f, t->ids + at, n, at);
        size_t width = (size_t)rows.n_embd;
        bool last = at + n == t->n_prompt && end == t->f.info->n_layer;
        if (first > 0) {
            memcpy(rows.x, x + (size_t)at * width, (size_t)n * width * sizeof *x);
        }
        struct decoder_slice slice = {
            .kv = kv, .rows = &rows, .is_prompt = true, .logits = last ? logits : NULL};
        CHECK_OK(
            decoder_run_blocks(t->f.d, first, end, &slice, 1, &t->f.compute, &t->f.scratch, &e), e);
        memcpy(x + (size_t)at * width, rows.x, (size_t)n * width * sizeof *x);
    }
}

TEST(decoder_two_rounds, "lower blocks on everything, then the upper ones: the same bits")
{
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        tiny_open(&t, tiny_names[i], 2);
        int n_layer = t.f.info->n_layer;
        size_t n_vocab = (size_t)t.f.info->n_vocab;
        float *want = fixture_logits(&t.f, 1);
        float *got = fixture_logits(&t.f, 1);
        float *x = mem_alloc((size_t)t.n_prompt, (size_t)t.f.info->n_embd * sizeof *x);
        for (int cutoff = 0; cutoff < n_layer - 1; cutoff++) {
            struct kv_cache whole = fixture_kv(&t.f, &cutoff, 1, t.n_prompt);
            /* the second group's rows come when the first one's capacity is used up */
            struct kv_cache rounds = fixture_kv(&t.f, &cutoff, 1, t.n_prompt);
            fixture_ids(&t.f, &whole, t.ids, N_FIRST, false, NULL);
            fixture_ids(&t.f, &whole, t.ids + N_FIRST, t.n_prompt - N_FIRST, false, want);
            run_chunks(&t, &rounds, x, 0, cutoff + 1, NULL);
            CHECK_INT(rounds.group[0].n, ==, t.n_prompt);
            CHECK_INT(rounds.group[1].n, ==, 0);
            run_chunks(&t, &rounds, x, cutoff + 1, n_layer, got);
            CHECK(memcmp(got, want, n_vocab * sizeof *got) == 0);
            CHECK(fixture_same_kv(&whole, &rounds));
            fixture_kv_clear(&whole);
            fixture_kv_clear(&rounds);
        }
        mem_free(x);
        mem_free(want);
        mem_free(got);
        tiny_close(&t);
    }
}

struct seen {
    float total[64]; /* by layer: the shares of all queries of head 0 */
    int n_layers;
    struct arena scratch;
};

static void see(void *ctx, int layer, const struct attention_shape *shape, const float *q, int n,
                const struct kv_group *kv, int n_keys)
{
    struct seen *s = ctx;
    struct err e = ERR_INIT;
    float share[128] = {0};
    CHECK_INT(layer, ==, s->n_layers++);
    CHECK_INT(kv->n, ==, n_keys);
    CHECK_OK(attention_share(shape, q, n, kv, layer, 0, n_keys, share, &s->scratch, &e), e);
    for (int i = 0; i < n_keys; i++) {
        s->total[layer] += share[i];
    }
}

TEST(decoder_tap, "a tap sees each block once, with queries whose shares add up to one each")
{
    struct tiny t;
    struct seen s = {.n_layers = 0};
    struct err e = ERR_INIT;
    const struct decoder_tap tap = {see, &s};
    arena_init(&s.scratch, (size_t)1 << 24);
    tiny_open(&t, "llama-bpe", 2);
    struct kv_cache kv = fixture_kv(&t.f, NULL, 0, t.n_prompt);
    struct rows rows = fixture_rows(&t.f, t.ids, t.n_prompt, 0);
    struct decoder_slice slice = {.kv = &kv, .rows = &rows, .tap = &tap};
    CHECK_OK(decoder_run(t.f.d, &slice, 1, &t.f.compute, &t.f.scratch, &e), e);
    CHECK_INT(s.n_layers, ==, t.f.info->n_layer);
    for (int l = 0; l < s.n_layers - 1; l++) { /* nobody wants the last block's rows */
        CHECK_DOUBLE(fabs((double)s.total[l] - t.n_prompt), <, 1e-3);
    }
    CHECK(decoder_run_blocks(t.f.d, 1, 1, &slice, 1, &t.f.compute, &t.f.scratch, &e));
    CHECK_INT(e.code, ==, ERR_INTERNAL);
    fixture_kv_clear(&kv);
    arena_clear(&s.scratch);
    tiny_close(&t);
}
