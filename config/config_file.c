/* The YAML file, by libcyaml. Its schema is made from the option table at run time:
 * every option is a string for libcyaml, so that schema_set alone decides what a value
 * may be and one message serves flag, environment and file. libcyaml reports where it
 * stopped reading, which is before a key that it does not know; so lines of keys are
 * looked up in the text. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "config/config.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES   (256 * 1024)
#define VALUE_MAX_BYTES  4096
#define PREFIX_MAX_BYTES (192 * 1024) /* more than any context that is served takes */
#define MAX_PROFILES     64

/* What libcyaml fills. */
struct document {
    char *option[CONFIG_MAX_OPTIONS]; /* in the order of the table; NULL = not in the file */
    struct config_profile *profiles;
    unsigned n_profiles;
};

/* The first error line of libcyaml, and the line in the file that it names. */
struct complaint {
    char text[256];
    int line;
};

struct file_schema {
    cyaml_schema_field_t profile_fields[6];
    cyaml_schema_value_t profile;
    cyaml_schema_field_t fields[CONFIG_MAX_OPTIONS + 2];
    cyaml_schema_value_t top;
};

static void *memory(void *ctx, void *p, size_t size)
{
    (void)ctx;
    if (size == 0) {
        mem_free(p);
        return NULL;
    }
    return mem_realloc(p, size, 1);
}

__attribute__((format(printf, 3, 0))) static void complain(cyaml_log_t level, void *ctx,
                                                           const char *fmt, va_list ap)
{
    struct complaint *c = ctx;
    char line[256];
    if (level < CYAML_LOG_ERROR) {
        return;
    }
    vsnprintf(line, sizeof line, fmt, ap);
    line[strcspn(line, "\n")] = '\0';
    const char *number = strstr(line, "(line: ");
    if (number && c->line == 0) {
        c->line = (int)strtol(number + 7, NULL, 10);
    }
    if (!*c->text && !strstr(line, "Backtrace:")) {
        const char *said = strncmp(line, "Load: ", 6) == 0 ? line + 6 : line;
        snprintf(c->text, sizeof c->text, "%s", said);
    }
}

static cyaml_schema_field_t string_field(const char *key, size_t offset, bool optional)
{
    return (cyaml_schema_field_t){
        .key = key,
        .data_offset = (uint32_t)offset,
        .value = {.type = CYAML_STRING,
                  .flags = CYAML_FLAG_POINTER | (optional ? CYAML_FLAG_OPTIONAL : 0),
                  .data_size = sizeof(char),
                  .string = {.min = 0, .max = VALUE_MAX_BYTES}}};
}

static void make_schema(struct file_schema *s)
{
    *s = (struct file_schema){0};
    s->profile_fields[0] = string_field("name", offsetof(struct config_profile, name), false);
    s->profile_fields[1] = string_field("from", offsetof(struct config_profile, from), true);
    s->profile_fields[2] = string_field("set", offsetof(struct config_profile, set), true);
    s->profile_fields[3] =
        string_field("static_prefix", offsetof(struct config_profile, static_prefix), true);
    s->profile_fields[3].value.string.max = PREFIX_MAX_BYTES;
    s->profile_fields[4] = string_field("static_prefix_file",
                                        offsetof(struct config_profile, static_prefix_file), true);
    s->profile = (cyaml_schema_value_t){.type = CYAML_MAPPING,
                                        .flags = CYAML_FLAG_DEFAULT,
                                        .data_size = sizeof(struct config_profile),
                                        .mapping = {.fields = s->profile_fields}};
    const struct schema *table = config_schema();
    int n = 0;
    for (int i = 0; i < table->n; i++) {
        if (!(table->options[i].flags & SCHEMA_NOT_IN_FILE)) {
            size_t at = offsetof(struct document, option) + (size_t)i * sizeof(char *);
            s->fields[n++] = string_field(table->options[i].name, at, true);
        }
    }
    s->fields[n] = (cyaml_schema_field_t){
        .key = "profiles",
        .data_offset = offsetof(struct document, profiles),
        .count_offset = offsetof(struct document, n_profiles),
        .count_size = sizeof(unsigned),
        .value = {.type = CYAML_SEQUENCE,
                  .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                  .data_size = sizeof(struct config_profile),
                  .sequence = {.entry = &s->profile, .min = 0, .max = MAX_PROFILES}}};
    s->top = (cyaml_schema_value_t){.type = CYAML_MAPPING,
                                    .flags = CYAML_FLAG_POINTER,
                                    .data_size = sizeof(struct document),
                                    .mapping = {.fields = s->fields}};
}

/* The line of the last "key:", 0 if there is none; indentation and "- " before it are
 * skipped. */
static int line_of(const char *text, size_t len, const char *key)
{
    size_t n = strlen(key);
    int line = 1;
    int found = 0;
    for (size_t at = 0; at < len; line++) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t end = newline ? (size_t)(newline - text) : len;
        size_t p = at;
        while (p < end && strchr(" -\"'", text[p])) {
            p++;
        }
        if (end - p > n && memcmp(text + p, key, n) == 0 && strchr(" :\"'", text[p + n])) {
            found = line;
        }
        at = end + 1;
    }
    return found;
}

/* The word after `prefix` in what libcyaml said; NULL if it said something else. */
static const char *word_after(const struct complaint *c, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(c->text, prefix, n) == 0 ? c->text + n : NULL;
}

