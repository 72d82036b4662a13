#include "grammar/grammar_impl.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void builder_init(struct grammar_builder *b, struct err *e)
{
    *b = (struct grammar_builder){.e = e};
}

void builder_clear(struct grammar_builder *b)
{
    mem_free(b->first_edge);
    mem_free(b->edges);
    mem_free(b->rules);
    *b = (struct grammar_builder){.e = b->e, .failed = true};
}

void builder_fail(struct grammar_builder *b, enum err_code code, const char *fmt, ...)
{
    if (b->failed) {
        return;
    }
    b->failed = true;
    char text[384];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err_reason(b->e, code, code == ERR_UNSUPPORTED ? "unsupported_parameter" : "invalid_value",
               "%s", text);
}

/* Room for one more of them; false: failed. */
static bool grow(struct grammar_builder *b, void **items, int32_t n, int32_t *cap, size_t size,
                 int32_t most, const char *what)
{
    if (b->failed) {
        return false;
    }
    if (n < *cap) {
        return true;
    }
    if (n >= most) {
        builder_fail(b, ERR_TOO_LARGE, "the grammar is too large: more than %d %s", most, what);
        return false;
    }
    int32_t want = *cap ? *cap * 2 : 256;
    want = want < most ? want : most;
    void *more = mem_realloc(*items, (size_t)want, size);
    if (!more) {
        b->failed = true;
        err_no_memory(b->e, (size_t)want * size);
        return false;
    }
    *items = more;
    *cap = want;
    return true;
}

int32_t builder_state(struct grammar_builder *b)
{
    void *items = b->first_edge;
    if (!grow(b, &items, b->n_states, &b->cap_states, sizeof *b->first_edge, GRAMMAR_MAX_NFA_STATES,
              "states")) {
        return 0;
    }
    b->first_edge = items;
    b->first_edge[b->n_states] = -1;
    return b->n_states++;
}

int32_t builder_rule(struct grammar_builder *b)
{
    void *items = b->rules;
    if (!grow(b, &items, b->n_rules, &b->cap_rules, sizeof *b->rules, GRAMMAR_MAX_RULES, "rules")) {
        return 0;
    }
    b->rules = items;
    b->rules[b->n_rules] = (struct nfa_rule){-1, -1};
    return b->n_rules++;
}

void builder_define(struct grammar_builder *b, int32_t rule, struct fragment f)
{
    if (!b->failed) {
        b->rules[rule] = (struct nfa_rule){f.start, f.end};
    }
}

static void add_edge(struct grammar_builder *b, int32_t from, struct nfa_edge edge)
{
    void *items = b->edges;
    if (!grow(b, &items, b->n_edges, &b->cap_edges, sizeof *b->edges, 4 * GRAMMAR_MAX_NFA_STATES,
              "edges")) {
        return;
    }
    b->edges = items;
    edge.next = b->first_edge[from];
    b->edges[b->n_edges] = edge;
    b->first_edge[from] = b->n_edges++;
}

void builder_empty(struct grammar_builder *b, int32_t from, int32_t to)
{
    add_edge(b, from, (struct nfa_edge){.kind = EDGE_EMPTY, .to = to});
}

void builder_bytes(struct grammar_builder *b, int32_t from, uint8_t lo, uint8_t hi, int32_t to)
{
    add_edge(b, from, (struct nfa_edge){.kind = EDGE_BYTES, .lo = lo, .hi = hi, .to = to});
}

void builder_call(struct grammar_builder *b, int32_t from, int32_t rule, int32_t to)
{
    add_edge(b, from, (struct nfa_edge){.kind = EDGE_CALL, .rule = rule, .to = to});
}

int32_t builder_text(struct grammar_builder *b, int32_t from, const char *text, size_t n)
{
    for (size_t i = 0; i < n && !b->failed; i++) {
        int32_t next = builder_state(b);
        builder_bytes(b, from, (uint8_t)text[i], (uint8_t)text[i], next);
        from = next;
    }
    return from;
}

/* ---- characters --------------------------------------------------------------------------- */

/* What the characters of one class share: tails[k] takes k continuation bytes, 80..bf. */
struct utf8_paths {
    struct grammar_builder *b;
    int32_t from;
    int32_t tails[4]; /* -1 = not needed yet; tails[0] is the end */
};

static int32_t tail(struct utf8_paths *p, int n)
{
    if (p->tails[n] < 0) {
        int32_t behind = tail(p, n - 1);
        p->tails[n] = builder_state(p->b);
        builder_bytes(p->b, p->tails[n], 0x80, 0xbf, behind);
    }
    return p->tails[n];
}

