#include "vision/vit.h"

#include "tensor/ops.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* One pass over some pictures: what the blocks share. Rows of all pictures lie one behind
 * the other. Buffers are for the rows at the start; merging only makes them fewer. */
struct pass {
    const struct vit *v;
    const struct compute *c;
    struct arena *scratch;
    struct err *e;
    struct vit_picture *pictures; /* their rows.x are parts of x */
    struct vit_part *parts;       /* [n_pictures] of attention */
    int n_pictures;
    int n;         /* rows now */
    float *x;      /* [n, n_embd] */
    float *normed; /* [n, n_embd] */
    float *q, *k;  /* [n, n_embd] */
    float *values; /* [n, n_embd] */
    float *mixed;  /* [n, n_embd] attention output; then what is added to x */
    float *hidden; /* [n, n_ff] */
    float *bias;   /* [n] log mass */
    float *metric; /* [n, head_dim] of one picture */
    float *share;  /* [2 n] of one picture */
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
    pool_slice(j->p->n, 1, ith, nth, &begin, &end);
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
    struct row_job j = {ROW_ADD, p, p->x, p->mixed, scale, NULL, p->v->params.n_embd};
    pool_run(p->c->pool, run_rows, &j);
}

#define MOST_PRODUCTS 3

/* y[i] = w[i] x. A product whose rows would not have the same bits in other company is made
 * picture by picture. */
static int multiply(struct pass *p, const struct weight *const *w, float *const *y, int n_weights,
                    const float *x)
{
    bool exact = p->n_pictures == 1;
    for (int i = 0; i < n_weights && !exact; i++) {
        exact = weight_is_exact(w[i], p->n);
    }
    if (exact) {
        return weight_matmul_shared(w, y, n_weights, x, p->n, p->c, p->e);
    }
    size_t at = 0;
    for (int k = 0; k < p->n_pictures; k++) {
        float *own[MOST_PRODUCTS];
        int n = p->pictures[k].rows.n;
        for (int i = 0; i < n_weights; i++) {
            own[i] = y[i] + at * (size_t)w[i]->n_out;
        }
        if (weight_matmul_shared(w, own, n_weights, x + at * (size_t)w[0]->n_in, n, p->c, p->e)) {
            return -1;
        }
        at += (size_t)n;
    }
    return 0;
}

static int multiply_one(struct pass *p, const struct weight *w, const float *x, float *y)
{
    return multiply(p, &w, &y, 1, x);
}

/* -- one block -------------------------------------------------------------------- */

/* Each picture attends to itself, with the log mass of every row, or NULL while all masses
 * are 1: then nothing is added, and a tower without merging computes the same bits as one
 * without hook. */
static void find_parts(struct pass *p)
{
    float *bias = p->bias;
    for (int k = 0; k < p->n_pictures; k++) {
        const struct rows *r = &p->pictures[k].rows;
        bool merged = false;
        for (int i = 0; i < r->n; i++) {
            merged |= r->mass[i] != 1.0f;
            bias[i] = logf(r->mass[i]);
        }
        p->parts[k] = (struct vit_part){.n = r->n, .bias = merged ? bias : NULL};
        bias += r->n;
    }
}

static int attend(struct pass *p, const struct vit_layer *y)
{
    const struct clip_params *params = &p->v->params;
    norm_rows(p, p->normed, p->x, y->norm1_weight, y->norm1_bias);
    const struct weight *const w[MOST_PRODUCTS] = {&y->q, &y->k, &y->v};
    float *const out[MOST_PRODUCTS] = {p->q, p->k, p->values};
    find_parts(p);
    if (multiply(p, w, out, MOST_PRODUCTS, p->normed) ||
        vit_attention(p->q, p->k, p->values, p->parts, p->n_pictures, params->n_head,
                      params->n_embd / params->n_head, p->normed, p->c, p->scratch, p->e) ||
        multiply_one(p, &y->out, p->normed, p->mixed)) {
        return -1;
    }
    add_mixed(p, y->scale1);
    return 0;
}

