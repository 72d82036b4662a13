/* grammar/token_mask.c, mask_cache.c, vocabulary.c: masks against the plain definition, a
 * token is allowed when its bytes fit; and what is counted. */
#include "base/alloc.h"
#include "grammar/grammar_impl.h"
#include "grammar/token_mask_impl.h"
#include "tests/test.h"
#include "tests/unit/grammar_fixture.h"

#include <string.h>

static const char *const grammars[] = {
    "root ::= object\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? ws \"}\"\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? ws \"]\"\n"
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "char ::= [^\"\\\\\\x00-\\x1f] | \"\\\\\" [\"\\\\/bfnrt]\n"
    "number ::= \"-\"? [0-9]+ (\".\" [0-9]+)?\n"
    "ws ::= \" \"?\n",
    "root ::= (\"hello\" | \"hell\" | \"he \")+ [a-z ]{0,12} \"!\"",
    "root ::= expr\nexpr ::= term ([-+*/] term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
    "root ::= \"a\" root \"b\" | \"a\" root \"c\" | [^\\x00-\\x7f]{0,3}",
    "root ::= [a-z]* | [a-m]* \"x\"? | \"the\" \" \" root",
};

static bool bit(const uint32_t *bits, int id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

/* By the definition. */
static bool is_allowed(struct constraint *c, struct matcher *m, const struct vocabulary *v, int id)
{
    struct err e = ERR_INIT;
    for (int i = 0; i < v->n_ends; i++) {
        if (v->ends[i] == id) {
            return c->places.ends;
        }
    }
    if (v->place_of[id] < 0) {
        return false;
    }
    const struct vocabulary_token *t = &v->tokens[v->place_of[id]];
    struct places at = c->places;
    struct places next;
    for (int i = 0; i < t->len; i++) {
        CHECK_OK(matcher_step(m, &at, (uint8_t)t->text[i], &next, &e), e);
        at = next;
    }
    return at.n > 0 || at.ends;
}

/* Random answers; every mask on the way is compared. Returns how many there were. */
static int walk(struct mask_cache *cache, const struct vocabulary *v, struct grammar *g,
                struct rng *r, int n_tokens)
{
    struct err e = ERR_INIT;
    struct constraint c;
    struct token_masks *m = mask_cache_get(cache, g, &e);
    if (!m) {
        FAIL("%s", e.msg);
    }
    CHECK_OK(constraint_begin(&c, m, &e), e);
    int n = 0;
    for (; n < n_tokens && !constraint_is_over(&c); n++) {
        const uint32_t *bits = constraint_mask(&c, &e);
        if (!bits) {
            FAIL("%s", e.msg);
        }
        int chosen = -1;
        uint64_t n_allowed = 0;
        for (int id = 0; id < v->n; id++) {
            if (bit(bits, id) != is_allowed(&c, &m->matcher, v, id)) {
                FAIL("token %d after %d tokens: the mask says %d", id, n, bit(bits, id));
            }
            if (bit(bits, id) && v->place_of[id] >= 0 && rng_below(r, ++n_allowed) == 0) {
                chosen = id;
            }
        }
        if (chosen < 0) {
            break; /* only the end is left */
        }
        CHECK_OK(constraint_accept(&c, chosen, &e), e);
    }
    mask_cache_release(m);
    return n;
}

TEST(token_mask_exact, "every mask on random ways is the plain definition's, cached or not")
{
    static const char *const names[] = {"llama-bpe", "llama-spm", "qwen2"};
    struct rng r;
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct err e = ERR_INIT;
        struct tokenizer *t;
        struct vocabulary *v = tiny_vocabulary(names[i], &t);
        struct mask_cache *large = mask_cache_new(v, (size_t)64 << 20, &e);
        struct mask_cache *small = mask_cache_new(v, 4096, &e);
        CHECK(large && small);
        int n = 0;
        for (size_t k = 0; k < sizeof grammars / sizeof *grammars; k++) {
            struct grammar *g = gbnf(grammars[k]);
            for (int round = 0; round < 4; round++) {
                n += walk(round % 2 ? small : large, v, g, &r, 12);
            }
            grammar_unref(g);
        }
        CHECK_INT(n, >, 60);
        mask_cache_free(large);
        mask_cache_free(small);
        vocabulary_free(v);
        tokenizer_close(t);
    }
}

