/* One weight matrix, shared by the vision tower and the decoder: y = W x + b. */
#ifndef TAMP_TENSOR_WEIGHT_H
#define TAMP_TENSOR_WEIGHT_H

#include "base/err.h"
#include "tensor/compute.h"
#include "tensor/gguf.h"
#include "tensor/packed.h"

#include <stdbool.h>
#include <stddef.h>

struct weight {
    int n_out; /* rows */
    int n_in;  /* columns */
    enum tensor_type type;
    const void *data; /* GGUF blocks, row by row; borrowed from the mapping */
    size_t row_bytes;
    const float *bias;    /* [n_out] or NULL; owned */
    struct packed packed; /* owned; its data is NULL before weights_pack */
    bool is_sensitive;    /* integer weights: activations keep 12 bits in bulk, too */
};

/* Bind a tensor of shape {n_in, n_out}, or a convolution kernel {w, h, c, n_out} with
 * w h c = n_in, as a matrix (and a bias of n_out elements, name NULL = none).
 * Fails when absent, of another shape or of an unknown type; names the tensor. */
int weight_bind(struct weight *w, const struct gguf *g, const char *name, const char *bias_name,
                int n_in, int n_out, struct err *e);
void weight_clear(struct weight *w);

/* Make the copies that the packed kernels read (tensor/packed.h), one behind the other in
 * the order given, which should be that of their use; from then on products use them. F32
 * weights are left as they are. -1: no memory, and the weights are as before. */
int weights_pack(struct weight *const *w, int n, const struct compute *c, struct err *e);

/* A vector or table as fp32, dequantised into memory that the caller frees with
 * mem_free. n is the number of elements the tensor must have. NULL with *e set. */
float *weight_vector(const struct gguf *g, const char *name, size_t n, struct err *e);

/* Rows on the file's own blocks that row kernels multiply no slower than panels and BLAS: on
 * Zen 3 with one thread the former reach 23 GFLOPS at any number of rows, panels and sgemm
 * 19 at 5 rows, 22 at 6 and 32 at 8. */
#define WEIGHT_FEW_ROWS 6
/* Whether a row of so many, none of an answer, has the bits that it has alone. */
static inline bool weight_is_exact(const struct weight *w, int n_rows)
{
    return w->packed.data || n_rows <= WEIGHT_FEW_ROWS;
}

/* A row of a packed weight never depends on the others, nor does a row of an answer
 * (compute.n_answer_rows) on any weight, which batched decoding relies on. Other rows on the
 * file's own blocks go through BLAS, where a row's bits may depend on how many there are.
 *
 * y[r, 0..n_out) = W x[r, 0..n_in) + bias, r in [0, n_rows). x and y must not overlap.
 * ldx, ldy: elements from one row to the next. A row's result does not depend on the
 * number of threads. Many rows go through BLAS on dequantised panels, few rows through
 * the row kernels on the blocks as they are. Returns 0, or -1 out of memory. */
int weight_matmul(const struct weight *w, const float *x, int ldx, int n_rows, float *y, int ldy,
                  const struct compute *c, struct err *e);

/* The same for several weights with one x, which is rounded only once: y[i] has
 * w[i]->n_out elements a row, ldx is n_in. At most WEIGHT_MAX_SHARED. */
#define WEIGHT_MAX_SHARED 4
int weight_matmul_shared(const struct weight *const *w, float *const *y, int n_weights,
                         const float *x, int n_rows, const struct compute *c, struct err *e);

/* Row i as fp32: token embeddings. y [n_in]. */
void weight_row(const struct weight *w, int i, float *y, const struct compute *c);

#endif
