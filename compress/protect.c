/* Which bytes of a text carry exact information and must not be blurred by a merge:
 * numbers and words with digits, article codes, URLs and addresses, code, JSON.
 *
 * One pass from left to right: at each place the first pattern that matches takes its
 * bytes, and the scan goes on behind it. Every pattern either consumes what it looked at
 * or looks at one line at most twice, so the time is linear in the text, whatever it holds.
 * Where a closing mark is missing (a fence, a brace) all the rest is protected: too much
 * protection costs a few rows, too little costs the answer. Bytes outside ASCII are never
 * part of a word, so a sentence of a script without spaces is not taken for one; digits of
 * other scripts are found by their Unicode category. */
#include "compress/router.h"

#include "base/utf8.h"

#include <limits.h>
#include <string.h>
#include <utf8proc.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Printable ASCII but for brackets, quotes, backtick, bar and separators. */
static bool is_word(char c)
{
    return c > ' ' && c < 0x7f && !strchr("\"'`()<>[]{}|,;", c);
}

/* ---- code ----------------------------------------------------------------------------- */

static size_t run_length(const char *s, size_t n, size_t i)
{
    size_t end = i;
    while (end < n && s[end] == s[i]) {
        end++;
    }
    return end - i;
}

/* Backticks open a fence anywhere, tildes only at the start of a line: people write
 * "thanks~~~". */
static bool opens_fence(const char *s, size_t n, size_t i)
{
    bool marks = s[i] == '`' || (s[i] == '~' && (i == 0 || s[i - 1] == '\n'));
    return marks && run_length(s, n, i) >= 3;
}

/* End of the fence that opens at i: behind the next run of three or more of its mark. */
static size_t fence_end(const char *s, size_t n, size_t i)
{
    char mark = s[i];
    size_t at = i + run_length(s, n, i);
    while (at < n) {
        if (s[at] != mark) {
            at++;
            continue;
        }
        size_t run = run_length(s, n, at);
        at += run;
        if (run >= 3) {
            return at;
        }
    }
    return n;
}

/* End of inline code that opens at i with one or two backticks, i if its line does not
 * close it. */
static size_t inline_end(const char *s, size_t n, size_t i)
{
    size_t open = run_length(s, n, i);
    size_t at = i + open;
    while (at < n && s[at] != '\n') {
        size_t run = s[at] == '`' ? run_length(s, n, at) : 0;
        if (run == open) {
            return at + run;
        }
        at += run ? run : 1;
    }
    return i;
}

static size_t code_end(const char *s, size_t n, size_t i)
{
    if (opens_fence(s, n, i)) {
        return fence_end(s, n, i);
    }
    return s[i] == '`' ? inline_end(s, n, i) : i;
}

/* ---- JSON ------------------------------------------------------------------------------- */

/* Whether an object or an array of objects or strings begins at i. */
static bool opens_json(const char *s, size_t n, size_t i)
{
    size_t at = i + 1;
    while (at < n && is_space(s[at])) {
        at++;
    }
    if (at == n) {
        return false;
    }
    return s[i] == '{' ? s[at] == '"' || s[at] == '}' : s[at] == '{' || s[at] == '"';
}

static size_t string_end(const char *s, size_t n, size_t i)
{
    for (i++; i < n && s[i] != '"'; i++) {
        i += s[i] == '\\';
    }
    return i < n ? i + 1 : n;
}

/* Behind the bracket that closes the one at i, n when there is none. */
static size_t json_end(const char *s, size_t n, size_t i)
{
    size_t depth = 0;
    while (i < n) {
        if (s[i] == '"') {
            i = string_end(s, n, i);
            continue;
        }
        depth += s[i] == '{' || s[i] == '[';
        depth -= (s[i] == '}' || s[i] == ']') && depth > 0;
        i++;
        if (depth == 0) {
            return i;
        }
    }
    return n;
}

/* ---- words ------------------------------------------------------------------------------- */

/* Two or more groups of capitals joined by - _ or /, as in "BLK-XL". */
static bool is_code_word(const char *s, size_t n)
{
    bool joined = false;
    for (size_t i = 0; i < n; i++) {
        bool joint = s[i] == '-' || s[i] == '_' || s[i] == '/';
        if (!is_upper(s[i]) && !(joint && i > 0 && i + 1 < n)) {
            return false;
        }
        joined |= joint;
    }
    return joined;
}

