#include "tests/unit/gguf_writer.h"

#include "tensor/gguf_impl.h"
#include "tests/test.h"

#include <string.h>

void gguf_writer_init(struct gguf_writer *w)
{
    buf_init(&w->keys, (size_t)64 << 20);
    w->n_keys = 0;
}

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_text(struct buf *b, const char *s, size_t n)
{
    put_u64(b, n);
    buf_append(b, s, n);
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_value_type type)
{
    put_text(&w->keys, key, strlen(key));
    put_u32(&w->keys, type);
    w->n_keys++;
}

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    put_key(w, key, GGUF_U32);
    put_u32(&w->keys, value);
}

void gguf_writer_bool(struct gguf_writer *w, const char *key, int value)
{
    put_key(w, key, GGUF_BOOL);
    buf_putc(&w->keys, (char)value);
}

void gguf_writer_string(struct gguf_writer *w, const char *key, const char *value)
{
    put_key(w, key, GGUF_STRING);
    put_text(&w->keys, value, strlen(value));
}

void gguf_writer_strings(struct gguf_writer *w, const char *key, const char *const *values,
                         const size_t *lens, size_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->keys, GGUF_STRING);
    put_u64(&w->keys, n);
    for (size_t i = 0; i < n; i++) {
        put_text(&w->keys, values[i], lens ? lens[i] : strlen(values[i]));
    }
}

void gguf_writer_array(struct gguf_writer *w, const char *key, enum gguf_value_type type,
                       const void *values, size_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->keys, type);
    put_u64(&w->keys, n);
    buf_append(&w->keys, values, 4 * n);
}

struct gguf *gguf_writer_open(struct gguf_writer *w)
{
    struct buf file;
    buf_init(&file, (size_t)65 << 20);
    buf_puts(&file, "GGUF");
    put_u32(&file, 3);
    put_u64(&file, 0);
    put_u64(&file, w->n_keys);
    buf_append(&file, buf_str(&w->keys), w->keys.len);
    CHECK(!buf_failed(&w->keys) && !buf_failed(&file));
    buf_free(&w->keys);
    w->keys = file; /* the parsed view points into it */
    struct err e = ERR_INIT;
    struct gguf *g = gguf_parse_view(file.data, file.len, "memory", &e);
    if (!g) {
        FAIL("the writer's file is refused: %s", e.msg);
    }
    return g;
}

void gguf_writer_close(struct gguf_writer *w, struct gguf *g)
{
    gguf_free_view(g);
    buf_free(&w->keys);
}
