/* Elementwise and row operations, by the loops of vector_ops.h.
 * x may equal y where both are named. Rows are contiguous unless ld* is given. */
#ifndef TAMP_TENSOR_OPS_H
#define TAMP_TENSOR_OPS_H

#include <stddef.h>
#include <stdint.h>

/* y = (x - mean) / sqrt(var + eps) * w + b, for each of n_rows rows of n; b may be NULL. */
void op_layer_norm(float *y, const float *x, const float *w, const float *b, int n_rows, int n,
                   float eps);
/* y = x / sqrt(mean(x^2) + eps) * w, for each row; w may be NULL (all ones). */
void op_rms_norm(float *y, const float *x, const float *w, int n_rows, int n, float eps);

void op_add(float *y, const float *x, size_t n); /* y += x */
void op_scale(float *y, float s, size_t n);      /* y *= s */
void op_add_scaled_rows(float *y, const float *x, const float *scale, int n_rows,
                        int n);        /* y[r] += scale * x[r] elementwise: LayerScale; scale [n] */
void op_gelu_erf(float *x, size_t n);  /* x Phi(x), exact */
void op_gelu_tanh(float *x, size_t n); /* the tanh approximation */
void op_gelu_quick(float *x, size_t n); /* x sigmoid(1.702 x) */
void op_silu(float *x, size_t n);
void op_silu_mul(float *y, const float *x, size_t n);      /* y = silu(y) * x */
void op_gelu_tanh_mul(float *y, const float *x, size_t n); /* y = gelu_tanh(y) * x */
void op_softcap(float *x, size_t n, float cap);            /* cap * tanh(x / cap) */

/* Cosine of two vectors; 0 when one of them has no length. Accumulates in double. */
float op_cosine(const float *a, const float *b, int n);

/* Rotary position embedding (arXiv 2104.09864) on one head vector x[n_rot..]:
 * angle_i = position * base^(-2i/n_rot) * scale / factors[i] (factors may be NULL).
 * neox: pairs are (i, i + n_rot/2); otherwise neighbours (2i, 2i+1). */
void op_rope(float *x, int n_rot, float position, float base, float scale, const float *factors,
             int neox);

/* The same in two steps, for many heads at one position: the cosine and sine of each
 * pair once, table [n_rot / 2][2], then the rotation of each head vector. */
void op_rope_table(float *table, int n_rot, float position, float base, float scale,
                   const float *factors);
void op_rope_rotate(float *x, int n_rot, const float *table, int neox);

uint16_t op_f32_to_f16(float x);
float op_f16_to_f32(uint16_t h);
float op_bf16_to_f32(uint16_t h);

/* Bicubic resize of a [h, w, channels] fp32 image (all sizes >= 1), half-pixel centres.
 * a: -0.5 (Pillow) or -0.75 (PyTorch, OpenCV). antialias widens the kernel when shrinking
 * and drops taps outside the picture, as Pillow and PyTorch's antialias do; without it
 * they read the edge pixel, as plain PyTorch and OpenCV do. src and dst must not overlap.
 * Returns 0, or -1 out of memory. */
int op_resize_bicubic(const float *src, int src_h, int src_w, float *dst, int dst_h, int dst_w,
                      int channels, float a, int antialias);

#endif
