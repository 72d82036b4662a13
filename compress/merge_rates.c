#include "compress/merge_rates.h"

#include "base/alloc.h"

#include <math.h>

int merge_rates_init(struct merge_rates *r, int n_layer, struct err *e)
{
    if (r->n_layer > 0) {
        return 0;
    }
    size_t n = (size_t)n_layer * MERGE_RATES;
    *r = (struct merge_rates){
        .n_layer = n_layer, .sum = mem_zalloc(n, sizeof *r->sum), .n = mem_zalloc(n, sizeof *r->n)};
    if (!r->sum || !r->n) {
        merge_rates_clear(r);
        return err_no_memory(e, n * sizeof *r->sum);
    }
    return 0;
}

void merge_rates_clear(struct merge_rates *r)
{
    mem_free(r->sum);
    mem_free(r->n);
    *r = (struct merge_rates){0};
}

double merge_rate_ratio(int rate)
{
    return (double)(2 << rate);
}

/* Rates below and above a ratio and how far it is from the lower one; rate -1 is ratio 1. */
static double bracket(double ratio, int *below)
{
    double at = log2(ratio < 1 ? 1 : ratio) - 1;
    at = at > MERGE_RATES - 1 ? MERGE_RATES - 1 : at;
    *below = (int)floor(at);
    *below = *below > MERGE_RATES - 2 ? MERGE_RATES - 2 : *below;
    return at - *below;
}

bool merge_rates_needs(const struct merge_rates *r, int rate, double ratio)
{
    int below;
    double share = bracket(ratio, &below);
    bool used = (rate == below && share < 1) || (rate == below + 1 && share > 0);
    int measured = 0;
    for (int l = 0; l < r->n_layer; l++) {
        measured += r->n[rate * r->n_layer + l];
    }
    return used && measured == 0;
}

void merge_rates_add(struct merge_rates *r, int rate, int layer, float similarity)
{
    if (!isnan(similarity)) {
        r->sum[rate * r->n_layer + layer] += similarity;
        r->n[rate * r->n_layer + layer]++;
    }
}

static double threshold(const struct merge_rates *r, int rate, int layer)
{
    int i = rate * r->n_layer + layer;
    return rate < 0 || r->n[i] == 0 ? 1 : (double)r->sum[i] / r->n[i];
}

void merge_rates_thresholds(const struct merge_rates *r, double ratio, float *thresholds)
{
    int below;
    double share = bracket(ratio, &below);
    for (int l = 0; l < r->n_layer; l++) {
        double low = share < 1 ? threshold(r, below, l) : 0;
        double high = share > 0 ? threshold(r, below + 1, l) : 0;
        thresholds[l] = (float)((1 - share) * low + share * high);
    }
}
