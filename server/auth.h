/* API keys. Only digests are kept; a key is looked for by comparing its SHA-256 with
 * every one of them in constant time. No keys: everybody may. */
#ifndef TAMP_SERVER_AUTH_H
#define TAMP_SERVER_AUTH_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTH_DIGEST_BYTES 32

struct auth {
    uint8_t (*digests)[AUTH_DIGEST_BYTES]; /* [n_keys], owned */
    int n_keys;
};

/* keys [n_keys] of 1..512 bytes; duplicates are harmless. */
int auth_init(struct auth *a, const char *const *keys, int n_keys, struct err *e);
void auth_clear(struct auth *a);
bool auth_required(const struct auth *a);

/* `authorization` is the header's value, NULL when absent. 0, or ERR_AUTH. */
int auth_check(const struct auth *a, const char *authorization, struct err *e);
/* Who sent a header that auth_check accepted: the digest of the key, or zeros when keys
 * are not needed. */
void auth_scope(const struct auth *a, const char *authorization, uint8_t out[AUTH_DIGEST_BYTES]);

#endif
