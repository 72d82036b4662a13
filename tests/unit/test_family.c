/* Hyper-parameters are untrusted: golden files with one key changed at a time. */
#include "base/alloc.h"
#include "base/buf.h"
#include "model/decoder.h"
#include "model/family.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGNMENT   32
#define HEADER_SIZE 24

static void put_string(struct buf *b, const char *s)
{
    uint64_t n = strlen(s);
    buf_append(b, &n, sizeof n);
    buf_append(b, s, n);
}

/* One value as text: "u 7", "f 1.5", "s yarn", "b 0", or "a 5 1 1 0": an array of booleans. */
static void put_value(struct buf *b, const char *value)
{
    const char *rest = value + 2;
    uint32_t type = value[0] == 'u'   ? GGUF_U32
                    : value[0] == 'f' ? GGUF_F32
                    : value[0] == 'b' ? GGUF_BOOL
                    : value[0] == 's' ? GGUF_STRING
                                      : GGUF_ARRAY;
    uint32_t u = (uint32_t)strtoul(rest, NULL, 10);
    float f = strtof(rest, NULL);
    buf_append(b, &type, sizeof type);
    switch (type) {
    case GGUF_U32:
        buf_append(b, &u, sizeof u);
        break;
    case GGUF_F32:
        buf_append(b, &f, sizeof f);
        break;
    case GGUF_BOOL:
        buf_putc(b, (char)u);
        break;
    case GGUF_STRING:
        put_string(b, rest);
        break;
    default: {
        uint32_t element = GGUF_BOOL;
        uint64_t n = strtoul(rest, NULL, 10);
        buf_append(b, &element, sizeof element);
        buf_append(b, &n, sizeof n);
        for (const char *p = strchr(rest, ' '); p; p = strchr(p + 1, ' ')) {
            buf_putc(b, (char)(p[1] - '0'));
        }
    }
    }
}

/* Rename the key that is there, so that it counts as absent. */
static void hide_key(char *file, size_t n, const char *key)
{
    struct buf b;
    buf_init(&b, 256);
    put_string(&b, key);
    char *at = memmem(file, n, b.data, b.len);
    if (at) {
        memset(at + sizeof(uint64_t), 'X', 1);
    }
    buf_free(&b);
}

/* The golden file with `key` set to `value` (NULL: left out), as an open GGUF. New keys
 * go to the front, with a filler that keeps the tensors aligned. */
static struct gguf *open_with(const char *name, const char *key, const char *value)
{
    struct buf keys;
    struct err e = ERR_INIT;
    char text[96];
    size_t n;
    snprintf(text, sizeof text, "tiny/%s.gguf", name);
    char *path = test_golden_path(text);
    char *file = test_read_file(path, &n);
    hide_key(file, n, key);
    buf_init(&keys, 65536);
    uint64_t n_new = 0;
    if (value) {
        put_string(&keys, key);
        put_value(&keys, value);
        put_string(&keys, "filler");
        size_t length = ALIGNMENT - (keys.len + 12) % ALIGNMENT;
        snprintf(text, sizeof text, "s %.*s", (int)length, "................................");
        put_value(&keys, text);
        CHECK_INT(keys.len % ALIGNMENT, ==, 0);
        n_new = 2;
    }
    uint64_t n_keys;
    memcpy(&n_keys, file + 16, sizeof n_keys);
    n_keys += n_new;
    memcpy(file + 16, &n_keys, sizeof n_keys);

    int fd = memfd_create("gguf", 0);
    CHECK(fd >= 0);
    CHECK(write(fd, file, HEADER_SIZE) == HEADER_SIZE);
    CHECK(write(fd, buf_str(&keys), keys.len) == (ssize_t)keys.len);
    CHECK(write(fd, file + HEADER_SIZE, n - HEADER_SIZE) == (ssize_t)(n - HEADER_SIZE));
    snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
    struct gguf *g = gguf_open(text, &e);
    if (!g) {
        FAIL("%s", e.msg);
    }
    close(fd);
    buf_free(&keys);
    mem_free(file);
    mem_free(path);
    return g;
}

