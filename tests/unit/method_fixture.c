#include "tests/unit/method_fixture.h"

#include "tests/test.h"

#include <math.h>

void method_defaults(struct method *m)
{
    compressor_defaults(compressor_find(m->name), m->option);
}

void method_set(struct method *m, const char *option, double value)
{
    int i = compressor_option_index(compressor_find(m->name), option);
    CHECK_INT(i, >=, 0);
    m->option[i] = value;
}

const char *method_run(const struct method *m, struct rows *r, struct arena *a)
{
    struct err e = ERR_INIT;
    struct compress_outcome out = {0};
    const struct compress_call call = {.stage = m->stage,
                                       .layer = m->layer,
                                       .n_layer = m->n_layer,
                                       .metric = m->metric,
                                       .n_metric = m->n_metric,
                                       .options = m->option};
    CHECK_OK(compressor_find(m->name)->ops.apply(&call, r, a, &out, &e), e);
    CHECK_OK(rows_check(r, &e), e);
    return out.skipped;
}

void row_at_angle(struct rows *r, int i, double degrees, double length)
{
    r->x[2 * i] = (float)(length * cos(degrees * M_PI / 180));
    r->x[2 * i + 1] = (float)(length * sin(degrees * M_PI / 180));
}

void rows_at_angles(struct rows *r, struct arena *a, float position, const double *degrees, int n)
{
    struct err e = ERR_INIT;
    CHECK_OK(rows_init(r, a, n, 2, ROW_TEXT, position, &e), e);
    for (int i = 0; i < n; i++) {
        row_at_angle(r, i, degrees[i], 2);
    }
}
