/* When is a compressed answer as good as the one without compression? */
#ifndef TAMP_CMD_CALIBRATE_JUDGE_H
#define TAMP_CMD_CALIBRATE_JUDGE_H

#include <stdbool.h>

/* `want` stands in the text, whatever the case of its letters, and not as a part of a longer
 * word or number: "July 3" stands in "on july 3.", not in "July 31"; "3" not in "3.50". */
bool calibrate_stands_in(const char *want, const char *text);

/* With an expected answer: it stands in the compressed one. Without (NULL): both are the same
 * text. */
bool calibrate_alike(const char *expected, const char *without, const char *with);

#endif
