/* Elementwise and row operations in plain C: what each one means is read here.
 *
 * Sums over a row run in double: a row has at most a few thousand elements, so this
 * costs little, and the result then does not depend on the order a compiler chose. */
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

void op_layer_norm(float *y, const float *x, const float *w, const float *b, int n_rows, int n,
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

void op_rms_norm(float *y, const float *x, const float *w, int n_rows, int n, float eps)
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

float op_softmax(float *x, int n)
{
    float max = x[0];
    for (int i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    if (isinf(max) && max < 0) { /* everything is masked: there is no distribution */
        memset(x, 0, (size_t)n * sizeof *x);
        return max;
    }
    double sum = 0;
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += (double)x[i];
    }
    float scale = (float)(1.0 / sum);
    for (int i = 0; i < n; i++) {
        x[i] *= scale;
    }
    return max + (float)log(sum);
}

void op_add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += x[i];
    }
}

void op_scale(float *y, float s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] *= s;
    }
}

void op_add_scaled_rows(float *y, const float *x, const float *scale, int n_rows, int n)
{
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        for (int i = 0; i < n; i++) {
            y[i] += scale[i] * x[i];
        }
    }
}

void op_gelu_erf(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * (float)M_SQRT1_2));
    }
}

void op_gelu_tanh(float *x, size_t n)
{
    const float c = 0.797884560802865f; /* sqrt(2 / pi) */
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        x[i] = 0.5f * v * (1.0f + tanhf(c * (v + 0.044715f * v * v * v)));
    }
}

/* x / (1 + exp(-x)) goes to x or 0 at the ends without a NaN: exp overflows to inf. */
void op_gelu_quick(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-1.702f * x[i]));
    }
}

void op_silu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-x[i]));
    }
}

void op_mul(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] *= x[i];
    }
}

void op_softcap(float *x, size_t n, float cap)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = cap * tanhf(x[i] / cap);
    }
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
