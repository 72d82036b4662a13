/* Strings with lengths, patterns and formats; numbers inside a range. */
#include "grammar/json_schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- literals
 * ------------------------------------------------------------------------------------- */

struct fragment schema_literal(struct schema_compiler *c, const cJSON *value)
{
    struct fragment f;
    f.start = f.end = builder_state(c->b);
    char *text = cJSON_PrintUnformatted(value);
    if (!text) {
        c->b->failed = true;
        err_no_memory(c->b->e, 1);
        return f;
    }
    f.end = builder_text(c->b, f.start, text, strlen(text));
    cJSON_free(text);
    return f;
}

/* ---- strings
 * -------------------------------------------------------------------------------------- */

static const char *const formats[] = {"date",     "time", "date-time", "duration", "email",
                                      "hostname", "ipv4", "ipv6",      "uri",      "uuid"};

static int32_t format_rule(struct schema_compiler *c, const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i], name) == 0) {
            return c->json[JSON_FIRST_FORMAT + i];
        }
    }
    return -1;
}

struct text_rules {
    const struct schema_part *pattern, *format; /* NULL = none */
    int min, max;                               /* characters; -1 = none */
};

static bool read_text_rules(struct schema_compiler *c, const struct schema_list *list,
                            struct text_rules *t)
{
    *t = (struct text_rules){.min = schema_count(c, list, "minLength", false),
                             .max = schema_count(c, list, "maxLength", true)};
    for (int i = 0; i < list->n; i++) {
        const struct schema_part *p = &list->items[i];
        const cJSON *pattern = schema_key(p, "pattern");
        const cJSON *format = schema_key(p, "format");
        if (pattern && t->pattern &&
            strcmp(pattern->valuestring, schema_key(t->pattern, "pattern")->valuestring) != 0) {
            schema_refuse(c, p->path, "pattern", "there is another pattern for the same string");
        }
        if (format && t->format &&
            strcmp(format->valuestring, schema_key(t->format, "format")->valuestring) != 0) {
            schema_refuse(c, p->path, "format", "there is another format for the same string");
        }
        t->pattern = pattern ? p : t->pattern;
        t->format = format ? p : t->format;
    }
    bool counted = t->min > 0 || t->max >= 0;
    if (t->pattern && (counted || t->format)) {
        schema_refuse(c, t->pattern->path, "pattern",
                      "it stands beside minLength, maxLength or format; say it in the pattern");
    }
    if (t->format && counted) {
        schema_refuse(c, t->format->path, "format", "it stands beside minLength or maxLength");
    }
    return !c->b->failed;
}

/* What stands between the quotes, from `from`; the state behind it. */
static int32_t text_body(struct schema_compiler *c, const struct text_rules *t, int32_t from)
{
    if (t->pattern) {
        const char *reason = NULL;
        int32_t end =
            regex_add(c->b, schema_key(t->pattern, "pattern")->valuestring, from, &reason);
        if (reason) {
            char why[160];
            snprintf(why, sizeof why, "the expression has %s", reason);
            schema_refuse(c, t->pattern->path, "pattern", why);
        }
        return end < 0 ? from : end;
    }
    if (t->format) {
        int32_t rule = format_rule(c, schema_key(t->format, "format")->valuestring);
        if (rule < 0) {
            schema_refuse(c, t->format->path, "format",
                          "known are date, time, date-time, duration, email, hostname, ipv4, "
                          "ipv6, uri and uuid");
            return from;
        }
        int32_t end = builder_state(c->b);
        builder_call(c->b, from, rule, end);
        return end;
    }
    int32_t first = c->b->n_states;
    struct fragment one = schema_call(c, c->json[JSON_CHAR]);
    struct fragment all = builder_repeat(c->b, first, one, t->min < 0 ? 0 : t->min, t->max);
    builder_empty(c->b, from, all.start);
    return all.end;
}

struct fragment schema_string(struct schema_compiler *c, const struct schema_list *list)
{
    struct text_rules t;
    bool ok = read_text_rules(c, list, &t);
    if (ok && !t.pattern && !t.format && t.min <= 0 && t.max < 0) {
        return schema_call(c, c->json[JSON_STRING]);
    }
    struct fragment f = {builder_state(c->b), builder_state(c->b)};
    if (ok && (t.max < 0 || t.min <= t.max)) {
        int32_t from = builder_text(c->b, f.start, "\"", 1);
        builder_bytes(c->b, text_body(c, &t, from), '"', '"', f.end);
    }
    return f;
}

