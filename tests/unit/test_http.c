/* Framing checks over header lines, hosts, request ids, and the table of routes. */
#include "server/api_error.h"
#include "server/http_check.h"
#include "server/server_impl.h"
#include "tests/test.h"

#include <string.h>

/* Lines "Name: value" separated by \n, as libmicrohttpd would give them. */
static int check(const char *lines, const char *version, struct http_head *h, struct err *e)
{
    *h = (struct http_head){0};
    *e = (struct err)ERR_INIT;
    static char text[512];
    snprintf(text, sizeof text, "%s", lines);
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        char *value = strstr(line, ": ");
        CHECK(value);
        *value = '\0';
        http_head_add(h, line, strlen(line), value + 2, strlen(value + 2));
    }
    return http_head_check(h, version, e);
}

TEST(http_framing_refused, "smuggling forms of length and encoding are refused")
{
    static const struct {
        const char *lines, *version, *reason;
    } v[] = {
        {"Host: a\nContent-Length: 5\nTransfer-Encoding: chunked", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: 5\nContent-Length: 5", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: 5\nContent-Length: 6", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: +5", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: -1", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: 5,5", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: 0x5", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: ", "HTTP/1.1", "bad_framing"},
        {"Host: a\nContent-Length: 99999999999999999999", "HTTP/1.1", "bad_framing"},
        {"Host: a\nTransfer-Encoding: gzip", "HTTP/1.1", "bad_framing"},
        {"Host: a\nTransfer-Encoding: chunked, identity", "HTTP/1.1", "bad_framing"},
        {"Host: a\nTransfer-Encoding: xchunked", "HTTP/1.1", "bad_framing"},
        {"Host: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked", "HTTP/1.1",
         "bad_framing"},
        {"Host: a\nTransfer-Encoding: chunked", "HTTP/1.0", "bad_framing"},
        {"Host: a\nHost: b", "HTTP/1.1", "bad_framing"},
        {"X: 1", "HTTP/1.1", "bad_framing"},
        {"Host: a\nAuthorization: Bearer a\nAuthorization: Bearer b", "HTTP/1.1", "bad_framing"},
        {"Host: a\nX Y: 1", "HTTP/1.1", "bad_framing"},
        {"Host: a\nX: a\rb", "HTTP/1.1", "bad_framing"},
        {"Host: a\n: b", "HTTP/1.1", "bad_framing"},
        {"Host: a\nExpect: 200-ok", "HTTP/1.1", "expectation_failed"},
        {"Host: a", "HTTP/2.0", "unsupported_http_version"},
        {"Host: a", "HTTP/0.9", "unsupported_http_version"},
    };
    struct http_head h;
    struct err e;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        if (check(v[i].lines, v[i].version, &h, &e) == 0) {
            FAIL("accepted: %s", v[i].lines);
        }
        CHECK_STR(e.reason, v[i].reason);
    }
}

TEST(http_framing_accepted, "ordinary requests pass")
{
    struct http_head h;
    struct err e;
    CHECK_OK(check("Host: a\nContent-Length: 5\nExpect: 100-continue", "HTTP/1.1", &h, &e), e);
    CHECK_INT(h.content_length, ==, 5);
    CHECK_OK(check("host: a\ntransfer-encoding: Chunked", "HTTP/1.1", &h, &e), e);
    CHECK(h.chunked);
    CHECK_OK(check("X: 1", "HTTP/1.0", &h, &e), e);
}

