/* How far a word is from another: what "did you mean" is made of. */
#ifndef TAMP_BASE_EDIT_DISTANCE_H
#define TAMP_BASE_EDIT_DISTANCE_H

#include <stddef.h>

#define EDIT_DISTANCE_MAX_LEN 64

/* Letters to insert, delete, change or swap to turn a into b: Damerau-Levenshtein,
 * optimal string alignment. Only the first EDIT_DISTANCE_MAX_LEN bytes count. */
int edit_distance(const char *a, size_t a_len, const char *b, size_t b_len);

#endif
