/* Reading GGUF v2/v3, little endian, memory-mapped and read-only.
 *
 * A file is untrusted input: gguf_open checks every count, length, offset and
 * product before it is used, and afterwards every view below points inside the
 * mapping. Format: the GGUF specification of the ggml project. */
#ifndef TAMP_TENSOR_GGUF_H
#define TAMP_TENSOR_GGUF_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers as in the file. Types not in this list are refused at use with their number. */
enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_BF16 = 30,
    TENSOR_TYPE_COUNT = 31
};

struct tensor_type_traits {
    const char *name;   /* "Q4_1"; NULL = tamp does not know this type */
    int block_elements; /* elements in one block, 1 for plain types */
    int block_bytes;
};
/* NULL for an unknown type. */
const struct tensor_type_traits *tensor_type_traits(enum tensor_type type);

enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPE_COUNT
};

struct gguf_string {
    const char *ptr; /* not NUL-terminated, inside the mapping */
    size_t len;
};

struct gguf_tensor {
    char name[65]; /* NUL-terminated, at most 64 bytes */
    enum tensor_type type;
    int n_dims;
    int64_t ne[4]; /* ne[0] is contiguous: a [n_out, n_in] matrix has ne = {n_in, n_out} */
    size_t n_bytes;
    const void *data; /* inside the mapping, aligned as the file says */
};

struct gguf;

/* NULL with *e set ("FILE: at byte N: what, have/want"). */
struct gguf *gguf_open(const char *path, struct err *e);
void gguf_close(struct gguf *g); /* every view becomes invalid */
/* The mapping stays valid, but its pages need not stay in memory: they are read again when
 * touched. For after a copy was made of what is used often. */
void gguf_release_pages(const struct gguf *g);

const char *gguf_path(const struct gguf *g);
uint32_t gguf_version(const struct gguf *g);
size_t gguf_file_bytes(const struct gguf *g);

size_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
/* NULL if there is none of that name. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* Metadata. Getters return GGUF_FOUND, GGUF_ABSENT (*out untouched), or -1 with
 * *e naming the key (wrong type, out of range). Any integer type is accepted
 * where an integer is asked for; floats accept F32 and F64. */
enum { GGUF_FOUND = 0, GGUF_ABSENT = 1 };

int gguf_get_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct err *e);
int gguf_get_float(const struct gguf *g, const char *key, double min, double max, double *out,
                   struct err *e);
int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
int gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct err *e);

/* Arrays: the exact element type is required. Fixed-size elements: `data` is the
 * packed array in the file (may be unaligned: read with memcpy). */
struct gguf_array {
    enum gguf_value_type type;
    size_t n;
    const void *data;                  /* fixed-size element types */
    const struct gguf_string *strings; /* GGUF_STRING arrays */
};
int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type type,
                   struct gguf_array *out, struct err *e);

/* Iteration, for `tamp inspect`. */
size_t gguf_n_keys(const struct gguf *g);
const char *gguf_key_at(const struct gguf *g, size_t i, enum gguf_value_type *type);

/* Any value: which member holds depends on the type. */
struct gguf_value {
    enum gguf_value_type type;
    union {
        uint64_t u64; /* GGUF_U8, U16, U32, U64 */
        int64_t i64;  /* GGUF_I8, I16, I32, I64 */
        double f64;   /* GGUF_F32, F64 */
        bool flag;    /* GGUF_BOOL */
        struct gguf_string string;
        struct gguf_array array;
    } v;
};
/* The value of key i < gguf_n_keys(g). */
struct gguf_value gguf_value_at(const struct gguf *g, size_t i);
/* Element i < a->n of an array. */
struct gguf_value gguf_array_at(const struct gguf_array *a, size_t i);
const char *gguf_value_type_name(enum gguf_value_type type); /* "u32", "string", ... */
/* "Q4_1"; also for types that tamp cannot compute with. */
const char *gguf_tensor_type_name(const struct gguf_tensor *t);

#endif
