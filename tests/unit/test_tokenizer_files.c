/* Tokenizers of small files written here: files that lie, and vocabularies made to be hard,
 * where merges, scores or overlaps could let typed text become a control token. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tests/test.h"
#include "tests/unit/gguf_writer.h"
#include "tests/unit/tokenizer_fixture.h"

#include <math.h>
#include <string.h>

struct small {
    const char *const *tokens;
    const size_t *lens;
    size_t n;
    const int32_t *types;
    const float *scores;
};

static void put_vocab(struct gguf_writer *w, const char *model, const struct small *s)
{
    gguf_writer_init(w);
    gguf_writer_string(w, "tokenizer.ggml.model", model);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", s->tokens, s->lens, s->n);
    if (s->types) {
        gguf_writer_array(w, "tokenizer.ggml.token_type", GGUF_I32, s->types, s->n);
    }
    if (s->scores) {
        gguf_writer_array(w, "tokenizer.ggml.scores", GGUF_F32, s->scores, s->n);
    }
}

static struct tokenizer *open_written(struct gguf_writer *w)
{
    struct err e = ERR_INIT;
    struct gguf *g = gguf_writer_open(w);
    struct tokenizer *t = tokenizer_open(g, &e);
    if (!t) {
        FAIL("%s", e.msg);
    }
    gguf_writer_close(w, g);
    return t;
}

/* The file is refused with one line that has `want` in it. */
static void check_refused(struct gguf_writer *w, const char *want)
{
    struct err e = ERR_INIT;
    struct gguf *g = gguf_writer_open(w);
    struct tokenizer *t = tokenizer_open(g, &e);
    if (t || !strstr(e.msg, want) || strchr(e.msg, '\n')) {
        FAIL("want \"%s\", got \"%s\"", want, t ? "a tokenizer" : e.msg);
    }
    gguf_writer_close(w, g);
}

#define TOKENS "tokenizer.ggml.tokens"
static const char *const abc[] = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
static const int32_t abc_types[] = {2, 3, 3, 1, 1, 1};
static const float abc_scores[] = {0, 0, 0, -1, -2, -0.5f};
static const struct small abc_vocab = {abc, NULL, 6, abc_types, abc_scores};

TEST(tokenizer_refuses_models, "kinds that tamp has not are refused with the list")
{
    struct gguf_writer w;
    put_vocab(&w, "bert", &abc_vocab);
    check_refused(&w, "\"bert\" is not supported; supported: gpt2");
    put_vocab(&w, "gpt2", &abc_vocab);
    check_refused(&w, "pre-tokenizer \"\" is not supported; supported: smollm");
    gguf_writer_init(&w);
    check_refused(&w, "tokenizer.ggml.model");
}

TEST(tokenizer_refuses_arrays, "wrong element types and counts, absent arrays, NaN scores")
{
    struct gguf_writer w;
    struct small s = abc_vocab;
    s.types = NULL;
    put_vocab(&w, "llama", &s);
    gguf_writer_array(&w, "tokenizer.ggml.token_type", GGUF_F32, abc_scores, 6);
    check_refused(&w, "tokenizer.ggml.token_type");
    put_vocab(&w, "llama", &s);
    gguf_writer_array(&w, "tokenizer.ggml.token_type", GGUF_I32, abc_types, 5);
    check_refused(&w, "5 entries for 6 tokens");
    s = abc_vocab;
    s.scores = NULL;
    put_vocab(&w, "llama", &s);
    check_refused(&w, "tokenizer.ggml.scores: missing");
    put_vocab(&w, "llama", &s);
    gguf_writer_array(&w, "tokenizer.ggml.scores", GGUF_I32, abc_types, 6);
    check_refused(&w, "tokenizer.ggml.scores");
    const float nan_scores[] = {0, 0, 0, NAN, 0, 0};
    s.scores = nan_scores;
    put_vocab(&w, "llama", &s);
    check_refused(&w, "score 3 is not finite");
    gguf_writer_init(&w);
    gguf_writer_string(&w, "tokenizer.ggml.model", "llama");
    gguf_writer_array(&w, TOKENS, GGUF_I32, abc_types, 6);
    check_refused(&w, TOKENS);
    gguf_writer_init(&w);
    gguf_writer_string(&w, "tokenizer.ggml.model", "llama");
    check_refused(&w, "between 1 and");
}

