/* GGUF files made byte by byte, whole and damaged, one row each. */
#ifndef TAMP_TESTS_GGUF_CASES_H
#define TAMP_TESTS_GGUF_CASES_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

struct gguf_case_tensor {
    const char *name;
    uint32_t n_dims;
    uint64_t ne[5];
    uint32_t type;
    uint64_t n_bytes; /* data written, and how far the next offset moves */
    uint64_t offset_error;
};

/* One file: zero means the ordinary value. */
struct gguf_case {
    const char *name;
    const char *want; /* part of the message; NULL = the file is accepted */
    const char *magic;
    uint32_t version;
    uint64_t n_tensors_claimed;
    uint64_t n_entries_claimed;
    int (*entries)(struct buf *b); /* writes metadata, returns how many entries */
    struct gguf_case_tensor tensors[3];
    size_t alignment;     /* what the offsets are written with */
    size_t missing_bytes; /* cut from the end */
};

extern const struct gguf_case gguf_cases[];
extern const size_t n_gguf_cases;

/* The row of this name; the test fails when there is none. */
const struct gguf_case *gguf_case_named(const char *name);
/* The file's bytes; buf_free when done. */
void gguf_case_build(struct buf *b, const struct gguf_case *s);

#endif
