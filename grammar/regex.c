/* `pattern` of JSON schema: the regular part of ECMA 262's expressions. What is written are
 * texts that the expression finds itself in, escaped as inside a JSON string; where dialects
 * differ (\w, \s and their negations outside ASCII) only what all of them take. */
#include "grammar/grammar_impl.h"

#include "base/utf8.h"

#include <string.h>

#define MAX_CLASS 256

struct regex {
    struct grammar_builder *b;
    const char *at, *end;
    const char *reason; /* first failure */
    int depth;
};

/* Sorted when used; small enough to copy. */
struct char_set {
    struct codepoint_range ranges[MAX_CLASS + 1];
    int n;
};

static void refuse(struct regex *r, const char *reason)
{
    if (!r->reason) {
        r->reason = reason;
    }
}

static bool ok(const struct regex *r)
{
    return !r->reason && !r->b->failed;
}

static bool take(struct regex *r, char c)
{
    if (r->at < r->end && *r->at == c) {
        r->at++;
        return true;
    }
    return false;
}

static void add_range(struct regex *r, struct char_set *s, uint32_t lo, uint32_t hi)
{
    if (s->n == MAX_CLASS) {
        refuse(r, "a [class] is too long");
        return;
    }
    s->ranges[s->n++] = (struct codepoint_range){lo, hi};
}

/* ---- characters in a JSON string --------------------------------------------------------------
 */

static void add_escape(struct grammar_builder *b, int32_t from, const char *text, int32_t to)
{
    builder_empty(b, builder_text(b, from, text, 2), to);
}

/* One character of the set from `from` to `to`. */
static void add_chars(struct grammar_builder *b, int32_t from, const struct char_set *s, int32_t to)
{
    static const char escapes[][3] = {"\\b", "\\t", "\\n", "\\f", "\\r", "\\\"", "\\\\"};
    static const uint32_t escaped[] = {'\b', '\t', '\n', '\f', '\r', '"', '\\'};
    /* what stands as it is: 20..10ffff without '"', '\' and DEL */
    static const struct codepoint_range plain[] = {
        {0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0x7e}, {0x80, 0x10ffff}};
    for (int i = 0; i < s->n; i++) {
        for (int k = 0; k < 7; k++) {
            if (s->ranges[i].lo <= escaped[k] && escaped[k] <= s->ranges[i].hi) {
                add_escape(b, from, escapes[k], to);
            }
        }
        for (int k = 0; k < 4; k++) {
            struct codepoint_range both = {
                s->ranges[i].lo > plain[k].lo ? s->ranges[i].lo : plain[k].lo,
                s->ranges[i].hi < plain[k].hi ? s->ranges[i].hi : plain[k].hi};
            if (both.lo <= both.hi) {
                builder_codepoints(b, from, &both, 1, to);
            }
        }
    }
}

/* ---- atoms -------------------------------------------------------------------------------------
 */

static uint32_t hexadecimal(struct regex *r, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++) {
        char c = r->at < r->end ? *r->at++ : '\0';
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            refuse(r, "a hexadecimal digit is missing");
            return 0;
        }
        v = v << 4 | (uint32_t)digit;
    }
    return v;
}

/* \d, \w, \s and their negations; false: none of them. */
static bool shorthand(struct regex *r, char c, struct char_set *out)
{
    struct char_set s = {.n = 0};
    switch (c | 0x20) {
    case 'd':
        add_range(r, &s, '0', '9');
        break;
    case 'w':
        add_range(r, &s, '0', '9');
        add_range(r, &s, 'A', 'Z');
        add_range(r, &s, '_', '_');
        add_range(r, &s, 'a', 'z');
        break;
    case 's':
        add_range(r, &s, '\t', '\n');
        add_range(r, &s, '\f', '\r');
        add_range(r, &s, ' ', ' ');
        break;
    default:
        return false;
    }
    if (c < 'a') {
        s.n = codepoint_normalise(s.ranges, s.n, true);
    }
    for (int i = 0; i < s.n; i++) { /* negated: printable ASCII only */
        uint32_t lo = c < 'a' && s.ranges[i].lo < ' ' ? ' ' : s.ranges[i].lo;
        uint32_t hi = c < 'a' && s.ranges[i].hi > '~' ? '~' : s.ranges[i].hi;
        if (lo <= hi) {
            add_range(r, out, lo, hi);
        }
    }
    return true;
}

