/* The packed product in plain C. */
#include "tensor/ops.h"
#include "tensor/packed_kernels.h"

#include <math.h>
#include <string.h>

/* The largest |x| by its bits, where a NaN is larger than everything. */
static float largest(const float *x, int n)
{
    uint32_t most = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float result;
    memcpy(&result, &most, sizeof result);
    return result;
}

static void round_row(const float *x, int n_in, struct packed_rows *to, int r)
{
    for (int b = 0; b < to->n_blocks; b++, x += PACKED_BLOCK, n_in -= PACKED_BLOCK) {
        int n = n_in < PACKED_BLOCK ? n_in : PACKED_BLOCK;
        size_t at = packed_at(to, r, b);
        int8_t *q = to->q + at * PACKED_ROW_BLOCK;
        float most = largest(x, n);
        float inverse = most >= PACKED_SMALLEST && most < INFINITY ? PACKED_MOST / most : 0;
        int sum = 0;
        memset(q, 0, PACKED_ROW_BLOCK);
        for (int i = 0; inverse > 0 && i < n; i++) {
            int whole = (int)rintf(x[i] * inverse);
            int high = (whole + PACKED_RADIX / 2) >> PACKED_SHIFT;
            q[i] = (int8_t)high;
            q[i + PACKED_BLOCK] = (int8_t)(whole - high * PACKED_RADIX);
            sum += whole;
        }
        float scale = most / PACKED_MOST;
        to->scale[at] = scale;
        to->scaled_sum[at] = scale * (float)sum;
        to->offset[at] = -128 * sum;
    }
}

static int block_sum(const struct packed *p, const uint8_t *block, int lane, const int8_t *q)
{
    int sum = 0;
    for (int k = 0; k < PACKED_BLOCK; k++) {
        int byte = block[packed_byte(p->kind == PACKED_4BIT, lane, k)];
        int w = p->kind == PACKED_8BIT ? byte - 128 : k < 16 ? byte & 15 : byte >> 4;
        sum += w * (q[k] * PACKED_RADIX + q[k + PACKED_BLOCK]);
    }
    return sum;
}

static float half_factor(const uint8_t *factors, int i)
{
    uint16_t h;
    memcpy(&h, factors + sizeof h * (size_t)i, sizeof h);
    return op_f16_to_f32(h);
}

static float one_output(const struct packed *p, int o, const struct packed_rows *x, int r)
{
    int lane = o % PACKED_LANES;
    float sum = 0;
    for (int b = 0; b < p->n_blocks; b++) {
        const uint8_t *block = packed_block(p, o / PACKED_LANES, b);
        const uint8_t *factors = packed_factors(p, block);
        size_t at = packed_at(x, r, b);
        int whole = block_sum(p, block, lane, x->q + at * PACKED_ROW_BLOCK);
        sum += (float)whole * (half_factor(factors, lane) * x->scale[at]);
        sum += half_factor(factors, PACKED_LANES + lane) * x->scaled_sum[at];
    }
    return sum;
}

static void multiply(const struct packed *p, int begin, int end, const struct packed_rows *x,
                     const float *bias, float *y, int ldy)
{
    for (int o = begin * PACKED_LANES; o < end * PACKED_LANES && o < p->n_out; o++) {
        for (int r = 0; r < x->n_rows; r++) {
            y[(size_t)r * (size_t)ldy + (size_t)o] = one_output(p, o, x, r) + (bias ? bias[o] : 0);
        }
    }
}

static float one_output_of_halves(const struct packed *p, int o, const float *x)
{
    float sum = 0;
    for (int k = 0; k < p->n_in; k++) {
        const uint8_t *block = packed_block(p, o / PACKED_LANES, k / PACKED_BLOCK);
        uint16_t h;
        size_t at = (size_t)(k % PACKED_BLOCK * PACKED_LANES + o % PACKED_LANES);
        memcpy(&h, block + sizeof h * at, sizeof h);
        sum += x[k] * (p->kind == PACKED_F16 ? op_f16_to_f32(h) : op_bf16_to_f32(h));
    }
    return sum;
}

static void multiply_halves(const struct packed *p, int begin, int end, const float *x, int ldx,
                            int n_rows, const float *bias, float *y, int ldy)
{
    for (int o = begin * PACKED_LANES; o < end * PACKED_LANES && o < p->n_out; o++) {
        for (int r = 0; r < n_rows; r++) {
            y[(size_t)r * (size_t)ldy + (size_t)o] =
                one_output_of_halves(p, o, x + (size_t)r * (size_t)ldx) + (bias ? bias[o] : 0);
        }
    }
}

const struct packed_kernels packed_ref = {
    .round_row = round_row, .multiply = multiply, .multiply_halves = multiply_halves};
