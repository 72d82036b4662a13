/* The inside of a parsed GGUF, shared by the parser, the look-ups and their tests.
 * Nobody outside tensor/gguf*.c and the tests includes this. */
#ifndef TAMP_TENSOR_GGUF_IMPL_H
#define TAMP_TENSOR_GGUF_IMPL_H

#include "base/arena.h"
#include "tensor/gguf.h"

/* What the look-up tables of one file may take: the largest vocabulary known
 * (262,144 tokens with scores and types) needs about 5 MiB. */
#define GGUF_METADATA_MAX_BYTES ((size_t)256 << 20)
#define GGUF_ALIGNMENT_MAX      65536u
#define GGUF_KEY_MAX_BYTES      65535u
#define GGUF_NAME_MAX_BYTES     64u

/* One metadata entry; views point into the file, the key is a copy with a NUL. */
struct gguf_entry {
    const char *key;
    enum gguf_value_type type;
    size_t at;               /* byte offset of the entry, for messages */
    const uint8_t *scalar;   /* fixed-size types: the bytes in the file, unaligned */
    struct gguf_string str;  /* GGUF_STRING */
    struct gguf_array array; /* GGUF_ARRAY */
};

/* Sorted by name: look-ups are O(log n) whatever names a file brings. */
struct gguf_index {
    const char *name;
    size_t at; /* position in the array that is indexed */
};

struct gguf {
    struct arena arena; /* entries, tensors, indexes, string arrays */
    const char *path;
    const uint8_t *base;
    size_t size;
    uint32_t version;
    struct gguf_entry *entries;
    struct gguf_index *entry_index;
    size_t n_entries;
    struct gguf_tensor *tensors;
    struct gguf_index *tensor_index;
    size_t n_tensors;
    size_t data_at; /* byte offset of the tensor data */
};

/* Parse `size` bytes at `data`, which must outlive the result; `path` is for messages.
 * NULL with *e set. The result is given back with gguf_free_view. */
struct gguf *gguf_parse_view(const void *data, size_t size, const char *path, struct err *e);
void gguf_free_view(struct gguf *g);

/* Bytes of one element of a metadata type; 0 for strings and arrays. */
size_t gguf_value_bytes(enum gguf_value_type type);

/* The entry of that key, or NULL. */
const struct gguf_entry *gguf_find_entry(const struct gguf *g, const char *key);
/* Position in the indexed array, or (size_t)-1. */
size_t gguf_index_find(const struct gguf_index *index, size_t n, const char *name);

/* `name` with everything that is not printable ASCII as '?', cut to fit: names come
 * from the file and messages go to terminals. */
const char *gguf_printable(const char *name, size_t len, char out[80]);

#endif
