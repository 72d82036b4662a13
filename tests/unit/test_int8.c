/* What rounding activations to 8 bits (or bf16) costs: the whole model and the whole tower
 * with packed weights against the same in fp32, for every kernel set that this CPU runs
 * and both ways of computing, answers and prompts. */
#include "base/alloc.h"
#include "model/sampler.h"
#include "model/tokenizer.h"
#include "tensor/kernels.h"
#include "tensor/packed_kernels.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"
#include "tests/unit/vision_fixture.h"
#include "vision/vit.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The prompts of logits.json, one behind the other: at most max ids. */
static int prompt_ids(token_id *ids, int max)
{
    size_t n_bytes;
    char *path = test_golden_path("logits.json");
    char *text = test_read_file(path, &n_bytes);
    cJSON *root = cJSON_Parse(text);
    CHECK(root);
    const cJSON *one;
    const cJSON *id;
    int n = 0;
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(one, "tokens"))
        {
            if (n < max) {
                ids[n++] = id->valueint;
            }
        }
    }
    cJSON_Delete(root);
    mem_free(text);
    mem_free(path);
    return n;
}

static void run_prompt(struct fixture *f, const token_id *ids, int n, bool is_prompt, float *logits)
{
    struct kv_cache kv = fixture_kv(f, NULL, 0, n);
    struct rows rows = fixture_rows(f, ids, n, 0);
    fixture_run(f, (struct decoder_slice){.kv = &kv,
                                          .rows = &rows,
                                          .is_prompt = is_prompt,
                                          .all_logits = true,
                                          .logits = logits});
    fixture_kv_clear(&kv);
}

static int arg_max(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

static void compare(const char *what, const float *got, const float *want, int n, int n_vocab)
{
    int same = 0;
    double worst = 1;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const float *a = got + (size_t)i * (size_t)n_vocab;
        const float *b = want + (size_t)i * (size_t)n_vocab;
        double cosine = test_cosine(a, b, (size_t)n_vocab);
        worst = cosine < worst ? cosine : worst;
        sum += 1 - cosine;
        same += arg_max(a, n_vocab) == arg_max(b, n_vocab);
    }
    printf("      %-12s cosine of a row: worst %.6f, mean of 1 - cosine %.1e; arg-max the same at "
           "%d of %d\n",
           what, worst, sum / n, same, n);
    CHECK_DOUBLE(worst, >=, 0.999);
    CHECK_DOUBLE((double)same / n, >=, 0.97);
}

static bool runs_fast(const struct kernels *k)
{
    return k && strcmp(k->name, "ref") != 0;
}

enum { MAX_IDS = 160 };

TEST(int8_decoder, "SmolLM2 with packed weights: every row's cosine >= 0.999, arg-max >= 97 %")
{
    struct fixture f;
    token_id ids[MAX_IDS];
    int n = prompt_ids(ids, MAX_IDS);
    fixture_open(&f, test_model_path(), 2);
    float *want = fixture_logits(&f, n);
    float *got = fixture_logits(&f, n);
    run_prompt(&f, ids, n, true, want);
    struct err e = ERR_INIT;
    CHECK_OK(decoder_pack(f.d, &f.compute, &e), e);
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        const struct kernels *k = kernels_choose(*name, &e);
        if (!runs_fast(k)) {
            continue;
        }
        f.compute.kernels = k;
        run_prompt(&f, ids, n, false, got);
        compare(*name, got, want, n, f.info->n_vocab);
        if (k->packed->bulk_multiply) {
            run_prompt(&f, ids, n, true, got);
            compare("its tiles", got, want, n, f.info->n_vocab);
        }
    }
    mem_free(want);
    mem_free(got);
    fixture_close(&f);
}

enum { TEXT_IDS = 2000 };

/* The beginning of a text of this repository. */
static void text_ids(struct fixture *f, const char *path, token_id *ids)
{
    size_t n_bytes;
    struct err e = ERR_INIT;
    struct token *tokens = NULL;
    int n = 0;
    char *text = test_read_file(path, &n_bytes);
    struct tokenizer *t = tokenizer_open(f->g, &e);
    CHECK(t);
    CHECK_OK(tokenizer_encode(t, text, n_bytes, NULL, 0, true, &f->rows, &tokens, &n, &e), e);
    CHECK_INT(n, >=, TEXT_IDS);
    for (int i = 0; i < TEXT_IDS; i++) {
        ids[i] = tokens[i].id;
    }
    tokenizer_close(t);
    mem_free(text);
}

