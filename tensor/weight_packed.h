/* Products with packed weights: for weight.c only. */
#ifndef TAMP_TENSOR_WEIGHT_PACKED_H
#define TAMP_TENSOR_WEIGHT_PACKED_H

#include "tensor/weight.h"

/* Weights of the same n_in that multiply the same rows. */
struct packed_product {
    const struct weight *w[WEIGHT_MAX_SHARED];
    float *y[WEIGHT_MAX_SHARED];
    int ldy[WEIGHT_MAX_SHARED];
    int n_weights;
};

int packed_matmul(const struct packed_product *p, const float *x, int ldx, int n_rows,
                  const struct compute *c, struct err *e);

#endif
