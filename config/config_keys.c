/* API keys: one by option or variable, others line by line in a file. */
#include "base/alloc.h"
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE_MAX_BYTES 65536
#define MAX_API_KEYS       1024

static int add_key(struct config *c, const char *text, size_t len, struct err *e)
{
    if (c->n_api_keys == MAX_API_KEYS) {
        return err_reason(e, ERR_TOO_LARGE, "invalid_config", "more than %d API keys",
                          MAX_API_KEYS);
    }
    char **keys = mem_realloc(c->api_keys, (size_t)c->n_api_keys + 1, sizeof *keys);
    if (!keys) {
        return err_no_memory(e, ((size_t)c->n_api_keys + 1) * sizeof *keys);
    }
    c->api_keys = keys;
    char *copy = mem_strndup(text, len);
    if (!copy) {
        return err_no_memory(e, len + 1);
    }
    keys[c->n_api_keys++] = copy;
    return 0;
}

static int add_key_lines(struct config *c, const char *text, size_t len, struct err *e)
{
    for (size_t at = 0; at < len;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t end = newline ? (size_t)(newline - text) : len;
        size_t begin = at;
        at = end + 1;
        while (begin < end && strchr(" \t\r", text[begin])) {
            begin++;
        }
        while (end > begin && strchr(" \t\r", text[end - 1])) {
            end--;
        }
        if (end > begin && text[begin] != '#' && add_key(c, text + begin, end - begin, e)) {
            return -1;
        }
    }
    return 0;
}

static int read_key_file(struct config *c, struct err *e)
{
    int fd = open(c->api_key_file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        err_reason(e, ERR_IO, "invalid_config", "--api-key-file: cannot open %s: %s",
                   c->api_key_file, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    c->key_file_readable_by_others = (st.st_mode & (S_IRGRP | S_IROTH)) != 0;
    char text[KEY_FILE_MAX_BYTES];
    size_t len = 0;
    ssize_t got;
    while (len < sizeof text && (got = read(fd, text + len, sizeof text - len)) > 0) {
        len += (size_t)got;
    }
    close(fd);
    int rc = 0;
    if (len == sizeof text) {
        rc = err_reason(e, ERR_TOO_LARGE, "invalid_config", "--api-key-file: %s is over %d bytes",
                        c->api_key_file, KEY_FILE_MAX_BYTES);
    } else {
        int before = c->n_api_keys;
        rc = add_key_lines(c, text, len, e);
        if (!rc && c->n_api_keys == before) {
            rc = err_reason(e, ERR_INVALID, "invalid_config",
                            "--api-key-file: %s holds no key; put one on a line of its own",
                            c->api_key_file);
        }
    }
    explicit_bzero(text, sizeof text);
    return rc;
}

int config_load_keys(struct config *c, struct err *e)
{
    if (*c->api_key && add_key(c, c->api_key, strlen(c->api_key), e)) {
        return -1;
    }
    return *c->api_key_file ? read_key_file(c, e) : 0;
}
