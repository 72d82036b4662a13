/* SentencePiece vocabularies (Kudo and Richardson 2018) in the form GGUF files have them.
 *
 * Blanks become U+2581, text becomes characters, and neighbours are merged into the token
 * with the best score, the leftmost of equals, until no pair is a token. What is no token
 * then is written as its bytes, "<0xHH>". */
#include "base/utf8.h"
#include "model/merge_heap.h"
#include "model/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

#define BLANK     "\xe2\x96\x81"
#define BLANK_LEN 3u

struct spm_symbol {
    int32_t prev, next; /* -1 = none */
    uint32_t begin;     /* in the escaped text */
    uint32_t len;       /* 0 = merged into its left neighbour */
};

struct spm_text {
    const struct vocab *vocab;
    const char *text; /* escaped */
    struct spm_symbol *symbol;
    struct merge_heap heap;
};

int spm_load(struct spm *s, const struct vocab *v, const struct gguf *g, struct err *e)
{
    s->add_space_prefix = true;
    for (unsigned c = 0; c < 256; c++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", c);
        s->byte[c] = vocab_find(v, text, 6);
        if (s->byte[c] < 0) {
            char byte = (char)c;
            s->byte[c] = vocab_find_plain(v, &byte, 1);
        }
    }
    return gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &s->add_space_prefix, e) < 0 ? -1
                                                                                            : 0;
}

/* Floats as integers in the opposite order: the best score is the smallest number. */
static uint32_t descending(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

static void offer(struct spm_text *w, int32_t left)
{
    int32_t right = left < 0 ? -1 : w->symbol[left].next;
    if (right < 0) {
        return;
    }
    uint32_t len = w->symbol[left].len + w->symbol[right].len;
    token_id id = vocab_find_plain(w->vocab, w->text + w->symbol[left].begin, len);
    if (id >= 0) {
        uint64_t key = (uint64_t)descending(w->vocab->score[id]) << 32 | (uint32_t)left;
        merge_heap_push(&w->heap, (struct merge_candidate){key, len});
    }
}

static void merge_all(struct spm_text *w, int32_t n)
{
    struct spm_symbol *s = w->symbol;
    for (int32_t i = 0; i + 1 < n; i++) {
        offer(w, i);
    }
    while (w->heap.n) {
        struct merge_candidate c = merge_heap_pop(&w->heap);
        int32_t left = (int32_t)(uint32_t)c.key;
        int32_t right = s[left].next;
        if (s[left].len == 0 || right < 0 || s[left].len + s[right].len != c.check) {
            continue; /* one of the two was merged with another neighbour */
        }
        s[left].len = c.check;
        s[left].next = s[right].next;
        s[right].len = 0;
        if (s[left].next >= 0) {
            s[s[left].next].prev = left;
        }
        offer(w, s[left].prev);
        offer(w, left);
    }
}

/* Bytes of the character at s[0..n); a byte that is not UTF-8 counts as one. */
static size_t character(const char *s, size_t n)
{
    size_t len = utf8_next(s, n, NULL);
    return len == 0 || len > 4 ? 1 : len;
}

static int32_t split(struct spm_text *w, size_t len)
{
    int32_t n = 0;
    for (size_t at = 0; at < len;) {
        size_t size = character(w->text + at, len - at);
        w->symbol[n] = (struct spm_symbol){n - 1, n + 1, (uint32_t)at, (uint32_t)size};
        at += size;
        n++;
    }
    w->symbol[n - 1].next = -1;
    return n;
}

static size_t put_blank(char *out)
{
    for (size_t i = 0; i < BLANK_LEN; i++) {
        out[i] = BLANK[i];
    }
    return BLANK_LEN;
}

static size_t escape(const char *text, size_t len, bool prefix, char *out)
{
    size_t n = prefix ? put_blank(out) : 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == ' ') {
            n += put_blank(out + n);
        } else {
            out[n++] = text[i];
        }
    }
    return n;
}

/* Where in the input escaped bytes end. A blank counts when its first byte is reached; the
 * blank put in front has no bytes of the input. */
struct spm_position {
    size_t escaped; /* bytes of escaped text up to here */
    size_t input;   /* the same place in the input, end of the character */
};

static size_t advance(const struct encoding *enc, struct spm_position *p, size_t escaped,
                      size_t limit)
{
    while (p->escaped < escaped && p->input < limit) {
        p->escaped += enc->text[p->input] == ' ' ? BLANK_LEN : 1;
        p->input++;
    }
    return p->input;
}

static int push_bytes(struct encoding *enc, const struct spm_text *w, const struct spm_symbol *s,
                      struct spm_position *p, size_t limit)
{
    for (uint32_t i = 0; i < s->len; i++) {
        token_id id = enc->t->spm.byte[(unsigned char)w->text[s->begin + i]];
        size_t to = advance(enc, p, s->begin + i + 1, limit);
        id = id < 0 ? enc->t->unk : id;
        if (id < 0) {
            encoding_skip(enc, to);
        } else if (encoding_push(enc, id, to)) {
            return -1;
        }
    }
    return 0;
}

int spm_encode(struct encoding *enc, size_t begin, size_t end, bool space_prefix)
{
    size_t room = BLANK_LEN * (end - begin + 1);
    char *escaped = encoding_scratch(enc, 2, room, 1);
    if (!escaped) {
        return -1;
    }
    size_t len = escape(enc->text + begin, end - begin, space_prefix, escaped);
    struct spm_text w = {.vocab = &enc->t->vocab, .text = escaped};
    w.symbol = encoding_scratch(enc, 0, end - begin + 1, sizeof *w.symbol);
    w.heap.items = encoding_scratch(enc, 1, 2 * (end - begin + 1), sizeof *w.heap.items);
    if (!w.symbol || !w.heap.items) {
        return -1;
    }
    merge_all(&w, split(&w, len));
    struct spm_position at = {space_prefix ? BLANK_LEN : 0, begin};
    for (int32_t i = 0; i >= 0; i = w.symbol[i].next) {
        const struct spm_symbol *s = &w.symbol[i];
        token_id id = vocab_find_plain(w.vocab, escaped + s->begin, s->len);
        int failed = id < 0 ? push_bytes(enc, &w, s, &at, end)
                            : encoding_push(enc, id, advance(enc, &at, s->begin + s->len, end));
        if (failed) {
            return -1;
        }
    }
    return 0;
}
