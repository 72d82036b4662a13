/* base/edit_distance */
#include "base/edit_distance.h"
#include "tests/test.h"

#include <string.h>

TEST(edit_distance_counts_edits, "insert, delete, change and swap cost one each")
{
    static const struct {
        const char *a, *b;
        int d;
    } cases[] = {{"", "", 0},           {"", "abc", 3},      {"abc", "", 3},
                 {"port", "port", 0},   {"prot", "port", 1}, {"pot", "port", 1},
                 {"porrt", "port", 1},  {"part", "port", 1}, {"kitten", "sitting", 3},
                 {"ratio", "ration", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *a = test_guarded(cases[i].a, strlen(cases[i].a));
        CHECK_INT(edit_distance(a, strlen(cases[i].a), cases[i].b, strlen(cases[i].b)), ==,
                  cases[i].d);
    }
}

TEST(edit_distance_long_words, "words beyond the limit are compared by their beginning")
{
    char a[200];
    char b[200];
    memset(a, 'x', sizeof a);
    memset(b, 'x', sizeof b);
    b[EDIT_DISTANCE_MAX_LEN] = 'y';
    CHECK_INT(edit_distance(a, sizeof a, b, sizeof b), ==, 0);
    b[EDIT_DISTANCE_MAX_LEN - 1] = 'y';
    CHECK_INT(edit_distance(a, sizeof a, b, sizeof b), ==, 1);
}