/* Keys k [n, n_embd] averaged over heads: the features by which rows are called similar. */
static void average_keys(struct pass *p, const float *k, int n)
{
    int n_head = p->v->params.n_head;
    int dim = p->v->params.n_embd / n_head;
    for (int i = 0; i < n; i++) {
        const float *key = k + (size_t)i * (size_t)p->v->params.n_embd;
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

/* The last block but one: in the last one the class token gathers what it will not pass on. */
static int attention_layer(const struct clip_params *p)
{
    return p->n_run > 1 ? p->n_run - 2 : 0;
}

/* Pictures merge one after the other, and those behind close up. */
static int call_hooks(struct pass *p, int layer)
{
    const struct clip_params *params = &p->v->params;
    size_t width = (size_t)params->n_embd;
    const float *q = p->q;
    const float *k = p->k;
    float *x = p->x;
    int head_dim = params->n_embd / params->n_head;
    p->n = 0;
    for (int i = 0; i < p->n_pictures; i++) {
        struct rows *r = &p->pictures[i].rows;
        const struct stage_hook *hook = p->pictures[i].hook;
        int before = r->n;
        if (layer == attention_layer(params)) {
            vit_attention_share(q, k, r, p->v->class_token != NULL, params->n_head, head_dim,
                                p->pictures[i].attention, p->share);
        }
        if (hook && hook->wants(hook->ctx, layer)) {
            average_keys(p, k, before);
            if (hook->run(hook->ctx, layer, params->n_run, r, p->metric, head_dim, p->e)) {
                return -1;
            }
        }
        if (r->x != x) {
            memmove(x, r->x, (size_t)r->n * width * sizeof *x);
            r->x = x;
        }
        q += (size_t)before * width;
        k += (size_t)before * width;
        x += (size_t)r->n * width;
        p->n += r->n;
    }
    return 0;
}

static int feed_forward(struct pass *p, const struct vit_layer *y)
{
    norm_rows(p, p->normed, p->x, y->norm2_weight, y->norm2_bias);
    if (multiply_one(p, &y->up, p->normed, p->hidden)) {
        return -1;
    }
    struct row_job j = {ROW_ACTIVATE, p, p->hidden, NULL, NULL, NULL, p->v->params.n_ff};
    pool_run(p->c->pool, run_rows, &j);
    if (multiply_one(p, &y->down, p->hidden, p->mixed)) {
        return -1;
    }
    add_mixed(p, y->scale2);
    return 0;
}

/* -- the ends --------------------------------------------------------------------- */

static int side_of(const struct clip_params *p, const struct vit_picture *picture)
{
    return picture->n_side ? picture->n_side : p->n_side;
}

/* patches [n_side^2, 3 * patch^2]: channel by channel, each patch row by row. */
static void cut_patches(const struct clip_params *p, const struct vit_picture *picture,
                        float *patches)
{
    const float *pixels = picture->pixels;
    size_t patch = (size_t)p->patch_size;
    size_t size = picture->n_side ? (size_t)picture->n_side * patch : (size_t)p->image_size;
    int n_side = side_of(p, picture);
    for (int row = 0; row < n_side; row++) {
        for (int col = 0; col < n_side; col++) {
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

/* As trained, or interpolated from that for a smaller picture. */
static int add_positions(struct pass *p, struct vit_picture *picture)
{
    const struct vit *v = p->v;
    struct rows *r = &picture->rows;
    size_t width = (size_t)v->params.n_embd;
    size_t n_class = v->class_token != NULL;
    int side = side_of(&v->params, picture);
    if (side == v->params.n_side) {
        op_add(r->x, v->positions, (size_t)r->n * width);
        return 0;
    }
    struct arena_mark mark = arena_mark(p->scratch);
    float *own = arena_alloc(p->scratch, (size_t)(side * side) * width, sizeof *own);
    if (!own || vit_resize_positions(v, side, own)) {
        return err_no_memory(p->e, (size_t)(side * side) * width * sizeof *own);
    }
    op_add(r->x, v->positions, n_class * width);
    op_add(r->x + n_class * width, own, (size_t)(side * side) * width);
    arena_rewind(p->scratch, mark);
    return 0;
}

/* The patch embedding is fp32, and so made picture by picture (see multiply). */
static int embed(struct pass *p, struct vit_picture *picture)
{
    const struct vit *v = p->v;
    struct rows *r = &picture->rows;
    size_t width = (size_t)v->params.n_embd;
    int n_class = v->class_token != NULL;
    int n_patches = r->n - n_class;
    struct arena_mark mark = arena_mark(p->scratch);
    float *patches =
        arena_alloc(p->scratch, (size_t)n_patches * (size_t)v->patch.n_in, sizeof *patches);
    if (!patches) {
        return err_no_memory(p->e, (size_t)n_patches * (size_t)v->patch.n_in * sizeof *patches);
    }
    cut_patches(&v->params, picture, patches);
    if (weight_matmul(&v->patch, patches, v->patch.n_in, n_patches, r->x + (size_t)n_class * width,
                      v->params.n_embd, p->c, p->e)) {
        return -1;
    }
    arena_rewind(p->scratch, mark);
    if (n_class) {
        memcpy(r->x, v->class_token, width * sizeof *r->x);
        r->flags[0] = ROW_PROTECTED;
    }
    return add_positions(p, picture);
}

static int rows_of_picture(const struct vit *v)
{
    return (v->class_token != NULL) + v->params.n_side * v->params.n_side;
}

/* Floats that every row takes in the buffers of a pass. */
static size_t row_floats(const struct clip_params *params)
{
    return 6 * (size_t)params->n_embd + (size_t)params->n_ff + 1;
}

size_t vit_picture_bytes(const struct vit *v)
{
    const struct clip_params *params = &v->params;
    size_t n = (size_t)rows_of_picture(v);
    /* packed_matmul keeps the rows of its widest product as two 16-bit numbers */
    size_t rounded = (size_t)(params->n_ff > params->n_embd ? params->n_ff : params->n_embd);
    return n * (row_floats(params) + rounded) * sizeof(float);
}

static int make_buffers(struct pass *p, size_t n)
{
    const struct clip_params *params = &p->v->params;
    size_t width = (size_t)params->n_embd;
    size_t head = width / (size_t)params->n_head;
    size_t metric = (size_t)rows_of_picture(p->v) * head;
    p->normed = arena_alloc(p->scratch, n * width, sizeof(float));
    p->q = arena_alloc(p->scratch, n * width, sizeof(float));
    p->k = arena_alloc(p->scratch, n * width, sizeof(float));
    p->values = arena_alloc(p->scratch, n * width, sizeof(float));
    p->mixed = arena_alloc(p->scratch, n * width, sizeof(float));
    p->hidden = arena_alloc(p->scratch, n * (size_t)params->n_ff, sizeof(float));
    p->bias = arena_alloc(p->scratch, n, sizeof(float));
    p->metric = arena_alloc(p->scratch, metric, sizeof(float));
    p->share = arena_alloc(p->scratch, 2 * (size_t)rows_of_picture(p->v), sizeof(float));
    p->parts = arena_alloc(p->scratch, (size_t)p->n_pictures, sizeof *p->parts);
    if (!p->normed || !p->q || !p->k || !p->values || !p->mixed || !p->hidden || !p->bias ||
        !p->metric || !p->share || !p->parts) {
        return err_no_memory(p->e, n * row_floats(params) * sizeof(float));
    }
    return 0;
}

/* Buffers, and for each picture its part of one long list of rows. */
static int make_room(struct pass *p)
{
    int each = rows_of_picture(p->v);
    int width = p->v->params.n_embd;
    struct rows all;
    if (p->n_pictures > INT_MAX / each) {
        return err_set(p->e, ERR_TOO_LARGE, "%d pictures of %d rows in one pass", p->n_pictures,
                       each);
    }
    p->n = p->n_pictures * each;
    float *attention = arena_alloc(p->scratch, (size_t)p->n, sizeof *attention);
    if (!attention) {
        return err_no_memory(p->e, (size_t)p->n * sizeof *attention);
    }
    if (rows_init(&all, p->scratch, p->n, width, ROW_IMAGE, 0, p->e)) {
        return -1;
    }
    p->x = all.x;
    p->n = 0;
    for (int k = 0; k < p->n_pictures; k++) {
        struct rows *r = &p->pictures[k].rows;
        size_t at = (size_t)p->n;
        int side = side_of(&p->v->params, &p->pictures[k]);
        int n = (p->v->class_token != NULL) + side * side;
        p->n += n;
        p->pictures[k].attention = attention + at;
        *r = (struct rows){.n = n,
                           .n_source = n,
                           .n_embd = width,
                           .x = all.x + at * (size_t)width,
                           .mass = all.mass + at,
                           .position = all.position + at,
                           .kind = all.kind + at,
                           .flags = all.flags + at,
                           .owner = all.owner + at};
        for (int i = 0; i < n; i++) {
            r->owner[i] = i;
            r->position[i] = (float)i;
        }
    }
    return make_buffers(p, (size_t)p->n);
}

int vit_encode(const struct vit *v, struct vit_picture *pictures, int n, const struct compute *c,
               struct arena *scratch, struct err *e)
{
    struct pass p = {
        .v = v, .c = c, .scratch = scratch, .e = e, .pictures = pictures, .n_pictures = n};
    if (make_room(&p)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        if (embed(&p, &pictures[i])) {
            return -1;
        }
    }
    if (v->pre_weight) {
        norm_rows(&p, p.x, p.x, v->pre_weight, v->pre_bias);
    }
    for (int i = 0; i < v->params.n_run; i++) {
        if (attend(&p, &v->layers[i]) || call_hooks(&p, i) || feed_forward(&p, &v->layers[i])) {
            return -1;
        }
    }
    if (v->post_weight) {
        norm_rows(&p, p.x, p.x, v->post_weight, v->post_bias);
    }
    return 0;
}
