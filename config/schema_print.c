/* The option table as people read it: --help, docs/configuration.md, config/tamp.yaml.
 * All three loop over the table, so none of them can forget an option. */
#include "config/schema.h"

#include <string.h>

#define HELP_COLUMN 28
#define TEXT_WIDTH  92

static bool starts_group(const struct schema *s, int i)
{
    return i == 0 || strcmp(s->options[i].group, s->options[i - 1].group) != 0;
}

static bool in_file(const struct schema_option *o)
{
    return !(o->flags & SCHEMA_NOT_IN_FILE);
}

/* "0 to 65535", "logfmt, json", "" */
static void print_range(const struct schema_option *o, struct buf *out)
{
    if (o->type == SCHEMA_INT) {
        buf_printf(out, "%.0f to %.0f", o->min, o->max);
    } else if (o->type == SCHEMA_FLOAT) {
        buf_printf(out, "%g to %g", o->min, o->max);
    } else if (o->type == SCHEMA_BOOL) {
        buf_puts(out, "true, false");
    } else if (o->type == SCHEMA_ENUM) {
        for (int i = 0; o->choices[i]; i++) {
            buf_printf(out, "%s%s", i ? ", " : "", o->choices[i]);
        }
    }
}

void schema_describe(const struct schema_option *o, struct buf *out)
{
    buf_puts(out, o->help);
    if (o->type == SCHEMA_BOOL && strcmp(o->def, "true") == 0) {
        buf_printf(out, " (on; --no-%s switches it off)", o->name);
    }
    bool shown_default = o->type != SCHEMA_BOOL && *o->def;
    bool range = o->type == SCHEMA_INT || o->type == SCHEMA_FLOAT || o->type == SCHEMA_ENUM;
    if (!range && !shown_default) {
        return;
    }
    buf_puts(out, " (");
    if (range) {
        print_range(o, out);
        buf_printf(out, "%s%s", *o->unit ? " " : "", o->unit);
    }
    if (shown_default) {
        buf_printf(out, "%sdefault %s", range ? "; " : "", o->def);
    }
    buf_puts(out, ")");
}

/* Words of `text` between `column` and TEXT_WIDTH; each new line begins with `lead`
 * and is filled up to the column. The cursor stands at the column already. */
static void wrap(const char *text, const char *lead, size_t column, struct buf *out)
{
    size_t at = column;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (at > column && at + 1 + n > TEXT_WIDTH) {
            buf_printf(out, "\n%-*s", (int)column, lead);
            at = column;
        } else if (at > column) {
            buf_putc(out, ' ');
            at++;
        }
        buf_append(out, text, n);
        at += n;
        text += n + (text[n] == ' ');
    }
    buf_putc(out, '\n');
}

void schema_print_help(const struct schema *s, unsigned command, struct buf *out)
{
    const char *group = "";
    struct buf text;
    buf_init(&text, 4096);
    for (int i = 0; i < s->n; i++) {
        const struct schema_option *o = &s->options[i];
        if (!(o->commands & command)) {
            continue;
        }
        if (strcmp(group, o->group) != 0) {
            group = o->group;
            buf_printf(out, "\n%s\n", group);
        }
        buf_clear(&text);
        buf_printf(&text, "  --%s%s%s", o->name, *o->metavar ? " " : "", o->metavar);
        buf_printf(out, "%-*s", HELP_COLUMN, buf_str(&text));
        if (text.len >= HELP_COLUMN) {
            buf_printf(out, "\n%-*s", HELP_COLUMN, "");
        }
        buf_clear(&text);
        schema_describe(o, &text);
        wrap(buf_str(&text), "", HELP_COLUMN, out);
    }
    buf_free(&text);
}

void schema_print_markdown(const struct schema *s, struct buf *out)
{
    for (int i = 0; i < s->n; i++) {
        const struct schema_option *o = &s->options[i];
        if (starts_group(s, i)) {
            buf_printf(out,
                       "\n## %s\n\n| name | environment | values | default | what it does |\n"
                       "|---|---|---|---|---|\n",
                       o->group);
        }
        char env[72];
        schema_env_name(o->name, env, sizeof env);
        buf_printf(out, "| `%s` | ", o->name);
        if (o->flags & SCHEMA_NOT_IN_ENV) {
            buf_puts(out, "flag only | ");
        } else {
            buf_printf(out, "`%s`%s | ", env, in_file(o) ? "" : " (not in the file)");
        }
        if (o->type == SCHEMA_STRING || o->type == SCHEMA_LIST) {
            buf_puts(out, o->metavar);
        } else {
            print_range(o, out);
        }
        buf_printf(out, "%s%s | ", *o->unit ? " " : "", o->unit);
        const char *quote = *o->def ? "`" : "";
        buf_printf(out, "%s%s%s | %s |\n", quote, *o->def ? o->def : "none", quote, o->help);
    }
}

void schema_print_yaml(const struct schema *s, struct buf *out)
{
    struct buf text;
    buf_init(&text, 4096);
    for (int i = 0; i < s->n; i++) {
        const struct schema_option *o = &s->options[i];
        if (starts_group(s, i)) {
            buf_printf(out, "\n# -- %s\n", o->group);
        }
        if (!in_file(o)) {
            continue;
        }
        buf_clear(&text);
        schema_describe(o, &text);
        buf_puts(out, "\n# ");
        wrap(buf_str(&text), "# ", 2, out);
        bool quoted = o->type == SCHEMA_STRING || o->type == SCHEMA_ENUM;
        buf_printf(out, quoted ? "#%s: \"%s\"\n" : "#%s: %s\n", o->name, o->def);
    }
    buf_free(&text);
}
