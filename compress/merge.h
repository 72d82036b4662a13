/* Arithmetic that several merging methods share. Pure functions on fp32 arrays; the
 * order of every sum is fixed, so results do not depend on CPU, threads or history. */
#ifndef TAMP_COMPRESS_MERGE_H
#define TAMP_COMPRESS_MERGE_H

#include "base/arena.h"
#include "base/err.h"

#include <stdint.h>

float merge_dot(const float *a, const float *b, int n);
/* a.b / (|a| |b|), clamped to [-1, 1]; 0 when either is a zero vector. */
float merge_cosine(const float *a, const float *b, int n);

/* out[n] = sum_i weight[i] * x[i] / sum_i weight[i] over the n_rows rows of x whose
 * indices are given: the mass-weighted mean. The weights must not add up to 0. */
void merge_weighted_mean(float *out, const float *x, const float *weight, const int32_t *index,
                         int n_rows, int n);

/* Rows to leave of n, at least 1: `rows` if that is 1 or more, else n / ratio rounded. */
int merge_target(double ratio, double rows, int n);

/* The most similar partner of each row of one set in another. */
struct merge_match {
    float score; /* cosine; -INFINITY when there is no partner (empty set b, NaN) */
    int32_t to;  /* index into b; the lowest of equals */
};

/* match[n_a]: for each row a[i] of x [*, n] the best b[j] by cosine (zero vectors have
 * cosine 0 with everything). Temporaries from scratch. */
int merge_bipartite(const float *x, int n, const int32_t *a, int n_a, const int32_t *b, int n_b,
                    struct merge_match *match, struct arena *scratch, struct err *e);

struct merge_ranked {
    double score;
    int32_t index;
};
/* By score descending, equal scores by index ascending: a total order. */
void merge_rank(struct merge_ranked *ranked, int n);

/* x[n] becomes as long as `norm`; a zero vector stays one. */
void merge_stretch(float *x, int n, float norm);

/* How long a merged row is: as the mean of its members, or as they are on average. */
enum merge_norm { NORM_MEAN, NORM_DIRECTION };
extern const char *const merge_norm_names[]; /* "mean", "direction"; NULL-terminated */

/* order[n]: indices of match by score descending, equal scores by index ascending.
 * A total order, so the result is the same with any sorting algorithm. */
int merge_order(const struct merge_match *match, int n, int32_t *order, struct arena *scratch,
                struct err *e);

#endif
