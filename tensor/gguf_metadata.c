/* Metadata by key: every getter names the key when the type or the range is wrong, so
 * that the reader of the message can look at the file with `tamp inspect`. */
#include "tensor/gguf_impl.h"

#include <math.h>
#include <string.h>

const struct gguf_entry *gguf_find_entry(const struct gguf *g, const char *key)
{
    size_t i = gguf_index_find(g->entry_index, g->n_entries, key);
    return i == (size_t)-1 ? NULL : &g->entries[i];
}

static int wrong_type(const struct gguf *g, const struct gguf_entry *entry, const char *want,
                      struct err *e)
{
    return err_set(e, ERR_FORMAT, "%.200s: at byte %zu: %.100s has type %s, %s is needed", g->path,
                   entry->at, entry->key, gguf_value_type_name(entry->type), want);
}

static int64_t sign_extend(uint64_t v, size_t bytes)
{
    unsigned shift = 64 - 8 * (unsigned)bytes;
    return (int64_t)(v << shift) >> shift;
}

static double decode_float(const void *p, enum gguf_value_type type)
{
    float f;
    double d;
    if (type == GGUF_F32) {
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    memcpy(&d, p, sizeof d);
    return d;
}

/* A value of fixed size, from its bytes in the file. */
static struct gguf_value decode(const void *p, enum gguf_value_type type)
{
    struct gguf_value value = {.type = type};
    size_t bytes = gguf_value_bytes(type);
    uint64_t bits = 0;
    memcpy(&bits, p, bytes);
    switch (type) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        value.v.i64 = sign_extend(bits, bytes);
        break;
    case GGUF_F32:
    case GGUF_F64:
        value.v.f64 = decode_float(p, type);
        break;
    case GGUF_BOOL:
        value.v.flag = bits != 0;
        break;
    default:
        value.v.u64 = bits;
    }
    return value;
}

struct gguf_value gguf_value_at(const struct gguf *g, size_t i)
{
    const struct gguf_entry *entry = &g->entries[i];
    if (entry->type == GGUF_STRING) {
        return (struct gguf_value){.type = GGUF_STRING, .v.string = entry->str};
    }
    if (entry->type == GGUF_ARRAY) {
        return (struct gguf_value){.type = GGUF_ARRAY, .v.array = entry->array};
    }
    return decode(entry->scalar, entry->type);
}

struct gguf_value gguf_array_at(const struct gguf_array *a, size_t i)
{
    if (a->type == GGUF_STRING) {
        return (struct gguf_value){.type = GGUF_STRING, .v.string = a->strings[i]};
    }
    return decode((const char *)a->data + i * gguf_value_bytes(a->type), a->type);
}

/* -1 = not an integer type, 1 = an unsigned value above INT64_MAX. */
static int entry_int(const struct gguf_entry *entry, int64_t *v)
{
    switch (entry->type) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        *v = decode(entry->scalar, entry->type).v.i64;
        return 0;
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64: {
        uint64_t u = decode(entry->scalar, entry->type).v.u64;
        *v = (int64_t)u;
        return u > INT64_MAX ? 1 : 0;
    }
    default:
        return -1;
    }
}

int gguf_get_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct err *e)
{
    const struct gguf_entry *entry = gguf_find_entry(g, key);
    if (!entry) {
        return GGUF_ABSENT;
    }
    int64_t v = 0;
    int kind = entry_int(entry, &v);
    if (kind < 0) {
        return wrong_type(g, entry, "an integer", e);
    }
    if (kind > 0 || v < min || v > max) {
        return err_set(e, ERR_FORMAT, "%.200s: at byte %zu: %s is %s%lld, allowed are %lld to %lld",
                       g->path, entry->at, key, kind > 0 ? "above " : "",
                       kind > 0 ? (long long)INT64_MAX : (long long)v, (long long)min,
                       (long long)max);
    }
    *out = v;
    return GGUF_FOUND;
}

int gguf_get_float(const struct gguf *g, const char *key, double min, double max, double *out,
                   struct err *e)
{
    const struct gguf_entry *entry = gguf_find_entry(g, key);
    if (!entry) {
        return GGUF_ABSENT;
    }
    if (entry->type != GGUF_F32 && entry->type != GGUF_F64) {
        return wrong_type(g, entry, "a float", e);
    }
    double v = decode_float(entry->scalar, entry->type);
    if (isnan(v) || v < min || v > max) {
        return err_set(e, ERR_FORMAT, "%.200s: at byte %zu: %s is %g, allowed are %g to %g",
                       g->path, entry->at, key, v, min, max);
    }
    *out = v;
    return GGUF_FOUND;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_entry *entry = gguf_find_entry(g, key);
    if (!entry) {
        return GGUF_ABSENT;
    }
    if (entry->type != GGUF_BOOL) {
        return wrong_type(g, entry, "a bool", e);
    }
    *out = *entry->scalar != 0;
    return GGUF_FOUND;
}

int gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct err *e)
{
    const struct gguf_entry *entry = gguf_find_entry(g, key);
    if (!entry) {
        return GGUF_ABSENT;
    }
    if (entry->type != GGUF_STRING) {
        return wrong_type(g, entry, "a string", e);
    }
    *out = entry->str;
    return GGUF_FOUND;
}

int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type type,
                   struct gguf_array *out, struct err *e)
{
    const struct gguf_entry *entry = gguf_find_entry(g, key);
    if (!entry) {
        return GGUF_ABSENT;
    }
    if (entry->type != GGUF_ARRAY) {
        return wrong_type(g, entry, "an array", e);
    }
    if (entry->array.type != type) {
        return err_set(e, ERR_FORMAT, "%.200s: at byte %zu: %.100s is an array of %s, %s is needed",
                       g->path, entry->at, entry->key, gguf_value_type_name(entry->array.type),
                       gguf_value_type_name(type));
    }
    *out = entry->array;
    return GGUF_FOUND;
}

size_t gguf_n_keys(const struct gguf *g)
{
    return g->n_entries;
}

const char *gguf_key_at(const struct gguf *g, size_t i, enum gguf_value_type *type)
{
    if (i >= g->n_entries) {
        return NULL;
    }
    *type = g->entries[i].type;
    return g->entries[i].key;
}
