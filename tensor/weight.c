/* One weight matrix and its product with rows of activations.
 *
 * Two ways to the same numbers. Rows of answers go the first one, however many they are;
 * others go by their number alone:
 *   few    each output is one row kernel over the packed blocks; the weights are read
 *          once for each row, and memory bandwidth is the limit
 *   many   a panel of weight rows is dequantised into scratch of L2 size and multiplied
 *          by BLAS; the unpacking is paid once for all rows
 * The two round differently in the last bits, so the threshold is a constant. Work is
 * cut by output rows, into pieces that depend on the shape of the weight and never on
 * the number of threads: whoever computes a piece, its bits are the same. */
#include "tensor/weight.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "tensor/blas.h"
#include "tensor/kernels.h"
#include "tensor/weight_packed.h"

#include <stdbool.h>
#include <stdio.h>

/* Output rows of one task in the few-rows path: one cache line of y. */
#define FEW_ROWS_GRAIN 16
/* Half of a common 512 KiB L2: the rest is for BLAS's own packing. */
#define PANEL_MAX_FLOATS (256 * 1024 / 4)
#define PANEL_GRAIN      16

static int bad_tensor(const struct gguf *g, const struct gguf_tensor *t, const char *want,
                      struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "%.200s: tensor %s has type %u and shape [%lld, %lld, %lld, %lld]; needed is %s",
                   gguf_path(g), t->name, (unsigned)t->type, (long long)t->ne[0],
                   (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3], want);
}

static const struct gguf_tensor *need(const struct gguf *g, const char *name, struct err *e)
{
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    if (!t) {
        err_set(e, ERR_FORMAT, "%.200s: there is no tensor named %s", gguf_path(g), name);
        return NULL;
    }
    if (!tensor_type_traits(t->type)) {
        bad_tensor(g, t, "a type that tamp computes with", e);
        return NULL;
    }
    return t;
}

/* {n_in, n_out}, or a convolution's {w, h, c, n_out} with n_in = w h c: its rows are
 * contiguous as well. gguf_open made sure that the product does not wrap. */
static bool is_matrix(const struct gguf_tensor *t, int n_in, int n_out)
{
    if (t->ne[0] == n_in && t->ne[1] == n_out && t->ne[2] == 1 && t->ne[3] == 1) {
        return true;
    }
    return t->ne[0] * t->ne[1] * t->ne[2] == n_in && t->ne[3] == n_out;
}

int weight_bind(struct weight *w, const struct gguf *g, const char *name, const char *bias_name,
                int n_in, int n_out, struct err *e)
{
    *w = (struct weight){0};
    const struct gguf_tensor *t = need(g, name, e);
    if (!t) {
        return -1;
    }
    if (!is_matrix(t, n_in, n_out)) {
        char want[64];
        snprintf(want, sizeof want, "[%d, %d]", n_in, n_out);
        return bad_tensor(g, t, want, e);
    }
    const float *bias = NULL;
    if (bias_name) {
        bias = weight_vector(g, bias_name, (size_t)n_out, e);
        if (!bias) {
            return -1;
        }
    }
    *w = (struct weight){
        .n_out = n_out,
        .n_in = n_in,
        .type = t->type,
        .data = t->data,
        .row_bytes = t->n_bytes / (size_t)n_out,
        .bias = bias,
    };
    return 0;
}

void weight_clear(struct weight *w)
{
    mem_free((void *)(uintptr_t)w->bias); /* ours since weight_bind */
    packed_clear(&w->packed);
    *w = (struct weight){0};
}

float *weight_vector(const struct gguf *g, const char *name, size_t n, struct err *e)
{
    const struct gguf_tensor *t = need(g, name, e);
    if (!t) {
        return NULL;
    }
    /* gguf_open made sure that the product of the dimensions does not wrap */
    if ((uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]) != n || t->ne[0] > INT32_MAX) {
        char want[64];
        snprintf(want, sizeof want, "%zu elements", n);
        bad_tensor(g, t, want, e);
        return NULL;
    }
    float *y = mem_alloc_aligned(n, sizeof *y);
    if (!y) {
        err_no_memory(e, n * sizeof *y);
        return NULL;
    }
    const struct kernels *k = kernels_choose(NULL, e);
    size_t rows = n / (size_t)t->ne[0];
    size_t row_bytes = t->n_bytes / rows;
    for (size_t r = 0; r < rows; r++) {
        k->dequantize_row[t->type]((const char *)t->data + r * row_bytes, y + r * (size_t)t->ne[0],
                                   (int)t->ne[0]);
    }
    return y;
}

static const void *row_at(const struct weight *w, int i)
{
    return (const char *)w->data + (size_t)i * w->row_bytes;
}

void weight_row(const struct weight *w, int i, float *y, const struct compute *c)
{
    c->kernels->dequantize_row[w->type](row_at(w, i), y, w->n_in);
}

struct product {
    const struct weight *w;
    const struct kernels *kernels;
    const float *x;
    float *y;
    float *scratch; /* [threads, panel, n_in] */
    int ldx;
    int ldy;
    int n_rows;
    int panel; /* weight rows in one panel */
};

