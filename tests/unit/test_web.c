/* The page's files in the program, and the two headers that choose among their forms. */
#include "server/limits.h"
#include "server/web_files.h"
#include "tests/test.h"

#include <string.h>

TEST(web_files_table, "the page and what it loads are in the program, under paths of a request")
{
    static const char *const wanted[] = {"/", "/web/app.js", "/web/style.css", "/web/icon.svg"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (!web_find(wanted[i])) {
            FAIL("there is no %s", wanted[i]);
        }
    }
    for (const struct web_file *f = web_files; f->path; f++) {
        CHECK(strcmp(f->path, "/") == 0 || strncmp(f->path, "/web/", 5) == 0);
        CHECK_INT(strlen(f->path), <, LIMIT_PATH_BYTES);
        CHECK_INT(f->n_bytes, >, 0);
        CHECK_INT(f->etag[0], ==, '"');
        CHECK_INT(f->etag[strlen(f->etag) - 1], ==, '"');
        CHECK(strcmp(f->etag, f->gzip_etag) != 0);
        CHECK(!f->gzip || f->n_gzip < f->n_bytes);
        CHECK(web_find(f->path) == f);
    }
    CHECK(!web_find("/web/"));
    CHECK(!web_find("/web/../"));
    CHECK(!web_find("/web/APP.js"));
    CHECK(!web_find(""));
}

TEST(web_page_size, "the whole page, uncompressed, is below 150 kB")
{
    size_t total = 0;
    for (const struct web_file *f = web_files; f->path; f++) {
        total += f->n_bytes;
    }
    CHECK_INT(total, <, 150000);
}

TEST(web_gzip_accepted, "gzip is sent to who takes it, by the weights of Accept-Encoding")
{
    static const struct {
        const char *header;
        bool yes;
    } v[] = {
        {NULL, false},
        {"", false},
        {"gzip", true},
        {"gzip, deflate, br", true},
        {"deflate,GZIP;q=0.5", true},
        {"x-gzip", true},
        {"*", true},
        {"gzip;q=0", false},
        {"gzip; q=0.000, *", false},
        {"*;q=0", false},
        {"br, *;q=0.1", true},
        {"gzipped", false},
        {"identity", false},
        {" , ,gzip", true},
        {"identity;q=1, gzip ; q=0.2", true},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        if (web_accepts_gzip(v[i].header) != v[i].yes) {
            FAIL("%s", v[i].header ? v[i].header : "no header");
        }
    }
}

TEST(web_etags_listed, "If-None-Match names an entity tag, weakly or with a star")
{
    static const struct {
        const char *header;
        bool yes;
    } v[] = {
        {NULL, false},
        {"", false},
        {"\"abc\"", true},
        {"W/\"abc\"", true},
        {"*", true},
        {"\"x\", \"abc\"", true},
        {"\"x\",W/\"abc\",\"y\"", true},
        {"\"abcd\"", false},
        {"abc", false},
        {"\"ab", false},
        {"\"x\", **", false},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        if (web_etag_listed(v[i].header, "\"abc\"") != v[i].yes) {
            FAIL("%s", v[i].header ? v[i].header : "no header");
        }
    }
}
