#include "server/auth.h"

#include "base/alloc.h"
#include "server/limits.h"

#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <string.h>
#include <strings.h>

_Static_assert(AUTH_DIGEST_BYTES == SHA256_DIGEST_SIZE, "keys are compared as SHA-256");

static void digest(const char *key, size_t n, uint8_t out[AUTH_DIGEST_BYTES])
{
    struct sha256_ctx ctx;
    sha256_init(&ctx);
    sha256_update(&ctx, n, (const uint8_t *)key);
    sha256_digest(&ctx, AUTH_DIGEST_BYTES, out);
    explicit_bzero(&ctx, sizeof ctx);
}

int auth_init(struct auth *a, const char *const *keys, int n_keys, struct err *e)
{
    *a = (struct auth){0};
    if (n_keys <= 0) {
        return 0;
    }
    a->digests = mem_zalloc((size_t)n_keys, sizeof *a->digests);
    if (!a->digests) {
        return err_no_memory(e, (size_t)n_keys * sizeof *a->digests);
    }
    for (int i = 0; i < n_keys; i++) {
        size_t n = strlen(keys[i]);
        if (n == 0 || n > LIMIT_API_KEY_BYTES) {
            auth_clear(a);
            return err_set(e, ERR_RANGE, "API key %d has %zu bytes; 1 to %d are allowed", i + 1, n,
                           LIMIT_API_KEY_BYTES);
        }
        digest(keys[i], n, a->digests[i]);
    }
    a->n_keys = n_keys;
    return 0;
}

void auth_clear(struct auth *a)
{
    mem_free(a->digests);
    *a = (struct auth){0};
}

bool auth_required(const struct auth *a)
{
    return a->n_keys > 0;
}

static int refuse(struct err *e, const char *what)
{
    return err_reason(e, ERR_AUTH, "invalid_api_key", "%s; send 'Authorization: Bearer YOUR_KEY'",
                      what);
}

/* The key of a bearer header, with its length. */
static const char *bearer_key(const char *authorization, size_t *n)
{
    const char *key = authorization + 7 + strspn(authorization + 7, " ");
    *n = strlen(key);
    return key;
}

void auth_scope(const struct auth *a, const char *authorization, uint8_t out[AUTH_DIGEST_BYTES])
{
    memset(out, 0, AUTH_DIGEST_BYTES);
    if (auth_required(a)) {
        size_t n;
        const char *key = bearer_key(authorization, &n);
        digest(key, n, out);
    }
}

int auth_check(const struct auth *a, const char *authorization, struct err *e)
{
    if (!auth_required(a)) {
        return 0;
    }
    if (!authorization) {
        return refuse(e, "an API key is needed");
    }
    if (strncasecmp(authorization, "Bearer ", 7) != 0) {
        return refuse(e, "only bearer keys are taken");
    }
    size_t n;
    const char *key = bearer_key(authorization, &n);
    uint8_t d[AUTH_DIGEST_BYTES] = {0};
    if (n <= LIMIT_API_KEY_BYTES) {
        digest(key, n, d);
    }
    int found = 0;
    for (int i = 0; i < a->n_keys; i++) {
        found |= memeql_sec(d, a->digests[i], AUTH_DIGEST_BYTES);
    }
    return found ? 0 : refuse(e, "this API key is not valid");
}
