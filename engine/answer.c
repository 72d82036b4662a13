#include "engine/answer.h"

#include "base/utf8.h"

#include <string.h>

/* A model that never writes a whole character or always a stop string's beginning
 * cannot hold back more than this: stop strings are short. */
#define ANSWER_MAX_BYTES ((size_t)1 << 20)

void answer_init(struct answer *a, const char *const *stop, int n_stop)
{
    *a = (struct answer){.stop = stop, .n_stop = n_stop};
    buf_init(&a->held, ANSWER_MAX_BYTES);
    buf_init(&a->out, 3 * ANSWER_MAX_BYTES);
}

void answer_free(struct answer *a)
{
    buf_free(&a->held);
    buf_free(&a->out);
}

/* Move the first n held bytes to out, with invalid bytes replaced. */
static int release(struct answer *a, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t good = utf8_valid_prefix(a->held.data + i, n - i);
        buf_append(&a->out, a->held.data + i, good);
        i += good;
        if (i < n) {
            buf_append(&a->out, "\xef\xbf\xbd", 3);
            i++;
        }
    }
    if (buf_failed(&a->out)) {
        return -1;
    }
    if (n) {
        memmove(a->held.data, a->held.data + n, a->held.len - n);
        a->held.len -= n;
        a->held.data[a->held.len] = '\0';
    }
    return 0;
}

/* Where the first complete stop string begins; false if there is none. */
static bool find_stop(const struct answer *a, size_t *at)
{
    bool found = false;
    for (int i = 0; i < a->n_stop; i++) {
        const char *hit = memmem(a->held.data, a->held.len, a->stop[i], strlen(a->stop[i]));
        if (hit && (!found || (size_t)(hit - a->held.data) < *at)) {
            *at = (size_t)(hit - a->held.data);
            found = true;
        }
    }
    return found;
}

/* Length of the longest end of `held` that begins some stop string. */
static size_t possible_stop(const struct answer *a)
{
    size_t longest = 0;
    for (int i = 0; i < a->n_stop; i++) {
        size_t max = strlen(a->stop[i]) - 1;
        max = max < a->held.len ? max : a->held.len;
        for (size_t n = max; n > longest; n--) {
            if (memcmp(a->held.data + a->held.len - n, a->stop[i], n) == 0) {
                longest = n;
            }
        }
    }
    return longest;
}

int answer_add(struct answer *a, const char *piece, size_t len, bool *stopped)
{
    *stopped = false;
    buf_clear(&a->out);
    if (buf_append(&a->held, piece, len)) {
        return -1;
    }
    if (a->held.len == 0) {
        return 0;
    }
    size_t at = 0;
    if (find_stop(a, &at)) {
        *stopped = true;
        return release(a, at);
    }
    size_t ready = a->held.len - possible_stop(a);
    return release(a, utf8_whole(a->held.data, ready));
}

int answer_end(struct answer *a)
{
    buf_clear(&a->out);
    return release(a, a->held.len);
}
