/* The page at /: its files as bytes of the program. The table is made from web/ at build
 * time, by tools/embed_web. */
#ifndef TAMP_SERVER_WEB_FILES_H
#define TAMP_SERVER_WEB_FILES_H

#include <stdbool.h>
#include <stddef.h>

struct web_file {
    const char *path; /* as in a request; "/" is the page, the rest are "/web/..." */
    const char *content_type;
    /* Strong, quoted; that of the compressed bytes differs, because the bytes do. */
    const char *etag, *gzip_etag;
    const unsigned char *bytes;
    size_t n_bytes;
    const unsigned char *gzip; /* NULL where compression saves nothing */
    size_t n_gzip;
};
extern const struct web_file web_files[]; /* ends with path NULL */

/* NULL when there is none of this path. */
const struct web_file *web_find(const char *path);

/* Accept-Encoding (NULL = absent): may the answer be in gzip? RFC 9110, 12.5.3. */
bool web_accepts_gzip(const char *accept_encoding);

/* If-None-Match (NULL = absent): does it name this entity tag, or "*"? Compared weakly, as
 * RFC 9110, 13.1.2 wants for GET. */
bool web_etag_listed(const char *if_none_match, const char *etag);

#endif
