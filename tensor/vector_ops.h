/* The loops behind ops.h, one table for each instruction set; vector_ops_ref.c (libm) is
 * the specification. What happens to an element depends on that element alone (of a row,
 * for the norms): not on n, on alignment or on what lies beside it, so that a request has
 * the same bits alone and in a batch. Sets differ in the last bits: see lanes_math.h. */
#ifndef TAMP_TENSOR_VECTOR_OPS_H
#define TAMP_TENSOR_VECTOR_OPS_H

#include <stdbool.h>
#include <stddef.h>

struct kernels;
struct attend_kernels;

struct vector_ops {
    const char *name;
    /* what op_... of the same name does; weights of rms_norm and bias may be NULL */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, int n_rows, int n,
                       float eps);
    void (*rms_norm)(float *y, const float *x, const float *w, int n_rows, int n, float eps);
    void (*add)(float *y, const float *x, size_t n);
    void (*add_scaled_rows)(float *y, const float *x, const float *scale, int n_rows, int n);
    void (*gelu_erf)(float *x, size_t n);
    void (*gelu_tanh)(float *x, size_t n);
    void (*gelu_quick)(float *x, size_t n);
    void (*silu)(float *x, size_t n);
    void (*silu_mul)(float *y, const float *x, size_t n);
    void (*gelu_tanh_mul)(float *y, const float *x, size_t n);
    void (*softcap)(float *x, size_t n, float cap);
    /* Turn n pairs of x by (cosines[i], sines[i]): pairs (i, i + n) or, if adjacent,
     * (2i, 2i + 1). */
    void (*rotate)(float *x, const float *cosines, const float *sines, int n, bool adjacent);

    const struct attend_kernels *attend; /* tensor/attend_kernels.h */
};

/* The set that goes with these kernels: the widest that this CPU runs, unless the user
 * forced kernels below the best ones; then those of the same instructions. Never NULL. */
const struct vector_ops *vector_ops_for(const struct kernels *kernels);

/* What op_... functions use; at first the best for this CPU. Set once, before other
 * threads compute. */
void vector_ops_use(const struct vector_ops *ops);
const struct vector_ops *vector_ops_used(void);

#endif