static int utf8_bytes(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

/* A range whose first n_bytes bytes differ only in whole ranges: one path of byte ranges. */
static void add_path(struct utf8_paths *p, uint32_t lo, uint32_t hi)
{
    uint8_t a[4] = {0};
    uint8_t z[4] = {0};
    int n = utf8_bytes(lo, a);
    utf8_bytes(hi, z);
    int whole = 0; /* continuation bytes at the end that may be anything */
    while (whole < n - 1 && a[n - 1 - whole] == 0x80 && z[n - 1 - whole] == 0xbf) {
        whole++;
    }
    int32_t from = p->from;
    for (int i = 0; i < n - whole; i++) {
        int32_t to = i == n - whole - 1 ? tail(p, whole) : builder_state(p->b);
        builder_bytes(p->b, from, a[i], z[i], to);
        from = to;
    }
}

/* Cut where the number of bytes changes, and where a lead byte does not have all of its
 * continuation bytes. */
static void add_range(struct utf8_paths *p, uint32_t lo, uint32_t hi)
{
    static const uint32_t ends[] = {0x7f, 0x7ff, 0xd7ff, 0xffff};
    for (int i = 0; i < 4; i++) {
        if (lo <= ends[i] && hi > ends[i]) {
            add_range(p, lo, ends[i]);
            lo = ends[i] + 1;
        }
    }
    if (lo >= 0xd800 && lo <= 0xdfff) {
        lo = 0xe000;
    }
    if (lo > hi) {
        return;
    }
    uint8_t bytes[4];
    int n = utf8_bytes(lo, bytes);
    for (int i = 1; i < n; i++) {
        uint32_t mask = (1u << (6 * i)) - 1;
        if ((lo & ~mask) == (hi & ~mask)) {
            continue;
        }
        if (lo & mask) {
            add_range(p, lo, lo | mask);
            add_range(p, (lo | mask) + 1, hi);
            return;
        }
        if ((hi & mask) != mask) {
            add_range(p, lo, (hi & ~mask) - 1);
            add_range(p, hi & ~mask, hi);
            return;
        }
    }
    add_path(p, lo, hi);
}

void builder_codepoints(struct grammar_builder *b, int32_t from,
                        const struct codepoint_range *ranges, int n, int32_t to)
{
    struct utf8_paths p = {.b = b, .from = from, .tails = {to, -1, -1, -1}};
    for (int i = 0; i < n && !b->failed; i++) {
        uint32_t hi = ranges[i].hi < 0x10ffff ? ranges[i].hi : 0x10ffff;
        if (ranges[i].lo <= hi && !(ranges[i].lo >= 0xd800 && hi <= 0xdfff)) {
            add_range(&p, ranges[i].lo, hi);
        }
    }
}

static int compare_ranges(const void *a, const void *b)
{
    const struct codepoint_range *x = a;
    const struct codepoint_range *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

int codepoint_normalise(struct codepoint_range *r, int n, bool negated)
{
    if (n > 1) {
        qsort(r, (size_t)n, sizeof *r, compare_ranges);
    }
    int m = 0;
    for (int i = 0; i < n; i++) {
        if (m > 0 && r[i].lo <= r[m - 1].hi + 1) {
            r[m - 1].hi = r[i].hi > r[m - 1].hi ? r[i].hi : r[m - 1].hi;
        } else {
            r[m++] = r[i];
        }
    }
    if (!negated) {
        return m;
    }
    uint32_t next = 0;
    int k = 0;
    for (int i = 0; i < m; i++) {
        struct codepoint_range taken = r[i];
        if (taken.lo > next) {
            r[k++] = (struct codepoint_range){next, taken.lo - 1};
        }
        next = taken.hi + 1;
    }
    if (next <= 0x10ffff) {
        r[k++] = (struct codepoint_range){next, 0x10ffff};
    }
    return k;
}

/* ---- repetition ------------------------------------------------------------------------------ */

struct fragment builder_copy(struct grammar_builder *b, int32_t first, int32_t behind,
                             struct fragment f)
{
    int32_t base = b->n_states;
    for (int32_t s = first; s < behind && !b->failed; s++) {
        builder_state(b);
    }
    for (int32_t s = first; s < behind && !b->failed; s++) {
        for (int32_t i = b->first_edge[s]; i >= 0 && !b->failed; i = b->edges[i].next) {
            struct nfa_edge copy = b->edges[i];
            if (copy.to >= first && copy.to < behind) { /* others lead on from `f` */
                copy.to += base - first;
                add_edge(b, s + base - first, copy);
            }
        }
    }
    return (struct fragment){f.start + base - first, f.end + base - first};
}

struct fragment builder_repeat(struct grammar_builder *b, int32_t first, struct fragment f, int min,
                               int max)
{
    int32_t behind = b->n_states;
    int32_t start = builder_state(b);
    int32_t end = builder_state(b);
    int n = max < 0 ? (min > 1 ? min : 1) : max;
    int32_t at = start;
    for (int i = 0; i < n && !b->failed; i++) {
        struct fragment one = i == 0 ? f : builder_copy(b, first, behind, f);
        if (i >= min) {
            builder_empty(b, at, end);
        }
        builder_empty(b, at, one.start);
        if (max < 0 && i == n - 1) {
            builder_empty(b, one.end, one.start);
        }
        at = one.end;
    }
    builder_empty(b, at, end);
    return (struct fragment){start, end};
}
