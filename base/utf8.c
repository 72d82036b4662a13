#include "base/utf8.h"

#define CUT ((size_t)-1)

size_t utf8_next(const char *s, size_t n, uint32_t *codepoint)
{
    if (n == 0) {
        return 0;
    }
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c = p[0];
    size_t len;
    if (c < 0x80) {
        len = 1;
    } else if (c >= 0xc2 && c <= 0xdf) {
        len = 2;
        c &= 0x1f;
    } else if ((c & 0xf0) == 0xe0) {
        len = 3;
        c &= 0x0f;
    } else if (c >= 0xf0 && c <= 0xf4) {
        len = 4;
        c &= 0x07;
    } else {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if (i == n) {
            return CUT;
        }
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        /* The second byte decides overlong forms, surrogates and the upper end. */
        if (i == 1 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                       (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (codepoint) {
        *codepoint = c;
    }
    return len;
}

size_t utf8_valid_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t len = utf8_next(s + i, n - i, NULL);
        if (len == 0 || len == CUT) {
            return i;
        }
        i += len;
    }
    return n;
}

size_t utf8_whole(const char *s, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if ((c & 0xc0) == 0x80) {
            continue;
        }
        return utf8_next(s + n - back, back, NULL) == CUT ? n - back : n;
    }
    return n;
}

size_t utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
