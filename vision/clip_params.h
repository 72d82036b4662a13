/* The numbers of a vision file (`clip.*` keys of llama.cpp's mmproj form), each within
 * its range or the file is refused with the key's name. */
#ifndef TAMP_VISION_CLIP_PARAMS_H
#define TAMP_VISION_CLIP_PARAMS_H

#include "base/err.h"
#include "tensor/gguf.h"

#include <stdbool.h>

struct projector_kind;

enum clip_activation { CLIP_GELU_ERF, CLIP_GELU_TANH, CLIP_GELU_QUICK, CLIP_SILU };

struct clip_params {
    const struct projector_kind *projector;
    int image_size; /* side in pixels */
    int patch_size;
    int n_side; /* patches a side; what is left over at the edge is not seen */
    int n_embd, n_ff, n_layer, n_head;
    int n_run; /* blocks that run: some projectors want the output of an earlier one */
    int scale_factor;
    float eps;
    float mean[3], std[3];
    enum clip_activation activation;
};

/* image_size 0: as the file says; otherwise pictures of that side. */
int clip_params_read(struct clip_params *p, const struct gguf *g, int image_size, struct err *e);

#endif
