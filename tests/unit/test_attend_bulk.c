/* Attention in matrix units against double: odd sizes, several tiles, rows that see other
 * keys than their neighbours, and bits that do not depend on the neighbours. */
#include "base/rng.h"
#include "tensor/attend.h"
#include "tensor/kernels.h"
#include "tensor/vector_ops.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

enum { MOST_DIM = 80, MOST_KEYS = 3 * ATTEND_KEYS };

struct bulk_case {
    int dim, rows, n_keys;
    float q[ATTEND_ROWS * MOST_DIM];
    float k[MOST_KEYS * MOST_DIM];
    float v[MOST_KEYS * MOST_DIM];
    int visible[ATTEND_ROWS]; /* of all keys: the first ones */
};

static void draw(struct rng *r, float *x, int n, float most)
{
    for (int i = 0; i < n; i++) {
        x[i] = most * (float)(rng_double(r) * 2 - 1);
    }
}

static void draw_case(struct bulk_case *c, struct rng *r)
{
    static const int dims[] = {8, 24, 32, 40, 64, 80};
    c->dim = dims[rng_below(r, 6)];
    c->rows = 1 + (int)rng_below(r, ATTEND_ROWS);
    c->n_keys = 1 + (int)rng_below(r, MOST_KEYS);
    draw(r, c->q, c->rows * c->dim, 2);
    draw(r, c->k, c->n_keys * c->dim, 2);
    draw(r, c->v, c->n_keys * c->dim, 1);
    for (int i = 0; i < c->rows; i++) {
        c->visible[i] = 1 + (int)rng_below(r, (unsigned)c->n_keys);
    }
}

/* The result of rows [first, first + n) -> out [n, dim]. */
static void run(struct attend *t, const struct bulk_case *c, int first, int n, int parts,
                float *out)
{
    const struct attend_terms none = {.softcap = 0};
    memcpy(t->q, c->q + first * c->dim, (size_t)(n * c->dim) * sizeof *t->q);
    attend_begin_bulk(t, n, parts);
    for (int key = 0; key < c->n_keys; key += ATTEND_KEYS) {
        int here = c->n_keys - key < ATTEND_KEYS ? c->n_keys - key : ATTEND_KEYS;
        size_t bytes = (size_t)(here * c->dim) * sizeof(float);
        attend_load_f32(t, 0, test_guarded(c->k + key * c->dim, bytes),
                        test_guarded(c->v + key * c->dim, bytes), (size_t)c->dim, here);
        for (int i = 0; i < n; i++) {
            int seen = c->visible[first + i] - key;
            t->visible[i] = seen < 0 ? 0 : seen < here ? seen : here;
        }
        attend_tile(t, n, &none, &t->part);
        attend_add(t, n, &t->part);
    }
    for (int i = 0; i < n; i++) {
        attend_store(t, i, out + i * c->dim);
    }
}

static void exact(const struct bulk_case *c, int row, double *out)
{
    double most = -INFINITY;
    double norm = 0;
    double score[MOST_KEYS];
    memset(out, 0, (size_t)c->dim * sizeof *out);
    for (int j = 0; j < c->visible[row]; j++) {
        score[j] = 0;
        for (int i = 0; i < c->dim; i++) {
            score[j] += (double)c->q[row * c->dim + i] * (double)c->k[j * c->dim + i];
        }
        most = fmax(most, score[j]);
    }
    for (int j = 0; j < c->visible[row]; j++) {
        double weight = exp(score[j] - most);
        norm += weight;
        for (int i = 0; i < c->dim; i++) {
            out[i] += weight * (double)c->v[j * c->dim + i];
        }
    }
    for (int i = 0; i < c->dim; i++) {
        out[i] /= norm;
    }
}

static double worst_row(const struct bulk_case *c, const float *got)
{
    double worst = 0;
    for (int r = 0; r < c->rows; r++) {
        double want[MOST_DIM];
        exact(c, r, want);
        for (int i = 0; i < c->dim; i++) {
            worst = fmax(worst, fabs((double)got[r * c->dim + i] - want[i]));
        }
    }
    return worst;
}

TEST(attend_bulk, "matrix units: softmax(q k) v of any size, and a row's bits alone")
{
    struct err e = ERR_INIT;
    const struct kernels *kernels = kernels_choose("amx", &e);
    if (!kernels) {
        test_skip("this CPU has no matrix unit");
        return;
    }
    struct rng r;
    rng_init(&r, test_seed());
    static struct bulk_case c;
    static float out[ATTEND_ROWS * MOST_DIM];
    for (int i = 0; i < 60; i++) {
        draw_case(&c, &r);
        struct arena scratch;
        struct attend t;
        arena_init(&scratch, (size_t)1 << 24);
        CHECK_INT(
            attend_init(&t, vector_ops_for(kernels)->attend, kernels->attend_bulk, c.dim, &scratch),
            ==, 0);
        /* Two parts: 2^-16 of a score of up to 4 dim, as a factor; of weights and values the
         * same. One part: 2^-9 of each weight and value, which are 1 at most. */
        run(&t, &c, 0, c.rows, 2, out);
        CHECK_DOUBLE(worst_row(&c, out), <=, (4.0 * c.dim + 2) / 65536);
        run(&t, &c, 0, c.rows, 1, out);
        CHECK_DOUBLE(worst_row(&c, out), <=, 2.0 / 512 + 4.0 * c.dim / 65536);
        for (int k = 0; k < 4; k++) {
            int first = (int)rng_below(&r, (unsigned)c.rows);
            int n = 1 + (int)rng_below(&r, (unsigned)(c.rows - first));
            static float some[ATTEND_ROWS * MOST_DIM];
            run(&t, &c, first, n, 1, some);
            CHECK(memcmp(some, out + first * c.dim, (size_t)(n * c.dim) * sizeof *some) == 0);
        }
        arena_clear(&scratch);
    }
}
