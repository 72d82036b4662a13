/* The inside of a decoder: its weights, bound once at load and read-only afterwards.
 * For decoder.c (the pass), decoder_weights.c (the binding) and tests. */
#ifndef TAMP_MODEL_DECODER_IMPL_H
#define TAMP_MODEL_DECODER_IMPL_H

#include "model/decoder.h"
#include "model/family.h"
#include "model/rope.h"
#include "tensor/weight.h"

/* Norms that the family does not have are NULL. */
struct decoder_layer {
    float *attn_norm; /* [n_embd] */
    float *q_norm;    /* [head_dim] */
    float *k_norm;    /* [head_dim] */
    float *attn_post_norm;
    float *ffn_norm;
    float *ffn_post_norm;
    struct weight q;        /* [n_head * head_dim, n_embd] */
    struct weight k;        /* [n_head_kv * head_dim, n_embd] */
    struct weight v;        /* the same */
    struct weight attn_out; /* [n_embd, n_head * head_dim] */
    struct weight gate, up; /* [n_ff, n_embd] */
    struct weight down;     /* [n_embd, n_ff] */
};

struct decoder {
    struct decoder_info info;
    const struct family *family;
    struct hparams hp;
    char *name;
    struct weight token_embd; /* [n_vocab, n_embd] */
    struct weight output;     /* the same shape; the same data when the file ties them */
    float *output_norm;       /* [n_embd] */
    struct rope rope_global;
    struct rope rope_local; /* layers with a window */
    struct decoder_layer *layers;
    bool all_packed; /* a row never depends on the others */
};

#endif
