/* Groups of consecutive rows, shared by the methods for text: which rows may share a group,
 * and what a group becomes. A merged row stands at the mean original position of its
 * members. Its vector is their mean or, since a mean of different directions is shorter
 * than its members, that mean stretched to the members' mean length. All means are weighted
 * by mass, so that merging in two steps weighs every original row once. */
#ifndef TAMP_COMPRESS_NEIGHBOURS_H
#define TAMP_COMPRESS_NEIGHBOURS_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/compressor.h"
#include "compress/merge.h"
#include "compress/rows.h"

#include <stdbool.h>

/* Whether rows i - 1 and i may share a group at all: both free, of one kind, no border. */
bool neighbours_may_join(const struct rows *r, int i);

/* The first options of a method that joins similar neighbours, in this order. */
enum { NEIGHBOURS_THRESHOLD, NEIGHBOURS_RATIO, NEIGHBOURS_MAX_GROUP, NEIGHBOURS_N_OPTIONS };

/* The groups that the options of the call give: map in scratch, from neighbours_segment of x.
 * Returns how many groups there are, or -1 out of memory; out->skipped says why nothing
 * joined. */
int neighbours_groups(const struct compress_call *call, const struct rows *r, const float *x,
                      int width, int32_t **map, struct arena *scratch, struct compress_outcome *out,
                      struct err *e);

/* For compressor_ops.predict. */
int neighbours_predict(const double *values, int n);

/* map[n]: groups of neighbours numbered from the left, as segments found from left to right:
 * row i joins the group of row i - 1 when they may join, the group has fewer than max_group
 * rows and cos(row i - 1, row i) > threshold. x: [r->n, width] what is compared. Returns how
 * many groups. */
int neighbours_segment(const struct rows *r, const float *x, int width, double threshold,
                       int max_group, int32_t *map);

/* Each group becomes one row; map [n] is ascending and has every number below m. On failure
 * nothing has changed. Rows that are alone keep their bytes. */
int neighbours_merge(struct rows *r, const int32_t *map, int m, enum merge_norm norm,
                     struct arena *scratch, struct err *e);

#endif