struct changed {
    const char *file, *key, *value;
    const char *message; /* part of the error; NULL = it must open */
};

static void check_changed(const struct changed *c)
{
    struct err e = ERR_INIT;
    struct gguf *g = open_with(c->file, c->key, c->value);
    struct decoder *d = decoder_open(g, &e);
    if (!c->message && !d) {
        FAIL("%s = %s: %s", c->key, c->value ? c->value : "nothing", e.msg);
    }
    if (c->message && d) {
        FAIL("%s = %s opened", c->key, c->value ? c->value : "nothing");
    }
    if (c->message && (!strstr(e.msg, c->key) || !strstr(e.msg, c->message))) {
        FAIL("%s = %s: the error is \"%s\", without \"%s\"", c->key,
             c->value ? c->value : "nothing", e.msg, c->message);
    }
    decoder_close(d);
    gguf_close(g);
}

static void check_table(const struct changed *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check_changed(&table[i]);
    }
}
#define CHECK_TABLE(t) check_table((t), sizeof(t) / sizeof(t)[0])

TEST(family_ranges,
     "each hyper-parameter below and above its range: the error names key, value, range")
{
    static const struct changed table[] = {
        {"llama-bpe", "llama.block_count", "u 0", "is 0, allowed are 1 to 512"},
        {"llama-bpe", "llama.block_count", "u 513", "is 513, allowed are 1 to 512"},
        {"llama-bpe", "llama.block_count", "u 4294967295", "allowed are 1 to 512"},
        {"llama-bpe", "llama.embedding_length", "u 0", "allowed are 1 to 65536"},
        {"llama-bpe", "llama.embedding_length", "u 65537", "allowed are 1 to 65536"},
        {"llama-bpe", "llama.feed_forward_length", "u 0", "allowed are 1 to"},
        {"llama-bpe", "llama.feed_forward_length", "u 1048577", "allowed are 1 to 1048576"},
        {"llama-bpe", "llama.attention.head_count", "u 0", "allowed are 1 to 1024"},
        {"llama-bpe", "llama.attention.head_count", "u 1025", "allowed are 1 to 1024"},
        {"llama-bpe", "llama.attention.head_count_kv", "u 0", "allowed are 1 to 1024"},
        {"llama-bpe", "llama.attention.head_count_kv", "u 1025", "allowed are 1 to 1024"},
        {"llama-bpe", "llama.attention.key_length", "u 0", "allowed are 2 to 1024"},
        {"llama-bpe", "llama.attention.key_length", "u 1025", "allowed are 2 to 1024"},
        {"llama-bpe", "llama.attention.value_length", "u 0", "allowed are 2 to 1024"},
        {"llama-bpe", "llama.attention.value_length", "u 1025", "allowed are 2 to 1024"},
        {"llama-bpe", "llama.rope.dimension_count", "u 0", "allowed are 2 to 1024"},
        {"llama-bpe", "llama.rope.dimension_count", "u 1025", "allowed are 2 to 1024"},
        {"llama-bpe", "llama.context_length", "u 0", "allowed are 1 to 16777216"},
        {"llama-bpe", "llama.context_length", "u 16777217", "allowed are 1 to 16777216"},
        {"llama-bpe", "llama.vocab_size", "u 0", "allowed are 1 to 4194304"},
        {"llama-bpe", "llama.vocab_size", "u 4194305", "allowed are 1 to 4194304"},
        {"llama-bpe", "llama.attention.layer_norm_rms_epsilon", "f 0", "allowed are 1e-12 to 0.1"},
        {"llama-bpe", "llama.attention.layer_norm_rms_epsilon", "f 0.2", "allowed are 1e-12 to"},
        {"llama-bpe", "llama.attention.layer_norm_rms_epsilon", "f nan", "allowed are 1e-12 to"},
        {"llama-bpe", "llama.rope.freq_base", "f 0", "allowed are 1 to 1e+12"},
        {"llama-bpe", "llama.rope.freq_base", "f 2e12", "allowed are 1 to 1e+12"},
        {"llama-bpe", "llama.rope.freq_base", "f inf", "allowed are 1 to 1e+12"},
        {"llama-bpe", "llama.rope.scaling.factor", "f -1", "allowed are 0 to 1e+06"},
        {"llama-bpe", "llama.rope.scaling.factor", "f 2e6", "allowed are 0 to 1e+06"},
        {"llama-bpe", "llama.rope.scale_linear", "f -1", "allowed are 0 to 1e+06"},
        {"llama-bpe", "llama.rope.scale_linear", "f 2e6", "allowed are 0 to 1e+06"},
        {"gemma3", "gemma3.rope.freq_base_swa", "f 0.5", "allowed are 1 to 1e+12"},
        {"gemma3", "gemma3.rope.freq_base_swa", "f 2e12", "allowed are 1 to 1e+12"},
        {"gemma3", "gemma3.attention.sliding_window", "u 16777217", "allowed are 0 to 16777216"},
        {"gemma3", "gemma3.attention.sliding_window_pattern", "u 513", "allowed are 0 to 512"},
        {"gemma3", "gemma3.attention.scale", "f -1", "allowed are 0 to 1000"},
        {"gemma3", "gemma3.attention.scale", "f 1001", "allowed are 0 to 1000"},
        {"gemma3", "gemma3.attn_logit_softcapping", "f -1", "allowed are 0 to 1e+06"},
        {"gemma3", "gemma3.attn_logit_softcapping", "f 2e6", "allowed are 0 to 1e+06"},
        {"gemma3", "gemma3.final_logit_softcapping", "f -1", "allowed are 0 to 1e+06"},
        {"gemma3", "gemma3.final_logit_softcapping", "f 2e6", "allowed are 0 to 1e+06"},
    };
    CHECK_TABLE(table);
}

