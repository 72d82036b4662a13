#include "base/log.h"

#include "base/buf.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 4096

static enum log_format line_format = LOG_LOGFMT;
static enum log_level lowest_level = LOG_INFO;
static atomic_uint_fast64_t dropped;

void log_init(enum log_format format, enum log_level lowest)
{
    line_format = format;
    lowest_level = lowest;
}

uint64_t log_dropped(void)
{
    return atomic_load(&dropped);
}

static void put_quoted(struct buf *b, const char *s)
{
    buf_putc(b, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            buf_printf(b, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            buf_printf(b, "\\u%04x", c);
        } else {
            buf_putc(b, (char)c);
        }
    }
    buf_putc(b, '"');
}

static int is_bare(const char *s)
{
    return *s && s[strcspn(s, " \t\r\n\"\\=\x7f")] == '\0';
}

static void put_number(struct buf *b, const struct log_field *f)
{
    if (f->kind == LOG_KIND_I64) {
        buf_printf(b, "%lld", (long long)f->v.i);
    } else if (isfinite(f->v.f)) {
        buf_printf(b, "%.6g", f->v.f);
    } else {
        buf_puts(b, "null");
    }
}

static void put_field(struct buf *b, const struct log_field *f)
{
    const char *text = f->kind == LOG_KIND_STR ? (f->v.s ? f->v.s : "") : NULL;
    if (line_format == LOG_JSON) {
        buf_printf(b, ",\"%s\":", f->key);
    } else {
        buf_printf(b, " %s=", f->key);
    }
    if (!text) {
        put_number(b, f);
    } else if (line_format == LOG_LOGFMT && is_bare(text)) {
        buf_puts(b, text);
    } else {
        put_quoted(b, text);
    }
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < lowest_level) {
        return;
    }
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    char when[40];
    size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + n, sizeof when - n, ".%03ldZ", now.tv_nsec / 1000000);

    struct buf b;
    buf_init(&b, LOG_LINE_MAX);
    buf_printf(&b,
               line_format == LOG_JSON ? "{\"time\":\"%s\",\"level\":\"%s\",\"event\":"
                                       : "time=%s level=%s event=",
               when, names[level]);
    if (line_format == LOG_LOGFMT && is_bare(event)) {
        buf_puts(&b, event);
    } else {
        put_quoted(&b, event);
    }
    for (; fields->kind != LOG_KIND_END; fields++) {
        put_field(&b, fields);
    }
    buf_puts(&b, line_format == LOG_JSON ? "}\n" : "\n");
    if (buf_failed(&b) || write(STDERR_FILENO, b.data, b.len) != (ssize_t)b.len) {
        atomic_fetch_add(&dropped, 1);
    }
    buf_free(&b);
}
