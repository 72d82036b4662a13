/* Quantiles of the cosine between neighbouring text rows, per layer. What is measured is
 * exactly what `cosine` looks at: neighbours it would be allowed to merge. The beginning
 * of the sequence must be protected by the caller as in a request: its row has a norm and
 * a direction of its own in decoder-only models and would spoil the statistics. */
#include "compress/calibration.h"

#include "base/alloc.h"
#include "compress/merge.h"
#include "compress/neighbours.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

int calibration_init(struct calibration *c, int n_layer, struct err *e)
{
    size_t n = ((size_t)n_layer + 1) * CALIBRATION_QUANTILES;
    *c = (struct calibration){0};
    if (n_layer < 0) {
        return err_set(e, ERR_INTERNAL, "cannot calibrate %d layers", n_layer);
    }
    float *quantile = mem_alloc(n, sizeof *quantile);
    if (!quantile) {
        return err_no_memory(e, n * sizeof *quantile);
    }
    for (size_t i = 0; i < n; i++) {
        quantile[i] = NAN;
    }
    *c = (struct calibration){.n_layer = n_layer, .quantile = quantile};
    return 0;
}

void calibration_clear(struct calibration *c)
{
    mem_free(c->quantile);
    merge_rates_clear(&c->merge);
    *c = (struct calibration){0};
}

static bool has_layer(const struct calibration *c, int layer)
{
    return c->quantile && layer >= -1 && layer < c->n_layer;
}

static float *layer_quantiles(const struct calibration *c, int layer)
{
    return c->quantile + ((size_t)layer + 1) * CALIBRATION_QUANTILES;
}

static int ascending(const void *p, const void *q)
{
    float a = *(const float *)p;
    float b = *(const float *)q;
    return a < b ? -1 : a > b;
}

/* Between the two values around `at` (0 .. n - 1) of an ascending array. */
static float interpolate(const float *sorted, int n, double at)
{
    int below = (int)at;
    if (below >= n - 1) {
        return sorted[n - 1];
    }
    float share = (float)(at - below);
    return sorted[below] + share * (sorted[below + 1] - sorted[below]);
}

void calibration_set(struct calibration *c, int layer, float *cosines, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        if (!isnan(cosines[i])) {
            cosines[kept++] = cosines[i];
        }
    }
    if (kept == 0 || !has_layer(c, layer)) {
        return;
    }
    qsort(cosines, (size_t)kept, sizeof *cosines, ascending);
    float *quantile = layer_quantiles(c, layer);
    for (int q = 0; q < CALIBRATION_QUANTILES; q++) {
        quantile[q] =
            interpolate(cosines, kept, (double)(kept - 1) * q / (CALIBRATION_QUANTILES - 1));
    }
}

float calibration_threshold(const struct calibration *c, int layer, double share)
{
    if (!has_layer(c, layer)) {
        return NAN;
    }
    double below = share < 0 ? 1 : share > 1 ? 0 : 1 - share;
    return interpolate(layer_quantiles(c, layer), CALIBRATION_QUANTILES,
                       below * (CALIBRATION_QUANTILES - 1));
}

int calibration_measure_neighbours(const struct rows *rows, float *cosines)
{
    int n = 0;
    for (int i = 1; i < rows->n; i++) {
        const float *row = rows->x + (size_t)i * (size_t)rows->n_embd;
        if (rows->kind[i] == ROW_TEXT && neighbours_may_join(rows, i)) {
            cosines[n++] = merge_cosine(row - rows->n_embd, row, rows->n_embd);
        }
    }
    return n;
}
