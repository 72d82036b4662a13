/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef TAMP_BASE_UTF8_H
#define TAMP_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length in bytes of the valid sequence at s[0..n), 0 if it is invalid, and
 * (size_t)-1 if it is a valid beginning that is cut off at n.
 * *codepoint is set when it is valid; may be NULL. */
size_t utf8_next(const char *s, size_t n, uint32_t *codepoint);

/* Offset of the first byte that is not part of valid UTF-8; n if all is valid. */
size_t utf8_valid_prefix(const char *s, size_t n);

/* How many bytes at the front can be sent now: everything but an incomplete
 * sequence at the very end. Invalid bytes count as complete. */
size_t utf8_whole(const char *s, size_t n);

/* Writes up to 4 bytes; returns how many. The codepoint must be valid. */
size_t utf8_put(uint32_t codepoint, char out[4]);

#endif
