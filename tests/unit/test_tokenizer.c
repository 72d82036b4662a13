/* Tokenizers against llama.cpp's ids and against slow and plain implementations of the same
 * rules; any text, any size, no memory, several threads. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "tests/test.h"
#include "tests/unit/tokenizer_fixture.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* ---- golden ids ---- */

static size_t read_hex(FILE *f, char *out, size_t room)
{
    size_t n = 0;
    int c;
    unsigned byte;
    while ((c = fgetc(f)) != ' ' && c != EOF) {
        if (c == '-') {
            continue;
        }
        ungetc(c, f);
        CHECK_INT(fscanf(f, "%2x", &byte), ==, 1);
        CHECK_INT(n, <, room);
        out[n++] = (char)byte;
    }
    return n;
}

static int compare_ids(FILE *f, const struct tokenizer *t, const char *text, size_t len,
                       bool special)
{
    struct text_range all = {0, len};
    struct ids got;
    encode(&got, t, text, len, &all, special ? 1 : 0);
    int n;
    CHECK_INT(fscanf(f, "%d", &n), ==, 1);
    bool bos = special && tokenizer_add_bos(t);
    bool same = n == got.n + bos;
    for (int i = 0; i < n; i++) {
        int id;
        CHECK_INT(fscanf(f, "%d", &id), ==, 1);
        int mine = i < bos ? tokenizer_bos(t) : i - bos < got.n ? got.token[i - bos].id : -1;
        same = same && mine == id;
    }
    if (!same) {
        printf("      %s: other ids for \"%.*s\" (special %d)\n", tokenizer_kind(t), (int)len, text,
               special);
    }
    arena_clear(&got.arena);
    return same;
}

/* Returns how many lines there are; fails when one differs. */
static int check_golden(const struct tokenizer *t, const char *path)
{
    FILE *f = fopen(path, "r");
    CHECK(f);
    char text[4096];
    int lines = 0;
    int same = 0;
    int c;
    while ((c = fgetc(f)) != EOF) {
        if (c == '#') {
            while (c != '\n') {
                c = fgetc(f);
            }
            continue;
        }
        ungetc(c, f);
        size_t len = read_hex(f, text, sizeof text);
        const char *guarded = test_guarded(text, len);
        int with = compare_ids(f, t, guarded, len, true);
        same += with & compare_ids(f, t, guarded, len, false);
        lines++;
        CHECK(fgetc(f) == '\n');
    }
    fclose(f);
    CHECK_INT(same, ==, lines);
    return lines;
}

TEST(tokenizer_smollm2, "63 of 63 strings have the ids of llama.cpp and Hugging Face")
{
    struct tokenizer *t = open_tokenizer(test_model_path());
    CHECK_STR(tokenizer_kind(t), "bpe/smollm");
    CHECK_INT(tokenizer_n_vocab(t), ==, 49152);
    char *path = test_golden_path("tokens.vec");
    CHECK_INT(check_golden(t, path), ==, 63);
    mem_free(path);
    CHECK(tokenizer_is_eog(t, 2) && tokenizer_is_special(t, 2) && !tokenizer_add_bos(t));
    tokenizer_close(t);
}

TEST(tokenizer_tiny_files, "every kind of tokenizer gives llama.cpp's ids, specials on and off")
{
    for (size_t i = 0; i < N_TINY; i++) {
        struct tokenizer *t = open_tiny(tiny_files[i]);
        char rest[64];
        snprintf(rest, sizeof rest, "tiny/%s.tokens.vec", tiny_files[i]);
        char *path = test_golden_path(rest);
        CHECK_INT(check_golden(t, path), >, 50);
        mem_free(path);
        tokenizer_close(t);
    }
}

TEST(tokenizer_pieces, "the bytes of every token are llama.cpp's")
{
    for (size_t i = 0; i < N_TINY; i++) {
        struct tokenizer *t = open_tiny(tiny_files[i]);
        char rest[64];
        snprintf(rest, sizeof rest, "tiny/%s.pieces.vec", tiny_files[i]);
        char *path = test_golden_path(rest);
        FILE *f = fopen(path, "r");
        CHECK(f);
        char line[1024];
        int n = 0;
        while (fgets(line, sizeof line, f)) {
            int id;
            int at;
            if (line[0] == '#' || sscanf(line, "%d %n", &id, &at) != 1) {
                continue;
            }
            size_t len;
            const char *piece = tokenizer_piece(t, id, true, &len);
            const char *hex = line + at + (line[at] == '-');
            for (size_t k = 0; k < len; k++) {
                unsigned byte;
                CHECK_INT(sscanf(hex + 2 * k, "%2x", &byte), ==, 1);
                CHECK_INT((unsigned char)piece[k], ==, byte);
            }
            CHECK_INT(strspn(hex, "0123456789abcdef"), ==, 2 * len);
            n++;
        }
        CHECK_INT(n, ==, tokenizer_n_vocab(t));
        fclose(f);
        mem_free(path);
        tokenizer_close(t);
    }
}

