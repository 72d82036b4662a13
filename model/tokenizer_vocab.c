/* The vocabulary of a GGUF file: texts, types, scores, and the way from a text to its id.
 *
 * The file is untrusted: arrays must have the exact element type and one entry for each
 * token, texts are at most 64 KiB, unique, and byte tokens are "<0x", two hexadecimal
 * digits, ">" and nothing else. Everything is copied, so the tokenizer outlives the file. */
#include "base/alloc.h"
#include "base/checked.h"
#include "base/utf8.h"
#include "model/tokenizer_impl.h"

#include <math.h>
#include <string.h>

static uint32_t hash_text(const char *s, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)s[i]) * 16777619u;
    }
    return h ^ h >> 15;
}

token_id vocab_find(const struct vocab *v, const char *text, size_t len)
{
    if (len > v->longest) {
        return -1;
    }
    for (uint32_t i = hash_text(text, len);; i++) {
        uint32_t id = v->slot[i & (v->n_slots - 1)];
        if (id == 0) {
            return -1;
        }
        const struct token_text *t = &v->text[id - 1];
        if (t->len == len && memcmp(t->ptr, text, len) == 0) {
            return (token_id)(id - 1);
        }
    }
}

token_id vocab_find_plain(const struct vocab *v, const char *text, size_t len)
{
    token_id id = vocab_find(v, text, len);
    if (id >= 0 && (v->type[id] == TOKEN_CONTROL || v->type[id] == TOKEN_UNKNOWN ||
                    v->type[id] == TOKEN_BYTE)) {
        return -1;
    }
    return id;
}

bool vocab_is(const struct vocab *v, token_id id, const char *text)
{
    return v->text[id].len == strlen(text) && memcmp(v->text[id].ptr, text, v->text[id].len) == 0;
}

static int insert(struct vocab *v, token_id id, struct err *e)
{
    const struct token_text *t = &v->text[id];
    token_id other = vocab_find(v, t->ptr, t->len);
    if (other >= 0) {
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens: tokens %d and %d have the same text",
                       (int)other, (int)id);
    }
    uint32_t i = hash_text(t->ptr, t->len);
    while (v->slot[i & (v->n_slots - 1)]) {
        i++;
    }
    v->slot[i & (v->n_slots - 1)] = (uint32_t)id + 1;
    return 0;
}

/* Every array is at most half full, so that a search for an absent text ends soon. */
static int index_texts(struct vocab *v, struct err *e)
{
    v->n_slots = 16;
    while (v->n_slots < 2 * (uint32_t)v->n) {
        v->n_slots *= 2;
    }
    v->slot = mem_zalloc(v->n_slots, sizeof *v->slot);
    if (!v->slot) {
        return err_no_memory(e, v->n_slots * sizeof *v->slot);
    }
    for (token_id id = 0; id < v->n; id++) {
        if (v->text[id].len && insert(v, id, e)) {
            return -1;
        }
    }
    return 0;
}

static int measure_texts(struct vocab *v, const struct gguf_array *a, size_t *total, struct err *e)
{
    *total = 0;
    for (size_t i = 0; i < a->n; i++) {
        size_t len = a->strings[i].len;
        if (len > TOKEN_TEXT_MAX_BYTES) {
            return err_set(e, ERR_FORMAT,
                           "tokenizer.ggml.tokens: token %zu has %zu bytes, the limit is %u", i,
                           len, TOKEN_TEXT_MAX_BYTES);
        }
        if (!ck_add(*total, len, total)) {
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens: the texts are too long");
        }
        v->longest = len > v->longest ? (uint32_t)len : v->longest;
    }
    return 0;
}

static int load_texts(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array a;
    int got = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &a, e);
    if (got < 0) {
        return -1;
    }
    if (got == GGUF_ABSENT || a.n == 0 || a.n > VOCAB_MAX_TOKENS) {
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.tokens: the file must hold between 1 and %d tokens",
                       VOCAB_MAX_TOKENS);
    }
    size_t total;
    if (measure_texts(v, &a, &total, e)) {
        return -1;
    }
    v->n = (int)a.n;
    v->text = mem_alloc(a.n, sizeof *v->text);
    v->text_bytes = mem_alloc(total + 1, 1);
    if (!v->text || !v->text_bytes) {
        return err_no_memory(e, total + a.n * sizeof *v->text);
    }
    char *at = v->text_bytes;
    for (size_t i = 0; i < a.n; i++) {
        v->text[i] = (struct token_text){at, (uint32_t)a.strings[i].len};
        if (a.strings[i].len) {
            memcpy(at, a.strings[i].ptr, a.strings[i].len);
        }
        at += a.strings[i].len;
    }
    return index_texts(v, e);
}