static bool is_address(const char *s, size_t n)
{
    for (size_t i = 0; i + 2 < n; i++) {
        if (memcmp(s + i, "://", 3) == 0 || (s[i + 1] == '@' && is_word(s[i + 2]))) {
            return true;
        }
    }
    return n > 4 && (s[0] | 0x20) == 'w' && (s[1] | 0x20) == 'w' && (s[2] | 0x20) == 'w' &&
           s[3] == '.';
}

static bool keeps_word(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_digit(s[i])) {
            return true;
        }
    }
    return is_address(s, n) || is_code_word(s, n);
}

/* A word goes on over a comma between digits: "1,299.00". */
static size_t word_end(const char *s, size_t n, size_t i)
{
    size_t end = i;
    while (end < n && (is_word(s[end]) || (s[end] == ',' && end > i && is_digit(s[end - 1]) &&
                                           end + 1 < n && is_digit(s[end + 1])))) {
        end++;
    }
    return end;
}

/* Length without the marks that end a sentence or an emphasis. */
static size_t trimmed(const char *s, size_t n)
{
    while (n > 0 && !is_digit(s[n - 1]) && !is_upper(s[n - 1]) && !is_lower(s[n - 1]) &&
           strchr(".:!?*", s[n - 1])) {
        n--;
    }
    return n;
}

/* ---- the scan ------------------------------------------------------------------------------ */

struct sink {
    struct text_range *out; /* NULL = count only */
    size_t n;
    size_t last_end;
};

/* Ranges that touch become one. */
static void keep(struct sink *k, size_t begin, size_t end)
{
    bool touches = k->n > 0 && k->last_end == begin;
    k->n += !touches;
    k->last_end = end;
    if (k->out && touches) {
        k->out[k->n - 1].end = end;
    } else if (k->out) {
        k->out[k->n - 1] = (struct text_range){begin, end};
    }
}

/* One character outside ASCII; where the scan goes on. */
static size_t scan_wide(const char *s, size_t n, size_t i, struct sink *k)
{
    uint32_t codepoint;
    size_t bytes = utf8_next(s + i, n - i, &codepoint);
    if (bytes == 0 || bytes == (size_t)-1) {
        return i + 1;
    }
    if (utf8proc_category((utf8proc_int32_t)codepoint) == UTF8PROC_CATEGORY_ND) {
        keep(k, i, i + bytes);
    }
    return i + bytes;
}

static size_t scan_word(const char *s, size_t n, size_t i, struct sink *k)
{
    size_t end = word_end(s, n, i);
    if (keeps_word(s + i, trimmed(s + i, end - i))) {
        keep(k, i, i + trimmed(s + i, end - i));
    }
    return end;
}

static size_t scan_one(const char *s, size_t n, size_t i, struct sink *k)
{
    if (s[i] == '`' || s[i] == '~') {
        size_t end = code_end(s, n, i);
        if (end > i) {
            keep(k, i, end);
            return end;
        }
        return i + run_length(s, n, i);
    }
    if ((s[i] == '{' || s[i] == '[') && opens_json(s, n, i)) {
        size_t end = json_end(s, n, i);
        keep(k, i, end);
        return end;
    }
    if (is_word(s[i])) {
        return scan_word(s, n, i, k);
    }
    return (unsigned char)s[i] >= 0x80 ? scan_wide(s, n, i, k) : i + 1;
}

static void scan(const char *s, size_t n, struct sink *k)
{
    size_t i = 0;
    while (i < n) {
        i = scan_one(s, n, i, k);
    }
}

int router_protected_ranges(const char *text, size_t len, struct arena *a,
                            struct text_range **ranges, int *n_ranges, struct err *e)
{
    struct sink count = {0};
    scan(text, len, &count);
    if (count.n > INT_MAX) {
        return err_set(e, ERR_TOO_LARGE, "a text of %zu bytes is too long", len);
    }
    struct sink fill = {.out = arena_alloc(a, count.n, sizeof *fill.out)};
    if (!fill.out) {
        return err_no_memory(e, count.n * sizeof *fill.out);
    }
    scan(text, len, &fill);
    *ranges = fill.out;
    *n_ranges = (int)count.n;
    return 0;
}
