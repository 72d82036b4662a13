/* The block formats of GGUF tensors: their layout, and the portable decoder that says
 * what the bytes mean. Fast versions live in the kernel sets and are tested against it.
 * Formats: the ggml project's documentation of its quantisation types. */
#ifndef TAMP_TENSOR_QUANT_H
#define TAMP_TENSOR_QUANT_H

#include "tensor/gguf.h"

#include <stddef.h>
#include <stdint.h>

/* Layout of every type a current GGUF file may hold, also of those tamp cannot compute
 * with: sizes must be known to check a file and to list it. NULL = no such type. */
const struct tensor_type_traits *tensor_type_layout(uint32_t type);

/* n elements (a multiple of the block) of a type of tensor_type_traits to fp32. */
void quant_dequantize(enum tensor_type type, const void *blocks, float *y, int n);

/* The eight 6-bit scales and minima of a Q4_K or Q5_K block, packed in 12 bytes. */
void quant_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t minima[8]);

#endif
