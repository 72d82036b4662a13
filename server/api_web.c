/* GET / and GET /web/...: the page, from the bytes in the program. It holds nothing of
 * anybody's, so it needs no key; what it asks the server for does. */
#include "server/server_impl.h"
#include "server/web_files.h"

/* Scripts and styles are files of our own and nothing else, in no frame of another page,
 * and no text ever becomes markup: Trusted Types with no policy forbid it to the browser. */
static const char content_security_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

static const char *const headers[][2] = {
    {"Content-Security-Policy", content_security_policy},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Permissions-Policy", "camera=(), geolocation=(), microphone=()"},
    {"Cache-Control", "no-cache"}, /* kept, but asked for each time: 304 */
    {"Vary", "Accept-Encoding"},
};

static const char *asked(const struct exchange *ex, const char *name)
{
    return MHD_lookup_connection_value(ex->mhd, MHD_HEADER_KIND, name);
}

/* The bytes live as long as the program, so libmicrohttpd only points at them; it takes
 * them as not const, and does not write. */
static struct MHD_Response *response_of(const unsigned char *bytes, size_t n)
{
    union {
        const unsigned char *in;
        void *out;
    } p = {.in = bytes};
    return MHD_create_response_from_buffer(n, p.out, MHD_RESPMEM_PERSISTENT);
}

enum http_next web_handle(struct exchange *ex)
{
    const struct web_file *f = ex->server->web ? web_find(ex->path) : NULL;
    if (!f) {
        struct err e = ERR_INIT;
        err_reason(&e, ERR_NOT_FOUND, "unknown_route", "there is no such route");
        return http_answer_error(ex, &e);
    }
    bool gzip = f->gzip && web_accepts_gzip(asked(ex, "Accept-Encoding"));
    const char *etag = gzip ? f->gzip_etag : f->etag;
    bool unchanged = web_etag_listed(asked(ex, "If-None-Match"), etag);
    struct MHD_Response *r = unchanged ? response_of(NULL, 0)
                             : gzip    ? response_of(f->gzip, f->n_gzip)
                                       : response_of(f->bytes, f->n_bytes);
    if (!r) {
        return HTTP_CLOSE;
    }
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        (void)MHD_add_response_header(r, headers[i][0], headers[i][1]);
    }
    (void)MHD_add_response_header(r, "ETag", etag);
    if (!unchanged) {
        (void)MHD_add_response_header(r, "Content-Type", f->content_type);
        if (gzip) {
            (void)MHD_add_response_header(r, "Content-Encoding", "gzip");
        }
    }
    return http_queue(ex, unchanged ? 304 : 200, r);
}
