/* model/lora.c, model/decoder_lora.c: logits with an adapter are llama.cpp's, rows with
 * different adapters share a pass without touching each other, and a damaged file is refused. */
#include "base/alloc.h"
#include "model/lora_impl.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCALE 0.75f /* of tools/export_llamacpp.py */
/* As for the families: 1e-6 is measured, and a pair left out is at 0.01. */
#define NMSE_MAX 1e-5

static struct lora *open_lora(struct tiny *t, const char *name)
{
    struct err e = ERR_INIT;
    char file[64];
    snprintf(file, sizeof file, "lora/%s.gguf", name);
    char *path = test_golden_path(file);
    struct lora *l = lora_open(path, t->f.d, &e);
    if (!l) {
        FAIL("%s", e.msg);
    }
    mem_free(path);
    return l;
}

static struct lora_mix mix_of(const struct lora *l, float scale)
{
    struct lora_mix mix = {.n = 1};
    mix.use[0].lora = l;
    mix.use[0].scale = scale;
    return mix;
}

static void run_prompt(struct tiny *t, const struct lora_mix *mix, float *logits)
{
    struct kv_cache kv = fixture_kv(&t->f, NULL, 0, t->n_prompt);
    struct rows rows = fixture_rows(&t->f, t->ids, t->n_prompt, 0);
    fixture_run(&t->f, (struct decoder_slice){.kv = &kv,
                                              .rows = &rows,
                                              .lora = mix,
                                              .is_prompt = true,
                                              .all_logits = true,
                                              .logits = logits});
    fixture_kv_clear(&kv);
}

static void check_logits(struct tiny *t, const struct lora_mix *mix, const float *want,
                         const char *what)
{
    size_t n = (size_t)t->n_prompt * (size_t)t->f.info->n_vocab;
    float *got = fixture_logits(&t->f, t->n_prompt);
    run_prompt(t, mix, got);
    double nmse = test_nmse(got, want, n);
    printf("      %s, %s: NMSE %.2g\n", t->f.info->family, what, nmse);
    CHECK_DOUBLE(nmse, <=, NMSE_MAX);
    mem_free(got);
}

TEST(lora_logits, "logits with an adapter equal llama.cpp's, as in the file and packed")
{
    static const char *const names[] = {"llama-bpe", "qwen2"};
    for (int i = 0; i < 2; i++) {
        struct tiny t;
        struct err e = ERR_INIT;
        char file[64];
        float *want;
        int64_t shape[4];
        tiny_open(&t, names[i], 1);
        struct lora *l = open_lora(&t, names[i]);
        struct lora_mix mix = mix_of(l, SCALE);
        snprintf(file, sizeof file, "lora/%s.logits.npy", names[i]);
        char *path = test_golden_path(file);
        test_npy(path, &want, shape);
        CHECK_INT(shape[0], ==, t.n_prompt);
        CHECK_INT(shape[1], ==, t.f.info->n_vocab);
        check_logits(&t, &mix, want, "as in the file");
        CHECK_OK(decoder_pack(t.f.d, &t.f.compute, &e), e);
        CHECK_OK(lora_pack(l, &t.f.compute, &e), e);
        check_logits(&t, &mix, want, "packed");
        mem_free(want);
        mem_free(path);
        lora_close(l);
        tiny_close(&t);
    }
}

TEST(lora_scale,
     "a scale of 0.5 used twice is a scale of 1, and without a mix the model is as it is")
{
    struct tiny t;
    tiny_open(&t, "llama-bpe", 1);
    struct lora *l = open_lora(&t, "llama-bpe");
    size_t n = (size_t)t.n_prompt * (size_t)t.f.info->n_vocab;
    float *once = fixture_logits(&t.f, t.n_prompt);
    float *twice = fixture_logits(&t.f, t.n_prompt);
    struct lora_mix whole = mix_of(l, 1);
    struct lora_mix halves = mix_of(l, 0.5f);
    halves.use[halves.n++] = halves.use[0];
    run_prompt(&t, &whole, once);
    run_prompt(&t, &halves, twice);
    CHECK_DOUBLE(test_nmse(twice, once, n), <=, 1e-6);
    const struct lora_mix none = {.n = 0};
    run_prompt(&t, &none, once);
    run_prompt(&t, NULL, twice);
    CHECK(test_same_bits(once, twice, n));
    CHECK_DOUBLE(test_nmse(once, t.logits, n), <=, NMSE_MAX);
    mem_free(once);
    mem_free(twice);
    lora_close(l);
    tiny_close(&t);
}

