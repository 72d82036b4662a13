/* How alike rows must be, block by block of the tower, for merging to leave 1/2, 1/4, 1/8 or
 * 1/16 of a picture's rows on average: thresholds in place of counts (DyMU, arXiv
 * 2504.17040). Filled by running the fixed counts; what lies between is interpolated in the
 * logarithm of the ratio, and a ratio of 1 merges nothing. */
#ifndef TAMP_COMPRESS_MERGE_RATES_H
#define TAMP_COMPRESS_MERGE_RATES_H

#include "base/err.h"

#include <stdbool.h>

#define MERGE_RATES 4

struct merge_rates {
    int n_layer; /* 0: not in use */
    float *sum;  /* [MERGE_RATES, n_layer] of measured similarities */
    int *n;      /* the same, how many */
};

/* Nothing is measured yet; what is there already stays. Owns memory until merge_rates_clear,
 * which a zeroed struct may be given too. */
int merge_rates_init(struct merge_rates *r, int n_layer, struct err *e);
void merge_rates_clear(struct merge_rates *r);

double merge_rate_ratio(int rate); /* 2, 4, 8, 16 */
/* Whether `rate` must be measured before thresholds for `ratio` can be had. */
bool merge_rates_needs(const struct merge_rates *r, int rate, double ratio);
/* The similarity of the last pair that a picture merged in this block; NaN = none did. */
void merge_rates_add(struct merge_rates *r, int rate, int layer, float similarity);
/* thresholds[n_layer]; 1 where nothing was ever merged. */
void merge_rates_thresholds(const struct merge_rates *r, double ratio, float *thresholds);

#endif
