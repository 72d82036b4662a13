/* Writes JSON into a buf: commas, escapes, and numbers that are always finite. The
 * caller balances begin and end; a full buf is found out once, with buf_failed. */
#ifndef TAMP_SERVER_JSON_WRITE_H
#define TAMP_SERVER_JSON_WRITE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_writer {
    struct buf *out;
    bool comma; /* the next value needs one before it */
};

void json_writer_init(struct json_writer *w, struct buf *out);
void json_begin_object(struct json_writer *w);
void json_end_object(struct json_writer *w);
void json_begin_array(struct json_writer *w);
void json_end_array(struct json_writer *w);
void json_key(struct json_writer *w, const char *key);
/* The inside of a string, without quotes: pieces of whole characters may follow each other. */
void json_escape(struct buf *out, const char *s, size_t n);
/* Bytes that are not UTF-8 become U+FFFD. s == NULL writes null. */
void json_string_n(struct json_writer *w, const char *s, size_t n);
void json_string(struct json_writer *w, const char *s);
void json_int(struct json_writer *w, int64_t v);
/* Up to `decimals` places, trailing zeros removed; NaN and infinities become null. */
void json_number(struct json_writer *w, double v, int decimals);
void json_bool(struct json_writer *w, bool v);
void json_null(struct json_writer *w);
/* A key and its value. */
void json_put(struct json_writer *w, const char *key, const char *v);
void json_put_int(struct json_writer *w, const char *key, int64_t v);
/* A value that is JSON already. */
void json_raw(struct json_writer *w, const char *json, size_t n);

#endif
