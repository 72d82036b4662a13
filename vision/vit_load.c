/* Tensors of the tower, by llama.cpp's names, and the position table for the size in use.
 *
 * Two tables may be in a file. v.position_embd is for the file's own picture size; where
 * its class token stands depends on the projector (llama.cpp appends the class token for
 * internvl). v.position_embd_full is tamp's: the table as it was trained, class token
 * first, from which other sizes are interpolated as DINOv2 does (bicubic, a = -0.75). */
#include "vision/vit.h"

#include "base/alloc.h"
#include "tensor/ops.h"
#include "vision/projector.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TORCH_A (-0.75f)

struct loader {
    struct vit *v;
    const struct gguf *g;
    struct err *e;
};

static int need_vector(const struct loader *l, float **out, const char *name, int n)
{
    *out = weight_vector(l->g, name, (size_t)n, l->e);
    return *out ? 0 : -1;
}

static int maybe_vector(const struct loader *l, float **out, const char *name, int n)
{
    return gguf_find_tensor(l->g, name) ? need_vector(l, out, name, n) : 0;
}

static int layer_vector(const struct loader *l, float **out, int layer, const char *part,
                        bool required)
{
    char name[65];
    snprintf(name, sizeof name, "v.blk.%d.%s", layer, part);
    int n = l->v->params.n_embd;
    return required ? need_vector(l, out, name, n) : maybe_vector(l, out, name, n);
}

static int layer_matrix(const struct loader *l, struct weight *w, int layer, const char *part,
                        int n_in, int n_out)
{
    char name[65];
    char bias[65];
    snprintf(name, sizeof name, "v.blk.%d.%s.weight", layer, part);
    snprintf(bias, sizeof bias, "v.blk.%d.%s.bias", layer, part);
    return weight_bind(w, l->g, name, gguf_find_tensor(l->g, bias) ? bias : NULL, n_in, n_out,
                       l->e);
}

/* Early converters exchanged the names of the two MLP matrices. */
static bool names_swapped(const struct loader *l, int layer)
{
    char name[65];
    snprintf(name, sizeof name, "v.blk.%d.ffn_down.weight", layer);
    const struct gguf_tensor *t = gguf_find_tensor(l->g, name);
    return t && t->ne[0] == l->v->params.n_embd && t->ne[1] == l->v->params.n_ff &&
           l->v->params.n_ff != l->v->params.n_embd;
}

static int load_layer(const struct loader *l, int i)
{
    struct vit_layer *y = &l->v->layers[i];
    int n = l->v->params.n_embd;
    int n_ff = l->v->params.n_ff;
    bool swapped = names_swapped(l, i);
    return layer_vector(l, &y->norm1_weight, i, "ln1.weight", true) ||
                   layer_vector(l, &y->norm1_bias, i, "ln1.bias", true) ||
                   layer_vector(l, &y->norm2_weight, i, "ln2.weight", true) ||
                   layer_vector(l, &y->norm2_bias, i, "ln2.bias", true) ||
                   layer_vector(l, &y->scale1, i, "ls1.weight", false) ||
                   layer_vector(l, &y->scale2, i, "ls2.weight", false) ||
                   layer_matrix(l, &y->q, i, "attn_q", n, n) ||
                   layer_matrix(l, &y->k, i, "attn_k", n, n) ||
                   layer_matrix(l, &y->v, i, "attn_v", n, n) ||
                   layer_matrix(l, &y->out, i, "attn_out", n, n) ||
                   layer_matrix(l, &y->up, i, swapped ? "ffn_down" : "ffn_up", n, n_ff) ||
                   layer_matrix(l, &y->down, i, swapped ? "ffn_up" : "ffn_down", n_ff, n)
               ? -1
               : 0;
}

/* What some towers have and this code does not compute: refused, not ignored. */
static int refuse_others(const struct loader *l)
{
    static const char *const names[] = {"v.blk.0.attn_qkv.weight", "v.blk.0.attn_q_norm.weight",
                                        "v.blk.0.ffn_gate.weight", "v.patch_embd.weight.1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (gguf_find_tensor(l->g, names[i])) {
            return err_set(l->e, ERR_UNSUPPORTED,
                           "%.200s: tensor %s belongs to a kind of tower that tamp does not run",
                           gguf_path(l->g), names[i]);
        }
    }
    return 0;
}

