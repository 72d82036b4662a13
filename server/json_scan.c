/* Recursive descent with a depth of at most 64, so the stack is bounded. Every
 * function leaves s->at behind what it read; the first error wins. */
#include "server/json_scan.h"

#include "base/alloc.h"
#include "base/utf8.h"
#include "server/limits.h"

#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#define FIRST_TABLE 64u

struct scan {
    const char *s;
    size_t n, at;
    int depth, nodes;
    uint64_t n_objects; /* serial of the next object */
    uint64_t seed;      /* random: nobody can choose keys that all fall into one place */
    uint64_t *keys;     /* open addressing, 0 = free; hashes of (object, key) */
    size_t n_slots, n_keys;
    char member[JSON_SCAN_KEY_BYTES]; /* current key of the outermost object */
    struct json_scan_info *info;
    struct err *e;
};

static int value(struct scan *s);

#define fail(s, code, reason, ...) scan_fail(s, err_reason((s)->e, code, reason, __VA_ARGS__))

static int scan_fail(const struct scan *s, int rc)
{
    if (s->member[0]) {
        err_param(s->e, "%s", s->member);
    }
    return rc;
}

static int bad(const struct scan *s, const char *what)
{
    if (s->at >= s->n) {
        return fail(s, ERR_INVALID, "invalid_json", "the JSON text ends at byte %zu: %s", s->n,
                    what);
    }
    return fail(s, ERR_INVALID, "invalid_json", "not valid JSON at byte %zu: %s", s->at, what);
}

static void skip_space(struct scan *s)
{
    while (s->at < s->n && (s->s[s->at] == ' ' || s->s[s->at] == '\t' || s->s[s->at] == '\n' ||
                            s->s[s->at] == '\r')) {
        s->at++;
    }
}

static int peek(const struct scan *s)
{
    return s->at < s->n ? (unsigned char)s->s[s->at] : -1;
}

/* -- strings ---------------------------------------------------------------------- */

/* FNV-1a over the decoded bytes, so that "a" and "\u0061" are the same key. */
static uint64_t hash_bytes(uint64_t h, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)p[i]) * 0x100000001b3u;
    }
    return h;
}

static int hex4(struct scan *s, unsigned *out)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(s);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return bad(s, "\\u needs four hexadecimal digits");
        }
        v = v << 4 | (unsigned)digit;
        s->at++;
    }
    *out = v;
    return 0;
}

static int lone_surrogate(const struct scan *s)
{
    return fail(s, ERR_INVALID, "invalid_utf8", "half a surrogate pair before byte %zu", s->at);
}

/* Behind "\u". */
static int unicode_escape(struct scan *s, uint64_t *hash)
{
    unsigned high;
    if (hex4(s, &high)) {
        return -1;
    }
    uint32_t codepoint = high;
    if (high == 0) {
        return fail(s, ERR_INVALID, "invalid_string", "\\u0000 in a string before byte %zu", s->at);
    }
    if (high >= 0xDC00 && high <= 0xDFFF) {
        return lone_surrogate(s);
    }
    if (high >= 0xD800 && high <= 0xDBFF) {
        unsigned low;
        if (s->n - s->at < 2 || s->s[s->at] != '\\' || s->s[s->at + 1] != 'u') {
            return lone_surrogate(s);
        }
        s->at += 2;
        if (hex4(s, &low)) {
            return -1;
        }
        if (low < 0xDC00 || low > 0xDFFF) {
            return lone_surrogate(s);
        }
        codepoint = 0x10000u + ((high - 0xD800u) << 10) + (low - 0xDC00u);
    }
    char utf8[4];
    *hash = hash_bytes(*hash, utf8, utf8_put(codepoint, utf8));
    return 0;
}

/* At the backslash. */
static int escape(struct scan *s, uint64_t *hash)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    s->at++;
    int c = peek(s);
    if (c == 'u') {
        s->at++;
        return unicode_escape(s, hash);
    }
    const char *at = c > 0 ? strchr(from, c) : NULL;
    if (!at) {
        return bad(s, "unknown escape in a string");
    }
    *hash = hash_bytes(*hash, &to[at - from], 1);
    s->at++;
    return 0;
}

