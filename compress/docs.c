/* The methods as Markdown, straight from their tables: docs/compression.md holds this
 * text, and a test compares the two, so the page cannot fall behind the code. */
#include "base/buf.h"
#include "compress/guard.h"
#include "compress/modifiers.h"

#include <ctype.h>

static void print_mask(struct buf *out, unsigned mask, int n, const char *(*name)(int))
{
    const char *comma = "";
    for (int i = 0; i < n; i++) {
        if (mask & 1u << i) {
            buf_printf(out, "%s`%s`", comma, name(i));
            comma = ", ";
        }
    }
}

static const char *stage_at(int i)
{
    return stage_name((enum stage)i);
}

static const char *modality_at(int i)
{
    return modality_name((enum modality)i);
}

static void print_range(struct buf *out, const struct compressor_option *o)
{
    if (o->type == OPTION_ENUM) {
        for (int i = 0; o->choices[i]; i++) {
            buf_printf(out, "%s`%s`", i ? ", " : "", o->choices[i]);
        }
    } else if (o->type == OPTION_BOOL) {
        buf_puts(out, "`true`, `false`");
    } else {
        buf_printf(out, "%.9g to %.9g%s%s%s", o->min, o->max, o->unit[0] ? " " : "", o->unit,
                   o->auto_ok ? ", `auto`" : "");
    }
}

static void print_default(struct buf *out, const struct compressor_option *o)
{
    if (o->def < o->min) {
        buf_puts(out, "not set");
    } else if (o->type == OPTION_ENUM) {
        buf_printf(out, "`%s`", o->choices[(int)o->def]);
    } else if (o->type == OPTION_BOOL) {
        buf_puts(out, o->def != 0 ? "`true`" : "`false`");
    } else {
        buf_printf(out, "%.9g", o->def);
    }
}

static void print_options(struct buf *out, const struct compressor_option *options, int n)
{
    if (n == 0) {
        return;
    }
    buf_puts(out, "| option | range | default | meaning |\n|---|---|---|---|\n");
    for (int i = 0; i < n; i++) {
        const struct compressor_option *o = &options[i];
        buf_printf(out, "| `%s` | ", o->name);
        print_range(out, o);
        buf_puts(out, " | ");
        print_default(out, o);
        buf_printf(out, " | %s", o->help);
        if (o->modalities) {
            buf_puts(out, " (only ");
            print_mask(out, o->modalities, MODALITY_COUNT, modality_at);
            buf_puts(out, ")");
        }
        buf_puts(out, " |\n");
    }
    buf_puts(out, "\n");
}

static void print_method(struct buf *out, const struct compressor_info *info)
{
    buf_printf(out, "#### %s\n%c%s. Slots: ", info->name, toupper(info->summary[0]),
               info->summary + 1);
    print_mask(out, info->modalities, MODALITY_COUNT, modality_at);
    buf_puts(out, "; stages: ");
    print_mask(out, info->stages, STAGE_COUNT, stage_at);
    buf_puts(out, ".");
    if (info->source[0]) {
        buf_printf(out, " Source: %s.", info->source);
    }
    if (info->baseline) {
        buf_puts(out, " For comparisons only: taken where `baselines` is switched on.");
    }
    buf_puts(out, "\n\n");
    print_options(out, info->options, info->n_options);
}

int compressors_print_docs(struct buf *out)
{
    for (int i = 0; compressors[i]; i++) {
        print_method(out, &compressors[i]->info);
    }
    buf_puts(out, "#### modifiers\nOptions that every method has besides its own.\n\n");
    print_options(out, modifier_options, N_MODIFIERS);
    buf_puts(out, "#### guard\nOptions of a plan's `guard`, off unless a profile or request "
                  "switches it on.\n\n");
    print_options(out, guard_options, N_GUARD_OPTIONS);
    return buf_failed(out) ? -1 : 0;
}
