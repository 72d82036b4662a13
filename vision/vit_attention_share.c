#include "vision/vit.h"

#include <math.h>
#include <string.h>

#define MOST_QUERIES 64

/* weight[n] of one head and one query; log_mass[n]. */
static void attend_row(const float *q, const float *k, const float *log_mass, int n, int stride,
                       int dim, float *weight)
{
    float scale = 1.0f / sqrtf((float)dim);
    float most = -INFINITY;
    float total = 0;
    for (int j = 0; j < n; j++) {
        const float *key = k + (size_t)j * (size_t)stride;
        float dot = 0;
        for (int d = 0; d < dim; d++) {
            dot += q[d] * key[d];
        }
        weight[j] = dot * scale + log_mass[j];
        most = fmaxf(most, weight[j]);
    }
    for (int j = 0; j < n; j++) {
        weight[j] = expf(weight[j] - most);
        total += weight[j];
    }
    for (int j = 0; j < n; j++) {
        weight[j] /= total;
    }
}

/* All together 1. */
static void normalise(float *share, int n)
{
    float total = 0;
    for (int s = 0; s < n; s++) {
        total += share[s];
    }
    for (int s = 0; s < n && total > 0; s++) {
        share[s] /= total;
    }
}

void vit_attention_share(const float *q, const float *k, const struct rows *rows, int n_class,
                         int n_head, int head_dim, float *share, float *work)
{
    int n = rows->n;
    int width = n_head * head_dim;
    int n_queries = n_class ? 1 : n < MOST_QUERIES ? n : MOST_QUERIES;
    float *log_mass = work;
    float *weight = work + n;
    memset(share, 0, (size_t)(rows->n_source - n_class) * sizeof *share);
    for (int j = 0; j < n; j++) {
        log_mass[j] = logf(rows->mass[j]);
    }
    for (int i = 0; i < n_queries; i++) {
        size_t row = n_class ? (size_t)rows->owner[0] : (size_t)i * (size_t)n / (size_t)n_queries;
        for (int h = 0; h < n_head; h++) {
            size_t head = (size_t)h * (size_t)head_dim;
            attend_row(q + row * (size_t)width + head, k + head, log_mass, n, width, head_dim,
                       weight);
            for (int s = 0; s < rows->n_source - n_class; s++) {
                int owner = rows->owner[s + n_class];
                share[s] += weight[owner] / rows->mass[owner];
            }
        }
    }
    normalise(share, rows->n_source - n_class);
}
