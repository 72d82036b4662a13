/* engine/answer: stop strings across pieces, whole characters, invalid bytes. */
#include "base/rng.h"
#include "base/utf8.h"
#include "engine/answer.h"
#include "tests/test.h"

#include <string.h>

static void add(struct answer *a, const char *piece, const char *want_out, bool want_stop)
{
    bool stopped = !want_stop;
    CHECK_INT(answer_add(a, piece, strlen(piece), &stopped), ==, 0);
    CHECK_STR(buf_str(&a->out), want_out);
    CHECK_INT(stopped, ==, want_stop);
}

TEST(answer_without_stop_passes_through, "text without stop strings leaves at once")
{
    struct answer a;
    answer_init(&a, NULL, 0);
    add(&a, "Hello", "Hello", false);
    add(&a, "", "", false);
    add(&a, ", you", ", you", false);
    CHECK_INT(answer_end(&a), ==, 0);
    CHECK_STR(buf_str(&a.out), "");
    answer_free(&a);
}

TEST(answer_stop_across_pieces, "a stop string split over pieces is found and never sent")
{
    const char *stop[] = {"END", "\n\n"};
    struct answer a;
    answer_init(&a, stop, 2);
    add(&a, "oneE", "one", false);
    add(&a, "N", "", false);
    add(&a, "O", "ENO", false);
    add(&a, "x\n", "x", false);
    add(&a, "\ny", "", true);
    answer_free(&a);
}

TEST(answer_earliest_stop_wins, "of two complete stop strings the earlier one ends the answer")
{
    const char *stop[] = {"bb", "a"};
    struct answer a;
    answer_init(&a, stop, 2);
    add(&a, "xxabb", "xx", true);
    answer_free(&a);
}

TEST(answer_end_releases_held, "what was held back for a stop string comes out at the end")
{
    const char *stop[] = {"STOP"};
    struct answer a;
    answer_init(&a, stop, 1);
    add(&a, "ST", "", false);
    CHECK_INT(answer_end(&a), ==, 0);
    CHECK_STR(buf_str(&a.out), "ST");
    answer_free(&a);
}

TEST(answer_whole_characters, "a character cut between two tokens leaves in one piece")
{
    struct answer a;
    answer_init(&a, NULL, 0);
    add(&a, "\xf0\x9f", "", false);
    add(&a, "\x98", "", false);
    add(&a, "\x80!", "\xf0\x9f\x98\x80!", false);
    add(&a, "\xe2\x82", "", false);
    CHECK_INT(answer_end(&a), ==, 0);
    CHECK_STR(buf_str(&a.out), "\xef\xbf\xbd\xef\xbf\xbd");
    answer_free(&a);
}

TEST(answer_replaces_invalid_bytes, "whatever the model writes, what leaves is valid UTF-8")
{
    const char *stop[] = {"\xff", "q"};
    struct rng r;
    rng_init(&r, test_seed());
    for (int round = 0; round < 500; round++) {
        struct answer a;
        answer_init(&a, stop, round % 3);
        bool stopped = false;
        for (int i = 0; i < 20 && !stopped; i++) {
            char piece[4];
            size_t n = rng_below(&r, 5);
            for (size_t k = 0; k < n; k++) {
                piece[k] = (char)rng_u64(&r);
            }
            CHECK_INT(answer_add(&a, piece, n, &stopped), ==, 0);
            CHECK_INT(utf8_valid_prefix(buf_str(&a.out), a.out.len), ==, a.out.len);
        }
        CHECK_INT(answer_end(&a), ==, 0);
        CHECK_INT(utf8_valid_prefix(buf_str(&a.out), a.out.len), ==, a.out.len);
        answer_free(&a);
    }
}
