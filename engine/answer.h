/* One answer on its way out: pieces of tokens in, whole characters out, stop strings
 * held back until it is clear that they are none. Invalid UTF-8 from the model becomes
 * U+FFFD, so whatever leaves here can stand in JSON. */
#ifndef TAMP_ENGINE_ANSWER_H
#define TAMP_ENGINE_ANSWER_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

struct answer {
    const char *const *stop; /* [n_stop] borrowed */
    int n_stop;
    struct buf held; /* bytes that did not leave yet */
    struct buf out;  /* what answer_add and answer_end released last */
};

void answer_init(struct answer *a, const char *const *stop, int n_stop);
void answer_free(struct answer *a);
/* Add a token's bytes. Afterwards a->out holds what may be sent now (perhaps nothing).
 * *stopped is set when a stop string is complete: out ends before it, and the answer is
 * over. -1: out of memory. */
int answer_add(struct answer *a, const char *piece, size_t len, bool *stopped);
/* The answer is over without a stop string: a->out holds the rest. */
int answer_end(struct answer *a);

#endif
