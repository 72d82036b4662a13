#include "server/tool_parser.h"

#include <string.h>

#define MOST_HELD ((size_t)4 << 20)
/* More blanks than that are no blanks before a call. */
#define MOST_BLANKS 256

/* Between the opening of a call and its name. */
#define HEAD "{\"name\": \""

void tool_parser_init(struct tool_parser *p, const struct chat_tool_format *f)
{
    *p = (struct tool_parser){.format = f, .state = TOOL_TEXT};
    buf_init(&p->held, MOST_HELD);
}

void tool_parser_clear(struct tool_parser *p)
{
    buf_free(&p->held);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* How many bytes at the end of `held` begin the trigger. */
static size_t beginning(const struct tool_parser *p)
{
    const char *trigger = p->format->trigger;
    size_t n = strlen(trigger);
    n = n < p->held.len ? n : p->held.len;
    while (n > 0 && memcmp(p->held.data + p->held.len - n, trigger, n) != 0) {
        n--;
    }
    return n;
}

static void release(struct tool_parser *p, size_t keep, const struct tool_sink *sink)
{
    if (p->held.len > keep) {
        sink->text(sink->ctx, p->held.data, p->held.len - keep);
        buf_drop(&p->held, p->held.len - keep);
    }
}

/* The fixed text that is expected in this state, in two pieces. */
static char expected(const struct tool_parser *p, size_t i)
{
    const char *pieces[2] = {"", ""};
    switch (p->state) {
    case TOOL_HEAD:
        pieces[0] = p->format->open;
        pieces[1] = HEAD;
        break;
    case TOOL_BETWEEN:
        pieces[0] = p->format->arguments + 1; /* behind the quote */
        break;
    case TOOL_TAIL:
        pieces[0] = "}";
        pieces[1] = p->format->close;
        break;
    default:
        break;
    }
    size_t n = strlen(pieces[0]);
    return i < n ? pieces[0][i] : pieces[1][i - n];
}

static void go(struct tool_parser *p, int state)
{
    p->state = state;
    p->matched = 0;
}

/* A call begins where `held` ends: what is before is text, but for the blanks between. */
static void begin_call(struct tool_parser *p, size_t trigger, const struct tool_sink *sink)
{
    size_t before = p->held.len - trigger;
    while (before > 0 && is_blank(p->held.data[before - 1])) {
        before--;
    }
    if (before > 0) {
        sink->text(sink->ctx, p->held.data, before);
    }
    buf_clear(&p->held);
    go(p, TOOL_HEAD);
    p->matched = trigger;
    if (expected(p, trigger) == '\0') {
        go(p, TOOL_NAME);
    }
}

/* Text, up to a call or to the end. Returns how many bytes were taken. What may belong to a
 * call stays back, and so do blanks, for those before a call are nobody's. */
static size_t take_text(struct tool_parser *p, const char *s, size_t n,
                        const struct tool_sink *sink)
{
    size_t trigger = strlen(p->format->trigger);
    bool only_first = p->format->open[0] == '\0';
    for (size_t i = 0; i < n; i++) {
        buf_putc(&p->held, s[i]);
        if (buf_failed(&p->held)) {
            return n;
        }
        if (beginning(p) == trigger && !(only_first && p->held.len > trigger)) {
            begin_call(p, trigger, sink);
            return i + 1;
        }
    }
    size_t keep = beginning(p);
    if (only_first && keep < p->held.len) {
        p->state = TOOL_PLAIN;
        release(p, 0, sink);
        return n;
    }
    size_t most = keep + MOST_BLANKS;
    while (keep < p->held.len && keep < most && is_blank(p->held.data[p->held.len - keep - 1])) {
        keep++;
    }
    release(p, keep, sink);
    return n;
}

/* One byte of it. True: it is complete. */
static bool expect(struct tool_parser *p, char c)
{
    if (expected(p, p->matched) == c) {
        p->matched++;
    }
    return expected(p, p->matched) == '\0';
}

/* Whether the arguments end with this byte. */
static bool closes(struct tool_parser *p, char c)
{
    if (p->quoted) {
        p->quoted = p->escaped || c != '"';
        p->escaped = !p->escaped && c == '\\';
        return false;
    }
    p->quoted = c == '"';
    p->depth += c == '{' || c == '[';
    p->depth -= c == '}' || c == ']';
    return p->depth == 0;
}

static void end_call(struct tool_parser *p, const struct tool_sink *sink)
{
    sink->end_call(sink->ctx);
    go(p, TOOL_AFTER);
}

/* One byte of a call, outside its arguments. */
static void byte(struct tool_parser *p, char c, const struct tool_sink *sink)
{
    switch (p->state) {
    case TOOL_HEAD:
        if (expect(p, c)) {
            go(p, TOOL_NAME);
        }
        break;
    case TOOL_NAME:
        if (c != '"') {
            buf_putc(&p->held, c);
            break;
        }
        sink->call(sink->ctx, buf_str(&p->held), p->held.len);
        buf_clear(&p->held);
        p->n_calls++;
        p->depth = 0;
        p->quoted = p->escaped = false;
        go(p, TOOL_BETWEEN);
        break;
    case TOOL_BETWEEN:
        if (expect(p, c)) {
            go(p, TOOL_ARGUMENTS);
        }
        break;
    case TOOL_TAIL:
        if (expect(p, c)) {
            end_call(p, sink);
        }
        break;
    default:
        break;
    }
}

int tool_parser_add(struct tool_parser *p, const char *s, size_t n, const struct tool_sink *sink)
{
    size_t i = 0;
    while (i < n) {
        if (p->state == TOOL_PLAIN) {
            sink->text(sink->ctx, s + i, n - i);
            return 0;
        }
        if (p->state == TOOL_AFTER && is_blank(s[i])) {
            i++; /* blanks between calls are nobody's */
        } else if (p->state == TOOL_TEXT || p->state == TOOL_AFTER) {
            p->state = TOOL_TEXT;
            i += take_text(p, s + i, n - i, sink);
        } else if (p->state == TOOL_ARGUMENTS) {
            size_t from = i;
            bool end = false;
            while (i < n && !end) {
                end = closes(p, s[i++]);
            }
            sink->arguments(sink->ctx, s + from, i - from);
            if (end) {
                go(p, TOOL_TAIL);
            }
        } else {
            byte(p, s[i++], sink);
        }
    }
    return buf_failed(&p->held) ? -1 : 0;
}

void tool_parser_end(struct tool_parser *p, const struct tool_sink *sink)
{
    if (p->state == TOOL_TEXT) {
        release(p, 0, sink);
    }
}
