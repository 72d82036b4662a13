#include "vision/vit.h"

#include "tensor/ops.h"

#include <math.h>
#include <string.h>

/* One pass over a picture: what the blocks share. Buffers are for the rows at the start;
 * merging only makes them fewer. */
struct pass {
    const struct vit *v;
    const struct compute *c;
    struct arena *scratch;
    struct err *e;
    struct rows rows;
    float *normed; /* [n, n_embd] */
    float *q, *k;  /* [n, n_embd] */
    float *values; /* [n, n_embd] */
    float *mixed;  /* [n, n_embd] attention output; then what is added to x */
    float *hidden; /* [n, n_ff] */
    float *bias;   /* [n] log mass */
    float *metric; /* [n, head_dim] */
};

/* -- work cut by rows ------------------------------------------------------------- */

enum row_op { ROW_NORM, ROW_ACTIVATE, ROW_ADD };

struct row_job {
    enum row_op op;
    const struct pass *p;
    float *y;
    const float *x, *weight, *bias;
    int n; /* elements in a row */
};

static void activate(enum clip_activation kind, float *x, size_t n)
{
    switch (kind) {
    case CLIP_GELU_ERF:
        op_gelu_erf(x, n);
        return;
    case CLIP_GELU_TANH:
        op_gelu_tanh(x, n);
        return;
    case CLIP_GELU_QUICK:
        op_gelu_quick(x, n);
        return;
    case CLIP_SILU:
        op_silu(x, n);
        return;
    }
}

static void run_rows(void *ctx, int ith, int nth)
{
    const struct row_job *j = ctx;
    int begin;
    int end;
    pool_slice(j->p->rows.n, 1, ith, nth, &begin, &end);
    size_t at = (size_t)begin * (size_t)j->n;
    size_t count = (size_t)(end - begin) * (size_t)j->n;
    if (begin == end) {
        return;
    }
    switch (j->op) {
    case ROW_NORM:
        op_layer_norm(j->y + at, j->x + at, j->weight, j->bias, end - begin, j->n,
                      j->p->v->params.eps);
        return;
    case ROW_ACTIVATE:
        activate(j->p->v->params.activation, j->y + at, count);
        return;
    case ROW_ADD:
        if (j->weight) {
            op_add_scaled_rows(j->y + at, j->x + at, j->weight, end - begin, j->n);
        } else {
            op_add(j->y + at, j->x + at, count);
        }
        return;
    }
}

static void norm_rows(struct pass *p, float *y, const float *x, const float *weight,
                      const float *bias)
{
    struct row_job j = {ROW_NORM, p, y, x, weight, bias, p->v->params.n_embd};
    pool_run(p->c->pool, run_rows, &j);
}

/* x += scale * mixed; scale NULL = 1 */
static void add_mixed(struct pass *p, const float *scale)
{
    struct row_job j = {ROW_ADD, p, p->rows.x, p->mixed, scale, NULL, p->v->params.n_embd};
    pool_run(p->c->pool, run_rows, &j);
}

static int multiply(struct pass *p, const struct weight *w, const float *x, float *y)
{
    return weight_matmul(w, x, w->n_in, p->rows.n, y, w->n_out, p->c, p->e);
}

/* -- one block -------------------------------------------------------------------- */

/* Log mass of every row, or NULL while all masses are 1: then nothing is added, and a
 * tower without merging computes the same bits as one without hook. */
static const float *log_mass(struct pass *p)
{
    bool merged = false;
    for (int i = 0; i < p->rows.n; i++) {
        merged |= p->rows.mass[i] != 1.0f;
        p->bias[i] = logf(p->rows.mass[i]);
    }
    return merged ? p->bias : NULL;
}

static int attend(struct pass *p, const struct vit_layer *y)
{
    const struct clip_params *params = &p->v->params;
    norm_rows(p, p->normed, p->rows.x, y->norm1_weight, y->norm1_bias);
    const struct weight *const w[] = {&y->q, &y->k, &y->v};
    float *const out[] = {p->q, p->k, p->values};
    if (weight_matmul_shared(w, out, 3, p->normed, p->rows.n, p->c, p->e) ||
        vit_attention(p->q, p->k, p->values, log_mass(p), p->rows.n, params->n_head,
                      params->n_embd / params->n_head, p->normed, p->c, p->scratch, p->e) ||
        multiply(p, &y->out, p->normed, p->mixed)) {
        return -1;
    }
    add_mixed(p, y->scale1);
    return 0;
}

/* Keys averaged over heads: the features by which rows are called similar. */
static void average_keys(struct pass *p)
{
    int n_head = p->v->params.n_head;
    int dim = p->v->params.n_embd / n_head;
    for (int i = 0; i < p->rows.n; i++) {
        const float *key = p->k + (size_t)i * (size_t)p->v->params.n_embd;
        float *to = p->metric + (size_t)i * (size_t)dim;
        for (int d = 0; d < dim; d++) {
            float sum = 0;
            for (int h = 0; h < n_head; h++) {
                sum += key[h * dim + d];
            }
            to[d] = sum / (float)n_head;
        }
    }
}

