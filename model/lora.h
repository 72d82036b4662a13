/* Low-rank adapters (LoRA, arXiv 2106.09685): a small GGUF file whose pairs of matrices are
 * added to those of a decoder while it runs,
 *   y = W x + scale * alpha / rank * B (A x)      A [rank, n_in], B [n_out, rank]
 * so that the packed weights stay as they are, and requests with different adapters, or
 * none, share a pass. Names as llama.cpp has them: general.type = "adapter", adapter.type =
 * "lora", adapter.lora.alpha, and for each matrix blk.N.NAME.weight.lora_a and .lora_b.
 * Matrices of attention and of the FFN may have pairs; a file with others is refused, for
 * leaving them out would give other answers.
 *
 * A file is untrusted input: architecture, shapes, ranks and alpha are checked against the
 * decoder before anything is used. */
#ifndef TAMP_MODEL_LORA_H
#define TAMP_MODEL_LORA_H

#include "base/err.h"
#include "tensor/compute.h"

#include <stdbool.h>
#include <stddef.h>

#define LORA_MAX      8 /* adapters beside one decoder */
#define LORA_MAX_RANK 1024

struct decoder;
struct lora;

/* NULL with *e set. The decoder's shapes are read now; it is not kept. */
struct lora *lora_open(const char *path, const struct decoder *d, struct err *e);
void lora_close(struct lora *l); /* NULL is fine */
/* Copies for the fast kernels; fp32 matrices are rounded to halves. After decoder_pack and
 * before the first pass, by one thread. */
int lora_pack(struct lora *l, const struct compute *c, struct err *e);

struct lora_info {
    const char *name; /* general.name, or "" */
    int n_pairs;
    int rank; /* the largest */
    float alpha;
    size_t weight_bytes;
};
struct lora_info lora_info(const struct lora *l);

/* What one request uses. */
struct lora_mix {
    int n;
    struct {
        const struct lora *lora;
        float scale; /* not 0 */
    } use[LORA_MAX];
};
bool lora_mix_equal(const struct lora_mix *a, const struct lora_mix *b);

#endif
