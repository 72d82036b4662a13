/* GBNF, as llama.cpp's server reads it: name ::= alternatives, "text", [class], (group),
 * * + ? {m,n}, '.', # comment. A line break ends a rule except in a group, behind "::=" and
 * behind '|'. */
#include "grammar/grammar_impl.h"

#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

#define MAX_CLASS 1024 /* ranges in one [class] */

struct name {
    const char *text; /* in the source */
    size_t len;
    int32_t rule;
    int line; /* where it was first used */
};

struct gbnf {
    struct grammar_builder *b;
    const char *text;
    size_t len, at;
    int depth;
    struct name *names; /* [n_slots], text NULL = free */
    size_t n_names, n_slots;
};

/* ---- characters ------------------------------------------------------------------------- */

static int line_of(const struct gbnf *p)
{
    int line = 1;
    for (size_t i = 0; i < p->at && i < p->len; i++) {
        line += p->text[i] == '\n';
    }
    return line;
}

static void fail(struct gbnf *p, const char *what)
{
    if (!p->b->failed) {
        builder_fail(p->b, ERR_INVALID, "line %d of the grammar: %s", line_of(p), what);
    }
}

static int peek(const struct gbnf *p)
{
    return p->at < p->len ? (unsigned char)p->text[p->at] : -1;
}

static bool take(struct gbnf *p, char c)
{
    if (peek(p) != c) {
        return false;
    }
    p->at++;
    return true;
}

static bool take_text(struct gbnf *p, const char *text)
{
    while (*text && take(p, *text)) {
        text++;
    }
    return !*text;
}

static void skip_space(struct gbnf *p, bool newlines)
{
    for (;;) {
        int c = peek(p);
        if (c == '#') {
            while (peek(p) >= 0 && peek(p) != '\n' && peek(p) != '\r') {
                p->at++;
            }
        } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
            p->at++;
        } else {
            return;
        }
    }
}

static bool is_name_char(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* n hexadecimal digits. */
static uint32_t hexadecimal(struct gbnf *p, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++, p->at++) {
        int c = peek(p);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            fail(p, "a hexadecimal digit is missing");
            return 0;
        }
        v = v << 4 | (uint32_t)digit;
    }
    return v;
}

/* One character of a "text" or a [class], escapes resolved. */
static uint32_t character(struct gbnf *p)
{
    uint32_t c = 0;
    if (take(p, '\\')) {
        int kind = peek(p);
        p->at++;
        switch (kind) {
        case 'x':
            return hexadecimal(p, 2);
        case 'u':
            c = hexadecimal(p, 4);
            break;
        case 'U':
            c = hexadecimal(p, 8);
            break;
        case 't':
            return '\t';
        case 'r':
            return '\r';
        case 'n':
            return '\n';
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
        case '^':
            return (uint32_t)kind;
        default:
            fail(p, "an escape that is not known; there are \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH "
                    "\\uHHHH \\UHHHHHHHH");
            return 0;
        }
        if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
            fail(p, "an escape is not a character");
            return 0;
        }
        return c;
    }
    size_t n = utf8_next(p->text + p->at, p->len - p->at, &c);
    if (n == 0 || n == (size_t)-1) {
        fail(p, "not UTF-8");
        return 0;
    }
    p->at += n;
    return c;
}

/* ---- names --------------------------------------------------------------------------------- */

static uint64_t hash_name(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    }
    return h ^ h >> 32;
}

static struct name *slot_of(struct name *names, size_t n_slots, const char *s, size_t n)
{
    size_t at = hash_name(s, n) & (n_slots - 1);
    while (names[at].text && !(names[at].len == n && memcmp(names[at].text, s, n) == 0)) {
        at = (at + 1) & (n_slots - 1);
    }
    return &names[at];
}

static bool grow_names(struct gbnf *p)
{
    size_t n = p->n_slots ? p->n_slots * 2 : 64;
    struct name *more = mem_zalloc(n, sizeof *more);
    if (!more) {
        p->b->failed = true;
        err_no_memory(p->b->e, n * sizeof *more);
        return false;
    }
    for (size_t i = 0; i < p->n_slots; i++) {
        if (p->names[i].text) {
            *slot_of(more, n, p->names[i].text, p->names[i].len) = p->names[i];
        }
    }
    mem_free(p->names);
    p->names = more;
    p->n_slots = n;
    return true;
}