static double mean_nll(const float *logits, const token_id *ids, int n, int n_vocab)
{
    double sum = 0;
    for (int i = 0; i + 1 < n; i++) {
        struct token_logprob next;
        sampler_logprobs(logits + (size_t)i * (size_t)n_vocab, n_vocab, ids[i + 1], 0, &next, NULL);
        sum -= (double)next.logprob;
    }
    return sum / (n - 1);
}

/* A quarter of the text at a time: the logits of 2,000 rows are 400 MB. */
SLOW_TEST(int8_text, "2,000 tokens of text: arg-max >= 99 % of fp32's, mean NLL within 0.5 %")
{
    struct fixture f;
    struct fixture packed;
    struct err e = ERR_INIT;
    token_id ids[TEXT_IDS];
    enum { PART = TEXT_IDS / 4 };
    fixture_open(&f, test_model_path(), 2);
    fixture_open(&packed, test_model_path(), 2);
    CHECK_OK(decoder_pack(packed.d, &packed.compute, &e), e);
    text_ids(&f, "docs/design.md", ids);
    float *want = fixture_logits(&f, PART);
    float *got = fixture_logits(&f, PART);
    int same = 0;
    double nll_want = 0;
    double nll_got = 0;
    for (int part = 0; part < 4; part++) {
        const token_id *from = ids + part * PART;
        run_prompt(&f, from, PART, true, want);
        run_prompt(&packed, from, PART, true, got);
        for (int i = 0; i < PART; i++) {
            size_t at = (size_t)i * (size_t)f.info->n_vocab;
            same += arg_max(got + at, f.info->n_vocab) == arg_max(want + at, f.info->n_vocab);
        }
        nll_want += mean_nll(want, from, PART, f.info->n_vocab) / 4;
        nll_got += mean_nll(got, from, PART, f.info->n_vocab) / 4;
    }
    printf("      arg-max the same at %d of %d, mean NLL %.5f against %.5f\n", same, TEXT_IDS,
           nll_got, nll_want);
    CHECK_DOUBLE((double)same / TEXT_IDS, >=, 0.99);
    CHECK_DOUBLE(fabs(nll_got - nll_want), <=, 0.005 * nll_want);
    mem_free(want);
    mem_free(got);
    fixture_close(&packed);
    fixture_close(&f);
}

/* The rows of one picture at one kernel set; bulk or not, by vit_encode itself. */
static void compare_tower(struct vision_fixture *f, const struct kernels *k, bool bulk,
                          const float *pixels, const struct rows *want)
{
    struct compute c = {.pool = f->pool, .kernels = k, .bulk = bulk};
    struct rows got = vision_fixture_tower(f, pixels, NULL, &c);
    CHECK_INT(got.n, ==, want->n);
    double worst = 1;
    size_t width = (size_t)want->n_embd;
    for (size_t i = 0; i < (size_t)want->n; i++) {
        double cosine = test_cosine(got.x + i * width, want->x + i * width, width);
        worst = cosine < worst ? cosine : worst;
    }
    printf("      %-5s %s worst cosine of a row %.6f\n", k->name, bulk ? "tiles" : "     ", worst);
    CHECK_DOUBLE(worst, >=, 0.999);
}

TEST(int8_tower, "DINOv2 with packed weights: every row's cosine >= 0.999")
{
    struct vision_fixture f;
    struct err e = ERR_INIT;
    struct rows want;
    vision_fixture_open(&f, test_mmproj_path(), 0, 2);
    float *pixels = vision_fixture_picture(&f, "picture_224.png");
    want = vision_fixture_tower(&f, pixels, NULL, &f.compute);
    CHECK_OK(vision_pack(f.v, &f.compute, &e), e);
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        const struct kernels *k = kernels_choose(*name, &e);
        if (!runs_fast(k)) {
            continue;
        }
        compare_tower(&f, k, false, pixels, &want);
        if (k->packed->bulk_multiply) {
            compare_tower(&f, k, true, pixels, &want);
        }
    }
    vision_fixture_close(&f);
}
