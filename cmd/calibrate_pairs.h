/* Answers that are there already: a JSON-lines file, one line for each request and plan,
 * written as soon as it is known. The same command goes on where it was stopped, because an
 * answer is looked up under a key of everything it depends on. The file holds what users
 * wrote, so nobody else may read it. */
#ifndef TAMP_CMD_CALIBRATE_PAIRS_H
#define TAMP_CMD_CALIBRATE_PAIRS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct calibrate_answer {
    char *text;       /* owned by the table, once it is there */
    double mean_rows; /* per layer of the decoder */
    double prompt_ms, compress_ms;
};

struct calibrate_pairs {
    FILE *file;
    struct calibrate_pair *slots; /* [cap] open addressing, cap a power of two */
    size_t n, cap;
    int n_found; /* read from the file */
};

/* Makes the file, or reads what is in it; a last line that was cut off is removed. A zeroed p
 * may be closed. */
int calibrate_pairs_open(struct calibrate_pairs *p, const char *path, struct err *e);
void calibrate_pairs_close(struct calibrate_pairs *p);

/* NULL: not known yet. Valid until the next add. Key 0 is never used. */
const struct calibrate_answer *calibrate_pairs_find(const struct calibrate_pairs *p, uint64_t key);

/* Writes the line and keeps the answer; a->text is copied. `line` and `plan` are for readers
 * of the file. */
int calibrate_pairs_add(struct calibrate_pairs *p, uint64_t key, int line, const char *plan,
                        const struct calibrate_answer *a, struct err *e);

#endif