/* The convolution {x, y, channel, out} with stride = size is a matrix over patches. */
static int load_patch(const struct loader *l)
{
    const struct clip_params *p = &l->v->params;
    int side = p->patch_size;
    int n_in = 3 * side * side;
    const struct gguf_tensor *t = gguf_find_tensor(l->g, "v.patch_embd.weight");
    if (t && (t->ne[0] != side || t->ne[1] != side || t->ne[2] != 3 || t->ne[3] != p->n_embd)) {
        return err_set(l->e, ERR_FORMAT,
                       "%.200s: tensor v.patch_embd.weight does not have the shape [%d, %d, 3, %d] "
                       "that clip.vision.patch_size and embedding_length say",
                       gguf_path(l->g), side, side, p->n_embd);
    }
    l->v->patch_data =
        weight_vector(l->g, "v.patch_embd.weight", (size_t)n_in * (size_t)p->n_embd, l->e);
    float *bias = NULL;
    if (!l->v->patch_data || maybe_vector(l, &bias, "v.patch_embd.bias", p->n_embd)) {
        return -1;
    }
    l->v->patch = (struct weight){.n_out = p->n_embd,
                                  .n_in = n_in,
                                  .type = TENSOR_F32,
                                  .data = l->v->patch_data,
                                  .row_bytes = (size_t)n_in * sizeof(float),
                                  .bias = bias};
    return 0;
}

/* A table of n_class + side * side rows as fp32, or NULL; *side from its shape. */
static float *read_table(const struct loader *l, const char *name, int n_class, int *side)
{
    const struct gguf_tensor *t = gguf_find_tensor(l->g, name);
    int64_t n = t ? t->ne[1] : 0;
    *side = n > n_class && n <= 1 << 20 ? (int)lround(sqrt((double)(n - n_class))) : 0;
    if (!t || (int64_t)*side * *side != n - n_class) {
        err_set(l->e, ERR_FORMAT, "%.200s: tensor %s is missing or no square grid of positions",
                gguf_path(l->g), name);
        return NULL;
    }
    return weight_vector(l->g, name, (size_t)l->v->params.n_embd * (size_t)n, l->e);
}

int vit_resize_positions(const struct vit *v, int n_side, float *to)
{
    int side = v->table_side;
    if (side == n_side) {
        memcpy(to, v->table, (size_t)(side * side) * (size_t)v->params.n_embd * sizeof *to);
        return 0;
    }
    return op_resize_bicubic(v->table, side, side, to, n_side, n_side, v->params.n_embd, TORCH_A,
                             0);
}

/* A table becomes the vit's, without its class token, which goes to `positions` if wanted. */
static int take_table(const struct loader *l, const char *name, bool class_last, bool wanted)
{
    struct vit *v = l->v;
    int n_class = v->class_token != NULL;
    int side;
    float *table = read_table(l, name, n_class, &side);
    if (!table) {
        return -1;
    }
    size_t width = (size_t)v->params.n_embd;
    size_t n = (size_t)(side * side) * width;
    if (n_class && wanted) {
        memcpy(v->positions, class_last ? table + n : table, width * sizeof *table);
    }
    if (n_class && !class_last) {
        memmove(table, table + width, n * sizeof *table);
    }
    mem_free(v->table);
    v->table = table;
    v->table_side = side;
    return 0;
}

