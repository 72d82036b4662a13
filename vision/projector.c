#include "vision/projector.h"

#include "base/alloc.h"
#include "tensor/ops.h"

#include <stdio.h>
#include <string.h>

#define NORM_EPS 1e-5f /* the projector's own; not in the file */

static const struct projector_kind kinds[] = {
    {.name = "internvl",
     .norm = "mm.model.mlp.0",
     .linear = {"mm.model.mlp.1", "mm.model.mlp.3"},
     .shuffles = true,
     .whole_blocks = true,
     .class_token_last = true,
     .gelu = CLIP_GELU_ERF,
     .text_before = "<img>",
     .text_after = "</img>"},
    {.name = "mlp",
     .linear = {"mm.0", "mm.2"},
     .second_optional = true,
     .pad_to_square = true,
     .n_skip_layers = 1,
     .gelu = CLIP_GELU_ERF,
     .text_before = "",
     .text_after = ""},
    {.name = "idefics3",
     .linear = {"mm.model.fc", NULL},
     .shuffles = true,
     .gelu = CLIP_GELU_TANH,
     .text_before = "<fake_token_around_image><global-img>",
     .text_after = "<fake_token_around_image>"},
};

const struct projector_kind *projector_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

static int bind_norm(struct projector *p, const struct gguf *g, struct err *e)
{
    char name[65];
    if (!p->kind->norm) {
        return 0;
    }
    snprintf(name, sizeof name, "%s.weight", p->kind->norm);
    p->norm_weight = weight_vector(g, name, (size_t)p->n_in, e);
    snprintf(name, sizeof name, "%s.bias", p->kind->norm);
    p->norm_bias = p->norm_weight ? weight_vector(g, name, (size_t)p->n_in, e) : NULL;
    return p->norm_bias ? 0 : -1;
}

/* The width of the output is what the tensor says. */
static int bind_linear(struct projector *p, const struct gguf *g, int i, int n_in, struct err *e)
{
    char name[65];
    char bias[65];
    snprintf(name, sizeof name, "%s.weight", p->kind->linear[i]);
    snprintf(bias, sizeof bias, "%s.bias", p->kind->linear[i]);
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    if (!t) {
        return err_set(e, ERR_FORMAT, "%.200s: there is no tensor named %s", gguf_path(g), name);
    }
    if (t->ne[1] < 1 || t->ne[1] > 65536) {
        return err_set(e, ERR_FORMAT, "%.200s: tensor %s has %lld rows; at most 65536",
                       gguf_path(g), name, (long long)t->ne[1]);
    }
    p->n_out = (int)t->ne[1];
    return weight_bind(&p->linear[i], g, name, gguf_find_tensor(g, bias) ? bias : NULL, n_in,
                       p->n_out, e);
}

static bool has_second(const struct projector *p, const struct gguf *g)
{
    char name[65];
    if (!p->kind->linear[1]) {
        return false;
    }
    snprintf(name, sizeof name, "%s.weight", p->kind->linear[1]);
    return !p->kind->second_optional || gguf_find_tensor(g, name);
}

int projector_open(struct projector *p, const struct gguf *g, const struct clip_params *params,
                   struct err *e)
{
    int s = params->projector->shuffles ? params->scale_factor : 1;
    *p = (struct projector){
        .kind = params->projector, .scale_factor = s, .n_in = params->n_embd * s * s};
    p->n_linear = has_second(p, g) ? 2 : 1;
    if (bind_norm(p, g, e) || bind_linear(p, g, 0, p->n_in, e) ||
        (p->n_linear == 2 && bind_linear(p, g, 1, p->n_out, e))) {
        projector_close(p);
        return -1;
    }
    return 0;
}

int projector_pack(struct projector *p, const struct compute *c, struct err *e)
{
    struct weight *const linear[] = {&p->linear[0], &p->linear[1]};
    return weights_pack(linear, p->n_linear, c, e);
}

void projector_close(struct projector *p)
{
    mem_free(p->norm_weight);
    mem_free(p->norm_bias);
    weight_clear(&p->linear[0]);
    weight_clear(&p->linear[1]);
    *p = (struct projector){0};
}

int projector_rows(const struct projector *p, int n_side)
{
    int side = (n_side + p->scale_factor - 1) / p->scale_factor;
    return side * side;
}

void projector_shuffle(const struct projector *p, const float *x, int n_side, int n_embd, float *y)
{
    int s = p->scale_factor;
    int side = (n_side + s - 1) / s;
    size_t width = (size_t)n_embd;
    memset(y, 0, (size_t)(side * side) * (size_t)p->n_in * sizeof *y);
    for (int row = 0; row < n_side; row++) {
        for (int col = 0; col < n_side; col++) {
            size_t to = (size_t)(row / s * side + col / s) * (size_t)p->n_in +
                        (size_t)(row % s * s + col % s) * width;
            memcpy(y + to, x + (size_t)(row * n_side + col) * width, width * sizeof *y);
        }
    }
}

bool projector_is_exact(const struct projector *p, int n_rows)
{
    bool exact = true;
    for (int i = 0; i < p->n_linear; i++) {
        exact &= weight_is_exact(&p->linear[i], n_rows);
    }
    return exact;
}

static int two_linears(const struct projector *p, const float *x, int n_rows, float *y,
                       const struct compute *c, struct arena *scratch, struct err *e)
{
    int n_mid = p->linear[0].n_out;
    size_t n = (size_t)n_rows * (size_t)n_mid;
    struct arena_mark mark = arena_mark(scratch);
    float *middle = arena_alloc(scratch, n, sizeof *middle);
    if (!middle) {
        return err_no_memory(e, n * sizeof *middle);
    }
    int result = weight_matmul(&p->linear[0], x, p->n_in, n_rows, middle, n_mid, c, e);
    if (result == 0) {
        op_gelu_erf(middle, n);
        result = weight_matmul(&p->linear[1], middle, n_mid, n_rows, y, p->n_out, c, e);
    }
    arena_rewind(scratch, mark);
    return result;
}

int projector_apply(const struct projector *p, float *x, int n_rows, float *y,
                    const struct compute *c, struct arena *scratch, struct err *e)
{
    if (p->norm_weight) {
        op_layer_norm(x, x, p->norm_weight, p->norm_bias, n_rows, p->n_in, NORM_EPS);
    }
    if (p->n_linear == 1) {
        return weight_matmul(&p->linear[0], x, p->n_in, n_rows, y, p->n_out, c, e);
    }
    return two_linears(p, x, n_rows, y, c, scratch, e);
}
