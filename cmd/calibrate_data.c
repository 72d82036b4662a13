#include "cmd/calibrate_data.h"

#include "base/alloc.h"
#include "server/json_fields.h"
#include "server/limits.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <nettle/base64.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- pictures by path --------------------------------------------------------------- */

static int read_file(const char *path, struct buf *out, struct err *e)
{
    char chunk[65536];
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, ERR_IO, "cannot open the picture %s: %s", path, strerror(errno));
    }
    while ((got = read(fd, chunk, sizeof chunk)) > 0 && !buf_append(out, chunk, (size_t)got)) {
    }
    int saved = errno;
    close(fd);
    if (got < 0) {
        return err_set(e, ERR_IO, "cannot read the picture %s: %s", path, strerror(saved));
    }
    return buf_failed(out)
               ? err_set(e, ERR_TOO_LARGE, "the picture %s is over %zu bytes", path, out->max_bytes)
               : 0;
}

/* "data:image/png;base64,..." of a file; the media type is a claim that nobody believes.
 * NULL with *e set. */
static char *data_url(const struct calibrate_data *d, const char *name, struct err *e)
{
    static const char head[] = "data:image/png;base64,";
    char path[PATH_MAX];
    int n = *name == '/' ? snprintf(path, sizeof path, "%s", name)
                         : snprintf(path, sizeof path, "%s/%s", d->folder, name);
    if (n < 0 || (size_t)n >= sizeof path) {
        err_set(e, ERR_INVALID, "the path of a picture, '%.64s...', is too long", name);
        return NULL;
    }
    struct buf bytes;
    buf_init(&bytes, LIMIT_IMAGE_BYTES);
    char *url = NULL;
    if (!read_file(path, &bytes, e)) {
        size_t text = BASE64_ENCODE_RAW_LENGTH(bytes.len);
        url = mem_alloc(sizeof head + text, 1);
        if (url) {
            memcpy(url, head, sizeof head - 1);
            base64_encode_raw(url + sizeof head - 1, bytes.len, (const uint8_t *)buf_str(&bytes));
            url[sizeof head - 1 + text] = '\0';
        } else {
            err_no_memory(e, sizeof head + text);
        }
    }
    buf_free(&bytes);
    return url;
}

static bool is_url(const char *s)
{
    return strncmp(s, "data:", 5) == 0 || strstr(s, "://") != NULL;
}

/* The part's picture as a data URL; what is not of that shape is left for the parser. */
static int inline_part(const struct calibrate_data *d, cJSON *part, bool *changed, struct err *e)
{
    cJSON *image = cJSON_GetObjectItemCaseSensitive(part, "image_url");
    cJSON *url = cJSON_IsObject(image) ? cJSON_GetObjectItemCaseSensitive(image, "url") : image;
    if (!cJSON_IsString(url) || is_url(url->valuestring)) {
        return 0;
    }
    char *text = data_url(d, url->valuestring, e);
    if (!text) {
        return -1;
    }
    bool ok = cJSON_SetValuestring(url, text) != NULL;
    size_t n = strlen(text);
    mem_free(text);
    *changed = true;
    return ok ? 0 : err_no_memory(e, n);
}

/* The body of one line with its pictures in it: NULL with *e set, else mem_free. */
static char *complete_body(const struct calibrate_data *d, const char *line, size_t len,
                           struct err *e)
{
    bool changed = false;
    int rc = 0;
    cJSON *root = json_parse_object(line, len, NULL, e);
    if (!root) {
        return NULL;
    }
    const cJSON *messages = cJSON_GetObjectItemCaseSensitive(root, "messages");
    for (cJSON *m = messages ? messages->child : NULL; m && !rc; m = m->next) {
        cJSON *content = cJSON_GetObjectItemCaseSensitive(m, "content");
        for (cJSON *p = cJSON_IsArray(content) ? content->child : NULL; p && !rc; p = p->next) {
            rc = inline_part(d, p, &changed, e);
        }
    }
    /* Untouched bodies stay as they are written: printing would turn 1.0 into 1. */
    char *body = rc ? NULL : changed ? cJSON_PrintUnformatted(root) : mem_strndup(line, len);
    if (!rc && !body) {
        err_no_memory(e, len);
    }
    cJSON_Delete(root);
    return body;
}

/* ---- lines -------------------------------------------------------------------------- */

static char *read_line(const struct calibrate_data *d, const struct calibrate_item *item,
                       struct err *e)
{
    char *line = mem_alloc(item->len + 1, 1);
    if (!line) {
        err_no_memory(e, item->len + 1);
        return NULL;
    }
    for (size_t n = 0; n < item->len;) {
        ssize_t got = pread(d->fd, line + n, item->len - n, item->offset + (off_t)n);
        if (got <= 0) {
            err_set(e, ERR_IO, "line %d cannot be read: %s", item->line,
                    got < 0 ? strerror(errno) : "the file became shorter");
            mem_free(line);
            return NULL;
        }
        n += (size_t)got;
    }
    line[item->len] = '\0';
    return line;
}

/* The whole body of a request: NULL with *e set, else mem_free. */
static char *body_of(const struct calibrate_data *d, int i, struct err *e)
{
    char *line = read_line(d, &d->items[i], e);
    char *body = line ? complete_body(d, line, d->items[i].len, e) : NULL;
    mem_free(line);
    return body;
}