static int load_positions(const struct loader *l)
{
    static const char full[] = "v.position_embd_full.weight";
    struct vit *v = l->v;
    int n_side = v->params.n_side;
    size_t n_class = v->class_token != NULL;
    size_t width = (size_t)v->params.n_embd;
    size_t n = (n_class + (size_t)(n_side * n_side)) * width;
    v->positions = mem_alloc_aligned(n, sizeof *v->positions);
    if (!v->positions) {
        return err_no_memory(l->e, n * sizeof *v->positions);
    }
    if (take_table(l, "v.position_embd.weight", v->params.projector->class_token_last, true)) {
        return -1;
    }
    bool fits = v->table_side == n_side;
    float *patches = v->positions + n_class * width;
    if (fits && vit_resize_positions(v, n_side, patches)) {
        return err_no_memory(l->e, n * sizeof *patches);
    }
    if (gguf_find_tensor(l->g, full) && take_table(l, full, false, !fits)) {
        return -1;
    }
    if (!fits && vit_resize_positions(v, n_side, patches)) {
        return err_no_memory(l->e, n * sizeof *patches);
    }
    return 0;
}

static int load_ends(const struct loader *l)
{
    struct vit *v = l->v;
    int n = v->params.n_embd;
    if (load_patch(l) || maybe_vector(l, &v->class_token, "v.class_embd", n) || load_positions(l) ||
        maybe_vector(l, &v->pre_weight, "v.pre_ln.weight", n) ||
        maybe_vector(l, &v->post_weight, "v.post_ln.weight", n)) {
        return -1;
    }
    return (v->pre_weight && need_vector(l, &v->pre_bias, "v.pre_ln.bias", n)) ||
                   (v->post_weight && need_vector(l, &v->post_bias, "v.post_ln.bias", n))
               ? -1
               : 0;
}

static int load_all(const struct loader *l)
{
    struct vit *v = l->v;
    if (refuse_others(l) || load_ends(l)) {
        return -1;
    }
    v->layers = mem_zalloc((size_t)v->params.n_run, sizeof *v->layers);
    if (!v->layers) {
        return err_no_memory(l->e, (size_t)v->params.n_run * sizeof *v->layers);
    }
    for (int i = 0; i < v->params.n_run; i++) {
        if (load_layer(l, i)) {
            return -1;
        }
    }
    return 0;
}

int vit_open(struct vit *v, const struct gguf *g, const struct clip_params *params, struct err *e)
{
    *v = (struct vit){.params = *params};
    struct loader l = {v, g, e};
    if (load_all(&l)) {
        vit_close(v);
        return -1;
    }
    return 0;
}

enum { LAYER_MATRICES = 6 };

int vit_pack(struct vit *v, const struct compute *c, struct err *e)
{
    int n = v->params.n_run * LAYER_MATRICES;
    struct weight **all = mem_alloc((size_t)n, sizeof(struct weight *));
    if (!all) {
        return err_no_memory(e, (size_t)n * sizeof(struct weight *));
    }
    for (int i = 0; i < v->params.n_run; i++) {
        struct vit_layer *y = &v->layers[i];
        struct weight *const in_order[LAYER_MATRICES] = {&y->q,   &y->k,  &y->v,
                                                         &y->out, &y->up, &y->down};
        memcpy(all + (size_t)i * LAYER_MATRICES, in_order, sizeof in_order);
    }
    int failed = weights_pack(all, n, c, e);
    mem_free(all);
    return failed;
}

bool vit_is_packed(const struct vit *v)
{
    return v->params.n_run > 0 && v->layers[0].q.packed.data != NULL;
}

static void close_layer(struct vit_layer *y)
{
    mem_free(y->norm1_weight);
    mem_free(y->norm1_bias);
    mem_free(y->norm2_weight);
    mem_free(y->norm2_bias);
    mem_free(y->scale1);
    mem_free(y->scale2);
    weight_clear(&y->q);
    weight_clear(&y->k);
    weight_clear(&y->v);
    weight_clear(&y->out);
    weight_clear(&y->up);
    weight_clear(&y->down);
}

void vit_close(struct vit *v)
{
    for (int i = 0; v->layers && i < v->params.n_run; i++) {
        close_layer(&v->layers[i]);
    }
    mem_free(v->layers);
    mem_free(v->patch_data);
    weight_clear(&v->patch);
    mem_free(v->class_token);
    mem_free(v->positions);
    mem_free(v->table);
    mem_free(v->pre_weight);
    mem_free(v->pre_bias);
    mem_free(v->post_weight);
    mem_free(v->post_bias);
    *v = (struct vit){0};
}