/* Behind a backslash: one character, or a class. True: *c is it. */
static bool escape(struct regex *r, struct char_set *set, uint32_t *c)
{
    static const char from[] = "tnrfv0";
    static const char to[] = "\t\n\r\f\v";
    char kind = r->at < r->end ? *r->at++ : '\0';
    if (shorthand(r, kind, set)) {
        return false;
    }
    if (kind == 'x' || kind == 'u') {
        *c = hexadecimal(r, kind == 'x' ? 2 : 4);
        if (*c >= 0xd800 && *c <= 0xdfff) {
            refuse(r, "\\u of a surrogate; write the character itself");
        }
        return true;
    }
    const char *known = kind ? strchr(from, kind) : NULL;
    if (known && kind != '0') {
        *c = (unsigned char)to[known - from];
        return true;
    }
    if (kind && strchr("^$\\.*+?()[]{}|/-\"'_ ,:;<>=!@#%&~`", kind)) {
        *c = (unsigned char)kind;
        return true;
    }
    refuse(r, kind == 'b' || kind == 'B'   ? "\\b"
              : kind >= '0' && kind <= '9' ? "a back-reference"
              : kind == 'p' || kind == 'P' ? "\\p"
                                           : "an escape that is not known");
    return true;
}

static uint32_t plain_char(struct regex *r)
{
    uint32_t c = 0;
    size_t n = utf8_next(r->at, (size_t)(r->end - r->at), &c);
    if (n == 0 || n == (size_t)-1) {
        refuse(r, "not UTF-8");
        return 0;
    }
    r->at += n;
    return c;
}

static void read_class(struct regex *r, struct char_set *s)
{
    bool negated = take(r, '^');
    while (ok(r) && !take(r, ']')) {
        uint32_t lo = 0;
        if (r->at == r->end) {
            refuse(r, "a [class] has no end");
        } else if (take(r, '\\') ? !escape(r, s, &lo) : (lo = plain_char(r), false)) {
            continue;
        }
        uint32_t hi = lo;
        if (r->at + 1 < r->end && r->at[0] == '-' && r->at[1] != ']') {
            r->at++;
            struct char_set none = {.n = 0};
            if (take(r, '\\') ? !escape(r, &none, &hi) : (hi = plain_char(r), false)) {
                refuse(r, "a range in a [class] ends in a class");
            }
        }
        if (hi < lo) {
            refuse(r, "a range in a [class] ends before it begins");
        }
        add_range(r, s, lo, hi);
    }
    s->n = codepoint_normalise(s->ranges, s->n, negated);
}

static struct fragment of_set(struct regex *r, const struct char_set *s)
{
    struct fragment f = {builder_state(r->b), builder_state(r->b)};
    add_chars(r->b, f.start, s, f.end);
    return f;
}

static struct fragment alternatives(struct regex *r);

static struct fragment group(struct regex *r)
{
    if (take(r, '?') && !take(r, ':')) {
        refuse(r, "a look-around or a named group");
    }
    if (++r->depth > GRAMMAR_MAX_DEPTH) {
        refuse(r, "groups are nested too deeply");
        return (struct fragment){0, 0};
    }
    struct fragment f = alternatives(r);
    r->depth--;
    if (!take(r, ')')) {
        refuse(r, "a ')' is missing");
    }
    return f;
}

