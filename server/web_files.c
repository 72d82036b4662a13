#include "server/web_files.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

const struct web_file *web_find(const char *path)
{
    for (const struct web_file *f = web_files; f->path; f++) {
        if (strcmp(f->path, path) == 0) {
            return f;
        }
    }
    return NULL;
}

/* "gzip ; q=0.5": the weight behind a coding of n characters, 1 when none is given. */
static double weight(const char *item, size_t n)
{
    const char *q = memchr(item, '=', n);
    return q ? strtod(q + 1, NULL) : 1;
}

bool web_accepts_gzip(const char *accept_encoding)
{
    double any = 0;
    const char *at = accept_encoding ? accept_encoding : "";
    while (*at) {
        at += strspn(at, " \t,");
        size_t n = strcspn(at, ",");
        size_t name = strcspn(at, " \t;,");
        if ((name == 4 && strncasecmp(at, "gzip", 4) == 0) ||
            (name == 6 && strncasecmp(at, "x-gzip", 6) == 0)) {
            return weight(at, n) > 0;
        }
        if (name == 1 && *at == '*') {
            any = weight(at, n);
        }
        at += n;
    }
    return any > 0;
}

bool web_etag_listed(const char *if_none_match, const char *etag)
{
    const char *at = if_none_match ? if_none_match : "";
    size_t n_etag = strlen(etag);
    while (*at) {
        at += strspn(at, " \t,");
        size_t n = strcspn(at, " \t,");
        if (n == 1 && *at == '*') {
            return true;
        }
        size_t weak = strncmp(at, "W/", 2) == 0 ? 2 : 0;
        if (n == weak + n_etag && strncmp(at + weak, etag, n_etag) == 0) {
            return true;
        }
        at += n;
    }
    return false;
}
