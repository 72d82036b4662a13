/* Errors, UTF-8, the log, the generator. */
#include "base/err.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

TEST(err_keeps_message_reason_and_param, "filled once, prefixed, named")
{
    struct err e = ERR_INIT;
    CHECK_INT(err_reason(&e, ERR_RANGE, "out_of_range", "%s is %d", "port", 7), ==, -1);
    CHECK_INT(err_param(&e, "messages[%d]", 3), ==, -1);
    CHECK_INT(err_prefix(&e, "file %s", "a.yaml"), ==, -1);
    CHECK_INT(e.code, ==, ERR_RANGE);
    CHECK_STR(e.reason, "out_of_range");
    CHECK_STR(e.param, "messages[3]");
    CHECK_STR(e.msg, "file a.yaml: port is 7");
    err_set(&e, ERR_IO, "other");
    CHECK_STR(e.param, "");
    CHECK(e.reason == NULL);
}

TEST(err_cuts_long_messages, "longer than the struct: cut, terminated, prefix kept")
{
    struct err e = ERR_INIT;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(&e, ERR_IO, "%s", text);
    CHECK_INT(strlen(e.msg), ==, sizeof e.msg - 1);
    err_prefix(&e, "where");
    CHECK(strncmp(e.msg, "where: xxx", 10) == 0);
    err_prefix(&e, "%s", text);
    CHECK_INT(strlen(e.msg), ==, sizeof e.msg - 1);
    err_param(&e, "%s", text);
    CHECK_INT(strlen(e.param), ==, sizeof e.param - 1);
}

TEST(err_without_a_place, "NULL is allowed: the caller may not care")
{
    CHECK_INT(err_set(NULL, ERR_IO, "x"), ==, -1);
    CHECK_INT(err_reason(NULL, ERR_IO, "r", "x"), ==, -1);
    CHECK_INT(err_param(NULL, "x"), ==, -1);
    CHECK_INT(err_prefix(NULL, "x"), ==, -1);
    CHECK_INT(err_no_memory(NULL, 1), ==, -1);
}

TEST(err_names_every_code, "each code has its own name")
{
    for (int i = 0; i < ERR_CODE_COUNT; i++) {
        const char *name = err_code_name((enum err_code)i);
        CHECK(name && *name);
        for (int k = 0; k < i; k++) {
            CHECK(strcmp(name, err_code_name((enum err_code)k)) != 0);
        }
    }
}

TEST(utf8_round_trip, "every codepoint that exists comes back from its bytes")
{
    char out[4];
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c <= 0xdfff) {
            continue;
        }
        uint32_t back = 0;
        size_t n = utf8_put(c, out);
        CHECK_INT(utf8_next(out, n, &back), ==, n);
        CHECK_INT(back, ==, c);
        CHECK_INT(utf8_next(out, n - 1, NULL), ==, n == 1 ? 0 : (size_t)-1);
    }
}

TEST(utf8_refuses_invalid, "overlong, surrogates, above U+10FFFF, lone and wrong continuations")
{
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xc3(",
        "\xe2\x82(",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t n = strlen(bad[i]);
        CHECK_INT(utf8_next(test_guarded(bad[i], n), n, NULL), ==, 0);
        CHECK_INT(utf8_valid_prefix(bad[i], n), ==, 0);
    }
    CHECK_INT(utf8_valid_prefix("ab\xff"
                                "c",
                                4),
              ==, 2);
    CHECK_INT(utf8_valid_prefix("ab\xe2\x82", 4), ==, 2);
}

TEST(utf8_whole_never_cuts, "an incomplete character at the end waits, everything else goes")
{
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    static const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
    for (size_t n = 0; n < sizeof text; n++) {
        CHECK_INT(utf8_whole(test_guarded(text, n), n), ==, whole[n]);
    }
    CHECK_INT(utf8_whole("\xff", 1), ==, 1);
    CHECK_INT(utf8_whole("\x80\x80\x80\x80", 4), ==, 4);
}

static const char *logged(enum log_format format, const char *value)
{
    static char line[8192];
    int fds[2];
    CHECK(pipe(fds) == 0 && dup2(fds[1], STDERR_FILENO) >= 0);
    close(fds[1]);
    log_init(format, LOG_INFO);
    log_event(LOG_DEBUG, "below the level");
    log_event(LOG_WARN, "two words", log_str("s", value), log_i64("i", -3), log_f64("f", NAN));
    ssize_t n = read(fds[0], line, sizeof line - 1);
    CHECK_INT(n, >, 0);
    line[n] = '\0';
    close(fds[0]);
    char *event = strstr(line, "level");
    return event ? event : line;
}

TEST(log_logfmt_cannot_be_broken, "quotes, newlines and equal signs stay inside their value")
{
    CHECK_STR(logged(LOG_LOGFMT, "plain"), "level=warn event=\"two words\" s=plain i=-3 f=null\n");
    CHECK_STR(logged(LOG_LOGFMT, "a=b \"c\"\nlevel=error"),
              "level=warn event=\"two words\" s=\"a=b \\\"c\\\"\\u000alevel=error\" i=-3 f=null\n");
    CHECK_STR(logged(LOG_LOGFMT, ""), "level=warn event=\"two words\" s=\"\" i=-3 f=null\n");
}

TEST(log_json_cannot_be_broken, "control characters and quotes are escaped")
{
    CHECK_STR(logged(LOG_JSON, "a\"\\\x01"),
              "level\":\"warn\",\"event\":\"two words\",\"s\":\"a\\\"\\\\\\u0001\",\"i\":-3,"
              "\"f\":null}\n");
}

TEST(rng_is_splitmix64, "the published first values for seed 1234567")
{
    static const uint64_t want[] = {6457827717110365317u, 3203168211198807973u,
                                    9817491932198370423u, 4593380528125082431u,
                                    16408922859458223821u};
    struct rng r;
    rng_init(&r, 1234567);
    for (int i = 0; i < 5; i++) {
        CHECK(rng_u64(&r) == want[i]);
    }
}

TEST(rng_is_uniform_enough, "mean of 1e5 doubles within 5 standard errors of one half")
{
    struct rng r;
    rng_init(&r, test_seed());
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double x = rng_double(&r);
        CHECK(x >= 0 && x < 1);
        CHECK_INT(rng_below(&r, 7), <, 7);
        sum += x;
    }
    /* The standard error is sqrt(1/12) / sqrt(1e5) = 0.00091. */
    CHECK_DOUBLE(fabs(sum / 1e5 - 0.5), <, 0.0046);
}
