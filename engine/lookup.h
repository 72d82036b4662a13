/* Drafts of the next tokens without a second model: what followed the last time when the
 * text went the way it goes now. An answer that quotes its prompt (a name, an order, a
 * list it was asked to tidy) is found there nearly whole. The idea is prompt look-up
 * decoding (A. Saxena 2023); that a checked draft leaves the distribution as it is, is
 * shown in arXiv 2211.17192.
 *
 * The tokens so far stand in one array; for each of the last 2 and 3 tokens a hash chain
 * leads to earlier places that end alike, newest first, so that adding and taking back a
 * token cost O(1) and a proposal a bounded walk. Memory is bounded by the capacity given
 * at birth.
 *
 * How much is proposed follows from what became of earlier drafts, by counting alone and
 * never by a clock: it grows while drafts are accepted, shrinks when they are not, and
 * stops for a while when they do not pay. */
#ifndef TAMP_ENGINE_LOOKUP_H
#define TAMP_ENGINE_LOOKUP_H

#include "base/arena.h"
#include "base/err.h"
#include "model/tokenizer.h"

/* Tokens in one draft at most. */
#define LOOKUP_MAX_DRAFT 15
/* Stands for what has no token, such as a picture: never proposed, never matched. */
#define LOOKUP_BREAK (-1)

struct lookup_chain {
    int *head; /* [n_heads] index of the newest place with this hash, -1 = none */
    int *prev; /* [capacity] the place before with the same hash, -1 = none */
};

struct lookup {
    token_id *ids; /* [capacity] */
    int n, capacity;
    unsigned n_heads;             /* a power of two */
    struct lookup_chain chain[2]; /* of the last 3 and of the last 2 tokens */

    /* what is to be proposed */
    int length;     /* tokens in the next draft at most */
    int balance;    /* what drafts brought minus what they cost, in row costs */
    int pause;      /* proposals to leave out from now on */
    int next_pause; /* how long the next pause will be */
};

/* capacity: tokens and breaks that will be added at most, >= 0. Memory comes from the
 * arena. -1: there is none. */
int lookup_init(struct lookup *l, int capacity, struct arena *a, struct err *e);

/* The sequence goes on with id or LOOKUP_BREAK; beyond the capacity nothing is kept. */
void lookup_add(struct lookup *l, token_id id);

/* Back to the first n tokens (0 <= n <= l->n), as if the others had never been added.
 * What was learnt about drafts stays. */
void lookup_rewind(struct lookup *l, int n);

/* Up to max tokens that may come next; returns how many, perhaps 0. Call it once for each
 * step, for pauses are counted in calls. draft [LOOKUP_MAX_DRAFT] */
int lookup_propose(struct lookup *l, int max, token_id *draft);

/* What became of the last draft: n_drafted >= 1 tokens were tried and the first
 * n_accepted of them were right. */
void lookup_result(struct lookup *l, int n_drafted, int n_accepted);

#endif