/* ---- numbers
 * --------------------------------------------------------------------------------------- */

#define MOST_DIGITS 15 /* that a double holds exactly */
#define FRACTION    6  /* digits behind the point that are allowed, if the bounds have no more */

/* |value| in digits, without leading zeros but one before the point. */
struct decimal {
    char digits[2 * MOST_DIGITS + 2]; /* n_whole, then n_fraction of them */
    int n_whole, n_fraction;
};

struct bound {
    const struct schema_part *part;
    const char *keyword;
    double value;
    bool given, exclusive;
};

static void tighten(struct bound *b, const struct schema_part *p, const char *keyword,
                    bool exclusive, bool upper)
{
    const cJSON *v = schema_key(p, keyword);
    if (!v) {
        return;
    }
    double x = v->valuedouble;
    bool closer = upper ? x < b->value : x > b->value;
    if (!b->given || closer || (x == b->value && exclusive)) {
        *b = (struct bound){p, keyword, x, true, exclusive};
    }
}

/* False: it has too many digits. */
static bool to_decimal(double value, struct decimal *d)
{
    char text[64];
    value = fabs(value);
    for (int n = 0; n <= MOST_DIGITS && value < 1e15; n++) {
        snprintf(text, sizeof text, "%.*f", n, value);
        if (strtod(text, NULL) == value) {
            const char *point = strchr(text, '.');
            d->n_whole = (int)(point ? point - text : (long)strlen(text));
            d->n_fraction = n;
            memcpy(d->digits, text, (size_t)d->n_whole);
            memcpy(d->digits + d->n_whole, point ? point + 1 : "", (size_t)n);
            return d->n_whole + n <= MOST_DIGITS;
        }
    }
    return false;
}

/* The digits of a number with n_whole digits before the point, compared on the way with those
 * of the bounds: a state for each position and each bound that is equal so far. */
struct range {
    struct grammar_builder *b;
    const struct decimal *lo, *hi;
    bool lo_exclusive, hi_exclusive;
    int n_whole, n_fraction;                   /* at most */
    int32_t states[2 * MOST_DIGITS + 4][2][2]; /* -1 = not made */
    int32_t end;
};

/* Digit i of a bound; -1: the lengths differ, so there is no comparing. */
static int digit_of(const struct decimal *d, int n_whole, int i)
{
    if (i < n_whole) {
        return d->digits[i] - '0';
    }
    i -= n_whole;
    return i < d->n_fraction ? d->digits[d->n_whole + i] - '0' : 0;
}

static bool rest_is_zero(const struct range *r, const struct decimal *d, int i)
{
    for (; i < r->n_whole + d->n_fraction; i++) {
        if (digit_of(d, r->n_whole, i) != 0) {
            return false;
        }
    }
    return true;
}

/* A number that ends before digit i is inside the bounds. */
static bool may_end(const struct range *r, int i, bool at_lo, bool at_hi)
{
    if (at_lo && (!rest_is_zero(r, r->lo, i) || r->lo_exclusive)) {
        return false;
    }
    return !(at_hi && rest_is_zero(r, r->hi, i) && r->hi_exclusive);
}

/* The state before digit i; `fraction`: behind the point, or (i == n_whole) just behind it. */
static int32_t before_digit(struct range *r, int i, bool fraction, bool at_lo, bool at_hi)
{
    int32_t *slot = &r->states[i + fraction][at_lo][at_hi];
    if (*slot >= 0 || r->b->failed) {
        return *slot;
    }
    int32_t state = *slot = builder_state(r->b);
    bool whole_is_there = i == r->n_whole && !fraction;
    if (whole_is_there || i > r->n_whole) {
        if (may_end(r, i, at_lo, at_hi)) {
            builder_empty(r->b, state, r->end);
        }
    }
    if (whole_is_there && r->n_fraction > 0) {
        builder_bytes(r->b, state, '.', '.', before_digit(r, i, true, at_lo, at_hi));
    }
    if (whole_is_there || i == r->n_whole + r->n_fraction) {
        return state;
    }
    int from = at_lo ? digit_of(r->lo, r->n_whole, i) : 0;
    int to = at_hi ? digit_of(r->hi, r->n_whole, i) : 9;
    from = i == 0 && r->n_whole > 1 && from == 0 ? 1 : from;
    for (int d = from; d <= to; d++) {
        bool lo = at_lo && d == digit_of(r->lo, r->n_whole, i);
        bool hi = at_hi && d == digit_of(r->hi, r->n_whole, i);
        builder_bytes(r->b, state, (uint8_t)('0' + d), (uint8_t)('0' + d),
                      before_digit(r, i + 1, fraction, lo, hi));
    }
    return state;
}

