/* Block formats, decoded one element at a time in the order of the format's definition.
 *
 * A block is a few fp16 factors and packed integers. Three shapes cover all of them:
 *   x = d q         Q4_0, Q5_0, Q8_0 (q signed, stored with an offset)
 *   x = d q + m     Q4_1, Q5_1
 *   x = d s q - e t Q4_K, Q5_K: s, t are 6-bit factors of 32 elements; Q6_K: d s q,
 *                   s an 8-bit factor of 16 elements
 * In every 32-element block the low nibbles are elements 0..15, the high ones 16..31. */
#include "tensor/quant.h"

#include "tensor/ops.h"

#include <string.h>

/* Elements and bytes of a block. The entries past the supported ones exist so that a
 * file that holds them can be checked and listed. */
static const struct tensor_type_traits layouts[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
};

const struct tensor_type_traits *tensor_type_layout(uint32_t type)
{
    return type < sizeof layouts / sizeof *layouts && layouts[type].name ? &layouts[type] : NULL;
}

static float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return op_f16_to_f32(h);
}

static void dequantize_f32(const uint8_t *p, float *y, int n)
{
    memcpy(y, p, (size_t)n * sizeof *y);
}

static void dequantize_f16(const uint8_t *p, float *y, int n)
{
    for (int i = 0; i < n; i++) {
        y[i] = f16_at(p + 2 * (size_t)i);
    }
}

static void dequantize_bf16(const uint8_t *p, float *y, int n)
{
    for (int i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * (size_t)i, sizeof h);
        y[i] = op_bf16_to_f32(h);
    }
}

static void dequantize_q4_0(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 32, p += 18) {
        float d = f16_at(p);
        for (int i = 0; i < 16; i++) {
            y[b + i] = d * (float)((p[2 + i] & 15) - 8);
            y[b + i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}

static void dequantize_q4_1(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 32, p += 20) {
        float d = f16_at(p);
        float m = f16_at(p + 2);
        for (int i = 0; i < 16; i++) {
            y[b + i] = d * (float)(p[4 + i] & 15) + m;
            y[b + i + 16] = d * (float)(p[4 + i] >> 4) + m;
        }
    }
}

/* Bit i of the 32-bit field is the fifth bit of element i. */
static int fifth_bit(const uint8_t *field, int i)
{
    uint32_t bits;
    memcpy(&bits, field, sizeof bits);
    return (int)((bits >> i) & 1u) << 4;
}

static void dequantize_q5_0(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 32, p += 22) {
        float d = f16_at(p);
        for (int i = 0; i < 16; i++) {
            y[b + i] = d * (float)(((p[6 + i] & 15) | fifth_bit(p + 2, i)) - 16);
            y[b + i + 16] = d * (float)(((p[6 + i] >> 4) | fifth_bit(p + 2, i + 16)) - 16);
        }
    }
}

static void dequantize_q5_1(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 32, p += 24) {
        float d = f16_at(p);
        float m = f16_at(p + 2);
        for (int i = 0; i < 16; i++) {
            y[b + i] = d * (float)((p[8 + i] & 15) | fifth_bit(p + 4, i)) + m;
            y[b + i + 16] = d * (float)((p[8 + i] >> 4) | fifth_bit(p + 4, i + 16)) + m;
        }
    }
}

static void dequantize_q8_0(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 32, p += 34) {
        float d = f16_at(p);
        for (int i = 0; i < 32; i++) {
            y[b + i] = d * (float)(int8_t)p[2 + i];
        }
    }
}

void quant_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t minima[8])
{
    for (int i = 0; i < 4; i++) {
        scales[i] = packed[i] & 63;
        minima[i] = packed[i + 4] & 63;
        scales[i + 4] = (uint8_t)((packed[i + 8] & 15) | ((packed[i] >> 6) << 4));
        minima[i + 4] = (uint8_t)((packed[i + 8] >> 4) | ((packed[i + 4] >> 6) << 4));
    }
}

/* Groups of 32: group 2j takes the low nibbles of bytes 32j.., group 2j + 1 the high. */
static int nibble(const uint8_t *q, int group, int i)
{
    int byte = q[group / 2 * 32 + i];
    return group & 1 ? byte >> 4 : byte & 15;
}

static void dequantize_q4_k(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 256, p += 144) {
        float d = f16_at(p);
        float e = f16_at(p + 2);
        uint8_t s[8];
        uint8_t t[8];
        quant_k_scales(p + 4, s, t);
        for (int i = 0; i < 256; i++) {
            int g = i / 32;
            y[b + i] = d * s[g] * (float)nibble(p + 16, g, i % 32) - e * t[g];
        }
    }
}

static void dequantize_q5_k(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 256, p += 176) {
        float d = f16_at(p);
        float e = f16_at(p + 2);
        uint8_t s[8];
        uint8_t t[8];
        quant_k_scales(p + 4, s, t);
        for (int i = 0; i < 256; i++) {
            int g = i / 32;
            int high = ((p[16 + i % 32] >> g) & 1) << 4;
            y[b + i] = d * s[g] * (float)(nibble(p + 48, g, i % 32) | high) - e * t[g];
        }
    }
}

/* Each half of 128: groups 0 and 1 take the low nibbles of bytes 0..31 and 32..63,
 * groups 2 and 3 the high ones; the upper two bits of group g are at 2g of the 32
 * bytes of high bits. One 8-bit scale for 16 elements. */
static void dequantize_q6_k(const uint8_t *p, float *y, int n)
{
    for (int b = 0; b < n; b += 256, p += 210) {
        float d = f16_at(p + 208);
        for (int i = 0; i < 256; i++) {
            int half = i / 128;
            int group = i / 32 % 4;
            int low = p[half * 64 + group % 2 * 32 + i % 32] >> (group / 2 * 4) & 15;
            int high = p[128 + half * 32 + i % 32] >> (group * 2) & 3;
            int scale = (int8_t)p[192 + i / 16];
            y[b + i] = d * (float)scale * (float)((low | high << 4) - 32);
        }
    }
}

typedef void dequantize_fn(const uint8_t *p, float *y, int n);

static dequantize_fn *const dequantizers[TENSOR_TYPE_COUNT] = {
    [TENSOR_F32] = dequantize_f32,   [TENSOR_F16] = dequantize_f16,
    [TENSOR_BF16] = dequantize_bf16, [TENSOR_Q4_0] = dequantize_q4_0,
    [TENSOR_Q4_1] = dequantize_q4_1, [TENSOR_Q5_0] = dequantize_q5_0,
    [TENSOR_Q5_1] = dequantize_q5_1, [TENSOR_Q8_0] = dequantize_q8_0,
    [TENSOR_Q4_K] = dequantize_q4_k, [TENSOR_Q5_K] = dequantize_q5_k,
    [TENSOR_Q6_K] = dequantize_q6_k,
};

const struct tensor_type_traits *tensor_type_traits(enum tensor_type type)
{
    return (unsigned)type < TENSOR_TYPE_COUNT && dequantizers[type] ? &layouts[type] : NULL;
}

void quant_dequantize(enum tensor_type type, const void *blocks, float *y, int n)
{
    dequantizers[type](blocks, y, n);
}