static void few_rows(void *ctx, int ith, int nth)
{
    const struct product *p = ctx;
    const struct weight *w = p->w;
    float (*dot)(const void *, const float *, int) = p->kernels->dot_row[w->type];
    int begin;
    int end;
    pool_slice(w->n_out, FEW_ROWS_GRAIN, ith, nth, &begin, &end);
    for (int o = begin; o < end; o++) {
        const void *row = row_at(w, o);
        float bias = w->bias ? w->bias[o] : 0;
        for (int r = 0; r < p->n_rows; r++) {
            p->y[(size_t)r * (size_t)p->ldy + (size_t)o] =
                dot(row, p->x + (size_t)r * (size_t)p->ldx, w->n_in) + bias;
        }
    }
}

static void one_panel(const struct product *p, float *scratch, int begin, int n)
{
    const struct weight *w = p->w;
    for (int o = 0; o < n; o++) {
        p->kernels->dequantize_row[w->type](row_at(w, begin + o),
                                            scratch + (size_t)o * (size_t)w->n_in, w->n_in);
    }
    blas_gemm_nt(p->n_rows, n, w->n_in, p->x, p->ldx, scratch, w->n_in, p->y + begin, p->ldy);
    if (!w->bias) {
        return;
    }
    for (int r = 0; r < p->n_rows; r++) {
        float *y = p->y + (size_t)r * (size_t)p->ldy + begin;
        for (int o = 0; o < n; o++) {
            y[o] += w->bias[begin + o];
        }
    }
}

static void many_rows(void *ctx, int ith, int nth)
{
    const struct product *p = ctx;
    float *scratch = p->scratch + (size_t)ith * (size_t)p->panel * (size_t)p->w->n_in;
    int begin;
    int end;
    pool_slice(p->w->n_out, p->panel, ith, nth, &begin, &end);
    for (int o = begin; o < end; o += p->panel) {
        one_panel(p, scratch, o, end - o < p->panel ? end - o : p->panel);
    }
}

/* An even number of equal panels, each within the scratch: two threads get the same. */
static int panel_rows(const struct weight *w)
{
    int most = PANEL_MAX_FLOATS / w->n_in / PANEL_GRAIN * PANEL_GRAIN;
    most = most < PANEL_GRAIN ? PANEL_GRAIN : most;
    int n_panels = (w->n_out + most - 1) / most;
    n_panels += n_panels & 1;
    int rows = (w->n_out + n_panels - 1) / n_panels;
    return (rows + PANEL_GRAIN - 1) / PANEL_GRAIN * PANEL_GRAIN;
}

/* Rows from the first on that go through the row kernels. */
static int rows_alone(int n_rows, const struct compute *c)
{
    int n_answer = c->n_answer_rows < n_rows ? c->n_answer_rows : n_rows;
    return n_rows - n_answer <= WEIGHT_FEW_ROWS ? n_rows : n_answer;
}

static int multiply_file_blocks(const struct weight *w, const float *x, int ldx, int n_rows,
                                float *y, int ldy, const struct compute *c, struct err *e)
{
    int n_alone = rows_alone(n_rows, c);
    struct product p = {
        .w = w, .kernels = c->kernels, .x = x, .y = y, .ldx = ldx, .ldy = ldy, .n_rows = n_alone};
    if (n_alone > 0) {
        pool_run(c->pool, few_rows, &p);
    }
    if (n_alone == n_rows) {
        return 0;
    }
    p.x += (size_t)n_alone * (size_t)ldx;
    p.y += (size_t)n_alone * (size_t)ldy;
    p.n_rows = n_rows - n_alone;
    p.panel = panel_rows(w);
    size_t floats;
    if (!ck_mul((size_t)p.panel * (size_t)w->n_in, (size_t)pool_size(c->pool), &floats)) {
        return err_set(e, ERR_TOO_LARGE, "a matrix of %d columns is too wide", w->n_in);
    }
    p.scratch = mem_alloc_aligned(floats, sizeof *p.scratch);
    if (!p.scratch) {
        return err_no_memory(e, floats * sizeof *p.scratch);
    }
    pool_run(c->pool, many_rows, &p);
    mem_free(p.scratch);
    return 0;
}

int weight_matmul(const struct weight *w, const float *x, int ldx, int n_rows, float *y, int ldy,
                  const struct compute *c, struct err *e)
{
    if (!w->packed.data) {
        return multiply_file_blocks(w, x, ldx, n_rows, y, ldy, c, e);
    }
    const struct packed_product p = {.w = {w}, .y = {y}, .ldy = {ldy}, .n_weights = 1};
    return packed_matmul(&p, x, ldx, n_rows, c, e);
}

int weight_matmul_shared(const struct weight *const *w, float *const *y, int n_weights,
                         const float *x, int n_rows, const struct compute *c, struct err *e)
{
    struct packed_product p = {.n_weights = 0};
    for (int i = 0; i < n_weights; i++) {
        if (w[i]->packed.data) {
            p.w[p.n_weights] = w[i];
            p.y[p.n_weights] = y[i];
            p.ldy[p.n_weights++] = w[i]->n_out;
        } else if (multiply_file_blocks(w[i], x, w[i]->n_in, n_rows, y[i], w[i]->n_out, c, e)) {
            return -1;
        }
    }
    return p.n_weights == 0 ? 0 : packed_matmul(&p, x, w[0]->n_in, n_rows, c, e);
}
