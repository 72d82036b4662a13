/* Families as data: what tells llama, qwen2, qwen3 and gemma3 apart is one row each of
 * a table; there is one decoder for all of them. A new family is a new row and a golden.
 *
 * A model file is untrusted: every hyper-parameter has a range, is checked against the
 * others, and an error names the key, the value and what would be allowed. What the
 * graph has no place for (experts, other RoPE scalings, unknown tensors) is refused,
 * never ignored. */
#ifndef TAMP_MODEL_FAMILY_H
#define TAMP_MODEL_FAMILY_H

#include "base/err.h"
#include "tensor/gguf.h"

#include <stdbool.h>
#include <stdint.h>

#define FAMILY_MAX_LAYERS 512

enum activation { ACTIVATION_SILU, ACTIVATION_GELU_TANH };

struct family {
    const char *name; /* general.architecture, and the prefix of its keys */
    enum activation activation;
    bool rope_neox;         /* pairs (i, i + n_rot/2); otherwise neighbours (2i, 2i+1) */
    bool rope_factors;      /* may have rope_freqs.weight: a divisor for each frequency */
    bool qkv_bias;          /* the three biases must be there */
    bool qk_norm;           /* RMS norm of each head of Q and K before RoPE */
    bool post_norms;        /* RMS norm after attention and after the FFN */
    bool scale_embedding;   /* token embeddings times sqrt(n_embd) */
    int window_pattern;     /* every n-th layer is global, the rest see a window; 0 = all global */
    int wide_scale_n_layer; /* a model of this depth scales attention by n_embd / n_head
                               instead of head_dim (Gemma 3 27B); 0 = none */
};

/* The numbers of one file, all within their ranges. */
struct hparams {
    int n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_rot, n_vocab, n_ctx_train;
    float rms_eps;
    float rope_base, rope_scale;             /* global layers; scale multiplies the position */
    float rope_base_local, rope_scale_local; /* layers with a window */
    int window;                              /* positions a local layer sees; 0 = no window */
    bool local[FAMILY_MAX_LAYERS];           /* [n_layer] which layers have the window */
    float attention_scale;                   /* of q k^T */
    float attention_softcap, final_softcap;  /* 0 = none */
    float embedding_scale;
};

/* Finds the row for general.architecture and reads the keys. ERR_UNSUPPORTED lists the
 * names when there is no row. */
int family_read(const struct gguf *g, const struct family **family, struct hparams *h,
                struct err *e);
/* Names in order, NULL-terminated. */
const char *const *family_names(void);

/* Every tensor of a layer or of the whole model, by role. */
enum tensor_role {
    ROLE_TOKEN_EMBD,
    ROLE_OUTPUT_NORM,
    ROLE_OUTPUT, /* optional: absent = tied to the token embedding */
    ROLE_ROPE_FREQS,
    ROLE_ATTN_NORM,
    ROLE_ATTN_Q,
    ROLE_ATTN_K,
    ROLE_ATTN_V,
    ROLE_ATTN_OUT,
    ROLE_ATTN_Q_NORM,
    ROLE_ATTN_K_NORM,
    ROLE_ATTN_POST_NORM,
    ROLE_FFN_NORM,
    ROLE_FFN_GATE,
    ROLE_FFN_UP,
    ROLE_FFN_DOWN,
    ROLE_FFN_POST_NORM,
    ROLE_COUNT
};

/* name [65]: "blk.3.attn_q.weight". kind: "weight" or "bias". layer is ignored by the
 * roles of the whole model. */
void family_tensor_name(enum tensor_role role, int layer, const char *kind, char name[65]);
/* 0 when the family's graph uses every tensor of the file, else -1 naming the first
 * that it has no place for. */
int family_check_tensors(const struct gguf *g, const struct family *f, const struct hparams *h,
                         struct err *e);

#endif
