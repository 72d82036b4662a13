#include "cmd/calibrate_judge.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Whether a match that ends before `next` is cut out of something longer. Only ASCII letters
 * and digits make longer words: Chinese has no spaces. */
static bool goes_on(char last, const char *next)
{
    if (is_word(last) && is_word(*next)) {
        return true;
    }
    return (*next == '.' || *next == ',') && isdigit((unsigned char)last) &&
           isdigit((unsigned char)next[1]);
}

static bool goes_on_before(const char *text, const char *at)
{
    if (at == text || !is_word(*at)) {
        return false;
    }
    return is_word(at[-1]) || (isdigit((unsigned char)*at) && (at[-1] == '.' || at[-1] == ',') &&
                               at - text > 1 && isdigit((unsigned char)at[-2]));
}

bool calibrate_stands_in(const char *want, const char *text)
{
    size_t n = strlen(want);
    if (n == 0) {
        return true;
    }
    for (const char *at = text; strlen(at) >= n; at++) {
        if (strncasecmp(at, want, n) == 0 && !goes_on_before(text, at) &&
            !goes_on(want[n - 1], at + n)) {
            return true;
        }
    }
    return false;
}

bool calibrate_alike(const char *expected, const char *without, const char *with)
{
    return expected ? calibrate_stands_in(expected, with) : strcmp(without, with) == 0;
}