TEST(tokenizer_control_pieces, "control tokens print nothing unless asked; no id is out of bounds")
{
    struct tokenizer *t = open_tiny("smollm-legacy-quants");
    size_t len;
    tokenizer_piece(t, tokenizer_eos(t), false, &len);
    CHECK_INT(len, ==, 0);
    tokenizer_piece(t, tokenizer_eos(t), true, &len);
    CHECK_INT(len, >, 0);
    const token_id outside[] = {-1, tokenizer_n_vocab(t), INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        tokenizer_piece(t, outside[i], true, &len);
        CHECK_INT(len, ==, 0);
        CHECK(!tokenizer_is_eog(t, outside[i]) && !tokenizer_is_special(t, outside[i]));
    }
    tokenizer_close(t);
}

/* ---- random text ---- */

static size_t random_text(struct rng *r, char *out, size_t room)
{
    static const uint32_t pool[] = {
        ' ',     ' ',    '\n',    '\t',   'a',    'e',    '\'',     's',    '1',    '9',
        0,       1,      0x7f,    0x85,   0xa0,   0xad,   0xe9,     0x301,  0x4f60, 0x597d,
        0x1f600, 0x200d, 0x1f469, 0xfe0f, 0xfffd, 0xfeff, 0x10ffff, 0xe000, 0x0627, 0x0e01,
    };
    static const char *const words[] = {"<|im_end|>",    "<|im_start|>", "<s>",   "</s>", "<0x41>",
                                        "<end_of_turn>", "[INST]",       "hello", "  ",   "\n\n\n"};
    size_t n = 0;
    size_t want = rng_below(r, 60);
    for (size_t i = 0; i < want && n + 16 < room; i++) {
        uint64_t pick = rng_below(r, 10);
        if (pick == 0) {
            n += (size_t)snprintf(out + n, room - n, "%s", words[rng_below(r, 10)]);
            continue;
        }
        uint32_t c = pick < 6 ? pool[rng_below(r, 30)] : (uint32_t)rng_below(r, 0x250);
        if (pick == 9) {
            c = (uint32_t)rng_below(r, 0xd800) + (rng_below(r, 2) ? 0x10000 : 0);
        }
        n += utf8_put(c, out + n);
    }
    return n;
}

static void decode(const struct tokenizer *t, const struct ids *ids, struct buf *out)
{
    buf_clear(out);
    for (int i = 0; i < ids->n; i++) {
        size_t len;
        const char *piece = tokenizer_piece(t, ids->token[i].id, true, &len);
        buf_append(out, piece, len);
    }
    CHECK(!buf_failed(out));
}

static bool inside(const struct token *k, const struct text_range *r, int n)
{
    for (int i = 0; i < n; i++) {
        if (k->begin >= r[i].begin && k->end <= r[i].end) {
            return true;
        }
    }
    return false;
}

/* Text with random ranges where special tokens may stand: it comes back whole, and control
 * tokens come only from those ranges. */
static void check_round_trip(const struct tokenizer *t, struct rng *r, struct buf *back)
{
    char text[1024];
    size_t len = random_text(r, text, sizeof text);
    size_t cut = rng_below(r, len + 1);
    struct text_range ranges[2] = {{0, rng_below(r, cut + 1)}, {cut, len}};
    int n = (int)rng_below(r, 3);
    struct ids ids;
    encode(&ids, t, text, len, ranges, n);
    decode(t, &ids, back);
    bool blank = t->model == TOKENIZER_SPM && t->spm.add_space_prefix;
    const char *got = buf_str(back);
    size_t got_len = back->len;
    if (blank && n == 0 && len) {
        CHECK(got[0] == ' ');
        got++;
        got_len--;
    }
    if (!blank || n == 0) { /* after each special token a blank is put in */
        CHECK_INT(got_len, ==, len);
        CHECK(memcmp(got, text, len) == 0);
    }
    for (int i = 0; i < ids.n; i++) {
        if (t->vocab.type[ids.token[i].id] == TOKEN_CONTROL) {
            CHECK(inside(&ids.token[i], ranges, n));
        }
    }
    arena_clear(&ids.arena);
}

