/* The portable loops of vector_ops.h, with libm: what each one means is read here.
 *
 * Sums over a row run in double: a row has at most a few thousand elements, so this
 * costs little, and the result then does not depend on the order a compiler chose. */
#include "tensor/attend_kernels.h"
#include "tensor/vector_ops_impl.h"

#include <math.h>

static void layer_norm(float *y, const float *x, const float *w, const float *b, int n_rows, int n,
                       float eps)
{
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            sum += (double)x[i];
        }
        double mean = sum / n;
        double squares = 0;
        for (int i = 0; i < n; i++) {
            double d = (double)x[i] - mean;
            squares += d * d;
        }
        float scale = (float)(1.0 / sqrt(squares / n + (double)eps));
        for (int i = 0; i < n; i++) {
            y[i] = (float)((double)x[i] - mean) * scale * w[i] + (b ? b[i] : 0);
        }
    }
}

static void rms_norm(float *y, const float *x, const float *w, int n_rows, int n, float eps)
{
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        double squares = 0;
        for (int i = 0; i < n; i++) {
            squares += (double)x[i] * (double)x[i];
        }
        float scale = (float)(1.0 / sqrt(squares / n + (double)eps));
        for (int i = 0; i < n; i++) {
            y[i] = w ? x[i] * scale * w[i] : x[i] * scale;
        }
    }
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += x[i];
    }
}

static void add_scaled_rows(float *y, const float *x, const float *scale, int n_rows, int n)
{
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        for (int i = 0; i < n; i++) {
            y[i] += scale[i] * x[i];
        }
    }
}

static void gelu_erf(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * (float)M_SQRT1_2));
    }
}

static void gelu_tanh(float *x, size_t n)
{
    const float c = 0.797884560802865f; /* sqrt(2 / pi) */
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        x[i] = 0.5f * v * (1.0f + tanhf(c * (v + 0.044715f * v * v * v)));
    }
}

/* x / (1 + exp(-x)) goes to x or 0 at the ends without a NaN: exp overflows to inf. */
static void gelu_quick(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-1.702f * x[i]));
    }
}

static void silu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-x[i]));
    }
}

static void softcap(float *x, size_t n, float cap)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = cap * tanhf(x[i] / cap);
    }
}

static void silu_mul(float *y, const float *x, size_t n)
{
    silu(y, n);
    for (size_t i = 0; i < n; i++) {
        y[i] *= x[i];
    }
}

static void gelu_tanh_mul(float *y, const float *x, size_t n)
{
    gelu_tanh(y, n);
    for (size_t i = 0; i < n; i++) {
        y[i] *= x[i];
    }
}

static void rotate(float *x, const float *cosines, const float *sines, int n, bool adjacent)
{
    int step = adjacent ? 2 : 1;
    int partner = adjacent ? 1 : n;
    for (int i = 0; i < n; i++) {
        float *a = x + i * step;
        float *b = a + partner;
        float a0 = *a;
        *a = a0 * cosines[i] - *b * sines[i];
        *b = a0 * sines[i] + *b * cosines[i];
    }
}

const struct vector_ops vector_ops_ref = {
    .name = "ref",
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .add = add,
    .add_scaled_rows = add_scaled_rows,
    .gelu_erf = gelu_erf,
    .gelu_tanh = gelu_tanh,
    .gelu_quick = gelu_quick,
    .silu = silu,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .softcap = softcap,
    .rotate = rotate,
    .attend = &attend_ref,
};