/* |x| from lo to hi, of `sign`. */
static void add_range(struct schema_compiler *c, struct fragment f, const char *sign,
                      const struct decimal *lo, bool lo_exclusive, const struct decimal *hi,
                      bool hi_exclusive, bool integer)
{
    int32_t start = builder_text(c->b, f.start, sign, strlen(sign));
    int finest = lo->n_fraction > hi->n_fraction ? lo->n_fraction : hi->n_fraction;
    finest = finest + 1 > FRACTION ? finest + 1 : FRACTION;
    for (int n = lo->n_whole; n <= hi->n_whole && !c->b->failed; n++) {
        struct range r = {.b = c->b,
                          .lo = lo,
                          .hi = hi,
                          .lo_exclusive = lo_exclusive,
                          .hi_exclusive = hi_exclusive,
                          .n_whole = n,
                          .n_fraction = integer                    ? 0
                                        : n + finest > MOST_DIGITS ? MOST_DIGITS - n
                                                                   : finest,
                          .end = f.end};
        memset(r.states, 0xff, sizeof r.states);
        builder_empty(c->b, start, before_digit(&r, 0, false, n == lo->n_whole, n == hi->n_whole));
    }
}

static bool bound_digits(struct schema_compiler *c, const struct bound *b, struct decimal *d)
{
    if (!to_decimal(b->value, d)) {
        schema_refuse(c, b->part->path, b->keyword, "it has more than 15 digits");
        return false;
    }
    return true;
}

static void add_ranges(struct schema_compiler *c, struct fragment f, const struct bound *min,
                       const struct bound *max, bool integer)
{
    struct decimal zero = {.n_whole = 0};
    struct decimal most = {.n_whole = 0};
    struct decimal lo = {.n_whole = 0};
    struct decimal hi = {.n_whole = 0};
    (void)to_decimal(0, &zero);
    (void)to_decimal(999999999999999.0, &most);
    bool positive = !max->given || max->value >= 0;
    bool negative = !min->given || min->value < 0;
    lo = zero;
    hi = most;
    if ((min->given && !bound_digits(c, min, &lo)) || (max->given && !bound_digits(c, max, &hi))) {
        return;
    }
    if (positive) {
        bool from_zero = !min->given || min->value < 0;
        add_range(c, f, "", from_zero ? &zero : &lo, !from_zero && min->exclusive, &hi,
                  max->given && max->exclusive, integer);
    }
    if (negative) { /* smaller than zero, so the bounds change places */
        bool to_zero = !max->given || max->value >= 0;
        add_range(c, f, "-", to_zero ? &zero : &hi, to_zero || max->exclusive,
                  min->given ? &lo : &most, min->given && min->exclusive, integer);
    }
}

struct fragment schema_number(struct schema_compiler *c, const struct schema_list *list,
                              bool integer)
{
    struct bound min = {.given = false};
    struct bound max = {.given = false};
    for (int i = 0; i < list->n; i++) {
        const struct schema_part *p = &list->items[i];
        const cJSON *step = schema_key(p, "multipleOf");
        if (step && !(integer && step->valuedouble == 1)) {
            schema_refuse(c, p->path, "multipleOf", "only 1, for integers, can be kept");
        }
        tighten(&min, p, "minimum", false, false);
        tighten(&min, p, "exclusiveMinimum", true, false);
        tighten(&max, p, "maximum", false, true);
        tighten(&max, p, "exclusiveMaximum", true, true);
    }
    if (!min.given && !max.given) {
        return schema_call(c, c->json[integer ? JSON_INTEGER : JSON_NUMBER]);
    }
    struct fragment f = {builder_state(c->b), builder_state(c->b)};
    if (!(min.given && max.given && min.value > max.value)) {
        add_ranges(c, f, &min, &max, integer);
    }
    return f;
}