TEST(tokenizer_round_trip, "random text comes back; control tokens come only from their ranges")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct buf back;
    buf_init(&back, 1 << 16);
    for (size_t i = 0; i < N_TINY; i++) {
        struct tokenizer *t = open_tiny(tiny_files[i]);
        for (int k = 0; k < 1500; k++) {
            check_round_trip(t, &r, &back);
        }
        tokenizer_close(t);
    }
    buf_free(&back);
}

TEST(tokenizer_invalid_utf8, "bytes that are not UTF-8 keep their value and crash nothing")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct buf back;
    buf_init(&back, 1 << 16);
    static const char *const names[] = {"llama-bpe", "smollm-legacy-quants", "llama-spm"};
    for (size_t i = 0; i < 3; i++) {
        struct tokenizer *t = open_tiny(names[i]);
        for (int k = 0; k < 300; k++) {
            char text[64];
            size_t len = 1 + rng_below(&r, sizeof text - 1);
            for (size_t b = 0; b < len; b++) {
                text[b] = (char)rng_u64(&r);
            }
            struct ids ids;
            encode(&ids, t, test_guarded(text, len), len, NULL, 0);
            decode(t, &ids, &back);
            size_t skip = t->model == TOKENIZER_SPM;
            CHECK_INT(back.len, ==, len + skip);
            CHECK(memcmp(back.data + skip, text, len) == 0);
            arena_clear(&ids.arena);
        }
        tokenizer_close(t);
    }
    buf_free(&back);
}

/* ---- slow and plain implementations ---- */

/* Merge the pair of the lowest rank, leftmost, until there is none. */
static int slow_bpe(const struct bpe *b, const char *text, size_t len, token_id *ids)
{
    int n = 0;
    for (size_t i = 0; i < len; i++) {
        ids[n++] = b->byte[(unsigned char)text[i]];
    }
    for (;;) {
        uint32_t best = b->n_merges;
        int at = -1;
        for (int i = 0; i + 1 < n; i++) {
            for (uint32_t m = 0; m < best; m++) {
                if (b->merge[m].left == ids[i] && b->merge[m].right == ids[i + 1]) {
                    best = m;
                    at = i;
                }
            }
        }
        if (at < 0) {
            return n;
        }
        ids[at] = b->merge[best].result;
        memmove(ids + at + 1, ids + at + 2, (size_t)(n - at - 2) * sizeof *ids);
        n--;
    }
}

TEST(tokenizer_bpe_slow, "heap and list give what merging by hand gives")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct tokenizer *t = open_tiny("gpt2-k-quants");
    for (int k = 0; k < 400; k++) {
        char text[40];
        size_t len = 1 + rng_below(&r, sizeof text - 1);
        for (size_t i = 0; i < len; i++) {
            text[i] = "aeinorstlh"[rng_below(&r, 10)]; /* one word for every rule */
        }
        token_id want[sizeof text];
        int n = slow_bpe(&t->bpe, text, len, want);
        struct ids got;
        encode(&got, t, text, len, NULL, 0);
        CHECK_INT(got.n, ==, n);
        for (int i = 0; i < n; i++) {
            CHECK_INT(got.token[i].id, ==, want[i]);
        }
        arena_clear(&got.arena);
    }
    tokenizer_close(t);
}

/* The pair whose text is the token with the best score, leftmost, until there is none. */
static int slow_spm(const struct vocab *v, const char *text, size_t len, size_t *ends)
{
    int n = 0;
    for (size_t i = 0; i < len; i++) {
        ends[n++] = i + 1;
    }
    for (;;) {
        float best = -INFINITY;
        int at = -1;
        for (int i = 0; i + 1 < n; i++) {
            size_t begin = i ? ends[i - 1] : 0;
            token_id id = vocab_find_plain(v, text + begin, ends[i + 1] - begin);
            if (id >= 0 && v->score[id] > best) {
                best = v->score[id];
                at = i;
            }
        }
        if (at < 0) {
            return n;
        }
        memmove(ends + at, ends + at + 1, (size_t)(n - at - 1) * sizeof *ends);
        n--;
    }
}

TEST(tokenizer_spm_slow, "merging by score gives what looking at every pair gives")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct tokenizer *t = open_tiny("gemma3"); /* no blank in front */
    for (int k = 0; k < 400; k++) {
        char text[40];
        size_t len = 1 + rng_below(&r, sizeof text - 1);
        for (size_t i = 0; i < len; i++) {
            text[i] = "aeinorstlh"[rng_below(&r, 10)];
        }
        size_t want[sizeof text];
        int n = slow_spm(&t->vocab, text, len, want);
        struct ids got;
        encode(&got, t, text, len, NULL, 0);
        CHECK_INT(got.n, ==, n);
        for (int i = 0; i < n; i++) {
            CHECK_INT(got.token[i].end, ==, want[i]);
        }
        arena_clear(&got.arena);
    }
    tokenizer_close(t);
}