static struct fragment atom(struct regex *r)
{
    struct char_set s = {.n = 0};
    uint32_t c = 0;
    if (take(r, '(')) {
        return group(r);
    }
    if (take(r, '[')) {
        read_class(r, &s);
    } else if (take(r, '.')) {
        s.ranges[0] = (struct codepoint_range){0x20, 0x2027};
        s.ranges[1] = (struct codepoint_range){0x202a, 0x10ffff};
        s.n = 2;
    } else if (take(r, '\\')) {
        if (escape(r, &s, &c)) {
            add_range(r, &s, c, c);
        }
    } else if (r->at < r->end && strchr("*+?{}])", *r->at)) {
        refuse(r, "a sign that stands where a character is expected");
    } else if (r->at < r->end && (*r->at == '^' || *r->at == '$')) {
        refuse(r, "^ or $ in the middle");
    } else {
        c = plain_char(r);
        add_range(r, &s, c, c);
    }
    return of_set(r, &s);
}

/* ---- expressions -------------------------------------------------------------------------------
 */

static int number(struct regex *r)
{
    int v = -1;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        v = (v < 0 ? 0 : v) * 10 + (*r->at++ - '0');
        if (v > GRAMMAR_MAX_REPEAT) {
            refuse(r, "a repetition in {} is too large");
            return -1;
        }
    }
    return v;
}

static struct fragment repeated(struct regex *r, int32_t first, struct fragment f)
{
    int min = 1;
    int max = 1;
    if (take(r, '*')) {
        min = 0;
        max = -1;
    } else if (take(r, '+')) {
        max = -1;
    } else if (take(r, '?')) {
        min = 0;
    } else if (take(r, '{')) {
        min = max = number(r);
        if (take(r, ',')) {
            max = number(r);
        }
        if (min < 0 || (max >= 0 && max < min) || !take(r, '}')) {
            refuse(r, "a repetition is {n}, {n,} or {n,m}");
        }
    } else {
        return f;
    }
    (void)take(r, '?'); /* lazy: the same texts */
    return ok(r) ? builder_repeat(r->b, first, f, min, max) : f;
}

static bool at_end(const struct regex *r)
{
    return r->at == r->end || *r->at == '|' || *r->at == ')';
}

/* Any text, where the expression is not anchored. */
static struct fragment any_text(struct regex *r)
{
    struct char_set s = {.ranges = {{0x20, 0x7e}, {0xa0, 0xd7ff}}, .n = 2};
    int32_t first = r->b->n_states;
    struct fragment one = of_set(r, &s);
    return builder_repeat(r->b, first, one, 0, -1);
}

static void append(struct regex *r, struct fragment *all, struct fragment more)
{
    builder_empty(r->b, all->end, more.start);
    all->end = more.end;
}

static struct fragment sequence(struct regex *r)
{
    bool outermost = r->depth == 0;
    struct fragment all;
    all.start = all.end = builder_state(r->b);
    if (outermost && !take(r, '^')) {
        append(r, &all, any_text(r));
    }
    while (ok(r) && !at_end(r)) {
        if (outermost && *r->at == '$' && (r->at + 1 == r->end || r->at[1] == '|')) {
            r->at++;
            return all;
        }
        int32_t first = r->b->n_states;
        struct fragment one = atom(r);
        if (ok(r)) {
            append(r, &all, repeated(r, first, one));
        }
    }
    if (outermost) {
        append(r, &all, any_text(r));
    }
    return all;
}

static struct fragment alternatives(struct regex *r)
{
    struct fragment all = {builder_state(r->b), builder_state(r->b)};
    do {
        struct fragment one = sequence(r);
        builder_empty(r->b, all.start, one.start);
        builder_empty(r->b, one.end, all.end);
    } while (ok(r) && take(r, '|'));
    return all;
}

int32_t regex_add(struct grammar_builder *b, const char *pattern, int32_t from, const char **reason)
{
    struct regex r = {.b = b, .at = pattern, .end = pattern + strlen(pattern)};
    struct fragment f = alternatives(&r);
    if (ok(&r) && r.at < r.end) {
        refuse(&r, "a ')' too many");
    }
    if (!ok(&r)) {
        *reason = r.reason;
        return -1;
    }
    builder_empty(b, from, f.start);
    return f.end;
}
