#include "server/base64.h"

size_t base64_max_bytes(size_t n)
{
    return n / 4 * 3 + (n % 4 ? 3 : 0);
}

/* Value of a character, 64 for anything outside the alphabet. */
static unsigned sextet(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return (unsigned)(c - 'A');
    }
    if (c >= 'a' && c <= 'z') {
        return (unsigned)(c - 'a') + 26;
    }
    if (c >= '0' && c <= '9') {
        return (unsigned)(c - '0') + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* The last four characters: one or two may be padding, and what they leave over of a
 * byte must be zero. 4 = good, else the offset of the bad one. */
static size_t last_quad(const char *s, uint8_t *out, size_t *n_out)
{
    unsigned v[4];
    size_t n = s[3] != '=' ? 4 : s[2] != '=' ? 3 : 2;
    for (size_t i = 0; i < n; i++) {
        v[i] = sextet(s[i]);
        if (v[i] == 64) {
            return i;
        }
    }
    if ((n == 2 && (v[1] & 15)) || (n == 3 && (v[2] & 3))) {
        return n - 1;
    }
    out[(*n_out)++] = (uint8_t)(v[0] << 2 | v[1] >> 4);
    if (n > 2) {
        out[(*n_out)++] = (uint8_t)(v[1] << 4 | v[2] >> 2);
    }
    if (n > 3) {
        out[(*n_out)++] = (uint8_t)(v[2] << 6 | v[3]);
    }
    return 4;
}

size_t base64_decode(const char *s, size_t n, uint8_t *out, size_t *n_out)
{
    *n_out = 0;
    size_t i = 0;
    while (n - i > 4) {
        unsigned all = 0;
        for (size_t k = 0; k < 4; k++) {
            unsigned v = sextet(s[i + k]);
            if (v == 64) {
                return i + k;
            }
            all = all << 6 | v;
        }
        out[(*n_out)++] = (uint8_t)(all >> 16);
        out[(*n_out)++] = (uint8_t)(all >> 8);
        out[(*n_out)++] = (uint8_t)all;
        i += 4;
    }
    if (n - i == 0) {
        return n;
    }
    if (n - i < 4) {
        for (; i < n; i++) {
            if (sextet(s[i]) == 64) {
                return i;
            }
        }
        return n - 1;
    }
    size_t good = last_quad(s + i, out, n_out);
    return good == 4 ? n : i + good;
}
