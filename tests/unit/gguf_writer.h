/* Small GGUF files made in memory, metadata only, for tests of what reads them. */
#ifndef TAMP_TESTS_GGUF_WRITER_H
#define TAMP_TESTS_GGUF_WRITER_H

#include "base/buf.h"
#include "tensor/gguf.h"

struct gguf_writer {
    struct buf keys;
    uint64_t n_keys;
};

void gguf_writer_init(struct gguf_writer *w);
void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_bool(struct gguf_writer *w, const char *key, int value);
void gguf_writer_string(struct gguf_writer *w, const char *key, const char *value);
/* n texts; lens NULL: they end with a NUL. */
void gguf_writer_strings(struct gguf_writer *w, const char *key, const char *const *values,
                         const size_t *lens, size_t n);
/* n elements of `type` (4 bytes each) as they stand. */
void gguf_writer_array(struct gguf_writer *w, const char *key, enum gguf_value_type type,
                       const void *values, size_t n);
/* The file, parsed; the test fails when it cannot be. Both are freed by gguf_writer_close. */
struct gguf *gguf_writer_open(struct gguf_writer *w);
void gguf_writer_close(struct gguf_writer *w, struct gguf *g);

#endif
