/* The GGUF parser: one pass over a view of bytes, into tables that are small beside
 * the file.
 *
 * Nothing in the file is believed. A count is compared with the bytes that are left
 * divided by the least an element takes, before anything is allocated for it; sums and
 * products go through base/checked.h; offsets are not only checked against the end of
 * the file but must be exactly where the format puts them, so that two tensors never
 * overlap. Each of these was a vulnerability of a loader somewhere. Strings stay where
 * they are and become views; the parser touches each metadata byte once and no tensor
 * data at all. */
#include "base/alloc.h"
#include "base/checked.h"
#include "tensor/gguf_impl.h"
#include "tensor/quant.h"

#include <stdarg.h>
#include <string.h>

#define HEADER_BYTES      24u
#define DEFAULT_ALIGNMENT 32u
/* The least that an entry takes: key length, one byte of key, type, one byte. */
#define MIN_ENTRY_BYTES 14u
/* Name length, n_dims, type, offset; the name may be empty but not the rest. */
#define MIN_TENSOR_BYTES 24u

struct reader {
    struct gguf *g;
    size_t at;
    struct err *e;
};

static int bad_at(struct reader *r, enum err_code code, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static int bad_at(struct reader *r, enum err_code code, size_t at, const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(r->e, code, "%.200s: at byte %zu: %s", r->g->path, at, what);
}

const char *gguf_printable(const char *name, size_t len, char out[80])
{
    size_t n = len < 76 ? len : 76;
    for (size_t i = 0; i < n; i++) {
        out[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
    }
    memcpy(out + n, n < len ? "..." : "", n < len ? 4 : 1);
    return out;
}

static size_t left(const struct reader *r)
{
    return r->g->size - r->at;
}

/* The next n bytes, or NULL with the error set. */
static const uint8_t *take(struct reader *r, size_t n, const char *what)
{
    if (n > left(r)) {
        bad_at(r, ERR_FORMAT, r->at, "%s needs %zu bytes, have %zu; the file is cut off or damaged",
               what, n, left(r));
        return NULL;
    }
    const uint8_t *p = r->g->base + r->at;
    r->at += n;
    return p;
}

static int take_u32(struct reader *r, uint32_t *v, const char *what)
{
    const uint8_t *p = take(r, sizeof *v, what);
    if (!p) {
        return -1;
    }
    memcpy(v, p, sizeof *v);
    return 0;
}

static int take_u64(struct reader *r, uint64_t *v, const char *what)
{
    const uint8_t *p = take(r, sizeof *v, what);
    if (!p) {
        return -1;
    }
    memcpy(v, p, sizeof *v);
    return 0;
}

/* A count of things that take at least min_bytes each in the rest of the file. */
static int take_count(struct reader *r, size_t min_bytes, size_t *n, const char *what)
{
    size_t at = r->at;
    uint64_t v;
    if (take_u64(r, &v, what)) {
        return -1;
    }
    if (v > left(r) / min_bytes) {
        return bad_at(r, ERR_FORMAT, at, "%s is %llu, but the %zu bytes left hold at most %zu",
                      what, (unsigned long long)v, left(r), left(r) / min_bytes);
    }
    *n = (size_t)v;
    return 0;
}

static int take_string(struct reader *r, struct gguf_string *s, const char *what)
{
    size_t n = 0;
    if (take_count(r, 1, &n, what)) {
        return -1;
    }
    s->ptr = (const char *)take(r, n, what);
    s->len = n;
    return s->ptr ? 0 : -1;
}

/* A name that will be a C string: bounded, without NUL. */
static int take_name(struct reader *r, size_t max, struct gguf_string *s, const char *what)
{
    size_t at = r->at;
    if (take_string(r, s, what)) {
        return -1;
    }
    if (s->len > max) {
        return bad_at(r, ERR_FORMAT, at, "%s has %zu bytes, at most %zu are allowed", what, s->len,
                      max);
    }
    if (memchr(s->ptr, 0, s->len)) {
        return bad_at(r, ERR_FORMAT, at, "%s holds a zero byte", what);
    }
    return 0;
}

static void *table_alloc(struct reader *r, size_t n, size_t size, const char *what)
{
    struct arena *a = &r->g->arena;
    void *p = arena_zalloc(a, n, size);
    if (p) {
        return p;
    }
    size_t bytes;
    if (!ck_mul(n, size, &bytes) || bytes > a->max_bytes - a->used_bytes) {
        bad_at(r, ERR_TOO_LARGE, r->at, "the tables of %s would take more than %zu MiB", what,
               a->max_bytes >> 20);
    } else {
        err_no_memory(r->e, bytes);
    }
    return NULL;
}

size_t gguf_value_bytes(enum gguf_value_type type)
{
    static const uint8_t bytes[GGUF_VALUE_TYPE_COUNT] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return (unsigned)type < GGUF_VALUE_TYPE_COUNT ? bytes[type] : 0;
}

const char *gguf_value_type_name(enum gguf_value_type type)
{
    static const char *const names[GGUF_VALUE_TYPE_COUNT] = {
        "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
        "bool", "string", "array", "u64", "i64", "f64",
    };
    return (unsigned)type < GGUF_VALUE_TYPE_COUNT ? names[type] : "unknown";
}

static int take_value_type(struct reader *r, enum gguf_value_type *type, const char *what)
{
    size_t at = r->at;
    uint32_t v;
    if (take_u32(r, &v, what)) {
        return -1;
    }
    if (v >= GGUF_VALUE_TYPE_COUNT) {
        return bad_at(r, ERR_FORMAT, at, "%s is %u, the known ones are 0 to %d", what, v,
                      GGUF_VALUE_TYPE_COUNT - 1);
    }
    *type = (enum gguf_value_type)v;
    return 0;
}

static int take_string_array(struct reader *r, struct gguf_array *a)
{
    struct gguf_string *strings = table_alloc(r, a->n, sizeof *strings, "string arrays");
    if (!strings) {
        return -1;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (take_string(r, &strings[i], "the length of a string in an array")) {
            return -1;
        }
    }
    a->strings = strings;
    return 0;
}

static int take_array(struct reader *r, struct gguf_array *a)
{
    size_t at = r->at;
    if (take_value_type(r, &a->type, "the element type of an array")) {
        return -1;
    }
    if (a->type == GGUF_ARRAY) {
        return bad_at(r, ERR_UNSUPPORTED, at, "an array of arrays is not supported");
    }
    size_t size = a->type == GGUF_STRING ? sizeof(uint64_t) : gguf_value_bytes(a->type);
    if (take_count(r, size, &a->n, "the length of an array")) {
        return -1;
    }
    if (a->type == GGUF_STRING) {
        return take_string_array(r, a);
    }
    a->data = take(r, a->n * size, "an array");
    return a->data ? 0 : -1;
}

static int take_value(struct reader *r, struct gguf_entry *entry)
{
    if (entry->type == GGUF_STRING) {
        return take_string(r, &entry->str, "the length of a string");
    }
    if (entry->type == GGUF_ARRAY) {
        return take_array(r, &entry->array);
    }
    size_t at = r->at;
    entry->scalar = take(r, gguf_value_bytes(entry->type), "a value");
    if (entry->scalar && entry->type == GGUF_BOOL && *entry->scalar > 1) {
        return bad_at(r, ERR_FORMAT, at, "a bool is %d, not 0 or 1", *entry->scalar);
    }
    return entry->scalar ? 0 : -1;
}

static int take_entry(struct reader *r, struct gguf_entry *entry)
{
    struct gguf_string key;
    entry->at = r->at;
    if (take_name(r, GGUF_KEY_MAX_BYTES, &key, "the length of a key")) {
        return -1;
    }
    if (key.len == 0) {
        return bad_at(r, ERR_FORMAT, entry->at, "a key is empty");
    }
    char *copy = table_alloc(r, key.len + 1, 1, "keys");
    if (!copy) {
        return -1;
    }
    memcpy(copy, key.ptr, key.len);
    entry->key = copy;
    if (take_value_type(r, &entry->type, "the type of a value")) {
        return -1;
    }
    return take_value(r, entry);
}

static int by_name(const void *a, const void *b)
{
    const struct gguf_index *x = a;
    const struct gguf_index *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* Sorts the index; the position of the later of two equal names, or -1 if all differ. */
static size_t index_sort(struct gguf_index *index, size_t n)
{
    qsort(index, n, sizeof *index, by_name);
    for (size_t i = 1; i < n; i++) {
        if (!strcmp(index[i - 1].name, index[i].name)) {
            return index[i].at;
        }
    }
    return (size_t)-1;
}

size_t gguf_index_find(const struct gguf_index *index, size_t n, const char *name)
{
    size_t lo = 0;
    size_t hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(index[mid].name, name);
        if (c == 0) {
            return index[mid].at;
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return (size_t)-1;
}

static int parse_entries(struct reader *r)
{
    struct gguf *g = r->g;
    g->entries = table_alloc(r, g->n_entries, sizeof *g->entries, "metadata");
    g->entry_index =
        g->entries ? table_alloc(r, g->n_entries, sizeof *g->entry_index, "metadata") : NULL;
    if (!g->entry_index) {
        return -1;
    }
    for (size_t i = 0; i < g->n_entries; i++) {
        if (take_entry(r, &g->entries[i])) {
            return -1;
        }
        g->entry_index[i] = (struct gguf_index){g->entries[i].key, i};
    }
    size_t twice = index_sort(g->entry_index, g->n_entries);
    if (twice != (size_t)-1) {
        const struct gguf_entry *entry = &g->entries[twice];
        char name[80];
        return bad_at(r, ERR_FORMAT, entry->at, "the key %s appears twice",
                      gguf_printable(entry->key, strlen(entry->key), name));
    }
    return 0;
}

static int read_alignment(struct reader *r, size_t *alignment)
{
    *alignment = DEFAULT_ALIGNMENT;
    const struct gguf_entry *entry = gguf_find_entry(r->g, "general.alignment");
    if (!entry) {
        return 0;
    }
    if (entry->type != GGUF_U32) {
        return bad_at(r, ERR_FORMAT, entry->at, "general.alignment has type %s, not u32",
                      gguf_value_type_name(entry->type));
    }
    uint32_t v;
    memcpy(&v, entry->scalar, sizeof v);
    if (v == 0 || (v & (v - 1)) || v > GGUF_ALIGNMENT_MAX) {
        return bad_at(r, ERR_FORMAT, entry->at,
                      "general.alignment is %u, not a power of two up to %u", v,
                      GGUF_ALIGNMENT_MAX);
    }
    *alignment = v;
    return 0;
}

static int take_shape(struct reader *r, struct gguf_tensor *t)
{
    size_t at = r->at;
    uint32_t n_dims;
    if (take_u32(r, &n_dims, "n_dims of a tensor")) {
        return -1;
    }
    if (n_dims > 4) {
        return bad_at(r, ERR_FORMAT, at, "a tensor has %u dimensions, at most 4 are allowed",
                      n_dims);
    }
    t->n_dims = (int)n_dims;
    uint64_t elements = 1;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t ne = 1;
        at = r->at;
        if (i < n_dims && take_u64(r, &ne, "a dimension of a tensor")) {
            return -1;
        }
        if (ne == 0) {
            return bad_at(r, ERR_FORMAT, at, "dimension %u of a tensor is zero", i);
        }
        if (!ck_mul_u64(elements, ne, &elements) || elements > INT64_MAX) {
            return bad_at(r, ERR_FORMAT, at, "dimension %u of a tensor is %llu: the product wraps",
                          i, (unsigned long long)ne);
        }
        t->ne[i] = (int64_t)ne;
    }
    return 0;
}

/* Type and size: the type may be one tamp cannot compute with, but its layout must be
 * known, or nothing behind this tensor could be checked. */
static int take_type(struct reader *r, struct gguf_tensor *t)
{
    size_t at = r->at;
    uint32_t type;
    if (take_u32(r, &type, "the type of a tensor")) {
        return -1;
    }
    const struct tensor_type_traits *layout = tensor_type_layout(type);
    if (!layout) {
        return bad_at(r, ERR_FORMAT, at, "tensor type %u is unknown", type);
    }
    if (t->ne[0] % layout->block_elements) {
        return bad_at(r, ERR_FORMAT, at,
                      "a row of %lld elements is not a whole number of %s blocks"
                      " of %d",
                      (long long)t->ne[0], layout->name, layout->block_elements);
    }
    size_t row_bytes;
    size_t rows = (size_t)t->ne[1] * (size_t)t->ne[2] * (size_t)t->ne[3];
    if (!ck_mul((size_t)(t->ne[0] / layout->block_elements), (size_t)layout->block_bytes,
                &row_bytes) ||
        !ck_mul(row_bytes, rows, &t->n_bytes)) {
        return bad_at(r, ERR_FORMAT, at, "the size of a tensor wraps");
    }
    t->type = (enum tensor_type)type;
    return 0;
}

/* *end is where the tensors so far end, padded, counted from the start of the data. */
static int take_tensor(struct reader *r, struct gguf_tensor *t, size_t alignment, size_t *end,
                       uint64_t *offset)
{
    struct gguf_string name;
    if (take_name(r, GGUF_NAME_MAX_BYTES, &name, "the name of a tensor")) {
        return -1;
    }
    memcpy(t->name, name.ptr, name.len);
    if (take_shape(r, t) || take_type(r, t)) {
        return -1;
    }
    size_t at = r->at;
    if (take_u64(r, offset, "the offset of a tensor")) {
        return -1;
    }
    char printable[80];
    if (*offset != *end) {
        return bad_at(r, ERR_FORMAT, at, "tensor %s is at offset %llu, not %zu",
                      gguf_printable(t->name, name.len, printable), (unsigned long long)*offset,
                      *end);
    }
    if (!ck_add(*end, t->n_bytes, end) || !ck_align(*end, alignment, end)) {
        return bad_at(r, ERR_FORMAT, at, "the end of tensor %s wraps",
                      gguf_printable(t->name, name.len, printable));
    }
    return 0;
}

/* The data starts behind the last tensor entry: only now can offsets become pointers. */
static int place_tensors(struct reader *r, const uint64_t *offsets, size_t alignment)
{
    struct gguf *g = r->g;
    if (!ck_align(r->at, alignment, &g->data_at)) {
        return bad_at(r, ERR_FORMAT, r->at, "the start of the tensor data wraps");
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        size_t begin;
        size_t end;
        if (!ck_add(g->data_at, (size_t)offsets[i], &begin) || !ck_add(begin, t->n_bytes, &end) ||
            end > g->size) {
            char name[80];
            return bad_at(r, ERR_FORMAT, g->data_at,
                          "tensor %s at offset %llu with %zu bytes ends behind the file of %zu "
                          "bytes; it is cut off, fetch it again",
                          gguf_printable(t->name, strlen(t->name), name),
                          (unsigned long long)offsets[i], t->n_bytes, g->size);
        }
        t->data = g->base + begin;
    }
    return 0;
}

static int index_tensors(struct reader *r)
{
    struct gguf *g = r->g;
    for (size_t i = 0; i < g->n_tensors; i++) {
        g->tensor_index[i] = (struct gguf_index){g->tensors[i].name, i};
    }
    size_t twice = index_sort(g->tensor_index, g->n_tensors);
    if (twice != (size_t)-1) {
        char name[80];
        const char *t = g->tensors[twice].name;
        return bad_at(r, ERR_FORMAT, r->at, "the tensor name %s appears twice",
                      gguf_printable(t, strlen(t), name));
    }
    return 0;
}

static int parse_tensors(struct reader *r)
{
    struct gguf *g = r->g;
    size_t alignment = 0;
    if (read_alignment(r, &alignment)) {
        return -1;
    }
    g->tensors = table_alloc(r, g->n_tensors, sizeof *g->tensors, "tensors");
    g->tensor_index =
        g->tensors ? table_alloc(r, g->n_tensors, sizeof *g->tensor_index, "tensors") : NULL;
    uint64_t *offsets =
        g->tensor_index ? table_alloc(r, g->n_tensors, sizeof *offsets, "tensors") : NULL;
    if (!offsets) {
        return -1;
    }
    size_t end = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (take_tensor(r, &g->tensors[i], alignment, &end, &offsets[i])) {
            return -1;
        }
    }
    return index_tensors(r) || place_tensors(r, offsets, alignment) ? -1 : 0;
}

static int parse_header(struct reader *r)
{
    struct gguf *g = r->g;
    if (g->size < HEADER_BYTES) {
        return bad_at(r, ERR_FORMAT, 0, "a GGUF header needs %u bytes, have %zu", HEADER_BYTES,
                      g->size);
    }
    if (memcmp(g->base, "GGUF", 4) != 0) {
        return bad_at(r, ERR_FORMAT, 0, "this is not a GGUF file: it does not begin with GGUF");
    }
    r->at = 4;
    if (take_u32(r, &g->version, "the version")) {
        return -1;
    }
    if (g->version == __builtin_bswap32(2) || g->version == __builtin_bswap32(3)) {
        return bad_at(r, ERR_UNSUPPORTED, 4,
                      "this is a big-endian GGUF; convert it to "
                      "little-endian");
    }
    if (g->version < 2 || g->version > 3) {
        return bad_at(r, ERR_UNSUPPORTED, 4, "GGUF version %u, tamp reads 2 and 3", g->version);
    }
    return take_count(r, MIN_TENSOR_BYTES, &g->n_tensors, "the number of tensors") ||
                   take_count(r, MIN_ENTRY_BYTES, &g->n_entries, "the number of metadata entries")
               ? -1
               : 0;
}

struct gguf *gguf_parse_view(const void *data, size_t size, const char *path, struct err *e)
{
    struct gguf *g = mem_zalloc(1, sizeof *g);
    if (!g) {
        err_no_memory(e, sizeof *g);
        return NULL;
    }
    arena_init(&g->arena, GGUF_METADATA_MAX_BYTES);
    g->path = path;
    g->base = data;
    g->size = size;
    struct reader r = {.g = g, .e = e};
    g->path = arena_strndup(&g->arena, path, strlen(path));
    if (!g->path) {
        err_no_memory(e, strlen(path) + 1);
    } else if (!parse_header(&r) && !parse_entries(&r) && !parse_tensors(&r)) {
        return g;
    }
    gguf_free_view(g);
    return NULL;
}

void gguf_free_view(struct gguf *g)
{
    if (g) {
        arena_clear(&g->arena);
        mem_free(g);
    }
}
