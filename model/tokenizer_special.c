/* Where special tokens stand in a text.
 *
 * Control tokens count only inside the ranges where the chat template speaks, and must lie
 * wholly within one of them: what a user types never becomes one. User-defined tokens
 * (words that training wanted whole: runs of newlines, tags) count everywhere.
 *
 * Longer tokens go first, whatever stands further left, as llama.cpp does; of equally long
 * ones the smaller id, then the leftmost place. A heap holds one candidate for each place,
 * its longest; a candidate that an accepted token overlaps comes back with its next shorter
 * one. Texts are looked up in a sorted array, one byte at a time, so thousands of tokens
 * with the same beginning cost no more than one. */
#include "base/alloc.h"
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static int compare_texts(const struct token_text *a, const struct token_text *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->ptr, b->ptr, n);
    return c ? c : (a->len > b->len) - (a->len < b->len);
}

static int compare_ids(const void *a, const void *b, void *texts)
{
    const struct token_text *text = texts;
    return compare_texts(&text[*(const token_id *)a], &text[*(const token_id *)b]);
}

static bool is_special_type(unsigned char type)
{
    return type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED || type == TOKEN_UNKNOWN;
}

int special_load(struct tokenizer *t, struct err *e)
{
    const struct vocab *v = &t->vocab;
    t->special = mem_alloc((size_t)v->n, sizeof *t->special);
    if (!t->special) {
        return err_no_memory(e, (size_t)v->n * sizeof *t->special);
    }
    for (token_id id = 0; id < v->n; id++) {
        if (is_special_type(v->type[id]) && v->text[id].len) {
            t->special[t->n_special++] = id;
            t->starts_special[(unsigned char)v->text[id].ptr[0]] = true;
        }
    }
    qsort_r(t->special, t->n_special, sizeof *t->special, compare_ids, v->text);
    return 0;
}

/* The part of special[low..high) whose byte at `depth` is at least `byte`: its start. All
 * of them agree before `depth`; those that end there come first. */
static size_t lower(const struct tokenizer *t, size_t low, size_t high, size_t depth, int byte)
{
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct token_text *x = &t->vocab.text[t->special[mid]];
        int c = x->len > depth ? (unsigned char)x->ptr[depth] : -1;
        if (c < byte) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* The longest special token at text[0..len) that is shorter than `below`; control tokens
 * must end within `allowed` bytes. false = none. */
static bool longest_at(const struct tokenizer *t, const char *text, size_t len, size_t allowed,
                       size_t below, struct special_match *m)
{
    size_t low = 0;
    size_t high = t->n_special;
    m->id = -1;
    for (size_t depth = 0; depth < len && depth + 1 < below; depth++) {
        int c = (unsigned char)text[depth];
        low = lower(t, low, high, depth, c);
        high = lower(t, low, high, depth, c + 1);
        if (low == high) {
            break;
        }
        token_id id = t->special[low];
        if (t->vocab.text[id].len == depth + 1 &&
            (depth + 1 <= allowed || t->vocab.type[id] == TOKEN_USER_DEFINED)) {
            m->id = id;
            m->len = (uint32_t)depth + 1;
        }
    }
    return m->id >= 0;
}

struct search {
    const struct tokenizer *t;
    const char *text;
    size_t len;
    const struct text_range *allowed;
    int n_allowed;
    struct special_match *heap; /* first in line on top */
    size_t n, cap;
    unsigned char *taken; /* [len] */
    struct special_match *found;
    size_t n_found, cap_found;
};

static bool before(const struct special_match *a, const struct special_match *b)
{
    if (a->len != b->len) {
        return a->len > b->len;
    }
    return a->id != b->id ? a->id < b->id : a->begin < b->begin;
}

static int grow(struct special_match **items, size_t *cap, size_t n, struct err *e)
{
    if (n < *cap) {
        return 0;
    }
    size_t want = *cap ? *cap * 2 : 64;
    struct special_match *more = mem_realloc(*items, want, sizeof *more);
    if (!more) {
        return err_no_memory(e, want * sizeof *more);
    }
    *items = more;
    *cap = want;
    return 0;
}

static int push(struct search *s, struct special_match m, struct err *e)
{
    if (grow(&s->heap, &s->cap, s->n, e)) {
        return -1;
    }
    size_t i = s->n++;
    while (i > 0 && before(&m, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = m;
    return 0;
}

static struct special_match pop(struct search *s)
{
    struct special_match top = s->heap[0];
    struct special_match last = s->heap[--s->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n) {
            break;
        }
        if (child + 1 < s->n && before(&s->heap[child + 1], &s->heap[child])) {
            child++;
        }
        if (!before(&s->heap[child], &last)) {
            break;
        }
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* Bytes from `at` to the end of the allowed range that holds it; 0 = in none. */
static size_t allowed_from(const struct search *s, size_t at)
{
    int low = 0;
    int high = s->n_allowed;
    while (low < high) { /* the first range that ends after `at` */
        int mid = low + (high - low) / 2;
        if (s->allowed[mid].end <= at) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < s->n_allowed && s->allowed[low].begin <= at ? s->allowed[low].end - at : 0;
}

static int offer(struct search *s, size_t at, size_t below, struct err *e)
{
    struct special_match m = {.begin = at};
    if (longest_at(s->t, s->text + at, s->len - at, allowed_from(s, at), below, &m)) {
        return push(s, m, e);
    }
    return 0;
}

/* Accepted tokens are at least as long as the one in hand, so one that overlaps it covers
 * its first or its last byte. */
static int choose(struct search *s, struct err *e)
{
    while (s->n) {
        struct special_match m = pop(s);
        if (s->taken[m.begin]) {
            continue;
        }
        if (s->taken[m.begin + m.len - 1]) {
            if (offer(s, m.begin, m.len, e)) {
                return -1;
            }
            continue;
        }
        memset(s->taken + m.begin, 1, m.len);
        if (grow(&s->found, &s->cap_found, s->n_found, e)) {
            return -1;
        }
        s->found[s->n_found++] = m;
    }
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    size_t x = ((const struct special_match *)a)->begin;
    size_t y = ((const struct special_match *)b)->begin;
    return (x > y) - (x < y);
}

static int search(struct search *s, struct err *e)
{
    for (size_t at = 0; at < s->len; at++) {
        if (s->t->starts_special[(unsigned char)s->text[at]] && offer(s, at, (size_t)-1, e)) {
            return -1;
        }
    }
    if (s->n == 0) {
        return 0;
    }
    s->taken = mem_zalloc(s->len, 1);
    if (!s->taken) {
        return err_no_memory(e, s->len);
    }
    if (choose(s, e)) {
        return -1;
    }
    if (s->n_found) {
        qsort(s->found, s->n_found, sizeof *s->found, compare_places);
    }
    return 0;
}

int special_find(const struct tokenizer *t, const char *text, size_t len,
                 const struct text_range *allowed, int n_allowed, struct special_match **out,
                 size_t *n_out, struct err *e)
{
    struct search s = {
        .t = t, .text = text, .len = len, .allowed = allowed, .n_allowed = n_allowed};
    int failed = search(&s, e);
    mem_free(s.heap);
    mem_free(s.taken);
    if (failed) {
        mem_free(s.found);
        return -1;
    }
    *out = s.found;
    *n_out = s.n_found;
    return 0;
}
