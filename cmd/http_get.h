/* One GET of a small text from a server that is asked for by a person: plain HTTP, no
 * redirects, nothing kept open. */
#ifndef TAMP_CMD_HTTP_GET_H
#define TAMP_CMD_HTTP_GET_H

#include "base/buf.h"
#include "base/err.h"

struct http_target {
    char host[256]; /* name or address, without brackets */
    char port[6];
    char shown[300]; /* "http://[::1]:8080": for people, and for the Host header behind "//" */
};

/* "http://HOST:PORT", "HOST:PORT" or "HOST"; port 8080 where none is given. */
int http_target_parse(const char *url, struct http_target *t, struct err *e);

/* Body of `path` into out, at most out's ceiling. key: sent as a bearer token, NULL = none.
 * timeout_ms is for everything together, but for looking up the name. *e: ERR_IO when it
 * cannot be reached, ERR_AUTH for 401, ERR_UNAVAILABLE for other statuses, ERR_FORMAT for
 * what is no HTTP. */
int http_get(const struct http_target *t, const char *path, const char *key, int timeout_ms,
             struct buf *out, struct err *e);

/* Takes an answer apart, headers and body as they came; http_get does it by itself. */
int http_answer_body(const struct buf *answer, const char *server, struct buf *out, struct err *e);

#endif