/* Bytes that need no second look: printable ASCII but quote and backslash. */
static size_t plain_run(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)p[i];
        if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') {
            break;
        }
        i++;
    }
    return i;
}

static int special_byte(struct scan *s, uint64_t *hash)
{
    int c = peek(s);
    if (c < 0) {
        return bad(s, "a string is not closed");
    }
    if (c == '\\') {
        return escape(s, hash);
    }
    if (c < 0x20) {
        return bad(s, "a control character in a string must be escaped");
    }
    size_t len = utf8_next(s->s + s->at, s->n - s->at, NULL);
    if (len == 0 || len == (size_t)-1) {
        return fail(s, ERR_INVALID, "invalid_utf8", "not valid UTF-8 at byte %zu", s->at);
    }
    *hash = hash_bytes(*hash, s->s + s->at, len);
    s->at += len;
    return 0;
}

/* hash != NULL: of the decoded content. */
static int string(struct scan *s, uint64_t *hash)
{
    uint64_t ignored = 0;
    uint64_t *h = hash ? hash : &ignored;
    s->at++;
    while (peek(s) != '"') {
        size_t run = plain_run(s->s + s->at, s->n - s->at);
        if (run) {
            if (hash) {
                *h = hash_bytes(*h, s->s + s->at, run);
            }
            s->at += run;
        } else if (special_byte(s, h)) {
            return -1;
        }
    }
    s->at++;
    return 0;
}

/* -- numbers and words ------------------------------------------------------------- */

static size_t digits(struct scan *s)
{
    size_t from = s->at;
    while (peek(s) >= '0' && peek(s) <= '9') {
        s->at++;
    }
    return s->at - from;
}

static void note_fractional(struct scan *s)
{
    if (s->depth == 1 && s->info && s->member[0] && s->info->n_fractional < JSON_SCAN_FRACTIONAL) {
        memcpy(s->info->fractional[s->info->n_fractional++], s->member, sizeof s->member);
    }
}

static int fraction(struct scan *s, bool *plain)
{
    if (peek(s) == '.') {
        *plain = false;
        s->at++;
        if (digits(s) == 0) {
            return bad(s, "a digit must follow the point");
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        *plain = false;
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') {
            s->at++;
        }
        if (digits(s) == 0) {
            return bad(s, "an exponent needs digits");
        }
    }
    return 0;
}

static int number(struct scan *s)
{
    size_t from = s->at;
    bool plain = true;
    if (peek(s) == '-') {
        s->at++;
        plain = peek(s) != '0';
    }
    if (peek(s) == '0') {
        s->at++;
    } else if (digits(s) == 0) {
        return bad(s, "a value is expected");
    }
    if (fraction(s, &plain)) {
        return -1;
    }
    if (s->at - from > LIMIT_JSON_NUMBER_CHARS) {
        return fail(s, ERR_RANGE, "out_of_range",
                    "the number at byte %zu has %zu characters, more than %d", from, s->at - from,
                    LIMIT_JSON_NUMBER_CHARS);
    }
    if (!plain) {
        note_fractional(s);
    }
    return 0;
}

static int word(struct scan *s, const char *w)
{
    size_t n = strlen(w);
    if (s->n - s->at < n || memcmp(s->s + s->at, w, n) != 0) {
        return bad(s, "a value is expected");
    }
    s->at += n;
    return 0;
}

/* -- arrays and objects ------------------------------------------------------------- */

/* True when it was there already. */
static bool insert(uint64_t *keys, size_t n_slots, uint64_t h)
{
    size_t i = (size_t)h & (n_slots - 1);
    while (keys[i]) {
        if (keys[i] == h) {
            return true;
        }
        i = (i + 1) & (n_slots - 1);
    }
    keys[i] = h;
    return false;
}

