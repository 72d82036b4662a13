#include "cmd/calibrate_pairs.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "server/json_fields.h"
#include "server/json_write.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES (4 << 20)

struct calibrate_pair {
    uint64_t key; /* 0 = free */
    struct calibrate_answer answer;
};

/* ---- the table ------------------------------------------------------------------------ */

/* Where the key stands or would stand. */
static struct calibrate_pair *slot_of(struct calibrate_pair *slots, size_t cap, uint64_t key)
{
    size_t i = (size_t)key & (cap - 1);
    while (slots[i].key && slots[i].key != key) {
        i = (i + 1) & (cap - 1);
    }
    return &slots[i];
}

static int grow(struct calibrate_pairs *p, struct err *e)
{
    size_t cap = p->cap ? 2 * p->cap : 1024;
    struct calibrate_pair *slots = mem_zalloc(cap, sizeof *slots);
    if (!slots) {
        return err_no_memory(e, cap * sizeof *slots);
    }
    for (size_t i = 0; i < p->cap; i++) {
        if (p->slots[i].key) {
            *slot_of(slots, cap, p->slots[i].key) = p->slots[i];
        }
    }
    mem_free(p->slots);
    p->slots = slots;
    p->cap = cap;
    return 0;
}

static int keep(struct calibrate_pairs *p, uint64_t key, const struct calibrate_answer *a,
                struct err *e)
{
    if (p->n >= p->cap / 2 && grow(p, e)) {
        return -1;
    }
    struct calibrate_pair *slot = slot_of(p->slots, p->cap, key);
    if (slot->key) {
        return 0;
    }
    char *text = mem_strdup(a->text);
    if (!text) {
        return err_no_memory(e, strlen(a->text) + 1);
    }
    *slot = (struct calibrate_pair){.key = key, .answer = *a};
    slot->answer.text = text;
    p->n++;
    return 0;
}

const struct calibrate_answer *calibrate_pairs_find(const struct calibrate_pairs *p, uint64_t key)
{
    if (!p->cap) {
        return NULL;
    }
    const struct calibrate_pair *slot = slot_of(p->slots, p->cap, key);
    return slot->key ? &slot->answer : NULL;
}

/* ---- the file --------------------------------------------------------------------------- */

static double number_of(const cJSON *root, const char *name)
{
    const cJSON *v = json_member(root, name);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static int take_line(struct calibrate_pairs *p, const char *line, size_t len, struct err *e)
{
    cJSON *root = json_parse_object(line, len, NULL, e);
    if (!root) {
        return -1;
    }
    const cJSON *key = json_member(root, "key");
    const cJSON *text = json_member(root, "text");
    int rc;
    if (!cJSON_IsString(key) || !cJSON_IsString(text)) {
        rc = err_set(e, ERR_FORMAT, "it has no key or no text");
    } else {
        const struct calibrate_answer a = {.text = text->valuestring,
                                           .mean_rows = number_of(root, "mean_rows"),
                                           .prompt_ms = number_of(root, "prompt_ms"),
                                           .compress_ms = number_of(root, "compress_ms")};
        uint64_t number = strtoull(key->valuestring, NULL, 16);
        rc = number ? keep(p, number, &a, e) : err_set(e, ERR_FORMAT, "its key is no number");
    }
    cJSON_Delete(root);
    return rc;
}

/* Every whole line into the table; *end is where the last one ends. */
static int read_all(struct calibrate_pairs *p, off_t *end, struct err *e)
{
    static char chunk[1 << 16]; /* one thread, once */
    struct buf rest;            /* what has come of a line */
    size_t got;
    int rc = 0;
    *end = 0;
    buf_init(&rest, LINE_MAX_BYTES + sizeof chunk);
    while (!rc && (got = fread(chunk, 1, sizeof chunk, p->file)) > 0) {
        buf_append(&rest, chunk, got);
        size_t begin = 0;
        const char *stop;
        while (!rc && (stop = memchr(buf_str(&rest) + begin, '\n', rest.len - begin))) {
            size_t len = (size_t)(stop - buf_str(&rest)) - begin;
            p->n_found++;
            rc = take_line(p, buf_str(&rest) + begin, len, e);
            begin += len + 1;
        }
        *end += (off_t)begin;
        buf_drop(&rest, begin);
        if (!rc && buf_failed(&rest)) {
            rc = err_no_memory(e, LINE_MAX_BYTES);
        }
    }
    buf_free(&rest);
    return rc ? err_prefix(e, "line %d", p->n_found) : 0;
}

int calibrate_pairs_open(struct calibrate_pairs *p, const char *path, struct err *e)
{
    *p = (struct calibrate_pairs){0};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    p->file = fd < 0 ? NULL : fdopen(fd, "r+");
    if (!p->file) {
        int saved = errno;
        if (fd >= 0) {
            close(fd);
        }
        return err_set(e, ERR_IO, "cannot open %s: %s", path, strerror(saved));
    }
    off_t end;
    if (grow(p, e) || read_all(p, &end, e)) {
        return err_prefix(e, "%s (remove it to begin anew)", path);
    }
    if (fseeko(p->file, end, SEEK_SET) || ftruncate(fd, end)) {
        return err_set(e, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    return 0;
}

int calibrate_pairs_add(struct calibrate_pairs *p, uint64_t key, int line, const char *plan,
                        const struct calibrate_answer *a, struct err *e)
{
    struct buf out;
    struct json_writer w;
    char name[24];
    snprintf(name, sizeof name, "%016" PRIx64, key);
    buf_init(&out, LINE_MAX_BYTES);
    json_writer_init(&w, &out);
    json_begin_object(&w);
    json_key(&w, "key");
    json_string(&w, name);
    json_key(&w, "line");
    json_int(&w, line);
    json_key(&w, "plan");
    json_string(&w, plan);
    json_key(&w, "text");
    json_string(&w, a->text);
    json_key(&w, "mean_rows");
    json_number(&w, a->mean_rows, 3);
    json_key(&w, "prompt_ms");
    json_number(&w, a->prompt_ms, 3);
    json_key(&w, "compress_ms");
    json_number(&w, a->compress_ms, 3);
    json_end_object(&w);
    buf_putc(&out, '\n');
    int rc = keep(p, key, a, e);
    if (!rc && buf_failed(&out)) {
        rc = err_no_memory(e, LINE_MAX_BYTES);
    }
    if (!rc && (fwrite(out.data, 1, out.len, p->file) != out.len || fflush(p->file))) {
        rc = err_set(e, ERR_IO, "cannot write the answers: %s", strerror(errno));
    }
    buf_free(&out);
    return rc;
}

void calibrate_pairs_close(struct calibrate_pairs *p)
{
    for (size_t i = 0; i < p->cap; i++) {
        mem_free(p->slots[i].answer.text);
    }
    mem_free(p->slots);
    if (p->file) {
        (void)fclose(p->file); /* every line was flushed */
    }
    *p = (struct calibrate_pairs){0};
}
