/* Strict base64: RFC 4648's vectors, a round trip of every length, and everything that a
 * lenient decoder would let pass. */
#include "base/rng.h"
#include "server/base64.h"
#include "tests/test.h"

#include <nettle/base64.h>
#include <string.h>

TEST(base64_vectors, "the vectors of RFC 4648 section 10")
{
    static const struct {
        const char *text, *bytes;
    } v[] = {{"", ""},
             {"Zg==", "f"},
             {"Zm8=", "fo"},
             {"Zm9v", "foo"},
             {"Zm9vYg==", "foob"},
             {"Zm9vYmE=", "fooba"},
             {"Zm9vYmFy", "foobar"}};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        uint8_t out[16] = {0};
        size_t n_out;
        size_t n = strlen(v[i].text);
        CHECK_INT(base64_decode(v[i].text, n, out, &n_out), ==, n);
        CHECK_INT(n_out, ==, strlen(v[i].bytes));
        CHECK(memcmp(out, v[i].bytes, n_out) == 0);
    }
}

TEST(base64_strictness, "white space, URL-safe letters, wrong padding and loose bits are refused")
{
    static const struct {
        const char *text;
        size_t at;
    } v[] = {
        {"Zm9v\n", 4}, {"Zm 9", 2},       {" Zm9v", 0},    {"Zm-v", 2},     {"Zm_v", 2},
        {"Zg", 1},     {"Zg=", 2},        {"Zg===", 2},    {"====", 0},     {"Z===", 1},
        {"Zh==", 1},   {"Zm9=", 2},       {"Zm9v====", 4}, {"Zg==Zg==", 2}, {"Zm9vZ", 4},
        {"Zm9v=", 4},  {"Zm\xC3\xA4", 2}, {"Zm9\0", 3},    {"=m9v", 0},     {"Zm=v", 2},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        uint8_t out[16];
        size_t n_out;
        size_t n = i == 17 ? 4 : strlen(v[i].text);
        size_t good = base64_decode(test_guarded(v[i].text, n), n, out, &n_out);
        if (good == n || good > n) {
            FAIL("'%s' was accepted", v[i].text);
        }
        CHECK_INT(good, ==, v[i].at);
    }
}

TEST(base64_round_trip, "what nettle encodes comes back, for every length, up to the page end")
{
    struct rng r;
    uint8_t bytes[300];
    rng_init(&r, test_seed());
    for (size_t n = 0; n <= sizeof bytes; n++) {
        char text[BASE64_ENCODE_RAW_LENGTH(sizeof bytes)];
        size_t n_text = BASE64_ENCODE_RAW_LENGTH(n);
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (uint8_t)rng_u64(&r);
        }
        base64_encode_raw(text, n, bytes);
        size_t n_out;
        uint8_t *out = test_guarded(NULL, base64_max_bytes(n_text) ? base64_max_bytes(n_text) : 1);
        CHECK_INT(base64_decode(test_guarded(text, n_text), n_text, out, &n_out), ==, n_text);
        CHECK_INT(n_out, ==, n);
        CHECK(memcmp(out, bytes, n) == 0);
    }
}