TEST(http_body_rules, "media type, encoding and length of a body")
{
    static const struct {
        const char *lines, *reason;
        int status;
    } v[] = {
        {"Host: a\nContent-Length: 5", "unsupported_media_type", 415},
        {"Host: a\nContent-Length: 5\nContent-Type: text/plain", "unsupported_media_type", 415},
        {"Host: a\nContent-Length: 5\nContent-Type: application/jsonx", "unsupported_media_type",
         415},
        {"Host: a\nContent-Length: 5\nContent-Type: application/json\nContent-Encoding: gzip",
         "unsupported_media_type", 415},
        {"Host: a\nContent-Type: application/json", "length_required", 411},
        {"Host: a\nContent-Type: application/json\nContent-Length: 101", "body_too_large", 413},
        {"Host: a\nContent-Type: application/json\nContent-Length: 0", "empty_body", 400},
        {"Host: a\nContent-Type: Application/JSON; charset=utf-8\nContent-Length: 100", NULL, 0},
        {"Host: a\nContent-Type: application/json\nTransfer-Encoding: chunked", NULL, 0},
    };
    struct http_head h;
    struct err e;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        CHECK_OK(check(v[i].lines, "HTTP/1.1", &h, &e), e);
        int rc = http_body_check(&h, 100, &e);
        CHECK_INT(rc, ==, v[i].reason ? -1 : 0);
        if (v[i].reason) {
            CHECK_STR(e.reason, v[i].reason);
            CHECK_INT(api_error_status(&e), ==, v[i].status);
        }
    }
}

TEST(http_host_allow_list, "only names of this machine on loopback")
{
    static const char *const good[] = {"localhost",      "LOCALHOST:80", "127.0.0.1",
                                       "127.0.0.1:8080", "[::1]",        "[::1]:9",
                                       "127.0.0.2:8080"};
    static const char *const wrong[] = {"evil.example",
                                        "localhost.evil.example",
                                        "127.0.0.1.nip.io",
                                        "localhost:",
                                        "localhost:8a",
                                        "128.0.0.1",
                                        "127.0.0.1.",
                                        "[::1",
                                        "[::2]",
                                        "[::1]x",
                                        "",
                                        "127.1"};
    struct err e = ERR_INIT;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_OK(http_host_check(good[i], &e), e);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (http_host_check(wrong[i], &e) == 0) {
            FAIL("%s was let in", wrong[i]);
        }
        CHECK_INT(api_error_status(&e), ==, 403);
    }
}

TEST(http_request_ids, "ids of clients are echoed only when they are harmless")
{
    char longest[LIMIT_REQUEST_ID_BYTES + 2];
    memset(longest, 'a', sizeof longest);
    longest[LIMIT_REQUEST_ID_BYTES] = '\0';
    CHECK(http_request_id_ok("abc-DEF_0.9"));
    CHECK(http_request_id_ok(longest));
    longest[LIMIT_REQUEST_ID_BYTES] = 'a';
    longest[LIMIT_REQUEST_ID_BYTES + 1] = '\0';
    CHECK(!http_request_id_ok(longest));
    CHECK(!http_request_id_ok(NULL));
    CHECK(!http_request_id_ok(""));
    CHECK(!http_request_id_ok("a b"));
    CHECK(!http_request_id_ok("a\r\nX: 1"));
}

TEST(http_routes_compare_exactly, "paths are compared as sent; nothing is decoded or cleaned")
{
    static const char *const unknown[] = {"//v1/models",
                                          "/v1/../health",
                                          "/v1/models;x",
                                          "/v1/%6dodels",
                                          "/V1/models",
                                          "/v1/models/",
                                          "",
                                          "/web/",
                                          "/health/"};
    const char *allow = NULL;
    struct err e = ERR_INIT;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        if (route_find("GET", unknown[i], &allow, &e)) {
            FAIL("%s is a route", unknown[i]);
        }
        CHECK_INT(api_error_status(&e), ==, 404);
    }
    CHECK(route_find("GET", "/v1/models/x.gguf", &allow, &e));
    CHECK(route_find("HEAD", "/health", &allow, &e));
    CHECK(!route_find("GET", "/v1/chat/completions", &allow, &e));
    CHECK_INT(api_error_status(&e), ==, 405);
    CHECK_STR(allow, "POST");
}

TEST(http_routes_authorise, "every route but /health and the page's own files needs a key")
{
    for (const struct route *r = routes; r->method; r++) {
        bool open = strcmp(r->endpoint, "health") == 0 || strcmp(r->endpoint, "web") == 0;
        CHECK_INT(r->auth, ==, open ? AUTH_PUBLIC : AUTH_KEY);
    }
}
