#include "server/json_layout.h"

#include <cjson/cJSON.h>
#include <string.h>

static void new_line(struct buf *out, int blanks)
{
    buf_putc(out, '\n');
    for (int i = 0; i < blanks; i++) {
        buf_putc(out, ' ');
    }
}

/* The string at s, quotes included; behind it. */
static const char *copy_string(struct buf *out, const char *s)
{
    const char *end = s + 1;
    while (*end && *end != '"') {
        end += *end == '\\' && end[1] ? 2 : 1;
    }
    end += *end == '"';
    buf_append(out, s, (size_t)(end - s));
    return end;
}

/* `s` is compact JSON. */
static void lay_out(struct buf *out, const char *s, int indent)
{
    int depth = 0;
    while (*s) {
        if (*s == '"') {
            s = copy_string(out, s);
            continue;
        }
        bool opens = *s == '{' || *s == '[';
        bool closes = *s == '}' || *s == ']';
        depth -= closes;
        if (closes && indent > 0 && s[-1] != '{' && s[-1] != '[') {
            new_line(out, depth * indent);
        }
        buf_putc(out, *s);
        depth += opens;
        if (indent > 0 && (*s == ',' || (opens && s[1] != '}' && s[1] != ']'))) {
            new_line(out, depth * indent);
        } else if (*s == ',' || *s == ':') {
            buf_putc(out, ' ');
        }
        s++;
    }
}

int json_layout(struct buf *out, const cJSON *v, int indent, struct err *e)
{
    char *text = cJSON_PrintUnformatted(v);
    if (!text) {
        return err_no_memory(e, 1);
    }
    lay_out(out, text, indent);
    cJSON_free(text);
    return buf_failed(out) ? err_no_memory(e, out->len) : 0;
}
