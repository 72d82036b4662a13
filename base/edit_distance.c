#include "base/edit_distance.h"

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* Swaps reach back two rows of the table, so three are enough. */
int edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int rows[3][EDIT_DISTANCE_MAX_LEN + 1];
    int *before = rows[0];
    int *last = rows[1];
    int *now = rows[2];
    a_len = a_len < EDIT_DISTANCE_MAX_LEN ? a_len : EDIT_DISTANCE_MAX_LEN;
    b_len = b_len < EDIT_DISTANCE_MAX_LEN ? b_len : EDIT_DISTANCE_MAX_LEN;
    for (size_t j = 0; j <= b_len; j++) {
        last[j] = (int)j;
        before[j] = 0;
    }
    for (size_t i = 1; i <= a_len; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= b_len; j++) {
            int change = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = min_int(change, min_int(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = min_int(now[j], before[j - 2] + 1);
            }
        }
        int *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b_len];
}