/* Man pages in roff with the man macros: tamp(1) and one for each command. */
#include "cmd/command_table.h"
#include "config/version.h"

#include <ctype.h>
#include <string.h>

/* Text as it is: no requests, no escapes, and hyphens that can be copied. A line may begin
 * anywhere in it. */
static void put_text(const char *text, struct buf *out)
{
    bool begins = true;
    for (; *text; text++) {
        if (begins && (*text == '.' || *text == '\'')) {
            buf_puts(out, "\\&");
        }
        if (*text == '\\') {
            buf_puts(out, "\\e");
        } else if (*text == '-') {
            buf_puts(out, "\\-");
        } else {
            buf_putc(out, *text);
        }
        begins = *text == '\n';
    }
}

/* "TAMP-RUN" */
static void put_title(const struct command *c, struct buf *out)
{
    buf_puts(out, "TAMP");
    if (c) {
        buf_puts(out, "\\-");
        for (const char *p = c->name; *p; p++) {
            buf_putc(out, (char)toupper((unsigned char)*p));
        }
    }
}

static void put_options(const struct command *c, struct buf *out)
{
    const struct schema_option *o;
    const char *group = "";
    struct buf text;
    buf_init(&text, 4096);
    for (int i = 0; (o = command_option(c, i)); i++) {
        if (i == 0) {
            buf_puts(out, ".SH OPTIONS\n");
        }
        if (strcmp(group, o->group) != 0) {
            group = o->group;
            buf_puts(out, ".SS ");
            put_text(group, out);
            buf_putc(out, '\n');
        }
        buf_puts(out, ".TP\n\\fB\\-\\-");
        put_text(o->name, out);
        buf_puts(out, "\\fR");
        if (*o->metavar) {
            buf_printf(out, " \\fI%s\\fR", o->metavar);
        }
        buf_putc(out, '\n');
        buf_clear(&text);
        schema_describe(o, &text);
        put_text(buf_str(&text), out);
        buf_puts(out, ".\n");
    }
    if (buf_failed(&text)) {
        out->failed = true;
    }
    buf_free(&text);
}

static void put_synopsis(const char *usage, struct buf *out)
{
    buf_puts(out, ".SH SYNOPSIS\n.nf\n");
    put_text(usage, out);
    buf_puts(out, "\n.fi\n");
}

static void put_exit_status(struct buf *out)
{
    const char *meaning;
    int code;
    buf_puts(out, ".SH \"EXIT STATUS\"\n");
    for (int i = 0; (meaning = command_exit_status(i, &code)); i++) {
        buf_printf(out, ".TP\n%d\n%s\n", code, meaning);
    }
}

static void put_environment(const struct command *c, struct buf *out)
{
    buf_puts(out, ".SH ENVIRONMENT\n.TP\nNO_COLOR\nif it is set and not empty, no colours\n");
    if (!c || c->config) {
        buf_puts(out, ".TP\nTAMP_*\nevery option of the configuration, in capitals: TAMP_CTX_SIZE "
                      "is \\fB\\-\\-ctx\\-size\\fR; flags are stronger, the file is weaker\n");
    }
}

static void put_commands(struct buf *out)
{
    int n;
    const struct command *table = command_table(&n);
    buf_puts(out, ".SH COMMANDS\n");
    for (int i = 0; i < n; i++) {
        buf_printf(out, ".TP\n\\fB%s\\fR\n%s\n", table[i].name, table[i].help);
    }
}

static void put_see_also(const struct command *c, struct buf *out)
{
    int n;
    const struct command *table = command_table(&n);
    buf_puts(out, ".SH \"SEE ALSO\"\n");
    if (c) {
        buf_puts(out, ".BR tamp (1)\n");
        return;
    }
    for (int i = 0; i < n; i++) {
        buf_printf(out, ".BR tamp\\-%s (1)%s\n", table[i].name, i + 1 < n ? "," : "");
    }
}

void command_print_man(const struct command *c, struct buf *out)
{
    buf_puts(out, ".\\\" written by `tamp help --man`\n.TH ");
    put_title(c, out);
    buf_printf(out, " 1 \"\" \"tamp %s\" \"tamp\"\n.SH NAME\n", TAMP_VERSION);
    if (c) {
        buf_printf(out, "tamp\\-%s \\- %s\n", c->name, c->help);
        put_synopsis(c->usage, out);
        buf_puts(out, ".SH DESCRIPTION\n");
        put_text(c->about, out);
        put_options(c, out);
    } else {
        buf_puts(out, "tamp \\- pack prompts of text and pictures, and answer them\n");
        put_synopsis("tamp COMMAND [FLAGS]", out);
        buf_puts(out,
                 ".SH DESCRIPTION\nAn OpenAI\\-compatible server of language models with "
                 "pictures, for CPUs, that makes prompts shorter before they cost anything.\n");
        put_commands(out);
    }
    put_environment(c, out);
    put_exit_status(out);
    put_see_also(c, out);
}