static int grow(struct scan *s)
{
    size_t n_slots = s->n_slots ? s->n_slots * 2 : FIRST_TABLE;
    uint64_t *keys = mem_zalloc(n_slots, sizeof *keys);
    if (!keys) {
        return err_no_memory(s->e, n_slots * sizeof *keys);
    }
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->keys[i]) {
            insert(keys, n_slots, s->keys[i]);
        }
    }
    mem_free(s->keys);
    s->keys = keys;
    s->n_slots = n_slots;
    return 0;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return z ? z : 1;
}

static int key(struct scan *s, uint64_t object)
{
    size_t from = s->at;
    if (peek(s) != '"') {
        return bad(s, "a key in quotes is expected");
    }
    uint64_t h = s->seed ^ mix(object + 1);
    if (string(s, &h)) {
        return -1;
    }
    size_t len = s->at - from - 2;
    if (s->depth == 1) {
        size_t keep = len < sizeof s->member ? len : sizeof s->member - 1;
        memcpy(s->member, s->s + from + 1, keep);
        memset(s->member + keep, 0, sizeof s->member - keep);
    }
    if (s->n_keys >= s->n_slots / 2 && grow(s)) {
        return -1;
    }
    if (insert(s->keys, s->n_slots, mix(h))) {
        return fail(s, ERR_INVALID, "duplicate_key", "the key at byte %zu occurs twice", from);
    }
    s->n_keys++;
    return 0;
}

static int member(struct scan *s, uint64_t object)
{
    skip_space(s);
    if (key(s, object)) {
        return -1;
    }
    skip_space(s);
    if (peek(s) != ':') {
        return bad(s, "a colon is expected");
    }
    s->at++;
    return value(s);
}

/* Elements up to the closing bracket; object == 0: an array. */
static int elements(struct scan *s, int close, uint64_t object)
{
    s->at++;
    skip_space(s);
    if (peek(s) == close) {
        s->at++;
        return 0;
    }
    for (;;) {
        if (object ? member(s, object) : value(s)) {
            return -1;
        }
        skip_space(s);
        int c = peek(s);
        if (c == close) {
            s->at++;
            return 0;
        }
        if (c != ',') {
            return bad(s, "a comma or a closing bracket is expected");
        }
        s->at++;
    }
}

static int nested(struct scan *s)
{
    if (s->depth == LIMIT_JSON_DEPTH) {
        return fail(s, ERR_TOO_LARGE, "json_too_deep", "nested deeper than %d at byte %zu",
                    LIMIT_JSON_DEPTH, s->at);
    }
    s->depth++;
    bool is_object = s->s[s->at] == '{';
    int rc = elements(s, is_object ? '}' : ']', is_object ? ++s->n_objects : 0);
    s->depth--;
    return rc;
}

static int value(struct scan *s)
{
    skip_space(s);
    if (++s->nodes > LIMIT_JSON_NODES) {
        return fail(s, ERR_TOO_LARGE, "json_too_large", "more than %d values at byte %zu",
                    LIMIT_JSON_NODES, s->at);
    }
    switch (peek(s)) {
    case '{':
    case '[':
        return nested(s);
    case '"':
        return string(s, NULL);
    case 't':
        return word(s, "true");
    case 'f':
        return word(s, "false");
    case 'n':
        return word(s, "null");
    default:
        return number(s);
    }
}

int json_scan(const char *text, size_t n, struct json_scan_info *info, struct err *e)
{
    struct scan s = {.s = text, .n = n, .info = info, .e = e};
    if (getrandom(&s.seed, sizeof s.seed, 0) != (ssize_t)sizeof s.seed) {
        s.seed = 0xcbf29ce484222325u; /* cannot happen for so few bytes */
    }
    if (info) {
        info->n_fractional = 0;
    }
    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        return bad(&s, "a byte-order mark is not JSON");
    }
    int rc = value(&s);
    if (rc == 0) {
        skip_space(&s);
        if (s.at < s.n) {
            s.member[0] = '\0';
            rc = bad(&s, "bytes after the end of the value");
        }
    }
    mem_free(s.keys);
    return rc;
}
