/* The portable kernels: the specification of every other set. Sums run in double, so
 * that a fast kernel is compared with something better than itself. */
#include "tensor/kernels_impl.h"
#include "tensor/ops.h"
#include "tensor/packed_kernels.h"
#include "tensor/quant.h"

#include <string.h>

/* A whole number of blocks of every type. */
#define CHUNK 256

static double dot_double(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static void f32_to_f16(uint16_t *y, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        y[i] = op_f32_to_f16(x[i]);
    }
}

static float dot_row(enum tensor_type type, const void *row, const float *x, int n)
{
    const struct tensor_type_traits *t = tensor_type_traits(type);
    size_t chunk_bytes = (size_t)(CHUNK / t->block_elements) * (size_t)t->block_bytes;
    const uint8_t *p = row;
    float w[CHUNK];
    double sum = 0;
    for (int i = 0; i < n; i += CHUNK, p += chunk_bytes) {
        int m = n - i < CHUNK ? n - i : CHUNK;
        quant_dequantize(type, p, w, m);
        sum += dot_double(w, x + i, m);
    }
    return (float)sum;
}

/* One pair of functions for each type: the struct has no room for the type. */
#define ROW_KERNELS(suffix, type)                                                                  \
    static float dot_row_##suffix(const void *row, const float *x, int n)                          \
    {                                                                                              \
        return dot_row(type, row, x, n);                                                           \
    }                                                                                              \
    static void dequantize_row_##suffix(const void *row, float *y, int n)                          \
    {                                                                                              \
        quant_dequantize(type, row, y, n);                                                         \
    }

ROW_KERNELS(f32, TENSOR_F32)
ROW_KERNELS(f16, TENSOR_F16)
ROW_KERNELS(bf16, TENSOR_BF16)
ROW_KERNELS(q4_0, TENSOR_Q4_0)
ROW_KERNELS(q4_1, TENSOR_Q4_1)
ROW_KERNELS(q5_0, TENSOR_Q5_0)
ROW_KERNELS(q5_1, TENSOR_Q5_1)
ROW_KERNELS(q8_0, TENSOR_Q8_0)
ROW_KERNELS(q4_k, TENSOR_Q4_K)
ROW_KERNELS(q5_k, TENSOR_Q5_K)
ROW_KERNELS(q6_k, TENSOR_Q6_K)

const struct kernels kernels_ref = {
    .name = "ref",
    .loops = "ref",
    .f32_to_f16 = f32_to_f16,
    .dot_row =
        {
            [TENSOR_F32] = dot_row_f32,
            [TENSOR_F16] = dot_row_f16,
            [TENSOR_BF16] = dot_row_bf16,
            [TENSOR_Q4_0] = dot_row_q4_0,
            [TENSOR_Q4_1] = dot_row_q4_1,
            [TENSOR_Q5_0] = dot_row_q5_0,
            [TENSOR_Q5_1] = dot_row_q5_1,
            [TENSOR_Q8_0] = dot_row_q8_0,
            [TENSOR_Q4_K] = dot_row_q4_k,
            [TENSOR_Q5_K] = dot_row_q5_k,
            [TENSOR_Q6_K] = dot_row_q6_k,
        },
    .dequantize_row =
        {
            [TENSOR_F32] = dequantize_row_f32,
            [TENSOR_F16] = dequantize_row_f16,
            [TENSOR_BF16] = dequantize_row_bf16,
            [TENSOR_Q4_0] = dequantize_row_q4_0,
            [TENSOR_Q4_1] = dequantize_row_q4_1,
            [TENSOR_Q5_0] = dequantize_row_q5_0,
            [TENSOR_Q5_1] = dequantize_row_q5_1,
            [TENSOR_Q8_0] = dequantize_row_q8_0,
            [TENSOR_Q4_K] = dequantize_row_q4_k,
            [TENSOR_Q5_K] = dequantize_row_q5_k,
            [TENSOR_Q6_K] = dequantize_row_q6_k,
        },
    .packed = &packed_ref,
};
