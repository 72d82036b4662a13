/* What libmicrohttpd 0.9.75 lets through and a front proxy may read differently:
 * Content-Length together with Transfer-Encoding, several or malformed lengths, unknown
 * encodings, several Host headers. All of it is refused with 400 and a closed
 * connection. Pure functions over header lines, so that they are tested alone. */
#ifndef TAMP_SERVER_HTTP_CHECK_H
#define TAMP_SERVER_HTTP_CHECK_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Views into the header memory of the connection. */
struct http_head {
    const char *host, *authorization, *content_type, *content_encoding, *expect, *request_id;
    const char *compression; /* X-Compression */
    uint64_t content_length; /* valid when n_content_length == 1 */
    int n_content_length, n_transfer_encoding, n_host, n_authorization;
    bool chunked;
    struct err bad; /* the first header that is wrong by itself; code ERR_NONE = none */
};

/* One header line. */
void http_head_add(struct http_head *h, const char *name, size_t n_name, const char *value,
                   size_t n_value);
/* The lines together, for "HTTP/1.1" or "HTTP/1.0". ERR_INVALID, reason bad_framing, ... */
int http_head_check(const struct http_head *h, const char *version, struct err *e);
/* A request with a body: media type, encoding, length. max_bytes: 413 beyond. */
int http_body_check(const struct http_head *h, size_t max_bytes, struct err *e);
/* Only names of this machine while bound to loopback: a web page that rebinds its name
 * to 127.0.0.1 must not reach us. */
int http_host_check(const char *host, struct err *e);
/* 1..128 characters of [A-Za-z0-9._-]. */
bool http_request_id_ok(const char *id);

#endif
