/* What costs time goes through the loops of vector_ops.h; the rest is plain C. */
#include "tensor/ops.h"

#include "tensor/vector_ops.h"

#include <math.h>
#include <string.h>

void op_layer_norm(float *y, const float *x, const float *w, const float *b, int n_rows, int n,
                   float eps)
{
    vector_ops_used()->layer_norm(y, x, w, b, n_rows, n, eps);
}

void op_rms_norm(float *y, const float *x, const float *w, int n_rows, int n, float eps)
{
    vector_ops_used()->rms_norm(y, x, w, n_rows, n, eps);
}

void op_add(float *y, const float *x, size_t n)
{
    vector_ops_used()->add(y, x, n);
}

void op_scale(float *y, float s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] *= s;
    }
}

void op_add_scaled_rows(float *y, const float *x, const float *scale, int n_rows, int n)
{
    vector_ops_used()->add_scaled_rows(y, x, scale, n_rows, n);
}

void op_gelu_erf(float *x, size_t n)
{
    vector_ops_used()->gelu_erf(x, n);
}

void op_gelu_tanh(float *x, size_t n)
{
    vector_ops_used()->gelu_tanh(x, n);
}

void op_gelu_quick(float *x, size_t n)
{
    vector_ops_used()->gelu_quick(x, n);
}

void op_silu(float *x, size_t n)
{
    vector_ops_used()->silu(x, n);
}

void op_silu_mul(float *y, const float *x, size_t n)
{
    vector_ops_used()->silu_mul(y, x, n);
}

void op_gelu_tanh_mul(float *y, const float *x, size_t n)
{
    vector_ops_used()->gelu_tanh_mul(y, x, n);
}

void op_softcap(float *x, size_t n, float cap)
{
    vector_ops_used()->softcap(x, n, cap);
}

float op_cosine(const float *a, const float *b, int n)
{
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? (float)(ab / (sqrt(aa) * sqrt(bb))) : 0;
}

/* In double: at position 8,000 an angle in fp32 is already off by 0.0005. */
static double rope_angle(int pair, int n_rot, float position, float base, float scale,
                         const float *factors)
{
    double frequency = pow((double)base, -2.0 * pair / n_rot) * (double)scale;
    return (double)position * (factors ? frequency / (double)factors[pair] : frequency);
}

static void rotate_pair(float *x, int pair, int n_rot, float c, float s, int neox)
{
    float *a = neox ? x + pair : x + 2 * pair;
    float *b = neox ? a + n_rot / 2 : a + 1;
    float rotated = *a * c - *b * s;
    *b = *a * s + *b * c;
    *a = rotated;
}

void op_rope_table(float *table, int n_rot, float position, float base, float scale,
                   const float *factors)
{
    for (int i = 0; i < n_rot / 2; i++) {
        double angle = rope_angle(i, n_rot, position, base, scale, factors);
        table[2 * i] = (float)cos(angle);
        table[2 * i + 1] = (float)sin(angle);
    }
}

void op_rope_rotate(float *x, int n_rot, const float *table, int neox)
{
    for (int i = 0; i < n_rot / 2; i++) {
        rotate_pair(x, i, n_rot, table[2 * i], table[2 * i + 1], neox);
    }
}

void op_rope(float *x, int n_rot, float position, float base, float scale, const float *factors,
             int neox)
{
    for (int i = 0; i < n_rot / 2; i++) {
        double angle = rope_angle(i, n_rot, position, base, scale, factors);
        rotate_pair(x, i, n_rot, (float)cos(angle), (float)sin(angle), neox);
    }
}

static float f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Round to nearest even. Values below the smallest normal half (2^-14) are quantised by
 * adding 0.5, which puts the half's unit, 2^-24, at the end of the fp32 mantissa. */
uint16_t op_f32_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return sign | 0x7e00; /* NaN stays a quiet NaN */
    }
    if (magnitude >= 0x477ff000) {
        return sign | 0x7c00; /* 65520 and more round to infinity */
    }
    if (magnitude < 0x38800000) {
        float shifted = f32_from_bits(magnitude) + 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | ((magnitude + 0xfff + odd - 0x38000000) >> 13));
}

float op_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) {
        return f32_from_bits(sign | 0x7f800000 | magnitude << 13);
    }
    if (magnitude < 0x0400) { /* zero and subnormals: units of 2^-24 */
        float v = (float)magnitude * 0x1p-24f;
        return sign ? -v : v;
    }
    return f32_from_bits(sign | ((magnitude << 13) + 0x38000000));
}

float op_bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}
