/* One method of compress/, called by itself: what the tests of single methods share. */
#ifndef TAMP_TESTS_UNIT_METHOD_FIXTURE_H
#define TAMP_TESTS_UNIT_METHOD_FIXTURE_H

#include "compress/compressor.h"

/* The first four say which and where; the others may be set before a call. */
struct method {
    const char *name;
    enum stage stage;
    int layer, n_layer;
    const float *metric; /* [rows, n_metric] or NULL */
    int n_metric;
    double option[COMPRESSOR_MAX_OPTIONS];
};

/* Options as in the method's table. */
void method_defaults(struct method *m);
void method_set(struct method *m, const char *option, double value);
/* Applies it, which must work and leave rows that add up. The reason if it left them alone,
 * else NULL. */
const char *method_run(const struct method *m, struct rows *r, struct arena *a);

/* Row i of two-dimensional rows. */
void row_at_angle(struct rows *r, int i, double degrees, double length);
/* n text rows of width 2 at these angles, all of length 2; the first is at `position`. */
void rows_at_angles(struct rows *r, struct arena *a, float position, const double *degrees, int n);

#endif
