/* The JSON form of `tamp inspect`. Strings of the file may hold any bytes: what is not
 * UTF-8 becomes U+FFFD, so that the output is always valid JSON; control characters are
 * escaped by cJSON. */
#include "base/utf8.h"
#include "cmd/inspect.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <string.h>

#define STRING_MAX_BYTES   65536
#define ARRAY_MAX_ELEMENTS 16

/* A string of the file as a cJSON node; zero bytes are replaced too: cJSON ends there. */
static cJSON *text_node(const char *s, size_t len)
{
    struct buf b;
    buf_init(&b, 3 * STRING_MAX_BYTES + 16);
    size_t i = 0;
    while (i < len && i < STRING_MAX_BYTES) {
        size_t n = utf8_next(s + i, len - i, NULL);
        bool whole = n > 0 && n <= len - i && s[i] != '\0';
        if (whole) {
            buf_append(&b, s + i, n);
        } else {
            buf_puts(&b, "\xef\xbf\xbd");
        }
        i += whole ? n : 1;
    }
    cJSON *node = buf_failed(&b) ? NULL : cJSON_CreateString(buf_str(&b));
    buf_free(&b);
    return node;
}

/* Integers as they are: a double would lose bits beyond 2^53. */
static cJSON *integer_node(const struct gguf_value *value)
{
    char text[32];
    bool is_signed = value->type == GGUF_I8 || value->type == GGUF_I16 || value->type == GGUF_I32 ||
                     value->type == GGUF_I64;
    if (is_signed) {
        snprintf(text, sizeof text, "%" PRId64, value->v.i64);
    } else {
        snprintf(text, sizeof text, "%" PRIu64, value->v.u64);
    }
    return cJSON_CreateRaw(text);
}

static cJSON *value_node(const struct gguf_value *value);

/* {"type": "string", "length": 49152, "first": [...]} */
static cJSON *array_node(const struct gguf_array *a)
{
    cJSON *node = cJSON_CreateObject();
    cJSON_AddStringToObject(node, "type", gguf_value_type_name(a->type));
    cJSON_AddNumberToObject(node, "length", (double)a->n);
    cJSON *first = cJSON_AddArrayToObject(node, "first");
    for (size_t i = 0; i < a->n && i < ARRAY_MAX_ELEMENTS; i++) {
        struct gguf_value element = gguf_array_at(a, i);
        cJSON_AddItemToArray(first, value_node(&element));
    }
    return node;
}

static cJSON *value_node(const struct gguf_value *value)
{
    switch (value->type) {
    case GGUF_STRING:
        return text_node(value->v.string.ptr, value->v.string.len);
    case GGUF_ARRAY:
        return array_node(&value->v.array);
    case GGUF_F32:
    case GGUF_F64:
        return cJSON_CreateNumber(value->v.f64);
    case GGUF_BOOL:
        return cJSON_CreateBool(value->v.flag);
    default:
        return integer_node(value);
    }
}

static void add_verdicts(cJSON *root, const struct inspection *in)
{
    cJSON *list = cJSON_AddArrayToObject(root, "checks");
    for (int i = 0; i < in->n_verdicts; i++) {
        const struct inspect_verdict *v = &in->verdicts[i];
        cJSON *node = cJSON_CreateObject();
        cJSON_AddStringToObject(node, "part", v->part);
        cJSON_AddBoolToObject(node, "ok", v->ok);
        cJSON_AddItemToObject(node, "text", text_node(v->text, strlen(v->text)));
        cJSON_AddItemToArray(list, node);
    }
}

static void add_types(cJSON *root, const struct inspection *in)
{
    cJSON *list = cJSON_AddArrayToObject(root, "types");
    for (int i = 0; i < in->n_types; i++) {
        const struct inspect_type *t = &in->types[i];
        cJSON *node = cJSON_CreateObject();
        cJSON_AddStringToObject(node, "name", t->name);
        cJSON_AddBoolToObject(node, "supported", t->supported);
        cJSON_AddNumberToObject(node, "tensors", (double)t->n_tensors);
        cJSON_AddNumberToObject(node, "bytes", (double)t->n_bytes);
        cJSON_AddItemToArray(list, node);
    }
}

static void add_metadata(cJSON *root, const struct gguf *g)
{
    cJSON *object = cJSON_AddObjectToObject(root, "metadata");
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        enum gguf_value_type type;
        const char *key = gguf_key_at(g, i, &type);
        struct gguf_value value = gguf_value_at(g, i);
        cJSON *name = text_node(key, strlen(key));
        cJSON *node = value_node(&value);
        if (!name || !cJSON_AddItemToObject(object, name->valuestring, node)) {
            cJSON_Delete(node);
        }
        cJSON_Delete(name);
    }
}

static void add_tensors(cJSON *root, const struct gguf *g)
{
    cJSON *list = cJSON_AddArrayToObject(root, "tensors");
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        cJSON *node = cJSON_CreateObject();
        cJSON_AddItemToObject(node, "name", text_node(t->name, strlen(t->name)));
        cJSON_AddStringToObject(node, "type", gguf_tensor_type_name(t));
        cJSON *shape = cJSON_AddArrayToObject(node, "shape");
        for (int d = 0; d < t->n_dims; d++) {
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->ne[d]));
        }
        cJSON_AddNumberToObject(node, "bytes", (double)t->n_bytes);
        cJSON_AddItemToArray(list, node);
    }
}

int inspect_print_json(const struct inspection *in, struct buf *out)
{
    const struct gguf *g = in->gguf;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddItemToObject(root, "file", text_node(gguf_path(g), strlen(gguf_path(g))));
    cJSON_AddNumberToObject(root, "version", gguf_version(g));
    cJSON_AddNumberToObject(root, "file_bytes", (double)gguf_file_bytes(g));
    cJSON_AddStringToObject(root, "kind", in->kind);
    cJSON_AddBoolToObject(root, "usable", in->usable);
    cJSON_AddNumberToObject(root, "parameters", (double)in->n_parameters);
    cJSON_AddNumberToObject(root, "tensor_bytes", (double)in->tensor_bytes);
    add_verdicts(root, in);
    add_types(root, in);
    add_metadata(root, g);
    add_tensors(root, g);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text) {
        return -1;
    }
    buf_puts(out, text);
    buf_putc(out, '\n');
    cJSON_free(text);
    return buf_failed(out) ? -1 : 0;
}
