/* Keeping some rows and doing without the others: what pruning methods share. */
#ifndef TAMP_COMPRESS_SELECT_H
#define TAMP_COMPRESS_SELECT_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/rows.h"

#include <stdbool.h>

/* The free rows (not protected) in order: index[n]; returns how many. */
int select_free(const struct rows *rows, int32_t *index);

/* keep[index[i]] = 1 for k of the n rows in index, evenly spaced. */
void select_evenly(const int32_t *index, int n, int k, uint8_t *keep);

/* Only rows with keep[i] and protected ones stay, in their order. The others are dropped, or
 * with `merge` each joins the free kept row it is most similar to, in a mean weighted by mass.
 * metric [n, n_metric], NULL = the rows themselves. At least one free row must be kept for
 * merging. -1 out of memory, with the rows as they were. */
int select_apply(struct rows *rows, const uint8_t *keep, bool merge, const float *metric,
                 int n_metric, struct arena *scratch, struct err *e);

#endif
