#include "engine/thread_count.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/threads.h"
#include "tensor/kernels.h"
#include "tensor/quant.h"
#include "tensor/weight.h"

#include <math.h>
#include <pthread.h>

#define TRIES 5
/* A second thread on every core makes heat and takes a core from others: it must pay. */
#define MUST_GAIN 1.03

struct thread_counts thread_counts_of(const struct cpus *c, int limit)
{
    struct thread_counts t = {.count = 1};
    int n = limit > 0 && limit < c->n ? limit : c->n;
    t.n[0] = n;
    if (c->n_cores < n) {
        t.n[0] = c->n_cores;
        t.n[t.count++] = n;
    }
    return t;
}

int thread_count_choose(const struct thread_counts *t,
                        int (*probe)(void *ctx, int n_threads, double *score, struct err *e),
                        void *ctx, struct err *e)
{
    double best[2] = {HUGE_VAL, HUGE_VAL};
    if (t->count == 1) {
        return t->n[0];
    }
    for (int i = 0; i < TRIES; i++) {
        for (int k = 0; k < 2; k++) {
            double score;
            if (probe(ctx, t->n[k], &score, e)) {
                return -1;
            }
            best[k] = score < best[k] ? score : best[k];
        }
    }
    return best[1] * MUST_GAIN < best[0] ? t->n[1] : t->n[0];
}

/* -- the probe ------------------------------------------------------------------------- */

/* Matrices of a small layer, 4-bit as most files: one prompt of some rows goes through all,
 * then some tokens of an answer. */
enum { N_IN = 576, N_OUT = 1536, N_LAYERS = 8, PROMPT_ROWS = 64, ANSWER_TOKENS = 4 };

struct probe {
    struct weight layers[N_LAYERS];
    struct thread_counts counts;
    struct compute compute[2]; /* a pool for each count */
    float *x, *y;
    uint8_t *blocks;
};

static int multiply(struct probe *p, struct compute *c, int n_rows, struct err *e)
{
    for (int i = 0; i < N_LAYERS; i++) {
        if (weight_matmul(&p->layers[i], p->x, N_IN, n_rows, p->y, N_OUT, c, e)) {
            return -1;
        }
    }
    return 0;
}

/* Prompts and answers count alike: the geometric mean of what they take. */
static int run_probe(void *ctx, int n_threads, double *score, struct err *e)
{
    struct probe *p = ctx;
    struct compute *c = &p->compute[n_threads == p->counts.n[0] ? 0 : 1];
    c->bulk = true;
    c->n_answer_rows = 0;
    if (multiply(p, c, 1, e)) { /* this pool awake, the other one asleep */
        return -1;
    }
    double began = clock_ms();
    if (multiply(p, c, PROMPT_ROWS, e)) {
        return -1;
    }
    double between = clock_ms();
    c->bulk = false;
    c->n_answer_rows = 1;
    for (int i = 0; i < ANSWER_TOKENS; i++) {
        if (multiply(p, c, 1, e)) {
            return -1;
        }
    }
    *score = sqrt((between - began) * (clock_ms() - between));
    return 0;
}

static void close_probe(struct probe *p)
{
    for (int i = 0; i < N_LAYERS; i++) {
        weight_clear(&p->layers[i]);
    }
    for (int i = 0; i < p->counts.count; i++) {
        pool_free(p->compute[i].pool);
    }
    mem_free(p->blocks);
    mem_free(p->x);
    mem_free(p->y);
}

static int open_probe(struct probe *p, const struct kernels *k, struct err *e)
{
    const struct tensor_type_traits *t = tensor_type_traits(TENSOR_Q4_1);
    size_t row_bytes = (size_t)(N_IN / t->block_elements) * (size_t)t->block_bytes;
    p->blocks = mem_zalloc(N_OUT, row_bytes); /* how long a product takes is not in the numbers */
    p->x = mem_alloc_aligned((size_t)PROMPT_ROWS * N_IN, sizeof *p->x);
    p->y = mem_alloc_aligned((size_t)PROMPT_ROWS * N_OUT, sizeof *p->y);
    if (!p->blocks || !p->x || !p->y) {
        return err_no_memory(e, (size_t)PROMPT_ROWS * N_OUT * sizeof *p->y);
    }
    for (int i = 0; i < PROMPT_ROWS * N_IN; i++) {
        p->x[i] = (float)(i % 7) - 3;
    }
    for (int i = 0; i < p->counts.count; i++) {
        p->compute[i] = (struct compute){.kernels = k, .pool = pool_new(p->counts.n[i], e)};
        if (!p->compute[i].pool) {
            return -1;
        }
    }
    struct weight *layers[N_LAYERS];
    for (int i = 0; i < N_LAYERS; i++) {
        layers[i] = &p->layers[i];
        p->layers[i] = (struct weight){.n_out = N_OUT,
                                       .n_in = N_IN,
                                       .type = TENSOR_Q4_1,
                                       .data = p->blocks,
                                       .row_bytes = row_bytes};
    }
    return weights_pack(layers, N_LAYERS, &p->compute[0], e);
}

struct measuring {
    struct probe probe;
    int n; /* what was chosen; -1 = *e */
    struct err *e;
};

static void *measure(void *arg)
{
    struct measuring *m = arg;
    pool_pin_caller(m->probe.compute[0].pool);
    m->n = thread_count_choose(&m->probe.counts, run_probe, &m->probe, m->e);
    return NULL;
}

int thread_count_measure(const struct thread_counts *t, const struct kernels *k, struct err *e)
{
    struct measuring m = {.probe = {.counts = *t}, .n = -1, .e = e};
    pthread_t thread;
    if (!open_probe(&m.probe, k, e)) {
        if (pthread_create(&thread, NULL, measure, &m)) {
            err_set(e, ERR_IO, "cannot start a thread");
        } else {
            pthread_join(thread, NULL);
        }
    }
    close_probe(&m.probe);
    return m.n;
}

int thread_count_default(const struct kernels *k, struct err *e)
{
    struct cpus c;
    cpus_read(&c);
    struct thread_counts t = thread_counts_of(&c, cpus_cgroup_limit(CGROUP_SELF, CGROUP_MOUNT));
    return t.count == 1 ? t.n[0] : thread_count_measure(&t, k, e);
}
