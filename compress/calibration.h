/* Cosine between neighbouring text rows, measured for one model at each layer:
 * turns "merge the most similar 38 %" into a fixed threshold, because a threshold
 * is prefix-stable and a quantile of the request itself is not. */
#ifndef TAMP_COMPRESS_CALIBRATION_H
#define TAMP_COMPRESS_CALIBRATION_H

#include "base/err.h"
#include "compress/merge_rates.h"
#include "compress/rows.h"

#define CALIBRATION_QUANTILES 101 /* 0 %, 1 %, ... 100 % */

struct calibration {
    int n_layer;              /* decoder blocks; entry 0 is the embedding, l + 1 after block l */
    float *quantile;          /* [n_layer + 1, CALIBRATION_QUANTILES], ascending in each row */
    struct merge_rates merge; /* of the vision tower, when it is first asked for */
};

/* All layers not measured yet. Owns memory until calibration_clear, which a zeroed
 * struct may be given too. */
int calibration_init(struct calibration *c, int n_layer, struct err *e);
void calibration_clear(struct calibration *c);
/* Fill one layer from n measured cosines (sorted in place; NaN is left out). layer -1 =
 * embedding. Nothing measured (n = 0) or no such layer: nothing changes. */
void calibration_set(struct calibration *c, int layer, float *cosines, int n);
/* The cosine above which `share` (0..1) of the neighbours lie, interpolated between
 * quantiles. NaN: this layer was not measured or does not exist. */
float calibration_threshold(const struct calibration *c, int layer, double share);
/* Cosines of the neighbours of `rows` that could be merged (both free and text, no break
 * between them) into cosines[at most rows->n]; returns how many. */
int calibration_measure_neighbours(const struct rows *rows, float *cosines);

#endif