static int parse(const char *body, const struct chat_request_limits *limits, struct chat_request *r,
                 struct err *e)
{
    if (chat_request_parse(r, body, strlen(body), limits, e)) {
        return -1;
    }
    r->engine.gen.temperature = 0;
    r->engine.gen.n_choices = 1;
    r->engine.gen.n_top_logprobs = -1;
    r->engine.overlay = false;
    r->engine.cache_prompt = false; /* the times are to be those of new requests */
    return 0;
}

int calibrate_data_request(const struct calibrate_data *d, int i,
                           const struct chat_request_limits *limits, struct chat_request *r,
                           struct err *e)
{
    *r = (struct chat_request){0};
    char *body = body_of(d, i, e);
    if (!body) {
        return -1;
    }
    int rc = parse(body, limits, r, e);
    mem_free(body);
    return rc;
}

/* Check line `item` and remember what it asks. */
static int look_at(struct calibrate_data *d, int i, const struct chat_request_limits *limits,
                   struct err *e)
{
    struct calibrate_item *item = &d->items[i];
    struct chat_request r = {0};
    char *body = body_of(d, i, e);
    int rc = body ? parse(body, limits, &r, e) : -1;
    if (!rc) {
        const cJSON *expected = json_member(r.root, "expected");
        struct sha256_ctx sha;
        sha256_init(&sha);
        sha256_update(&sha, strlen(body), (const uint8_t *)body);
        sha256_digest(&sha, sizeof item->digest, item->digest);
        item->n_images = r.engine.chat.n_images;
        d->n_with_images += item->n_images > 0;
        if (expected && (!cJSON_IsString(expected) || !*expected->valuestring)) {
            rc = err_set(e, ERR_TYPE, "'expected' must be a string that is not empty");
        } else if (expected) {
            item->expected = mem_strdup(expected->valuestring);
            d->n_with_expected++;
            rc = item->expected ? 0 : err_no_memory(e, strlen(expected->valuestring));
        }
    }
    mem_free(body);
    chat_request_free(&r);
    return rc ? err_prefix(e, "line %d", item->line) : 0;
}

static int add_line(struct calibrate_data *d, int *cap, const struct calibrate_item *item,
                    struct err *e)
{
    if (item->len > LIMIT_BODY_BYTES) {
        return err_set(e, ERR_TOO_LARGE, "line %d is over %zu bytes", item->line, LIMIT_BODY_BYTES);
    }
    if (d->n == CALIBRATE_MAX_REQUESTS) {
        return err_set(e, ERR_TOO_LARGE, "there are more than %d requests", CALIBRATE_MAX_REQUESTS);
    }
    if (d->n == *cap) {
        int larger = *cap ? 2 * *cap : 256;
        struct calibrate_item *items = mem_realloc(d->items, (size_t)larger, sizeof *items);
        if (!items) {
            return err_no_memory(e, (size_t)larger * sizeof *items);
        }
        d->items = items;
        *cap = larger;
    }
    d->items[d->n++] = *item;
    return 0;
}

/* Where the lines are; those of blanks alone are left out. */
static int find_lines(struct calibrate_data *d, struct err *e)
{
    static char chunk[1 << 16]; /* one thread, once */
    struct calibrate_item item = {.line = 1};
    bool blank = true;
    off_t at = 0;
    int cap = 0;
    ssize_t got;
    while ((got = read(d->fd, chunk, sizeof chunk)) > 0) {
        for (ssize_t k = 0; k < got; k++, at++) {
            if (chunk[k] != '\n') {
                blank = blank && strchr(" \t\r", chunk[k]);
                item.len++;
                continue;
            }
            if (!blank && add_line(d, &cap, &item, e)) {
                return -1;
            }
            item = (struct calibrate_item){.line = item.line + 1, .offset = at + 1};
            blank = true;
        }
    }
    if (got < 0) {
        return err_set(e, ERR_IO, "cannot be read: %s", strerror(errno));
    }
    return blank ? 0 : add_line(d, &cap, &item, e);
}

int calibrate_data_open(struct calibrate_data *d, const char *path,
                        const struct chat_request_limits *limits, struct err *e)
{
    *d = (struct calibrate_data){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (d->fd < 0) {
        return err_set(e, ERR_IO, "--data: cannot open %s: %s", path, strerror(errno));
    }
    const char *slash = strrchr(path, '/');
    d->folder = slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    if (!d->folder) {
        close(d->fd);
        return err_no_memory(e, strlen(path));
    }
    struct stat st;
    int rc = 0;
    if (fstat(d->fd, &st) || !S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_INVALID, "it must be a file: it is read more than once");
    }
    rc = rc ? rc : find_lines(d, e);
    for (int i = 0; !rc && i < d->n; i++) {
        rc = look_at(d, i, limits, e);
    }
    return rc ? err_prefix(e, "--data %s", path) : 0;
}

void calibrate_data_close(struct calibrate_data *d)
{
    for (int i = 0; i < d->n; i++) {
        mem_free(d->items[i].expected);
    }
    mem_free(d->items);
    if (d->folder) {
        close(d->fd);
    }
    mem_free(d->folder);
    *d = (struct calibrate_data){0};
}
