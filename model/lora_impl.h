/* The inside of an adapter: for lora.c (the file), decoder_lora.c (the pass) and tests. */
#ifndef TAMP_MODEL_LORA_IMPL_H
#define TAMP_MODEL_LORA_IMPL_H

#include "model/lora.h"
#include "tensor/gguf.h"
#include "tensor/weight.h"

enum lora_part { LORA_Q, LORA_K, LORA_V, LORA_ATTN_OUT, LORA_GATE, LORA_UP, LORA_DOWN, LORA_PARTS };

struct lora_pair {
    struct weight a; /* [rank, n_in]; n_out == 0: this matrix has no pair */
    struct weight b; /* [n_out, rank] */
    float scale;     /* alpha / rank */
};

struct lora {
    struct gguf *file;
    char *name;
    struct lora_info info;
    int n_layer;
    struct lora_pair (*layers)[LORA_PARTS]; /* [n_layer] */
};

#endif
