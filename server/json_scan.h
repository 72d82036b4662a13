/* A strict look at a JSON text before cJSON sees it, because cJSON is lenient where it
 * hurts: it takes trailing bytes, the first of two equal keys, \u0000 as the end of a
 * string, and nests a thousand levels deep.
 *
 * Accepts exactly RFC 8259, and of that only: depth <= 64, nodes <= 200,000, valid
 * UTF-8, no lone surrogates, no \u0000, no key twice in an object, no byte-order mark.
 * Reads the view once and keeps nothing of it. Allocates one table of key hashes,
 * at most 4 MiB; equal means equal 64-bit hash, so a false alarm has a chance below
 * 2^-28 even at 200,000 keys, and one who searches for it hurts only himself. */
#ifndef TAMP_SERVER_JSON_SCAN_H
#define TAMP_SERVER_JSON_SCAN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define JSON_SCAN_FRACTIONAL 16
#define JSON_SCAN_KEY_BYTES  40

/* Members of the outermost object whose number is not written as a plain integer (1.0,
 * 1e3, -0). cJSON cannot tell them apart from integers, and integer fields refuse them. */
struct json_scan_info {
    char fractional[JSON_SCAN_FRACTIONAL][JSON_SCAN_KEY_BYTES];
    int n_fractional;
};

/* 0, or -1 with reason invalid_json, json_too_deep, json_too_large, invalid_utf8,
 * invalid_string, duplicate_key or out_of_range; the message gives the byte offset and
 * e->param the member of the outermost object. info may be NULL. */
int json_scan(const char *text, size_t n, struct json_scan_info *info, struct err *e);

#endif