TEST(family_cross_checks, "values that do not fit each other or the tensors are refused by name")
{
    static const struct changed table[] = {
        {"llama-bpe", "llama.attention.head_count_kv", "u 3", "must divide"},
        {"llama-bpe", "llama.attention.head_count", "u 1000", "must not exceed"},
        {"smollm-legacy-quants", "llama.embedding_length", "u 63", "multiple of"},
        {"llama-spm", "llama.attention.key_length", "u 23", "must be even"},
        {"llama-spm", "llama.attention.value_length", "u 22", "must equal"},
        {"llama-bpe", "llama.rope.dimension_count", "u 34", "at most"},
        {"llama-bpe", "llama.rope.dimension_count", "u 5", "must be even"},
        {"llama-bpe", "llama.vocab_size", "u 5", "must equal the rows of token_embd.weight"},
        {"llama-bpe", "llama.rope.scaling.factor", "f 1e-44", "too small"},
        {"gemma3", "gemma3.attention.sliding_window_pattern", "a 3 1 1 0", "3 entries for 7"},
    };
    CHECK_TABLE(table);
}

TEST(family_missing_keys, "required keys are named when they are missing or of another type")
{
    static const struct changed table[] = {
        {"llama-bpe", "general.architecture", NULL, "missing"},
        {"llama-bpe", "llama.block_count", NULL, "missing"},
        {"llama-bpe", "llama.embedding_length", NULL, "missing"},
        {"llama-bpe", "llama.feed_forward_length", NULL, "missing"},
        {"llama-bpe", "llama.attention.head_count", NULL, "missing"},
        {"llama-bpe", "llama.context_length", NULL, "missing"},
        {"llama-bpe", "llama.attention.layer_norm_rms_epsilon", NULL, "missing"},
        {"llama-bpe", "llama.block_count", "s three", "is needed"},
        {"llama-bpe", "llama.attention.head_count", "a 2 1 1", "is needed"},
        {"llama-bpe", "llama.attention.layer_norm_rms_epsilon", "b 1", "is needed"},
    };
    CHECK_TABLE(table);
}

