/* The text form of `tamp inspect`: the verdicts first, for who wants to know whether the
 * file will do, then everything that is in it. Nothing from the file reaches the
 * terminal unescaped. */
#include "base/utf8.h"
#include "cmd/inspect.h"

#include <inttypes.h>
#include <string.h>

#define VALUE_MAX_BYTES    100
#define TEMPLATE_MAX_BYTES 400
#define ARRAY_MAX_ELEMENTS 6

/* Characters that move or hide text: C1 controls, zero width, direction marks. */
static bool invisible(uint32_t c)
{
    return (c >= 0x80 && c < 0xa0) || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

static void put_character(struct buf *out, const char *s, size_t n, uint32_t c)
{
    if (c == '\n') {
        buf_puts(out, "\\n");
    } else if (c < 0x20 || c == 0x7f) {
        buf_printf(out, "\\x%02x", c);
    } else if (invisible(c)) {
        buf_printf(out, "\\u{%x}", c);
    } else {
        buf_append(out, s, n);
    }
}

void inspect_put_text(struct buf *out, const char *s, size_t len, size_t max_bytes)
{
    size_t i = 0;
    while (i < len && i < max_bytes) {
        uint32_t c = 0;
        size_t n = utf8_next(s + i, len - i, &c);
        if (n == 0 || n > len - i) {
            buf_printf(out, "\\x%02x", (unsigned char)s[i]);
            i++;
            continue;
        }
        put_character(out, s + i, n, c);
        i += n;
    }
    if (i < len) {
        buf_puts(out, "...");
    }
}

static void put_value(struct buf *out, const struct gguf_value *value)
{
    const struct gguf_array *a = &value->v.array;
    switch (value->type) {
    case GGUF_STRING:
        buf_putc(out, '"');
        inspect_put_text(out, value->v.string.ptr, value->v.string.len, VALUE_MAX_BYTES);
        buf_putc(out, '"');
        break;
    case GGUF_ARRAY:
        buf_printf(out, "%zu x %s: ", a->n, gguf_value_type_name(a->type));
        for (size_t i = 0; i < a->n && i < ARRAY_MAX_ELEMENTS; i++) {
            struct gguf_value element = gguf_array_at(a, i);
            buf_puts(out, i ? ", " : "");
            put_value(out, &element);
        }
        buf_puts(out, a->n > ARRAY_MAX_ELEMENTS ? ", ..." : "");
        break;
    case GGUF_F32:
    case GGUF_F64:
        buf_printf(out, "%.9g", value->v.f64);
        break;
    case GGUF_BOOL:
        buf_puts(out, value->v.flag ? "true" : "false");
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        buf_printf(out, "%" PRId64, value->v.i64);
        break;
    default:
        buf_printf(out, "%" PRIu64, value->v.u64);
    }
}

static void put_metadata(const struct gguf *g, struct buf *out)
{
    buf_printf(out, "\nmetadata (%zu)\n", gguf_n_keys(g));
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        enum gguf_value_type type;
        const char *key = gguf_key_at(g, i, &type);
        struct gguf_value value = gguf_value_at(g, i);
        buf_printf(out, "  %-6s ", gguf_value_type_name(type));
        inspect_put_text(out, key, strlen(key), VALUE_MAX_BYTES);
        buf_puts(out, " = ");
        put_value(out, &value);
        buf_putc(out, '\n');
    }
}

static void put_tensors(const struct gguf *g, struct buf *out)
{
    buf_printf(out, "\ntensors (%zu)\n", gguf_n_tensors(g));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        char shape[96];
        int n = 0;
        for (int d = 0; d < t->n_dims; d++) {
            n += snprintf(shape + n, sizeof shape - (size_t)n, "%s%" PRId64, d ? ", " : "[",
                          t->ne[d]);
        }
        snprintf(shape + n, sizeof shape - (size_t)n, "%s", t->n_dims ? "]" : "[]");
        buf_printf(out, "  %-6s %-24s %12zu bytes  ", gguf_tensor_type_name(t), shape, t->n_bytes);
        inspect_put_text(out, t->name, strlen(t->name), sizeof t->name);
        buf_putc(out, '\n');
    }
}

static void put_template(const struct gguf *g, struct buf *out)
{
    struct gguf_string template;
    if (gguf_get_string(g, "tokenizer.chat_template", &template, NULL) == GGUF_FOUND) {
        buf_puts(out, "\nchat template in the file\n  ");
        inspect_put_text(out, template.ptr, template.len, TEMPLATE_MAX_BYTES);
        buf_putc(out, '\n');
    }
}

static void put_summary(const struct inspection *in, struct buf *out)
{
    const struct gguf *g = in->gguf;
    inspect_put_text(out, gguf_path(g), strlen(gguf_path(g)), 4096);
    buf_printf(out, "\n  GGUF version %u, %s, %.1f million parameters, %zu bytes\n",
               gguf_version(g), in->kind, (double)in->n_parameters * 1e-6, gguf_file_bytes(g));
    buf_printf(out, "  %s\n\n",
               in->usable ? "tamp can use this file" : "tamp cannot use this file");
    for (int i = 0; i < in->n_verdicts; i++) {
        const struct inspect_verdict *v = &in->verdicts[i];
        buf_printf(out, "  %-3s %-14s ", v->ok ? "ok" : "no", v->part);
        inspect_put_text(out, v->text, strlen(v->text), sizeof v->text);
        buf_putc(out, '\n');
    }
    buf_puts(out, "\nsizes\n");
    for (int i = 0; i < in->n_types; i++) {
        const struct inspect_type *t = &in->types[i];
        buf_printf(out, "  %-8s %5zu tensors %14" PRIu64 " bytes%s\n", t->name, t->n_tensors,
                   t->n_bytes, t->supported ? "" : "  (not supported)");
    }
    buf_printf(out, "  %-8s %5zu tensors %14" PRIu64 " bytes\n", "all", gguf_n_tensors(g),
               in->tensor_bytes);
}

void inspect_print_text(const struct inspection *in, struct buf *out)
{
    put_summary(in, out);
    put_template(in->gguf, out);
    put_metadata(in->gguf, out);
    put_tensors(in->gguf, out);
}