/* An array with one fixed-size entry for each token. */
static int per_token(const struct vocab *v, const struct gguf *g, const char *key,
                     enum gguf_value_type type, struct gguf_array *a, struct err *e)
{
    int got = gguf_get_array(g, key, type, a, e);
    if (got == GGUF_FOUND && a->n != (size_t)v->n) {
        return err_set(e, ERR_FORMAT, "%s: %zu entries for %d tokens", key, a->n, v->n);
    }
    return got;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0xHH>" stands for, or -1. */
static int byte_value(const struct token_text *t)
{
    if (t->len != 6 || memcmp(t->ptr, "<0x", 3) != 0 || t->ptr[5] != '>') {
        return -1;
    }
    int high = hex_digit(t->ptr[3]);
    int low = hex_digit(t->ptr[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static int check_type(const struct vocab *v, token_id id, int32_t type, struct err *e)
{
    if (type < 0 || type >= TOKEN_TYPE_COUNT) {
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type: token %d has type %d", (int)id,
                       (int)type);
    }
    if (type == TOKEN_BYTE && byte_value(&v->text[id]) < 0) {
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.tokens: byte token %d is not \"<0xHH>\"",
                       (int)id);
    }
    return 0;
}

static int load_types(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array a;
    int got = per_token(v, g, "tokenizer.ggml.token_type", GGUF_I32, &a, e);
    if (got < 0) {
        return -1;
    }
    v->type = mem_alloc((size_t)v->n, 1);
    if (!v->type) {
        return err_no_memory(e, (size_t)v->n);
    }
    memset(v->type, TOKEN_NORMAL, (size_t)v->n);
    for (token_id id = 0; got == GGUF_FOUND && id < v->n; id++) {
        int32_t type;
        memcpy(&type, (const char *)a.data + (size_t)id * sizeof type, sizeof type);
        if (check_type(v, id, type, e)) {
            return -1;
        }
        v->type[id] = (unsigned char)type;
    }
    return 0;
}

static int load_scores(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array a;
    int got = per_token(v, g, "tokenizer.ggml.scores", GGUF_F32, &a, e);
    if (got == GGUF_ABSENT) {
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores: missing; SentencePiece needs them");
    }
    if (got < 0) {
        return -1;
    }
    v->score = mem_alloc((size_t)v->n, sizeof *v->score);
    if (!v->score) {
        return err_no_memory(e, (size_t)v->n * sizeof *v->score);
    }
    memcpy(v->score, a.data, (size_t)v->n * sizeof *v->score);
    for (int i = 0; i < v->n; i++) {
        if (!isfinite(v->score[i])) {
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores: score %d is not finite", i);
        }
        v->score[i] += 0.0f; /* -0 would not compare as 0 in the merge queue */
    }
    return 0;
}

int vocab_load(struct vocab *v, const struct gguf *g, bool scores, struct err *e)
{
    if (load_texts(v, g, e) || load_types(v, g, e)) {
        return -1;
    }
    return scores ? load_scores(v, g, e) : 0;
}

void vocab_clear(struct vocab *v)
{
    mem_free(v->text);
    mem_free(v->piece);
    mem_free(v->type);
    mem_free(v->score);
    mem_free(v->text_bytes);
    mem_free(v->piece_bytes);
    mem_free(v->slot);
    *v = (struct vocab){0};
}

/* Bytes that print as themselves in GPT-2's alphabet; the 68 others are U+0100 and on. */
static bool prints_as_itself(unsigned char c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || c >= 0xae;
}

static uint32_t byte_level_codepoint(unsigned char byte)
{
    if (prints_as_itself(byte)) {
        return byte;
    }
    uint32_t others = 0;
    for (unsigned c = 0; c < byte; c++) {
        others += !prints_as_itself((unsigned char)c);
    }
    return 0x100 + others;
}

size_t byte_level_put(unsigned char byte, char out[2])
{
    char utf8[4];
    size_t n = utf8_put(byte_level_codepoint(byte), utf8);
    memcpy(out, utf8, n < 2 ? n : 2);
    return n;
}

/* The way back; characters outside the alphabet stay as they are. */
static size_t byte_level_decode(const struct token_text *t, const short byte_of[324], char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < t->len;) {
        uint32_t c = 0;
        size_t len = utf8_next(t->ptr + i, t->len - i, &c);
        if (len == 0 || len > 4) {
            out[n++] = t->ptr[i++];
        } else if (c < 324 && byte_of[c] >= 0) {
            out[n++] = (char)byte_of[c];
            i += len;
        } else {
            memcpy(out + n, t->ptr + i, len);
            n += len;
            i += len;
        }
    }
    return n;
}

static size_t unescape_blanks(const struct token_text *t, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < t->len;) {
        if (t->len - i >= 3 && memcmp(t->ptr + i, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = t->ptr[i++];
        }
    }
    return n;
}

static size_t make_piece(const struct vocab *v, token_id id, const short *byte_of, char *out)
{
    const struct token_text *t = &v->text[id];
    switch ((enum token_type)v->type[id]) {
    case TOKEN_NORMAL:
        return byte_of ? byte_level_decode(t, byte_of, out) : unescape_blanks(t, out);
    case TOKEN_BYTE:
        *out = (char)byte_value(t);
        return 1;
    case TOKEN_UNKNOWN:
    case TOKEN_CONTROL:
    case TOKEN_USER_DEFINED:
        if (t->len) {
            memcpy(out, t->ptr, t->len);
        }
        return t->len;
    default:
        return 0; /* unused, undefined */
    }
}

int vocab_make_pieces(struct vocab *v, bool byte_level, struct err *e)
{
    short byte_of[324];
    memset(byte_of, -1, sizeof byte_of);
    for (unsigned b = 0; b < 256; b++) {
        byte_of[byte_level_codepoint((unsigned char)b)] = (short)b;
    }
    size_t total = 0; /* a piece is never longer than its text */
    for (int i = 0; i < v->n; i++) {
        total += v->text[i].len;
    }
    v->piece = mem_alloc((size_t)v->n, sizeof *v->piece);
    v->piece_bytes = mem_alloc(total + 1, 1);
    if (!v->piece || !v->piece_bytes) {
        return err_no_memory(e, total + (size_t)v->n * sizeof *v->piece);
    }
    char *at = v->piece_bytes;
    for (token_id id = 0; id < v->n; id++) {
        size_t n = make_piece(v, id, byte_level ? byte_of : NULL, at);
        v->piece[id] = (struct token_text){at, (uint32_t)n};
        at += n;
    }
    return 0;
}
