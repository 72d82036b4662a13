/* From the tower's width to the language model's: one small network for each kind of
 * projector, applied to every row by itself.
 *
 *   internvl   LayerNorm, linear, GELU (erf), linear
 *   mlp        linear, GELU (erf), linear                    (LLaVA)
 *   idefics3   linear
 * With a scale factor s > 1 (internvl, idefics3) s x s neighbouring patches are first put
 * side by side into one row ("pixel shuffle"), so the projector needs the whole grid and
 * nothing may be merged before it. Names of keys and tensors: llama.cpp's mmproj form. */
#ifndef TAMP_VISION_PROJECTOR_H
#define TAMP_VISION_PROJECTOR_H

#include "base/arena.h"
#include "base/err.h"
#include "tensor/compute.h"
#include "tensor/gguf.h"
#include "tensor/weight.h"
#include "vision/clip_params.h"

#include <stdbool.h>

struct projector_kind {
    const char *name;
    const char *norm;          /* tensor of the first LayerNorm, NULL = none */
    const char *linear[2];     /* tensors; the second may be NULL */
    bool second_optional;      /* a file may come without linear[1] */
    bool shuffles;             /* scale_factor is used */
    bool whole_blocks;         /* scale_factor must divide the grid; else it is padded */
    bool class_token_last;     /* where v.position_embd has the class token */
    bool pad_to_square;        /* the picture keeps its aspect, borders are filled */
    int n_skip_layers;         /* blocks at the end that are not run */
    enum clip_activation gelu; /* what clip.use_gelu means for the towers that go with it */
    const char *text_before, *text_after; /* around the rows in the prompt */
};

/* NULL if unknown. */
const struct projector_kind *projector_find(const char *name);

struct projector {
    const struct projector_kind *kind;
    int scale_factor; /* 1 = every row by itself */
    int n_in;         /* width of a row after the shuffle */
    int n_out;
    float *norm_weight, *norm_bias; /* [n_in] or NULL */
    struct weight linear[2];
    int n_linear;
};

int projector_open(struct projector *p, const struct gguf *g, const struct clip_params *params,
                   struct err *e);
/* Make the int8 copies of its matrices (weights_pack). */
int projector_pack(struct projector *p, const struct compute *c, struct err *e);
void projector_close(struct projector *p);

/* Rows that a grid of n_side x n_side patches becomes. */
int projector_rows(const struct projector *p, int n_side);
/* x [n_side * n_side, n_embd] in raster order -> y [projector_rows, n_embd * s * s]:
 * y[Y, X][(dy s + dx) n_embd + c] = x[Y s + dy, X s + dx][c], zero beyond the grid. */
void projector_shuffle(const struct projector *p, const float *x, int n_side, int n_embd, float *y);
/* Whether a row of n_rows has the bits that it has among others. */
bool projector_is_exact(const struct projector *p, int n_rows);
/* x [n_rows, n_in] -> y [n_rows, n_out]; x is overwritten. */
int projector_apply(const struct projector *p, float *x, int n_rows, float *y,
                    const struct compute *c, struct arena *scratch, struct err *e);

#endif