static int explain(const char *name, const char *text, size_t len, cyaml_err_t code,
                   const struct complaint *c, struct err *e)
{
    if (code == CYAML_ERR_OOM) {
        return err_no_memory(e, len);
    }
    if (code == CYAML_ERR_ALIAS) {
        return err_reason(e, ERR_FORMAT, "invalid_config",
                          "%s:%d: anchors and aliases (& and *) are not read; write the value out",
                          name, c->line ? c->line : 1);
    }
    const char *key = word_after(c, "Unexpected key: ");
    if (key) {
        int line = line_of(text, len, key);
        const char *near = schema_nearest(config_schema(), key, strlen(key));
        if (near && strcmp(near, "config") != 0) {
            return err_reason(e, ERR_INVALID, "invalid_config",
                              "%s:%d: no such key '%s'; did you mean '%s'?", name, line, key, near);
        }
        return err_reason(e, ERR_INVALID, "invalid_config",
                          "%s:%d: no such key '%s'; config/tamp.yaml lists them", name, line, key);
    }
    key = word_after(c, "Mapping field already seen: ");
    if (key) {
        return err_reason(e, ERR_INVALID, "invalid_config",
                          "%s:%d: '%s' is there twice; keep one of them", name,
                          line_of(text, len, key), key);
    }
    return err_reason(e, ERR_FORMAT, "invalid_config", "%s:%d: %s", name, c->line ? c->line : 1,
                      *c->text ? c->text : cyaml_strerror(code));
}

static int apply(struct config *c, const char *name, const char *text, size_t len,
                 const struct document *d, struct err *e)
{
    const struct schema *table = config_schema();
    struct schema_values v = {.schema = table, .base = c, .origin = c->origin};
    for (int i = 0; i < table->n; i++) {
        if (!d->option[i]) {
            continue;
        }
        const char *key = table->options[i].name;
        char where[512];
        snprintf(where, sizeof where, "%s:%d: %s", name, line_of(text, len, key), key);
        if (schema_set(&v, i, d->option[i], SCHEMA_FILE, where, e)) {
            return -1;
        }
    }
    return 0;
}

int config_read_text(struct config *c, const char *name, const char *text, size_t len,
                     struct err *e)
{
    struct file_schema s;
    struct complaint said = {0};
    struct document *d = NULL;
    make_schema(&s);
    cyaml_config_t yaml = {.log_fn = complain,
                           .log_ctx = &said,
                           .mem_fn = memory,
                           .log_level = CYAML_LOG_ERROR,
                           .flags = CYAML_CFG_NO_ALIAS};
    cyaml_err_t code =
        cyaml_load_data((const uint8_t *)text, len, &yaml, &s.top, (void **)&d, NULL);
    if (code != CYAML_OK) {
        return explain(name, text, len, code, &said, e);
    }
    if (!d) {
        return 0; /* nothing but comments */
    }
    int rc = apply(c, name, text, len, d, e);
    if (!rc && c->n_profiles == 0) {
        c->profiles = d->profiles;
        c->n_profiles = (int)d->n_profiles;
        d->profiles = NULL;
        d->n_profiles = 0;
    }
    cyaml_free(&yaml, &s.top, d, 0);
    return rc;
}

/* All of a file that has at most `most` bytes. option: what named it, for messages. */
static int read_all(const char *option, const char *path, size_t most, struct buf *text,
                    struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_reason(e, ERR_IO, "invalid_config", "%s: cannot open %s: %s", option, path,
                          strerror(errno));
    }
    char chunk[4096];
    ssize_t got;
    buf_init(text, most);
    while ((got = read(fd, chunk, sizeof chunk)) > 0 && !buf_append(text, chunk, (size_t)got)) {
    }
    int saved = errno;
    close(fd);
    if (got >= 0 && !buf_failed(text)) {
        return 0;
    }
    if (got < 0) {
        err_reason(e, ERR_IO, "invalid_config", "%s: cannot read %s: %s", option, path,
                   strerror(saved));
    } else {
        err_reason(e, ERR_TOO_LARGE, "invalid_config",
                   "%s: %s is over %zu bytes, or memory is short", option, path, most);
    }
    buf_free(text);
    return -1;
}

/* The text that static_prefix_file names takes the place of its name. */
static int read_prefix(struct config_profile *p, struct err *e)
{
    struct buf text;
    if (!p->static_prefix_file) {
        return 0;
    }
    if (p->static_prefix) {
        return err_reason(e, ERR_INVALID, "invalid_config",
                          "profile '%s' has static_prefix and static_prefix_file; keep one of them",
                          p->name);
    }
    if (read_all("static_prefix_file", p->static_prefix_file, PREFIX_MAX_BYTES, &text, e)) {
        return -1;
    }
    p->static_prefix = buf_take(&text, NULL);
    return p->static_prefix ? 0 : err_no_memory(e, PREFIX_MAX_BYTES);
}

/* What a chat may hold, and not nothing. */
static int check_prefix(const struct config_profile *p, struct err *e)
{
    size_t n = p->static_prefix ? strlen(p->static_prefix) : 0;
    if (p->static_prefix && (n == 0 || utf8_valid_prefix(p->static_prefix, n) != n)) {
        return err_reason(e, ERR_INVALID, "invalid_config", "profile '%s': its static prefix %s",
                          p->name, n == 0 ? "is empty" : "is not UTF-8");
    }
    return 0;
}

int config_read_prefixes(struct config *c, struct err *e)
{
    for (int i = 0; i < c->n_profiles; i++) {
        if (read_prefix(&c->profiles[i], e) || check_prefix(&c->profiles[i], e)) {
            return -1;
        }
    }
    return 0;
}

int config_read_file(struct config *c, const char *path, struct err *e)
{
    struct buf text;
    if (read_all("--config", path, FILE_MAX_BYTES, &text, e)) {
        return -1;
    }
    int rc = config_read_text(c, path, buf_str(&text), text.len, e);
    buf_free(&text);
    return rc;
}