/* ---- in company -------------------------------------------------------------------------- */

#define N_SLICES 6

/* Answers, then prompts; which of the mixes each has. */
static const int lengths[N_SLICES] = {1, 3, 1, 33, 20, 47};
static const int uses[N_SLICES] = {0, 1, 1, 2, 0, 1};

static void run_slices(struct tiny *t, const struct lora_mix *const *mixes, int step,
                       struct kv_cache *kv, float *const *logits)
{
    struct err e = ERR_INIT;
    struct rows rows[N_SLICES];
    struct decoder_slice slices[N_SLICES];
    for (int s = 0; s < N_SLICES; s++) {
        kv[s] = fixture_kv(&t->f, NULL, 0, 64);
        rows[s] = fixture_rows(&t->f, t->ids + s, lengths[s], 0);
        slices[s] = (struct decoder_slice){.kv = &kv[s],
                                           .rows = &rows[s],
                                           .lora = mixes[uses[s]],
                                           .is_prompt = lengths[s] > 8,
                                           .logits = logits[s]};
    }
    for (int s = 0; s < N_SLICES; s += step) {
        CHECK_OK(decoder_run(t->f.d, slices + s, step, &t->f.compute, &t->f.scratch, &e), e);
    }
}

TEST(lora_company, "rows with different adapters in one pass have the bits that each has alone")
{
    struct tiny t;
    struct err e = ERR_INIT;
    struct kv_cache alone_kv[N_SLICES];
    struct kv_cache mixed_kv[N_SLICES];
    float *alone[N_SLICES];
    float *mixed[N_SLICES];
    tiny_open(&t, "llama-bpe", 2);
    struct lora *l = open_lora(&t, "llama-bpe");
    CHECK_OK(decoder_pack(t.f.d, &t.f.compute, &e), e);
    CHECK_OK(lora_pack(l, &t.f.compute, &e), e);
    struct lora_mix one = mix_of(l, SCALE);
    struct lora_mix other = mix_of(l, -0.5f);
    const struct lora_mix *mixes[] = {NULL, &one, &other};
    for (int s = 0; s < N_SLICES; s++) {
        alone[s] = fixture_logits(&t.f, 1);
        mixed[s] = fixture_logits(&t.f, 1);
    }
    run_slices(&t, mixes, 1, alone_kv, alone);
    run_slices(&t, mixes, N_SLICES, mixed_kv, mixed);
    for (int s = 0; s < N_SLICES; s++) {
        CHECK(test_same_bits(alone[s], mixed[s], (size_t)t.f.info->n_vocab));
        CHECK(fixture_same_kv(&alone_kv[s], &mixed_kv[s]));
        fixture_kv_clear(&alone_kv[s]);
        fixture_kv_clear(&mixed_kv[s]);
        mem_free(alone[s]);
        mem_free(mixed[s]);
    }
    lora_close(l);
    tiny_close(&t);
}

/* ---- damaged files ------------------------------------------------------------------------ */

struct file {
    char *bytes;
    size_t n;
};

static struct file read_lora(void)
{
    struct file f;
    char *path = test_golden_path("lora/llama-bpe.gguf");
    f.bytes = test_read_file(path, &f.n);
    mem_free(path);
    return f;
}

/* The first occurrence of `text`; a copy of the file's that may be changed. */
static char *place_of(const struct file *f, const char *text)
{
    char *at = memmem(f->bytes, f->n, text, strlen(text));
    CHECK(at);
    return at;
}

/* Whether the file opens with this model; the message otherwise. */
static bool opens(const struct tiny *t, const struct file *f, size_t n, struct err *e)
{
    char path[] = "/tmp/tamp-lora-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, f->bytes, n), ==, n);
    close(fd);
    *e = (struct err)ERR_INIT;
    struct lora *l = lora_open(path, t->f.d, e);
    bool opened = l != NULL;
    lora_close(l);
    unlink(path);
    return opened;
}

