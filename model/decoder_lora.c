/* What adapters add to a linear layer. The large product runs over the rows of all slices;
 * behind it each stretch of slices with the same adapters gets their low-rank part, so a
 * row's bits depend on its own adapters alone. */
#include "model/decoder_pass.h"

#include "model/lora_impl.h"
#include "tensor/ops.h"

/* Fewer rows are not worth waking the pool: A and B have a fiftieth of a layer's weights. */
#define POOL_ROWS 16

static bool same_mix(const struct pass *p, int s, int t)
{
    const struct lora_mix *a = p->slices[s].lora;
    const struct lora_mix *b = p->slices[t].lora;
    return p->slices[s].is_prompt == p->slices[t].is_prompt &&
           (a == b || (a && b && lora_mix_equal(a, b)));
}

/* y[n, n_out] += scale B A x[n, n_in] */
static int add_pair(const struct pass *p, const struct lora_pair *pair, float scale,
                    const struct compute *c, const float *x, int n, float *y, struct err *e)
{
    struct arena_mark mark = arena_mark(p->scratch);
    int rank = pair->a.n_out;
    int n_out = pair->b.n_out;
    float *low = arena_alloc(p->scratch, (size_t)n, (size_t)rank * sizeof *low);
    float *added = arena_alloc(p->scratch, (size_t)n, (size_t)n_out * sizeof *added);
    int rc = -1;
    if (!low || !added) {
        err_set(e, ERR_NO_MEMORY, "no scratch memory left for the adapters of %d rows", n);
    } else if (weight_matmul(&pair->a, x, pair->a.n_in, n, low, rank, c, e) == 0) {
        op_scale(low, scale * pair->scale, (size_t)n * (size_t)rank);
        rc = weight_matmul(&pair->b, low, rank, n, added, n_out, c, e);
    }
    if (rc == 0) {
        op_add(y, added, (size_t)n * (size_t)n_out);
    }
    arena_rewind(p->scratch, mark);
    return rc;
}

int pass_lora(const struct pass *p, int il, enum lora_part part, const float *x, float *y,
              struct err *e)
{
    for (int s = 0, t; s < p->n_slices; s = t) {
        int n = p->segments[s].n;
        for (t = s + 1; t < p->n_slices && same_mix(p, s, t); t++) {
            n += p->segments[t].n;
        }
        const struct lora_mix *mix = p->slices[s].lora;
        struct compute c = p->compute;
        c.n_answer_rows = p->slices[s].is_prompt ? 0 : n;
        c.pool = n < POOL_ROWS ? NULL : c.pool;
        for (int i = 0; mix && n > 0 && i < mix->n; i++) {
            const struct lora_pair *pair = &mix->use[i].lora->layers[il][part];
            if (pair->a.n_out > 0 &&
                add_pair(p, pair, mix->use[i].scale, &c,
                         x + (size_t)p->segments[s].first * (size_t)pair->a.n_in, n,
                         y + (size_t)p->segments[s].first * (size_t)pair->b.n_out, e)) {
                return -1;
            }
        }
    }
    return 0;
}
