/* The inner loops, one struct of functions for each instruction set. The portable
 * reference (kernels_ref.c) is the specification: every other set is tested
 * against it on odd sizes, tails and guard pages. */
#ifndef TAMP_TENSOR_KERNELS_H
#define TAMP_TENSOR_KERNELS_H

#include "base/err.h"
#include "tensor/gguf.h"

#include <stddef.h>
#include <stdint.h>

struct attend_bulk;
struct packed_kernels;

struct kernels {
    const char *name;  /* "ref", "avx2", ...: what --kernel takes */
    const char *loops; /* vector_ops of the same instruction set: "ref", "avx2", "avx512" */

    /* to half precision: the KV cache */
    void (*f32_to_f16)(uint16_t *y, const float *x, int n);

    /* One matrix row (GGUF blocks, n elements, n a multiple of the block) times
     * fp32 activations. NULL entries are never called: tensor_type_traits knows. */
    float (*dot_row[TENSOR_TYPE_COUNT])(const void *row, const float *x, int n);
    /* One matrix row to fp32. */
    void (*dequantize_row[TENSOR_TYPE_COUNT])(const void *row, float *y, int n);

    const struct packed_kernels *packed;   /* loops over packed weights */
    const struct attend_bulk *attend_bulk; /* attention in matrix units; NULL = none */
};

/* name NULL or "auto": the best set this CPU has. NULL with *e set if the name is
 * unknown (the message lists the names) or this CPU cannot run it. */
const struct kernels *kernels_choose(const char *name, struct err *e);
/* Names in order, NULL-terminated; for --help. */
const char *const *kernels_names(void);

#endif