TEST(family_refuses, "what the graph has no place for is refused, never ignored")
{
    static const struct changed table[] = {
        {"llama-bpe", "general.architecture", "s mamba", "llama, qwen2, qwen3, gemma3"},
        {"llama-bpe", "llama.expert_count", "u 8", "mixture of experts"},
        {"llama-bpe", "llama.rope.scaling.type", "s yarn", "\"yarn\""},
        {"llama-bpe", "llama.rope.scaling.type", "s longrope", "\"longrope\""},
        {"llama-bpe", "llama.rope.scaling.attn_factor", "f 1.2", "attention factor"},
        {"llama-bpe", "llama.rope.scaling.alpha", "f 2", "NTK"},
        {"llama-bpe", "llama.logit_scale", "f 8", "scaled logits"},
        {"llama-bpe", "llama.attention.causal", "b 0", "not a decoder"},
    };
    static const struct changed neutral[] = {
        {"llama-bpe", "llama.expert_count", "u 0", NULL},
        {"llama-bpe", "llama.rope.scaling.type", "s none", NULL},
        {"llama-bpe", "llama.rope.scaling.type", "s linear", NULL},
        {"llama-bpe", "llama.rope.scaling.attn_factor", "f 1", NULL},
        {"llama-bpe", "llama.rope.scaling.factor", "f 0", NULL},
        {"llama-bpe", "llama.attention.causal", "b 1", NULL},
        {"gemma3", "gemma3.attention.sliding_window_pattern", "u 6", NULL},
        {"gemma3", "gemma3.attention.sliding_window_pattern", "a 7 1 1 1 0 1 1 0", NULL},
        {"gemma3", "gemma3.attention.sliding_window", "u 0", NULL},
    };
    CHECK_TABLE(table);
    CHECK_TABLE(neutral);
}

TEST(family_tensors_fit,
     "fewer layers than the file has leave tensors without a place; more miss some")
{
    struct err e = ERR_INIT;
    struct gguf *g = open_with("llama-bpe", "llama.block_count", "u 1");
    CHECK(!decoder_open(g, &e));
    CHECK(strstr(e.msg, "blk.1.") && strstr(e.msg, "has no place"));
    gguf_close(g);
    g = open_with("llama-bpe", "llama.block_count", "u 9");
    CHECK(!decoder_open(g, &e));
    CHECK(strstr(e.msg, "blk."));
    gguf_close(g);
    /* norms of q and k are qwen3's: as llama the file must not open */
    g = open_with("qwen3", "general.architecture", "s llama");
    CHECK(!decoder_open(g, &e));
    gguf_close(g);
}

TEST(family_gemma3, "window pattern, local and global RoPE, scales come out as Gemma 3 has them")
{
    struct err e = ERR_INIT;
    const struct family *f;
    struct hparams h;
    struct gguf *g = open_with("gemma3", "none", NULL);
    CHECK_OK(family_read(g, &f, &h, &e), e);
    CHECK_STR(f->name, "gemma3");
    for (int il = 0; il < h.n_layer; il++) {
        CHECK_INT(h.local[il], ==, il != 5);
    }
    CHECK_INT(h.window, ==, 16);
    CHECK_DOUBLE(h.rope_base, ==, 1e6);
    CHECK_DOUBLE(h.rope_scale, ==, 0.125);
    CHECK_DOUBLE(h.rope_base_local, ==, 1e4);
    CHECK_DOUBLE(h.rope_scale_local, ==, 1);
    CHECK_DOUBLE(h.embedding_scale, ==, 8);
    CHECK_DOUBLE(h.final_softcap, ==, 20);
    CHECK_DOUBLE(fabs((double)h.attention_scale - 1 / sqrt(h.head_dim)), <=, 1e-7);
    gguf_close(g);
}

TEST(decoder_open_out_of_memory, "every failing allocation of opening a model is an error, no leak")
{
    struct err e = ERR_INIT;
    struct gguf *g = open_with("qwen3", "none", NULL);
    alloc_fail_at(0);
    struct decoder *d = decoder_open(g, &e);
    long n = alloc_count();
    CHECK(d);
    decoder_close(d);
    for (long i = 1; i <= n; i++) {
        alloc_fail_at(i);
        d = decoder_open(g, &e);
        alloc_fail_at(0);
        CHECK(!d);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    }
    gguf_close(g);
}
