#include "server/json_write.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void json_writer_init(struct json_writer *w, struct buf *out)
{
    *w = (struct json_writer){.out = out};
}

static void before_value(struct json_writer *w)
{
    if (w->comma) {
        buf_putc(w->out, ',');
    }
    w->comma = true;
}

static void begin(struct json_writer *w, char bracket)
{
    before_value(w);
    buf_putc(w->out, bracket);
    w->comma = false;
}

static void end(struct json_writer *w, char bracket)
{
    buf_putc(w->out, bracket);
    w->comma = true;
}

void json_begin_object(struct json_writer *w)
{
    begin(w, '{');
}

void json_end_object(struct json_writer *w)
{
    end(w, '}');
}

void json_begin_array(struct json_writer *w)
{
    begin(w, '[');
}

void json_end_array(struct json_writer *w)
{
    end(w, ']');
}

static void escaped(struct buf *out, unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        buf_printf(out, "\\%c", c);
        break;
    case '\n':
        buf_puts(out, "\\n");
        break;
    case '\r':
        buf_puts(out, "\\r");
        break;
    case '\t':
        buf_puts(out, "\\t");
        break;
    default:
        buf_printf(out, "\\u%04x", c);
    }
}

void json_escape(struct buf *out, const char *s, size_t n)
{
    size_t from = 0;
    size_t i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)s[i];
        size_t len = utf8_next(s + i, n - i, NULL);
        bool bad = len == 0 || len == (size_t)-1;
        if (!bad && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            i += len;
            continue;
        }
        buf_append(out, s + from, i - from);
        if (bad) {
            buf_puts(out, "\xEF\xBF\xBD");
        } else {
            escaped(out, c);
        }
        from = ++i;
    }
    buf_append(out, s + from, n - from);
}

static void quoted(struct buf *out, const char *s, size_t n)
{
    buf_putc(out, '"');
    json_escape(out, s, n);
    buf_putc(out, '"');
}

void json_key(struct json_writer *w, const char *key)
{
    before_value(w);
    quoted(w->out, key, strlen(key));
    buf_putc(w->out, ':');
    w->comma = false;
}

void json_string_n(struct json_writer *w, const char *s, size_t n)
{
    before_value(w);
    if (s) {
        quoted(w->out, s, n);
    } else {
        buf_puts(w->out, "null");
    }
}

void json_string(struct json_writer *w, const char *s)
{
    json_string_n(w, s, s ? strlen(s) : 0);
}

void json_int(struct json_writer *w, int64_t v)
{
    before_value(w);
    buf_printf(w->out, "%" PRId64, v);
}

void json_number(struct json_writer *w, double v, int decimals)
{
    if (!isfinite(v) || fabs(v) > 1e15) {
        json_null(w);
        return;
    }
    before_value(w);
    char text[64];
    int n = snprintf(text, sizeof text, "%.*f", decimals, v);
    if (decimals > 0) {
        while (n > 1 && text[n - 1] == '0') {
            n--;
        }
        if (text[n - 1] == '.') {
            n--;
        }
    }
    buf_append(w->out, text, (size_t)n);
}

void json_bool(struct json_writer *w, bool v)
{
    before_value(w);
    buf_puts(w->out, v ? "true" : "false");
}

void json_null(struct json_writer *w)
{
    before_value(w);
    buf_puts(w->out, "null");
}

void json_raw(struct json_writer *w, const char *json, size_t n)
{
    before_value(w);
    buf_append(w->out, json, n);
}

void json_put(struct json_writer *w, const char *key, const char *v)
{
    json_key(w, key);
    json_string(w, v);
}

void json_put_int(struct json_writer *w, const char *key, int64_t v)
{
    json_key(w, key);
    json_int(w, v);
}