/* ---- size, memory, threads ---- */

TEST(tokenizer_long_runs, "200 KB of one character: n log n steps for every kind")
{
    static const char *const units[] = {"a", " ", "\n", "<", "ab", "\xe4\xbd\xa0", "<|im_end|>"};
    for (size_t i = 0; i < N_TINY; i++) {
        struct tokenizer *t = open_tiny(tiny_files[i]);
        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
            size_t size = strlen(units[u]);
            size_t len = 200000 / size * size;
            char *text = mem_alloc(len, 1);
            CHECK(text);
            for (size_t at = 0; at < len; at += size) {
                memcpy(text + at, units[u], size);
            }
            struct ids ids;
            encode(&ids, t, text, len, NULL, 0);
            arena_clear(&ids.arena);
            mem_free(text);
        }
        tokenizer_close(t);
    }
}

static const char mixed_text[] =
    "<|im_start|>user\nIs it in stock? 4711 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 </s>\n\n";

TEST(tokenizer_open_no_memory, "every failing allocation of tokenizer_open is an error")
{
    static const char *const names[] = {"llama-bpe", "llama-spm"};
    for (size_t i = 0; i < 2; i++) {
        char rest[64];
        snprintf(rest, sizeof rest, "tiny/%s.gguf", names[i]);
        char *path = test_golden_path(rest);
        struct err e = ERR_INIT;
        struct gguf *g = gguf_open(path, &e);
        CHECK(g);
        for (long fail = 1;; fail++) {
            alloc_fail_at(fail);
            struct tokenizer *t = tokenizer_open(g, &e);
            long made = alloc_count();
            alloc_fail_at(0);
            if (!t) {
                CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            }
            tokenizer_close(t);
            if (t && made < fail) {
                break;
            }
            CHECK_INT(fail, <, 10000);
        }
        gguf_close(g);
        mem_free(path);
    }
}

TEST(tokenizer_encode_no_memory, "every failing allocation of tokenizer_encode is an error")
{
    struct text_range all = {0, sizeof mixed_text - 1};
    for (size_t i = 0; i < N_TINY; i++) {
        struct tokenizer *t = open_tiny(tiny_files[i]);
        for (long fail = 1;; fail++) {
            struct arena a;
            arena_init(&a, ARENA_BYTES);
            struct err e = ERR_INIT;
            struct token *out;
            int n;
            alloc_fail_at(fail);
            int failed = tokenizer_encode(t, mixed_text, all.end, &all, 1, true, &a, &out, &n, &e);
            long made = alloc_count();
            alloc_fail_at(0);
            arena_clear(&a);
            if (failed) {
                CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            } else if (made < fail) {
                break;
            }
            CHECK_INT(fail, <, 1000);
        }
        tokenizer_close(t);
    }
}

TEST(tokenizer_arena_ceiling, "an arena that is too small is an error with a reason")
{
    struct tokenizer *t = open_tiny("llama-bpe");
    struct arena a;
    arena_init(&a, 64);
    struct err e = ERR_INIT;
    struct token *out;
    int n;
    CHECK_INT(
        tokenizer_encode(t, mixed_text, sizeof mixed_text - 1, NULL, 0, true, &a, &out, &n, &e), ==,
        -1);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    arena_clear(&a);
    tokenizer_close(t);
}

struct worker {
    const struct tokenizer *t;
    const struct ids *want;
    int differences;
};

static void *encode_often(void *arg)
{
    struct worker *w = arg;
    for (int k = 0; k < 200; k++) {
        struct ids got;
        encode(&got, w->t, mixed_text, sizeof mixed_text - 1, NULL, 0);
        bool same = got.n == w->want->n;
        for (int i = 0; same && i < got.n; i++) {
            same = got.token[i].id == w->want->token[i].id;
        }
        w->differences += !same;
        arena_clear(&got.arena);
    }
    return NULL;
}

TEST(tokenizer_threads, "threads that encode with one tokenizer do not disturb each other")
{
    struct tokenizer *t = open_tiny("llama-bpe");
    struct ids want;
    encode(&want, t, mixed_text, sizeof mixed_text - 1, NULL, 0);
    struct worker w[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        w[i] = (struct worker){t, &want, 0};
        CHECK_INT(pthread_create(&thread[i], NULL, encode_often, &w[i]), ==, 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        CHECK_INT(w[i].differences, ==, 0);
    }
    arena_clear(&want.arena);
    tokenizer_close(t);
}