TEST(token_mask_counts, "an equal grammar costs no new walk, and the cache keeps to its bytes")
{
    struct err e = ERR_INIT;
    struct rng r;
    struct tokenizer *t;
    struct vocabulary *v = tiny_vocabulary("llama-bpe", &t);
    struct mask_cache *c = mask_cache_new(v, (size_t)64 << 20, &e);
    struct mask_counts first;
    struct mask_counts second;
    for (int k = 0; k < 2; k++) {
        struct grammar *g = gbnf(grammars[0]);
        rng_init(&r, 17);
        walk(c, v, g, &r, 40);
        mask_cache_counts(c, k ? &second : &first);
        grammar_unref(g);
    }
    CHECK_INT(first.n_walked, >, 0);
    CHECK_INT(second.n_walked, ==, first.n_walked);
    CHECK_INT(second.n_joined, ==, first.n_joined);
    CHECK_INT(second.n_asked, ==, 2 * first.n_asked);
    CHECK_INT(second.n_grammars, ==, 1);
    for (size_t max = 1 << 18; max >= 1 << 14; max /= 4) {
        struct mask_cache *bounded = mask_cache_new(v, max, &e);
        for (size_t k = 0; k < sizeof grammars / sizeof *grammars; k++) {
            struct grammar *g = gbnf(grammars[k]);
            walk(bounded, v, g, &r, 10);
            grammar_unref(g);
            struct mask_counts now;
            mask_cache_counts(bounded, &now);
            CHECK_INT(now.bytes, <=, max);
        }
        mask_cache_free(bounded);
    }
    mask_cache_free(c);
    vocabulary_free(v);
    tokenizer_close(t);
}

/* A vocabulary of 32,768 made-up words: as many as real ones have, and as alike. */
#define N_WORDS 32768

struct words {
    char text[N_WORDS][12];
    uint8_t len[N_WORDS];
};

static enum vocabulary_kind word_of(const void *ctx, int id, const char **text, size_t *len)
{
    const struct words *w = ctx;
    if (id == N_WORDS) {
        return VOCABULARY_END;
    }
    *text = w->text[id];
    *len = w->len[id];
    return VOCABULARY_TEXT;
}

static struct words *make_words(struct rng *r)
{
    static const char signs[] = "etaoinshrdlu etaoin {}[]\":,.0123456789\n";
    struct words *w = mem_zalloc(1, sizeof *w);
    CHECK(w);
    for (int i = 0; i < N_WORDS; i++) {
        w->len[i] = i < 256 ? 1 : (uint8_t)(1 + rng_below(r, 10));
        for (int k = 0; k < w->len[i]; k++) {
            w->text[i][k] = signs[rng_below(r, k && rng_below(r, 4) ? 18 : sizeof signs - 1)];
        }
        if (i < 256) {
            w->text[i][0] = (char)i;
        }
    }
    return w;
}

/* Less than 5 % of decode: a token of a model of 135 million weights is 270 million
 * operations. What is followed takes some hundred comparisons a token; a walk over the whole
 * vocabulary, some hundred thousand, comes for a state whose class was not seen yet. */
