/* Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019).
 *
 * Text is cut into words, a word into bytes, and neighbouring symbols are merged, always
 * the pair with the lowest rank, the leftmost of equals. Candidates wait in a heap and the
 * symbols are a linked list over the bytes, so a word of n bytes costs O(n log n), even
 * when it is a megabyte of one letter.
 *
 * Merges are kept as ids, not texts: (left, right) -> rank in an open hash table. */
#include "base/alloc.h"
#include "model/merge_heap.h"
#include "model/tokenizer_impl.h"

#include <string.h>

/* A symbol begins at the byte of its index and ends where the next one begins. */
struct bpe_symbol {
    int32_t prev, next; /* -1 = none */
    token_id id;        /* -1 = no token has this byte */
};

static uint32_t hash_pair(token_id left, token_id right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

/* Rank of a merge; n_merges when there is none. */
static uint32_t find_rank(const struct bpe *b, token_id left, token_id right)
{
    for (uint32_t i = hash_pair(left, right);; i++) {
        uint32_t rank = b->slot[i & (b->n_slots - 1)];
        if (rank == 0) {
            return b->n_merges;
        }
        const struct bpe_merge *m = &b->merge[rank - 1];
        if (m->left == left && m->right == right) {
            return rank - 1;
        }
    }
}

static void insert_rank(struct bpe *b, uint32_t rank)
{
    uint32_t i = hash_pair(b->merge[rank].left, b->merge[rank].right);
    while (b->slot[i & (b->n_slots - 1)]) {
        i++;
    }
    b->slot[i & (b->n_slots - 1)] = rank + 1;
}

/* "left right": the blank is the first one after the first byte. `joined` has room for the
 * longest token. */
static int parse_merge(const struct vocab *v, const struct gguf_string *s, size_t rank,
                       char *joined, struct bpe_merge *m, struct err *e)
{
    const char *blank = s->len > 1 ? memchr(s->ptr + 1, ' ', s->len - 1) : NULL;
    if (!blank) {
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges: merge %zu is not two tokens", rank);
    }
    size_t left = (size_t)(blank - s->ptr);
    size_t right = s->len - left - 1;
    m->left = vocab_find(v, s->ptr, left);
    m->right = vocab_find(v, blank + 1, right);
    m->result = -1;
    if (left + right <= v->longest) {
        memcpy(joined, s->ptr, left);
        memcpy(joined + left, blank + 1, right);
        m->result = vocab_find(v, joined, left + right);
    }
    if (m->left < 0 || m->right < 0 || m->result < 0) {
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.merges: merge %zu (\"%.*s\") names a token that the "
                       "vocabulary lacks",
                       rank, (int)(s->len < 80 ? s->len : 80), s->ptr);
    }
    return 0;
}

static int parse_merges(struct bpe *b, const struct vocab *v, const struct gguf_array *a,
                        struct err *e)
{
    char *joined = mem_alloc(v->longest + 1, 1);
    if (!joined) {
        return err_no_memory(e, v->longest);
    }
    int failed = 0;
    for (uint32_t rank = 0; rank < b->n_merges && !failed; rank++) {
        struct bpe_merge *m = &b->merge[rank];
        failed = parse_merge(v, &a->strings[rank], rank, joined, m, e);
        /* Of two equal merges the first counts; no merge makes a control token. */
        if (!failed && v->type[m->result] != TOKEN_CONTROL &&
            find_rank(b, m->left, m->right) == b->n_merges) {
            insert_rank(b, rank);
        }
    }
    mem_free(joined);
    return failed;
}

static int load_merges(struct bpe *b, const struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array a;
    int got = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &a, e);
    if (got < 0) {
        return -1;
    }
    if (got == GGUF_ABSENT || a.n > VOCAB_MAX_TOKENS) {
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges: %s",
                       got == GGUF_ABSENT ? "missing" : "too many");
    }
    b->n_slots = 16;
    while (b->n_slots < 2 * a.n) {
        b->n_slots *= 2;
    }
    b->merge = mem_alloc(a.n + 1, sizeof *b->merge);
    b->slot = mem_zalloc(b->n_slots, sizeof *b->slot);
    if (!b->merge || !b->slot) {
        return err_no_memory(e, a.n * sizeof *b->merge + b->n_slots * sizeof *b->slot);
    }
    b->n_merges = (uint32_t)a.n;
    return parse_merges(b, v, &a, e);
}

