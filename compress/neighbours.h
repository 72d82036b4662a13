/* Groups of consecutive rows, shared by the methods for text: which rows may share a group,
 * and what a group becomes. A merged row stands at the mean original position of its
 * members. Its vector is their mean or, since a mean of different directions is shorter
 * than its members, that mean stretched to the members' mean length. All means are weighted
 * by mass, so that merging in two steps weighs every original row once. */
#ifndef TAMP_COMPRESS_NEIGHBOURS_H
#define TAMP_COMPRESS_NEIGHBOURS_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/rows.h"

#include <stdbool.h>

enum merge_norm { NORM_MEAN, NORM_DIRECTION };
extern const char *const merge_norm_names[]; /* "mean", "direction"; NULL-terminated */

/* Whether rows i - 1 and i may share a group at all: both free, of one kind, no border. */
bool neighbours_may_join(const struct rows *r, int i);

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
