#include "model/rope.h"

#include "tensor/vector_ops.h"

#include <math.h>
#include <stddef.h>

void rope_init(struct rope *r, int n_rot, bool neox, float base, float scale, const float *factors)
{
    r->n_rot = n_rot;
    r->neox = neox;
    for (int i = 0; i < n_rot / 2; i++) {
        double factor = factors ? (double)factors[i] : 1.0;
        r->frequency[i] = pow((double)base, -2.0 * i / n_rot) * (double)scale / factor;
    }
}

/* In double: at position 8000 a float angle is wrong by 5e-4, which would be the
 * largest error of the whole pass. */
void rope_table(const struct rope *r, const float *position, int n, float *table)
{
    int half = r->n_rot / 2;
    for (int row = 0; row < n; row++) {
        float *cosines = table + (size_t)row * (size_t)r->n_rot;
        float *sines = cosines + half;
        for (int i = 0; i < half; i++) {
            double angle = (double)position[row] * r->frequency[i];
            cosines[i] = (float)cos(angle);
            sines[i] = (float)sin(angle);
        }
    }
}

void rope_apply(const struct rope *r, const float *table_row, float *x, int n_head, int head_dim)
{
    const struct vector_ops *ops = vector_ops_used();
    int half = r->n_rot / 2;
    for (int h = 0; h < n_head; h++) {
        ops->rotate(x + (size_t)h * (size_t)head_dim, table_row, table_row + half, half, !r->neox);
    }
}