static int call_hook(struct pass *p, const struct stage_hook *hook, int layer)
{
    const struct clip_params *params = &p->v->params;
    if (!hook || !hook->wants(hook->ctx, layer)) {
        return 0;
    }
    average_keys(p);
    return hook->run(hook->ctx, layer, params->n_run, &p->rows, p->metric,
                     params->n_embd / params->n_head, p->e);
}

static int feed_forward(struct pass *p, const struct vit_layer *y)
{
    norm_rows(p, p->normed, p->rows.x, y->norm2_weight, y->norm2_bias);
    if (multiply(p, &y->up, p->normed, p->hidden)) {
        return -1;
    }
    struct row_job j = {ROW_ACTIVATE, p, p->hidden, NULL, NULL, NULL, p->v->params.n_ff};
    pool_run(p->c->pool, run_rows, &j);
    if (multiply(p, &y->down, p->hidden, p->mixed)) {
        return -1;
    }
    add_mixed(p, y->scale2);
    return 0;
}

/* -- the ends --------------------------------------------------------------------- */

/* patches [n_side^2, 3 * patch^2]: channel by channel, each patch row by row. */
static void cut_patches(const struct clip_params *p, const float *pixels, float *patches)
{
    size_t size = (size_t)p->image_size;
    size_t patch = (size_t)p->patch_size;
    for (int row = 0; row < p->n_side; row++) {
        for (int col = 0; col < p->n_side; col++) {
            for (size_t c = 0; c < 3; c++) {
                const float *from =
                    pixels + c * size * size + (size_t)row * patch * size + (size_t)col * patch;
                for (size_t y = 0; y < patch; y++, patches += patch) {
                    memcpy(patches, from + y * size, patch * sizeof *patches);
                }
            }
        }
    }
}

static int embed(struct pass *p, const float *pixels)
{
    const struct vit *v = p->v;
    size_t width = (size_t)v->params.n_embd;
    int n_class = v->class_token != NULL;
    int n_patches = v->params.n_side * v->params.n_side;
    struct arena_mark mark = arena_mark(p->scratch);
    float *patches =
        arena_alloc(p->scratch, (size_t)n_patches * (size_t)v->patch.n_in, sizeof *patches);
    if (!patches) {
        return err_no_memory(p->e, (size_t)n_patches * (size_t)v->patch.n_in * sizeof *patches);
    }
    cut_patches(&v->params, pixels, patches);
    if (weight_matmul(&v->patch, patches, v->patch.n_in, n_patches,
                      p->rows.x + (size_t)n_class * width, v->params.n_embd, p->c, p->e)) {
        return -1;
    }
    arena_rewind(p->scratch, mark);
    if (n_class) {
        memcpy(p->rows.x, v->class_token, width * sizeof *p->rows.x);
        p->rows.flags[0] = ROW_PROTECTED;
    }
    op_add(p->rows.x, v->positions, (size_t)p->rows.n * width);
    if (v->pre_weight) {
        norm_rows(p, p->rows.x, p->rows.x, v->pre_weight, v->pre_bias);
    }
    return 0;
}

static int make_room(struct pass *p)
{
    const struct clip_params *params = &p->v->params;
    int n = (p->v->class_token != NULL) + params->n_side * params->n_side;
    if (rows_init(&p->rows, p->scratch, n, params->n_embd, ROW_IMAGE, 0, p->e)) {
        return -1;
    }
    size_t count = (size_t)n;
    size_t width = (size_t)params->n_embd;
    p->normed = arena_alloc(p->scratch, count * width, sizeof(float));
    p->q = arena_alloc(p->scratch, count * width, sizeof(float));
    p->k = arena_alloc(p->scratch, count * width, sizeof(float));
    p->values = arena_alloc(p->scratch, count * width, sizeof(float));
    p->mixed = arena_alloc(p->scratch, count * width, sizeof(float));
    p->hidden = arena_alloc(p->scratch, count * (size_t)params->n_ff, sizeof(float));
    p->bias = arena_alloc(p->scratch, count, sizeof(float));
    p->metric = arena_alloc(p->scratch, count * width / (size_t)params->n_head, sizeof(float));
    if (!p->normed || !p->q || !p->k || !p->values || !p->mixed || !p->hidden || !p->bias ||
        !p->metric) {
        return err_no_memory(p->e, count * (6 * width + (size_t)params->n_ff) * sizeof(float));
    }
    return 0;
}

int vit_encode(const struct vit *v, const float *pixels, const struct stage_hook *hook,
               const struct compute *c, struct arena *scratch, struct rows *out, struct err *e)
{
    struct pass p = {.v = v, .c = c, .scratch = scratch, .e = e};
    if (make_room(&p) || embed(&p, pixels)) {
        return -1;
    }
    for (int i = 0; i < v->params.n_run; i++) {
        if (attend(&p, &v->layers[i]) || call_hook(&p, hook, i) ||
            feed_forward(&p, &v->layers[i])) {
            return -1;
        }
    }
    if (v->post_weight) {
        norm_rows(&p, p.rows.x, p.rows.x, v->post_weight, v->post_bias);
    }
    *out = p.rows;
    return 0;
}