/* The rule of that name, made when it is new. */
static int32_t rule_named(struct gbnf *p, const char *s, size_t n)
{
    if (2 * p->n_names >= p->n_slots && !grow_names(p)) {
        return 0;
    }
    struct name *slot = slot_of(p->names, p->n_slots, s, n);
    if (!slot->text) {
        *slot = (struct name){.text = s, .len = n, .rule = builder_rule(p->b), .line = line_of(p)};
        p->n_names++;
    }
    return slot->rule;
}

static size_t name_length(const struct gbnf *p)
{
    size_t n = 0;
    while (p->at + n < p->len && is_name_char((unsigned char)p->text[p->at + n])) {
        n++;
    }
    return n;
}

/* ---- items ---------------------------------------------------------------------------------- */

static struct fragment alternatives(struct gbnf *p, bool nested);

static struct fragment literal(struct gbnf *p)
{
    struct fragment f;
    f.start = f.end = builder_state(p->b);
    while (!p->b->failed && !take(p, '"')) {
        if (peek(p) < 0) {
            fail(p, "a \"text\" has no end");
            break;
        }
        char bytes[4];
        size_t n = utf8_put(character(p), bytes);
        f.end = builder_text(p->b, f.end, bytes, n);
    }
    return f;
}

static struct fragment of_class(struct gbnf *p, const struct codepoint_range *ranges, int n)
{
    struct fragment f = {builder_state(p->b), builder_state(p->b)};
    builder_codepoints(p->b, f.start, ranges, n, f.end);
    return f;
}

static struct fragment class(struct gbnf *p)
{
    struct codepoint_range ranges[MAX_CLASS + 1];
    bool negated = take(p, '^');
    int n = 0;
    while (!p->b->failed && !take(p, ']')) {
        if (peek(p) < 0 || n == MAX_CLASS) {
            fail(p, n == MAX_CLASS ? "a [class] is too long" : "a [class] has no end");
            break;
        }
        uint32_t lo = character(p);
        uint32_t hi = lo;
        if (peek(p) == '-' && p->at + 1 < p->len && p->text[p->at + 1] != ']') {
            p->at++;
            hi = character(p);
        }
        if (hi < lo) {
            fail(p, "a range in a [class] ends before it begins");
        }
        ranges[n++] = (struct codepoint_range){lo, hi};
    }
    return of_class(p, ranges, codepoint_normalise(ranges, n, negated));
}

static int number(struct gbnf *p)
{
    int v = -1;
    while (peek(p) >= '0' && peek(p) <= '9') {
        v = (v < 0 ? 0 : v) * 10 + (peek(p) - '0');
        p->at++;
        if (v > GRAMMAR_MAX_REPEAT) {
            fail(p, "a repetition in {} is too large");
            return -1;
        }
    }
    return v;
}

/* Behind an item: how often. */
static struct fragment repeated(struct gbnf *p, int32_t first, struct fragment f)
{
    if (take(p, '*')) {
        return builder_repeat(p->b, first, f, 0, -1);
    }
    if (take(p, '+')) {
        return builder_repeat(p->b, first, f, 1, -1);
    }
    if (take(p, '?')) {
        return builder_repeat(p->b, first, f, 0, 1);
    }
    if (!take(p, '{')) {
        return f;
    }
    skip_space(p, true);
    int min = number(p);
    int max = min;
    skip_space(p, true);
    if (take(p, ',')) {
        skip_space(p, true);
        max = number(p);
        skip_space(p, true);
    }
    if (min < 0 || (max >= 0 && max < min) || !take(p, '}')) {
        fail(p, "a repetition is {n}, {n,} or {n,m}");
        return f;
    }
    return builder_repeat(p->b, first, f, min, max);
}

/* False: no item begins here. */
static bool item(struct gbnf *p, bool nested, struct fragment *out)
{
    static const struct codepoint_range any = {0, 0x10ffff};
    size_t n = name_length(p);
    if (take(p, '"')) {
        *out = literal(p);
    } else if (take(p, '[')) {
        *out = class(p);
    } else if (take(p, '.')) {
        *out = of_class(p, &any, 1);
    } else if (take(p, '(')) {
        skip_space(p, true);
        *out = alternatives(p, true);
        if (!take(p, ')')) {
            fail(p, "a ')' is missing");
        }
    } else if (n > 0) {
        *out = (struct fragment){builder_state(p->b), builder_state(p->b)};
        int32_t rule = rule_named(p, p->text + p->at, n);
        builder_call(p->b, out->start, rule, out->end);
        p->at += n;
    } else {
        return false;
    }
    skip_space(p, nested);
    return true;
}

