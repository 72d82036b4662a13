/* Growable bytes with a ceiling given at birth. Always NUL-terminated after the
 * first append, so `data` can be printed; `len` does not count that NUL.
 * After a failed append the buffer is marked failed, and further appends do
 * nothing: check once at the end with buf_failed. */
#ifndef TAMP_BASE_BUF_H
#define TAMP_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* NULL while empty */
    size_t len;
    size_t cap;
    size_t max_bytes;
    bool failed;
};

void buf_init(struct buf *b, size_t max_bytes);
/* 0, or -1 when over the ceiling or out of memory. */
int buf_append(struct buf *b, const void *data, size_t n);
int buf_puts(struct buf *b, const char *s);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buf_failed(const struct buf *b);
const char *buf_str(const struct buf *b); /* "" while empty */
/* Hands the bytes over to the caller (mem_free) and empties the buffer. */
char *buf_take(struct buf *b, size_t *len);
/* Forget the first n bytes, n <= len: what is left moves to the front. */
void buf_drop(struct buf *b, size_t n);
void buf_clear(struct buf *b); /* keep the memory, forget the content */
void buf_free(struct buf *b);

#endif
