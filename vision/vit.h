/* The picture tower: a vision transformer (Dosovitskiy et al., arXiv 2010.11929) with the
 * options that published ones differ in: class token or none, norm before the first block
 * or none, LayerScale (DINOv2) or none, three kinds of GELU or SiLU.
 *
 *   x_0   = W_patch pixels + position          (class token first, then patches by rows)
 *   x    += ls1 * attention(norm1(x))
 *   hook    may merge rows here; from then on log mass is added to the attention logits
 *   x    += ls2 * mlp(norm2(x))
 *   out   = norm_post(x)
 * All sums over rows are done in an order that does not depend on the number of
 * threads. */
#ifndef TAMP_VISION_VIT_H
#define TAMP_VISION_VIT_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/compressor.h"
#include "compress/rows.h"
#include "tensor/compute.h"
#include "tensor/gguf.h"
#include "tensor/weight.h"
#include "vision/clip_params.h"

struct vit_layer {
    float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias; /* [n_embd] */
    float *scale1, *scale2;                                       /* [n_embd] or NULL */
    struct weight q, k, v, out;                                   /* n_embd -> n_embd */
    struct weight up, down;                                       /* n_embd <-> n_ff */
};

struct vit {
    struct clip_params params;
    struct weight patch; /* [n_embd, 3 * patch_size^2] */
    float *patch_data;   /* what `patch` points to */
    float *class_token;  /* [n_embd] or NULL */
    float *positions;    /* [has_class + n_patches, n_embd], class token first */
    float *table;        /* [table_side^2, n_embd] as trained: for other sizes */
    int table_side;
    float *pre_weight, *pre_bias;   /* [n_embd] or NULL */
    float *post_weight, *post_bias; /* [n_embd] or NULL */
    struct vit_layer *layers;       /* [params.n_run] */
};

/* Binds and checks every tensor it will use. *v must be zero or come from vit_close. */
int vit_open(struct vit *v, const struct gguf *g, const struct clip_params *params, struct err *e);
void vit_close(struct vit *v);
/* Make the int8 copies of the blocks' matrices (weights_pack); the patch embedding, which
 * reads pixels, stays fp32. */
int vit_pack(struct vit *v, const struct compute *c, struct err *e);
/* Whether it did so for blocks: then pictures may go through matrix units, too. */
bool vit_is_packed(const struct vit *v);

/* The trained table of positions, without the class token, for n_side x n_side patches:
 * to[n_side^2, n_embd]. -1 out of memory. */
int vit_resize_positions(const struct vit *v, int n_side, float *to);

/* One picture of a pass. */
struct vit_picture {
    const float *pixels;           /* [3, size, size], size = n_side * patch_size */
    int n_side;                    /* patches a side, at most params.n_side; 0 = that many */
    const struct stage_hook *hook; /* NULL: nothing merges */
    /* Out: the rows after the last norm, the class token (if the tower has one) among them,
     * in the order that merging left. Sources: class token 0, then patches. In `scratch`;
     * the x of the next picture begins where this one's ends. */
    struct rows rows;
    float *attention; /* out: [n_side^2], vit_attention_share; in `scratch` */
};

/* Several pictures at once: products run over the rows of all of them, attention and
 * merging over each by itself. A picture's rows have the same bits alone and in any
 * company. n >= 1. */
int vit_encode(const struct vit *v, struct vit_picture *pictures, int n, const struct compute *c,
               struct arena *scratch, struct err *e);
/* Scratch memory that every picture of a pass takes, the products' included. */
size_t vit_picture_bytes(const struct vit *v);

/* Rows that attend to each other and to no others. */
struct vit_part {
    int n;
    const float *bias; /* [n] is added to every query's logits; NULL = none */
};

/* softmax(q k^T / sqrt(head_dim) + bias) v in each part, with n_head heads; q, k, v, out
 * [rows of all parts, n_head * head_dim]. */
int vit_attention(const float *q, const float *k, const float *v, const struct vit_part *parts,
                  int n_parts, int n_head, int head_dim, float *out, const struct compute *c,
                  struct arena *scratch, struct err *e);

/* How much the tower looked at each patch: softmax(q k^T / sqrt(head_dim) + log mass), mean
 * over heads, of the class token (VisionZip, arXiv 2412.04467), or without one the mean over
 * up to 64 evenly spaced rows. A merged row's share is divided among its sources by mass;
 * the class token is left out, and all shares add up to 1. q, k [rows->n, n_head * head_dim];
 * share [rows->n_source - n_class]; work [2 * rows->n]. */
void vit_attention_share(const float *q, const float *k, const struct rows *rows, int n_class,
                         int n_head, int head_dim, float *share, float *work);

#endif
