/* Fair turns between API keys: the virtual token counter of Sheng et al., "Fairness in
 * Serving Large Language Models" (arXiv 2401.00588). Each key has a counter of the service
 * that it got, and the next turn is that of the key with the least among those that want
 * one. A key that comes back after wanting nothing begins no lower than the others are: a
 * pause earns nothing. So whoever sends a hundred requests gets, while another key has any,
 * every other turn and not a hundred, and with one key alone nothing changes.
 *
 * Used for the requests that wait and for the rows of prompts that are computed. Not locked:
 * the owner's lock or thread. */
#ifndef TAMP_ENGINE_FAIR_H
#define TAMP_ENGINE_FAIR_H

#include "base/err.h"

#include <stdint.h>

#define FAIR_SCOPE_BYTES 32

/* Service is counted in rows of prompts; a token of an answer counts as two (the paper's
 * weights). */
#define FAIR_ANSWER_TOKEN 2

struct fair_key {
    uint8_t scope[FAIR_SCOPE_BYTES];
    int n_held; /* requests that know this key's number */
    int n_want; /* of these, that want a turn */
    double service;
};

struct fair {
    struct fair_key *keys; /* [n of max]; those without requests are forgotten when it is full,
                              the ones with the least service first */
    int n, max;
    double left_with; /* service of the key that was the last to want a turn */
};

/* Room for max_held requests at a time. -1: no memory. */
int fair_init(struct fair *f, int max_held, struct err *e);
void fair_clear(struct fair *f);

/* The number of a scope's key, good until as many releases. */
int fair_hold(struct fair *f, const uint8_t scope[FAIR_SCOPE_BYTES]);
void fair_release(struct fair *f, int key);

/* One more, or one fewer request of the key wants a turn. */
void fair_enter(struct fair *f, int key);
void fair_leave(struct fair *f, int key);

/* The key got service. */
void fair_charge(struct fair *f, int key, double service);
/* Requests of a key that want a turn; a scope without a number has none. */
int fair_wanting(const struct fair *f, int key);
int fair_wanting_of(const struct fair *f, const uint8_t scope[FAIR_SCOPE_BYTES]);
double fair_service(const struct fair *f, int key);

#endif
