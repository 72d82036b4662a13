/* What the two halves of a pass share: decoder.c decides which rows there are, from the
 * first block to the logits; decoder_block.c does the arithmetic of one block on them. */
#ifndef TAMP_MODEL_DECODER_PASS_H
#define TAMP_MODEL_DECODER_PASS_H

#include "model/attention.h"
#include "model/decoder_impl.h"
#include "model/lora_impl.h"

/* The rows of one slice as they lie in the pass. */
struct segment {
    int first, n;
    int n_keys;                     /* keys that the last row sees in this layer */
    int kv_n_before[KV_MAX_GROUPS]; /* lengths of its KV cache before the pass */
};

struct pass {
    const struct decoder *d;
    struct decoder_slice *slices;
    struct segment *segments; /* [n_slices] */
    int n_slices;
    int first_block, end_block;
    int n;                  /* rows of all segments */
    struct compute compute; /* n_answer_rows: those of the segments at the front */
    struct arena *scratch;
    struct attention attention;
    struct attention_job *jobs; /* [n_slices] */

    /* [n, width], n as at the start of the pass */
    float *x;                            /* n_embd: the residual stream */
    float *y;                            /* n_embd: normed input of, or output of, a linear layer */
    float *q;                            /* n_head * head_dim */
    float *k, *v;                        /* n_head_kv * head_dim */
    float *attended;                     /* n_head * head_dim */
    float *gate, *up;                    /* n_ff */
    float *position;                     /* 1 */
    float *angles_global, *angles_local; /* n_rot; the second only if there is a window */
};

/* One block on all rows, from p->x to p->x; the caches get their keys and values. In the
 * last block the rows that nobody needs afterwards leave before the queries are made. */
int pass_block(struct pass *p, int il, struct err *e);

/* Root-mean-square norm of rows [begin, end) of p->x into p->y. */
void pass_norm(const struct pass *p, const float *w, int begin, int end);
/* y = W x for the rows that are there now. */
int pass_linear(const struct pass *p, const struct weight *w, const float *x, float *y,
                struct err *e);
/* y += what the slices' adapters add to this matrix of the block; x and y as for it. */
int pass_lora(const struct pass *p, int il, enum lora_part part, const float *x, float *y,
              struct err *e);
/* Keep only the rows that the last block must carry beyond its attention. */
void pass_keep_needed(struct pass *p);

static inline float *row_at(float *base, int row, int width)
{
    return base + (size_t)row * (size_t)width;
}

#endif