TEST(tokenizer_refuses_texts, "texts over 64 KiB, equal texts, odd types, bytes that are no bytes")
{
    struct gguf_writer w;
    const char *tokens[6];
    int32_t types[6];
    memcpy(tokens, abc, sizeof tokens);
    memcpy(types, abc_types, sizeof types);
    struct small s = {tokens, NULL, 6, types, abc_scores};
    char *big = mem_alloc(65537 + 1, 1);
    CHECK(big);
    memset(big, 'x', 65537);
    big[65537] = '\0';
    tokens[4] = big;
    put_vocab(&w, "llama", &s);
    check_refused(&w, "token 4 has 65537 bytes, the limit is 65536");
    tokens[4] = "a";
    put_vocab(&w, "llama", &s);
    check_refused(&w, "tokens 3 and 4 have the same text");
    tokens[4] = "b";
    types[4] = 7;
    put_vocab(&w, "llama", &s);
    check_refused(&w, "token 4 has type 7");
    static const char *const bad[] = {"<0x-1>", "<0x1>", "<0x123>", "<0x41>x",
                                      "<0xG0>", "0x41",  "<0x 1>"};
    types[4] = TOKEN_BYTE;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tokens[4] = bad[i];
        put_vocab(&w, "llama", &s);
        check_refused(&w, "byte token 4 is not \"<0xHH>\"");
    }
    mem_free(big);
}

TEST(tokenizer_refuses_ids, "special ids outside the vocabulary, BOS wanted but absent")
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.unknown_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    struct gguf_writer w;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        put_vocab(&w, "llama", &abc_vocab);
        gguf_writer_u32(&w, keys[i], i % 2 ? 6 : 0xffffffffu);
        check_refused(&w, keys[i]);
    }
    const char *const one[] = {"a"};
    const float score[] = {0};
    struct small s = {one, NULL, 1, NULL, score};
    put_vocab(&w, "llama", &s);
    check_refused(&w, "tokenizer.ggml.bos_token_id: missing");
}

static void put_bpe(struct gguf_writer *w, const char *const *merges, size_t n)
{
    put_vocab(w, "gpt2", &abc_vocab);
    gguf_writer_string(w, "tokenizer.ggml.pre", "gpt-2");
    gguf_writer_strings(w, "tokenizer.ggml.merges", merges, NULL, n);
}

TEST(tokenizer_refuses_merges, "merges that are not two tokens, or whose result is none")
{
    static const char *const bad[] = {"ab", "", " ", "a", "a c", "c a", "b a", "a ", "a b b"};
    struct gguf_writer w;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_bpe(&w, &bad[i], 1);
        check_refused(&w, "tokenizer.ggml.merges: merge 0");
    }
    put_vocab(&w, "gpt2", &abc_vocab);
    gguf_writer_string(&w, "tokenizer.ggml.pre", "gpt-2");
    check_refused(&w, "tokenizer.ggml.merges: missing");
}

TEST(tokenizer_missing_bytes, "bytes without a token are skipped, and belong to the token before")
{
    const char *const merges[] = {"a b"};
    struct gguf_writer w;
    put_bpe(&w, merges, 1);
    struct tokenizer *t = open_written(&w);
    struct ids ids;
    encode(&ids, t, "zabzza", 6, NULL, 0);
    CHECK_INT(ids.n, ==, 2);
    CHECK_INT(ids.token[0].id, ==, 5);
    CHECK_INT(ids.token[0].end, ==, 5);
    CHECK_INT(ids.token[1].id, ==, 3);
    arena_clear(&ids.arena);
    encode(&ids, t, "zzz", 3, NULL, 0);
    CHECK_INT(ids.n, ==, 0);
    arena_clear(&ids.arena);
    tokenizer_close(t);
}

