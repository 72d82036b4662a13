/* The strict look at JSON: what RFC 8259 allows, what tamp allows of it, and that no
 * byte behind the text is touched. Cases in the manner of JSONTestSuite's y_ and n_. */
#include "server/json_scan.h"
#include "server/limits.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* At a guard page, so that one byte too far is a crash. */
static const char *scan(const char *text, size_t n)
{
    static struct err e;
    const char *guarded = test_guarded(text, n);
    e = (struct err)ERR_INIT;
    if (json_scan(guarded, n, NULL, &e) == 0) {
        return "ok";
    }
    return e.reason;
}

static const char *const good[] = {
    "{}",
    "[]",
    "0",
    "-0",
    "-1.5e+10",
    "1E400",
    "\"\"",
    "true",
    "false",
    "null",
    " [1 ,\t2\n,\r3 ] ",
    "[[],{},[[]]]",
    "{\"a\":{\"a\":1},\"b\":[{\"a\":2}]}",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\"",
    "\"\\ud83d\\ude00\"",
    "\"\xF0\x9F\x98\x80\xC3\xA4\"",
    "\"\x7f\"",
    "{\"\":0}",
    "[1e-2]",
    "{\"a\":1,\"A\":2}",
    "123456789012345678901234567890",
};

static const struct {
    const char *text, *reason;
} bad[] = {
    {"", "invalid_json"},
    {" ", "invalid_json"},
    {"[", "invalid_json"},
    {"]", "invalid_json"},
    {"[1,]", "invalid_json"},
    {"[,1]", "invalid_json"},
    {"[1 2]", "invalid_json"},
    {"{\"a\"}", "invalid_json"},
    {"{\"a\":}", "invalid_json"},
    {"{a:1}", "invalid_json"},
    {"{\"a\":1,}", "invalid_json"},
    {"{'a':1}", "invalid_json"},
    {"{1:1}", "invalid_json"},
    {"tru", "invalid_json"},
    {"nul", "invalid_json"},
    {"True", "invalid_json"},
    {"NaN", "invalid_json"},
    {"Infinity", "invalid_json"},
    {"-", "invalid_json"},
    {"01", "invalid_json"},
    {"+1", "invalid_json"},
    {".5", "invalid_json"},
    {"1.", "invalid_json"},
    {"1e", "invalid_json"},
    {"1e+", "invalid_json"},
    {"0x1", "invalid_json"},
    {"--1", "invalid_json"},
    {"\"", "invalid_json"},
    {"\"\\", "invalid_json"},
    {"\"\\x41\"", "invalid_json"},
    {"\"\\u12\"", "invalid_json"},
    {"\"\\u12g4\"", "invalid_json"},
    {"\"a\nb\"", "invalid_json"},
    {"\"\x01\"", "invalid_json"},
    {"{} {}", "invalid_json"},
    {"[]x", "invalid_json"},
    {"/**/1", "invalid_json"},
    {"[1]//", "invalid_json"},
    {"\xEF\xBB\xBF{}", "invalid_json"},
    {"\"\\u0000\"", "invalid_string"},
    {"{\"\\u0000\":1}", "invalid_string"},
    {"\"\\ud800\"", "invalid_utf8"},
    {"\"\\udc00\"", "invalid_utf8"},
    {"\"\\ud800x\"", "invalid_utf8"},
    {"\"\\ud800\\u0041\"", "invalid_utf8"},
    {"\"\xff\"", "invalid_utf8"},
    {"\"\xC0\xAF\"", "invalid_utf8"},
    {"\"\xED\xA0\x80\"", "invalid_utf8"},
    {"\"\xF4\x90\x80\x80\"", "invalid_utf8"},
    {"\"\xE2\x82\"", "invalid_utf8"},
    {"{\"a\":1,\"a\":2}", "duplicate_key"},
    {"{\"a\":1,\"\\u0061\":2}", "duplicate_key"},
    {"[{\"x\":{\"b\":1,\"c\":2,\"b\":3}}]", "duplicate_key"},
    {"{\"\":1,\"\":2}", "duplicate_key"},
};

TEST(json_scan_accepts_rfc8259, "every form of RFC 8259 is taken")
{
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const char *got = scan(good[i], strlen(good[i]));
        if (strcmp(got, "ok") != 0) {
            FAIL("%s: %s", good[i], got);
        }
    }
}