TEST(token_mask_cost, "a token's mask costs some hundred comparisons once the grammar is known")
{
    struct err e = ERR_INIT;
    struct rng r;
    rng_init(&r, 5);
    struct words *w = make_words(&r);
    struct vocabulary_source src = {.n = N_WORDS + 1, .token = word_of, .ctx = w};
    struct vocabulary *v = vocabulary_new(&src, &e);
    struct mask_cache *c = mask_cache_new(v, (size_t)64 << 20, &e);
    struct grammar *g = schema(
        "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":400},"
        "\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"n\":{\"type\":"
        "\"number\"}},\"required\":[\"name\",\"tags\",\"n\"]}");
    struct token_masks *m = mask_cache_get(c, g, &e);
    struct mask_counts before;
    mask_cache_counts(c, &before);
    uint64_t n_tokens = 0;
    for (int answer = 0; answer < 40; answer++) {
        struct constraint k;
        CHECK_OK(constraint_begin(&k, m, &e), e);
        if (answer == 20) {
            mask_cache_counts(c, &before);
            n_tokens = 0;
        }
        for (int n = 0; n < 100 && !constraint_is_over(&k); n++, n_tokens++) {
            const uint32_t *bits = constraint_mask(&k, &e);
            CHECK(bits);
            int id;
            do { /* words are long and mostly inside strings, as real ones */
                id = (int)rng_below(&r, N_WORDS);
            } while (!bit(bits, id));
            CHECK_OK(constraint_accept(&k, id, &e), e);
        }
    }
    struct mask_counts after;
    mask_cache_counts(c, &after);
    CHECK_INT(n_tokens, >, 400);
    CHECK_INT(after.n_walked - before.n_walked, <, 20);
    CHECK_INT((after.n_steps - before.n_steps) / n_tokens, <, 5000);
    mask_cache_release(m);
    mask_cache_free(c);
    grammar_unref(g);
    vocabulary_free(v);
    mem_free(w);
}

TEST(token_mask_no_memory, "whichever allocation fails, a mask that comes is the right one")
{
    struct rng r;
    struct tokenizer *t;
    struct vocabulary *v = tiny_vocabulary("llama-bpe", &t);
    struct grammar *g = gbnf(grammars[1]);
    int survived = 0;
    rng_init(&r, test_seed());
    for (long n = 1; n < 40; n++) {
        struct err e = ERR_INIT;
        alloc_fail_at(n);
        struct mask_cache *c = mask_cache_new(v, (size_t)1 << 20, &e);
        struct token_masks *m = c ? mask_cache_get(c, g, &e) : NULL;
        struct constraint k;
        const uint32_t *bits = NULL;
        if (m && constraint_begin(&k, m, &e) == 0) {
            bits = constraint_mask(&k, &e);
        }
        alloc_fail_at(0);
        CHECK(bits || e.code == ERR_NO_MEMORY);
        for (int id = 0; bits && id < v->n; id++) {
            CHECK(bit(bits, id) == is_allowed(&k, &m->matcher, v, id));
        }
        survived += bits != NULL;
        mask_cache_release(m);
        mask_cache_free(c);
    }
    CHECK_INT(survived, >, 5);
    grammar_unref(g);
    vocabulary_free(v);
    tokenizer_close(t);
}

TEST(token_mask_dead_end, "where no token can go on there is an error, not another token")
{
    struct err e = ERR_INIT;
    struct words *w = mem_zalloc(1, sizeof *w);
    for (int i = 0; i < N_WORDS; i++) {
        w->text[i][0] = 'a';
        w->len[i] = 1;
    }
    struct vocabulary_source src = {.n = N_WORDS + 1, .token = word_of, .ctx = w};
    struct vocabulary *v = vocabulary_new(&src, &e);
    struct mask_cache *c = mask_cache_new(v, (size_t)1 << 24, &e);
    struct grammar *g = gbnf("root ::= \"a\" [a-z] \"b\"");
    struct token_masks *m = mask_cache_get(c, g, &e);
    struct constraint k;
    CHECK_OK(constraint_begin(&k, m, &e), e);
    for (int i = 0; i < 2; i++) {
        CHECK(constraint_mask(&k, &e));
        CHECK_OK(constraint_accept(&k, i, &e), e);
    }
    CHECK(!constraint_mask(&k, &e));
    CHECK_STR(e.reason, "grammar_not_writable");
    CHECK_INT(constraint_accept(&k, 0, &e), ==, -1);
    mask_cache_release(m);
    mask_cache_free(c);
    grammar_unref(g);
    vocabulary_free(v);
    mem_free(w);
}