TEST(tokenizer_no_injection, "typed markup stays text, though merges or scores could spell it")
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>",  "<", "/", "s",      ">",
                                         "</",    "s>",  "<|x|>", "|", "x", "<think>"};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 1, 4, 1, 1, 4};
    static const float scores[13] = {0};
    struct small s = {tokens, NULL, 13, types, scores};
    struct gguf_writer w;
    put_vocab(&w, "llama", &s);
    gguf_writer_bool(&w, "tokenizer.ggml.add_space_prefix", 0);
    struct tokenizer *spm = open_written(&w);
    put_vocab(&w, "gpt2", &s);
    gguf_writer_string(&w, "tokenizer.ggml.pre", "gpt-2");
    const char *const merges[] = {"< /", "s >", "</ s>"};
    gguf_writer_strings(&w, "tokenizer.ggml.merges", merges, NULL, 3);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    struct tokenizer *bpe = open_written(&w);
    for (int k = 0; k < 2; k++) {
        const struct tokenizer *t = k ? bpe : spm;
        static const char *const typed[] = {"</s>", "<|x|>", "<s></s>"};
        for (size_t i = 0; i < 3; i++) {
            struct ids ids;
            encode(&ids, t, typed[i], strlen(typed[i]), NULL, 0);
            for (int j = 0; j < ids.n; j++) {
                CHECK(!tokenizer_is_special(t, ids.token[j].id));
            }
            arena_clear(&ids.arena);
        }
        struct text_range halves[] = {{0, 2}, {2, 4}};
        struct ids ids;
        encode(&ids, t, "</s>", 4, halves, 2); /* touching ranges are still two */
        CHECK_INT(ids.n, >, 1);
        arena_clear(&ids.arena);
        struct text_range whole = {0, 4};
        encode(&ids, t, "</s>", 4, &whole, 1);
        CHECK_INT(ids.n, ==, 1);
        CHECK_INT(ids.token[0].id, ==, 2);
        arena_clear(&ids.arena);
    }
    tokenizer_close(spm);
    tokenizer_close(bpe);
}

/* llama.cpp's rule word for word: token by token, longest first, everywhere it stands. */
static size_t slow_special(const struct tokenizer *t, const char *text, size_t len,
                           const struct text_range *allowed, token_id *at)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        at[i] = -1;
    }
    for (size_t size = len; size > 0; size--) {
        for (token_id id = 0; id < t->vocab.n; id++) {
            bool anywhere = t->vocab.type[id] == TOKEN_USER_DEFINED;
            if (t->vocab.text[id].len != size || t->vocab.type[id] == TOKEN_NORMAL) {
                continue;
            }
            for (size_t i = 0; i + size <= len; i++) {
                bool free_ = memcmp(text + i, t->vocab.text[id].ptr, size) == 0 &&
                             (anywhere || (i >= allowed->begin && i + size <= allowed->end));
                for (size_t k = i; free_ && k < i + size; k++) {
                    free_ = at[k] < 0;
                }
                for (size_t k = i; free_ && k < i + size; k++) {
                    at[k] = id;
                }
                n += free_;
            }
        }
    }
    return n;
}

TEST(tokenizer_special_slow, "special tokens that overlap are chosen longest first")
{
    static const char *const tokens[] = {"a",   "b",    "ab", "aba", "bb", "abba", "baab",
                                         "bab", "aabb", "c",  "x",   "y",  "z"};
    static const int32_t types[] = {1, 1, 4, 3, 4, 3, 4, 4, 4, 1, 1, 1, 1};
    static const float scores[13] = {0};
    struct small s = {tokens, NULL, 13, types, scores};
    struct gguf_writer w;
    put_vocab(&w, "llama", &s);
    struct tokenizer *t = open_written(&w);
    struct rng r;
    rng_init(&r, test_seed());
    for (int k = 0; k < 3000; k++) {
        char text[24];
        token_id want[24];
        size_t len = 1 + rng_below(&r, 23);
        for (size_t i = 0; i < len; i++) {
            text[i] = "aabbc"[rng_below(&r, 5)];
        }
        struct text_range allowed = {rng_below(&r, len), len};
        size_t n_want = slow_special(t, text, len, &allowed, want);
        struct special_match *m;
        size_t n;
        struct err e = ERR_INIT;
        CHECK_OK(special_find(t, text, len, &allowed, 1, &m, &n, &e), e);
        CHECK_INT(n, ==, n_want);
        for (size_t i = 0; i < n; i++) {
            CHECK_INT(want[m[i].begin], ==, m[i].id);
            CHECK_INT(want[m[i].begin + m[i].len - 1], ==, m[i].id);
        }
        mem_free(m);
    }
    tokenizer_close(t);
}

TEST(tokenizer_ranges, "special ranges out of order or out of the text are a bug, not a crash")
{
    struct tokenizer *t = open_tiny("llama-bpe");
    static const struct text_range bad[][2] = {
        {{2, 3}, {1, 2}}, {{0, 2}, {1, 3}}, {{2, 1}, {2, 3}}, {{0, 1}, {2, 9}}};
    for (size_t i = 0; i < 4; i++) {
        struct arena a;
        arena_init(&a, 1 << 20);
        struct err e = ERR_INIT;
        struct token *out;
        int n;
        CHECK_INT(tokenizer_encode(t, "abcd", 4, bad[i], 2, true, &a, &out, &n, &e), ==, -1);
        CHECK_INT(e.code, ==, ERR_INTERNAL);
        arena_clear(&a);
    }
    tokenizer_close(t);
}