int bpe_load(struct bpe *b, const struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_string pre = {"", 0};
    int got = gguf_get_string(g, "tokenizer.ggml.pre", &pre, e);
    if (got < 0) {
        return -1;
    }
    b->pre = pretokenizer_open(pre.ptr, pre.len, e);
    if (!b->pre) {
        return -1;
    }
    for (unsigned c = 0; c < 256; c++) {
        char text[2];
        size_t len = byte_level_put((unsigned char)c, text);
        b->byte[c] = vocab_find_plain(v, text, len);
    }
    return load_merges(b, v, g, e);
}

void bpe_clear(struct bpe *b)
{
    pretokenizer_close(b->pre);
    mem_free(b->merge);
    mem_free(b->slot);
    *b = (struct bpe){0};
}

static void offer(const struct bpe *b, const struct bpe_symbol *s, int32_t left,
                  struct merge_heap *heap)
{
    int32_t right = left < 0 ? -1 : s[left].next;
    if (right < 0) {
        return;
    }
    uint32_t rank = find_rank(b, s[left].id, s[right].id);
    if (rank < b->n_merges) {
        merge_heap_push(heap, (struct merge_candidate){(uint64_t)rank << 32 | (uint32_t)left, 0});
    }
}

/* A merge takes one candidate and offers two, and there are fewer merges than bytes: the
 * heap never holds more than two for each byte. */
static void merge_word(const struct bpe *b, struct bpe_symbol *s, int32_t n,
                       struct merge_heap *heap)
{
    for (int32_t i = 0; i + 1 < n; i++) {
        offer(b, s, i, heap);
    }
    while (heap->n) {
        struct merge_candidate c = merge_heap_pop(heap);
        const struct bpe_merge *m = &b->merge[c.key >> 32];
        int32_t left = (int32_t)(uint32_t)c.key;
        int32_t right = s[left].next;
        if (s[left].id != m->left || right < 0 || s[right].id != m->right) {
            continue; /* one of the two was merged with another neighbour */
        }
        s[left].id = m->result;
        s[left].next = s[right].next;
        s[right].id = -1;
        if (s[left].next >= 0) {
            s[s[left].next].prev = left;
        }
        offer(b, s, s[left].prev, heap);
        offer(b, s, left, heap);
    }
}

static int encode_word(struct encoding *enc, size_t begin, size_t end)
{
    const struct bpe *b = &enc->t->bpe;
    size_t n = end - begin;
    struct bpe_symbol *s = encoding_scratch(enc, 0, n, sizeof *s);
    struct merge_heap heap = {.items = encoding_scratch(enc, 1, 2 * n, sizeof *heap.items)};
    if (!s || !heap.items) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        s[i].prev = (int32_t)i - 1;
        s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
        s[i].id = b->byte[(unsigned char)enc->text[begin + i]];
    }
    merge_word(b, s, (int32_t)n, &heap);
    for (int32_t i = 0; i >= 0; i = s[i].next) {
        size_t to = s[i].next >= 0 ? begin + (size_t)s[i].next : end;
        if (s[i].id < 0) {
            encoding_skip(enc, to);
        } else if (encoding_push(enc, s[i].id, to)) {
            return -1;
        }
    }
    return 0;
}

/* The token that is the whole word; -1 = none. */
static int whole_word(struct encoding *enc, size_t begin, size_t end, token_id *id)
{
    *id = -1;
    const struct vocab *v = &enc->t->vocab;
    if (!pretokenizer_whole_words(enc->t->bpe.pre) || end - begin > v->longest) {
        return 0;
    }
    char *text = encoding_scratch(enc, 2, 2 * (end - begin), 1);
    if (!text) {
        return -1;
    }
    size_t n = 0;
    for (size_t i = begin; i < end; i++) {
        n += byte_level_put((unsigned char)enc->text[i], text + n);
    }
    *id = vocab_find_plain(v, text, n);
    return 0;
}

int bpe_encode(struct encoding *enc, size_t begin, size_t end)
{
    if (!enc->cursor.match && pretokenize_begin(&enc->cursor, enc->t->bpe.pre, enc->e)) {
        return -1;
    }
    pretokenize_text(&enc->cursor, enc->text + begin, end - begin);
    size_t from;
    size_t to;
    int more;
    while ((more = pretokenize_next(&enc->cursor, &from, &to, enc->e)) > 0) {
        token_id id;
        if (whole_word(enc, begin + from, begin + to, &id)) {
            return -1;
        }
        if (id >= 0 ? encoding_push(enc, id, begin + to)
                    : encode_word(enc, begin + from, begin + to)) {
            return -1;
        }
    }
    return more;
}