TEST(json_scan_refuses_the_rest, "what is not JSON, or not ours, is refused with its reason")
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *got = scan(bad[i].text, strlen(bad[i].text));
        if (strcmp(got, bad[i].reason) != 0) {
            FAIL("%s: %s, not %s", bad[i].text, got, bad[i].reason);
        }
    }
}

TEST(json_scan_nul_byte, "a NUL byte is no end of the text")
{
    CHECK_STR(scan("{}\0", 3), "invalid_json");
    CHECK_STR(scan("\"a\0b\"", 5), "invalid_json");
}

TEST(json_scan_truncations, "a document cut off at any byte is refused and nothing behind it read")
{
    static const char text[] = "{\"model\":\"m\",\"n\":-1.5e3,\"messages\":[{\"role\":\"user\","
                               "\"content\":\"\\u00e4\\ud83d\\ude00 \xC3\xA4\"},true,null]}";
    CHECK_STR(scan(text, sizeof text - 1), "ok");
    for (size_t n = 0; n < sizeof text - 1; n++) {
        if (strcmp(scan(text, n), "ok") == 0) {
            FAIL("accepted when cut at byte %zu", n);
        }
    }
}

static char *repeated(const char *unit, size_t times)
{
    size_t n = strlen(unit);
    char *text = malloc(n * times + 1);
    CHECK(text);
    for (size_t i = 0; i < times; i++) {
        memcpy(text + i * n, unit, n);
    }
    text[n * times] = '\0';
    return text;
}

TEST(json_scan_depth, "64 levels pass, 65 do not, and ten million brackets end early")
{
    char text[2 * (LIMIT_JSON_DEPTH + 1) + 1];
    for (int depth = LIMIT_JSON_DEPTH; depth <= LIMIT_JSON_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        CHECK_STR(scan(text, 2 * (size_t)depth),
                  depth == LIMIT_JSON_DEPTH ? "ok" : "json_too_deep");
    }
    char *brackets = repeated("[", 10000000);
    CHECK_STR(scan(brackets, 10000000), "json_too_deep");
    free(brackets);
    char *objects = repeated("{\"a\":", 2000000);
    CHECK_STR(scan(objects, 10000000), "json_too_deep");
    free(objects);
}

TEST(json_scan_nodes, "200,000 values pass, one more does not")
{
    char *text = repeated(",0", LIMIT_JSON_NODES + 1); /* the array is a value, too */
    size_t n = 2 * (size_t)(LIMIT_JSON_NODES - 1);
    text[0] = '[';
    text[n] = ']';
    CHECK_STR(scan(text, n + 1), "ok");
    text[n] = ',';
    text[n + 2] = ']';
    CHECK_STR(scan(text, n + 3), "json_too_large");
    free(text);
}

TEST(json_scan_many_keys, "100,000 different keys are no duplicates; a late one is found")
{
    size_t room = (size_t)100002 * 16;
    char *text = malloc(room);
    CHECK(text);
    size_t n = 0;
    text[n++] = '{';
    for (int i = 0; i < 100000; i++) {
        n += (size_t)snprintf(text + n, room - n, "\"k%d\":0,", i);
    }
    text[n - 1] = '}';
    CHECK_STR(scan(text, n), "ok");
    n += (size_t)snprintf(text + n - 1, room - n, ",\"k7\":0}") - 1;
    CHECK_STR(scan(text, n), "duplicate_key");
    free(text);
}

TEST(json_scan_names_place, "the message has the offset, the parameter is the outermost member")
{
    struct err e = ERR_INIT;
    static const char text[] = "{\"a\":1,\"seed\":[1,x]}";
    CHECK(json_scan(text, sizeof text - 1, NULL, &e));
    CHECK(strstr(e.msg, "byte 17"));
    CHECK_STR(e.param, "seed");
}

TEST(json_scan_numbers, "integers in float form are noted, endless ones refused")
{
    struct json_scan_info info;
    struct err e = ERR_INIT;
    static const char text[] = "{\"a\":1,\"b\":1.0,\"c\":-0,\"d\":1e2,\"e\":-7,\"f\":{\"g\":1.5}}";
    CHECK_OK(json_scan(text, sizeof text - 1, &info, &e), e);
    CHECK_INT(info.n_fractional, ==, 3);
    CHECK_STR(info.fractional[0], "b");
    CHECK_STR(info.fractional[1], "c");
    CHECK_STR(info.fractional[2], "d");
    char *digits = repeated("9", 400);
    CHECK_STR(scan(digits, 400), "out_of_range");
    free(digits);
}