static struct fragment sequence(struct gbnf *p, bool nested)
{
    struct fragment all;
    all.start = all.end = builder_state(p->b);
    while (!p->b->failed) {
        int32_t first = p->b->n_states;
        struct fragment one;
        if (!item(p, nested, &one)) {
            break;
        }
        one = repeated(p, first, one);
        skip_space(p, nested);
        builder_empty(p->b, all.end, one.start);
        all.end = one.end;
    }
    return all;
}

static struct fragment alternatives(struct gbnf *p, bool nested)
{
    struct fragment all = {builder_state(p->b), builder_state(p->b)};
    if (++p->depth > GRAMMAR_MAX_DEPTH) {
        fail(p, "groups are nested too deeply");
    }
    do {
        skip_space(p, true);
        struct fragment one = sequence(p, nested);
        builder_empty(p->b, all.start, one.start);
        builder_empty(p->b, one.end, all.end);
    } while (!p->b->failed && take(p, '|'));
    p->depth--;
    return all;
}

/* ---- rules ------------------------------------------------------------------------------------
 */

static void rule(struct gbnf *p)
{
    size_t n = name_length(p);
    if (n == 0) {
        fail(p, "the name of a rule is expected");
        return;
    }
    const char *name = p->text + p->at;
    p->at += n;
    skip_space(p, false);
    if (!take_text(p, "::=")) {
        fail(p, "\"::=\" is expected behind the name of a rule");
        return;
    }
    skip_space(p, true);
    int32_t id = rule_named(p, name, n);
    if (!p->b->failed && p->b->rules[id].start >= 0) {
        builder_fail(p->b, ERR_INVALID, "line %d of the grammar: the rule %.*s is there twice",
                     line_of(p), (int)(n < 60 ? n : 60), name);
        return;
    }
    struct fragment f = alternatives(p, false);
    if (!p->b->failed && peek(p) >= 0 && peek(p) != '\n' && peek(p) != '\r') {
        fail(p, "something that is no item of a rule");
    }
    builder_define(p->b, id, f);
    skip_space(p, true);
}

static void check_defined(struct gbnf *p)
{
    for (size_t i = 0; i < p->n_slots && !p->b->failed; i++) {
        const struct name *n = &p->names[i];
        if (n->text && p->b->rules[n->rule].start < 0) {
            builder_fail(p->b, ERR_INVALID,
                         "line %d of the grammar: the rule %.*s is used and not defined", n->line,
                         (int)(n->len < 60 ? n->len : 60), n->text);
        }
    }
}

int gbnf_add(struct grammar_builder *b, const char *text, size_t len, const char *const *names,
             int n_names, int32_t *rules)
{
    struct gbnf p = {.b = b, .text = text, .len = len};
    if (len > GRAMMAR_MAX_BYTES) {
        builder_fail(b, ERR_TOO_LARGE, "the grammar has %zu bytes, more than %zu", len,
                     GRAMMAR_MAX_BYTES);
    }
    skip_space(&p, true);
    while (!b->failed && p.at < p.len) {
        rule(&p);
    }
    check_defined(&p);
    for (int i = 0; i < n_names && !b->failed; i++) {
        struct name *n = p.n_slots ? slot_of(p.names, p.n_slots, names[i], strlen(names[i])) : NULL;
        if (!n || !n->text) {
            builder_fail(b, ERR_INVALID, "the grammar has no rule \"%s\"", names[i]);
        } else {
            rules[i] = n->rule;
        }
    }
    mem_free(p.names);
    return b->failed ? -1 : 0;
}

struct grammar *grammar_from_gbnf(const char *text, size_t len, struct err *e)
{
    static const char *const root = "root";
    struct grammar_builder b;
    int32_t rule_id = 0;
    builder_init(&b, e);
    struct grammar *g =
        gbnf_add(&b, text, len, &root, 1, &rule_id) ? NULL : automaton_build(&b, rule_id);
    builder_clear(&b);
    return g;
}
