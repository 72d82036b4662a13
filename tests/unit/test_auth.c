#include "server/auth.h"
#include "server/limits.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

static const char *const keys[] = {"first-key", "second-key"};

TEST(auth_accepts_any_of_the_keys, "each configured key opens, in any case of the word Bearer")
{
    struct auth a;
    struct err e = ERR_INIT;
    CHECK_OK(auth_init(&a, keys, 2, &e), e);
    CHECK(auth_required(&a));
    CHECK_OK(auth_check(&a, "Bearer first-key", &e), e);
    CHECK_OK(auth_check(&a, "bearer second-key", &e), e);
    CHECK_OK(auth_check(&a, "BEARER  second-key", &e), e);
    auth_clear(&a);
}

TEST(auth_scope_of_a_key,
     "each key has a scope of its own, spaces do not; without keys there is one")
{
    uint8_t scope[4][AUTH_DIGEST_BYTES];
    struct auth a;
    struct err e = ERR_INIT;
    CHECK_OK(auth_init(&a, keys, 2, &e), e);
    auth_scope(&a, "Bearer first-key", scope[0]);
    auth_scope(&a, "bearer   first-key", scope[1]);
    auth_scope(&a, "Bearer second-key", scope[2]);
    CHECK_INT(memcmp(scope[0], scope[1], AUTH_DIGEST_BYTES), ==, 0);
    CHECK_INT(memcmp(scope[0], scope[2], AUTH_DIGEST_BYTES), !=, 0);
    auth_clear(&a);
    const uint8_t zeros[AUTH_DIGEST_BYTES] = {0};
    auth_scope(&a, NULL, scope[3]);
    CHECK_INT(memcmp(scope[3], zeros, AUTH_DIGEST_BYTES), ==, 0);
}

TEST(auth_refuses_everything_else, "no key, another scheme, prefixes, longer and huge keys")
{
    static char huge[1 << 20];
    int scheme = snprintf(huge, sizeof huge, "Bearer ");
    memset(huge + scheme, 'x', sizeof huge - 1 - (size_t)scheme);
    const char *const wrong[] = {NULL,
                                 "",
                                 "Bearer",
                                 "Bearer ",
                                 "first-key",
                                 "Basic first-key",
                                 "Bearer first-ke",
                                 "Bearer first-key1",
                                 "Bearer First-key",
                                 "Bearer first-key ",
                                 "Bearer first-key second-key",
                                 huge};
    struct auth a;
    struct err e = ERR_INIT;
    CHECK_OK(auth_init(&a, keys, 2, &e), e);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        e = (struct err)ERR_INIT;
        if (auth_check(&a, wrong[i], &e) == 0) {
            FAIL("case %zu was let in", i);
        }
        CHECK_INT(e.code, ==, ERR_AUTH);
        CHECK_STR(e.reason, "invalid_api_key");
        CHECK(!strstr(e.msg, "first-key"));
    }
    auth_clear(&a);
}

TEST(auth_without_keys, "no keys: everybody may; an empty or endless key is refused at start")
{
    struct auth a;
    struct err e = ERR_INIT;
    CHECK_OK(auth_init(&a, NULL, 0, &e), e);
    CHECK(!auth_required(&a));
    CHECK_OK(auth_check(&a, NULL, &e), e);
    const char *empty = "";
    CHECK(auth_init(&a, &empty, 1, &e));
    static char endless[LIMIT_API_KEY_BYTES + 2];
    memset(endless, 'k', sizeof endless - 1);
    const char *long_key = endless;
    CHECK(auth_init(&a, &long_key, 1, &e));
}