static void refuses(const struct tiny *t, const char *where, size_t offset, const void *bytes,
                    size_t n, const char *says)
{
    struct err e;
    struct file f = read_lora();
    memcpy(place_of(&f, where) + offset, bytes, n);
    CHECK(!opens(t, &f, f.n, &e));
    if (!strstr(e.msg, says)) {
        FAIL("\"%s\" does not say \"%s\"", e.msg, says);
    }
    mem_free(f.bytes);
}

#define ALPHA_KEY "adapter.lora.alpha"
#define TENSOR    "blk.2.attn_v.weight.lora_b"

TEST(lora_damaged, "wrong keys, shapes, names and a cut file are refused with the reason")
{
    static const float not_a_number = NAN;
    static const float negative = -8;
    static const uint64_t large = 1 << 20;
    static const uint64_t one_more = 5;
    struct tiny t;
    struct err e;
    tiny_open(&t, "llama-bpe", 1);
    size_t value = strlen(ALPHA_KEY) + sizeof(uint32_t);
    size_t shape = strlen(TENSOR) + sizeof(uint32_t);
    refuses(&t, "adapter.type", strlen("adapter.type") + 12, "Lora", 4, "must be \"lora\"");
    refuses(&t, "general.architecture", strlen("general.architecture") + 12, "qwama", 5, "qwama");
    refuses(&t, ALPHA_KEY, 0, "b", 1, "no adapter.lora.alpha");
    refuses(&t, ALPHA_KEY, value, &not_a_number, sizeof not_a_number, ALPHA_KEY);
    refuses(&t, ALPHA_KEY, value, &negative, sizeof negative, ALPHA_KEY);
    refuses(&t, TENSOR, 4, "9", 1, "blk.2.attn_v.weight.lora_a, but no");
    refuses(&t, TENSOR, 6, "xxxx", 4, "but no blk.2.attn_v.weight.lora_b");
    refuses(&t, TENSOR, shape, &one_more, sizeof one_more, "");
    refuses(&t, "blk.2.attn_v.weight.lora_a", shape + 8, &large, sizeof large, "");
    struct file f = read_lora();
    CHECK(opens(&t, &f, f.n, &e));
    for (size_t n = 0; n < f.n; n += n < 4096 ? 61 : 997) {
        CHECK(!opens(&t, &f, n, &e));
    }
    mem_free(f.bytes);
    tiny_close(&t);
}

TEST(lora_other_model, "an adapter of another model is refused, and so is a tensor without a place")
{
    struct tiny t;
    struct err e = ERR_INIT;
    char *path = test_golden_path("lora/llama-bpe.gguf");
    tiny_open(&t, "llama-spm", 1); /* three layers instead of four, other widths */
    CHECK(!lora_open(path, t.f.d, &e));
    tiny_close(&t);
    tiny_open(&t, "smollm-legacy-quants", 1); /* its widths, two layers more: that is a pair */
    struct lora *l = lora_open(path, t.f.d, &e);
    CHECK(l && lora_info(l).n_pairs == 24);
    lora_close(l);
    struct file f = read_lora();
    memcpy(place_of(&f, "blk.3.ffn_up.weight.lora_a") + 4, "7", 1);
    memcpy(place_of(&f, "blk.3.ffn_up.weight.lora_b") + 4, "7", 1);
    CHECK(!opens(&t, &f, f.n, &e));
    CHECK(strstr(e.msg, "blk.7.ffn_up.weight.lora_a belongs to no matrix"));
    mem_free(f.bytes);
    mem_free(path);
    tiny_close(&t);
}

TEST(lora_large_weight, "an fp32 weight beyond the range of halves is refused when it is packed")
{
    struct tiny t;
    struct err e = ERR_INIT;
    tiny_open(&t, "llama-bpe", 1);
    struct lora *l = open_lora(&t, "llama-bpe");
    struct weight *a = &l->layers[0][LORA_K].a; /* fp32: layer + part is odd */
    CHECK_INT(a->type, ==, TENSOR_F32);
    float *copy = mem_alloc((size_t)a->n_in * (size_t)a->n_out, sizeof *copy);
    memcpy(copy, a->data, (size_t)a->n_in * (size_t)a->n_out * sizeof *copy);
    copy[7] = 1e6f;
    a->data = copy;
    CHECK(lora_pack(l, &t.f.compute, &e));
    CHECK(strstr(e.msg, "too large for a weight"));
    lora_close(l);
    mem_free(copy);
    tiny_close(&t);
}
