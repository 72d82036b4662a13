#include "server/http_check.h"

#include "server/limits.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define BAD_FRAMING "bad_framing"

static bool token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

static bool clean_line(const char *name, size_t n_name, const char *value, size_t n_value)
{
    for (size_t i = 0; i < n_name; i++) {
        if (!token_char(name[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < n_value; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return n_name > 0;
}

static void note(struct http_head *h, const char *what)
{
    if (h->bad.code == ERR_NONE) {
        err_reason(&h->bad, ERR_INVALID, BAD_FRAMING, "%s", what);
    }
}

static void add_length(struct http_head *h, const char *value)
{
    h->n_content_length++;
    size_t n = strspn(value, "0123456789");
    if (n == 0 || n > 18 || value[n]) {
        note(h, "Content-Length must be a plain decimal number");
        return;
    }
    h->content_length = 0;
    for (size_t i = 0; i < n; i++) {
        h->content_length = h->content_length * 10 + (uint64_t)(value[i] - '0');
    }
}

static void add_encoding(struct http_head *h, const char *value)
{
    h->n_transfer_encoding++;
    h->chunked = strcasecmp(value, "chunked") == 0;
    if (!h->chunked) {
        note(h, "the only Transfer-Encoding taken is chunked");
    }
}

void http_head_add(struct http_head *h, const char *name, size_t n_name, const char *value,
                   size_t n_value)
{
    const struct {
        const char *name;
        const char **out;
    } plain[] = {
        {"Content-Type", &h->content_type},
        {"Content-Encoding", &h->content_encoding},
        {"Expect", &h->expect},
        {"X-Request-Id", &h->request_id},
        {"X-Compression", &h->compression},
    };
    value = value ? value : "";
    if (!clean_line(name, n_name, value, n_value) || strlen(value) != n_value) {
        note(h, "a header line holds characters that are not allowed");
        return;
    }
    if (strcasecmp(name, "Content-Length") == 0) {
        add_length(h, value);
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        add_encoding(h, value);
    } else if (strcasecmp(name, "Host") == 0) {
        h->n_host++;
        h->host = value;
    } else if (strcasecmp(name, "Authorization") == 0) {
        h->n_authorization++;
        h->authorization = value;
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcasecmp(name, plain[i].name) == 0) {
            *plain[i].out = value;
        }
    }
}

static int refuse(struct err *e, const char *what)
{
    return err_reason(e, ERR_INVALID, BAD_FRAMING, "%s", what);
}

int http_head_check(const struct http_head *h, const char *version, struct err *e)
{
    bool http11 = strcmp(version, "HTTP/1.1") == 0;
    if (!http11 && strcmp(version, "HTTP/1.0") != 0) {
        return err_reason(e, ERR_UNSUPPORTED, "unsupported_http_version",
                          "HTTP/1.1 and HTTP/1.0 are spoken here");
    }
    if (h->bad.code != ERR_NONE) {
        *e = h->bad;
        return -1;
    }
    if (h->n_content_length > 1) {
        return refuse(e, "several Content-Length headers");
    }
    if (h->n_transfer_encoding > 1) {
        return refuse(e, "several Transfer-Encoding headers");
    }
    if (h->n_content_length && h->n_transfer_encoding) {
        return refuse(e, "Content-Length together with Transfer-Encoding");
    }
    if (h->n_transfer_encoding && !http11) {
        return refuse(e, "Transfer-Encoding needs HTTP/1.1");
    }
    if (h->n_host > 1 || (http11 && h->n_host == 0)) {
        return refuse(e, "exactly one Host header is needed");
    }
    if (h->n_authorization > 1) {
        return refuse(e, "several Authorization headers");
    }
    if (h->expect && strcasecmp(h->expect, "100-continue") != 0) {
        return err_reason(e, ERR_INVALID, "expectation_failed",
                          "the only Expect taken is 100-continue");
    }
    return 0;
}

static bool is_json(const char *type)
{
    static const char json[] = "application/json";
    size_t n = sizeof json - 1;
    return type && strncasecmp(type, json, n) == 0 &&
           (type[n] == '\0' || type[n] == ';' || type[n] == ' ');
}

int http_body_check(const struct http_head *h, size_t max_bytes, struct err *e)
{
    if (!is_json(h->content_type)) {
        return err_reason(e, ERR_INVALID, "unsupported_media_type",
                          "send Content-Type: application/json");
    }
    if (h->content_encoding && strcasecmp(h->content_encoding, "identity") != 0) {
        return err_reason(e, ERR_INVALID, "unsupported_media_type",
                          "a compressed request body is not taken");
    }
    if (!h->chunked && h->n_content_length == 0) {
        return err_reason(e, ERR_INVALID, "length_required",
                          "a body with Content-Length or chunked encoding is needed");
    }
    if (h->n_content_length && h->content_length > max_bytes) {
        return err_reason(e, ERR_TOO_LARGE, "body_too_large", "the body has more than %zu bytes",
                          max_bytes);
    }
    if (h->n_content_length && h->content_length == 0) {
        return err_reason(e, ERR_INVALID, "empty_body", "the body is empty");
    }
    return 0;
}

/* A page elsewhere can point its own name at this machine, but not send an address. */
static bool is_loopback(const char *host, size_t n)
{
    char name[48];
    struct in_addr v4;
    if (n >= sizeof name) {
        return false;
    }
    memcpy(name, host, n);
    name[n] = '\0';
    return strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0 ||
           (inet_pton(AF_INET, name, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

int http_host_check(const char *host, struct err *e)
{
    if (!host) {
        return 0;
    }
    size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    const char *port = n <= strlen(host) ? host + n : "?";
    bool port_ok =
        *port == '\0' || (*port == ':' && port[1] && !port[1 + strspn(port + 1, "0123456789")]);
    return port_ok && is_loopback(host, n)
               ? 0
               : err_reason(e, ERR_FORBIDDEN, "host_not_allowed",
                            "listening on loopback only: the Host must be localhost or 127.0.0.1");
}

bool http_request_id_ok(const char *id)
{
    size_t n =
        id ? strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") : 0;
    return n > 0 && n <= LIMIT_REQUEST_ID_BYTES && id[n] == '\0';
}
