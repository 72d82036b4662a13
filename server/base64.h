/* Strict base64 (RFC 4648 section 4): the standard alphabet, canonical padding, zero
 * trailing bits, no white space. nettle's decoder skips white space and forgives
 * padding, and two texts for one picture would be two answers to "is it the same". */
#ifndef TAMP_SERVER_BASE64_H
#define TAMP_SERVER_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that n characters decode to at most; 0 for n == 0. */
size_t base64_max_bytes(size_t n);

/* Decodes s[0..n) into out (room for base64_max_bytes(n)); *n_out is how many. Returns
 * n when all of it is good, else the offset of the first character that is not. */
size_t base64_decode(const char *s, size_t n, uint8_t *out, size_t *n_out);

#endif
