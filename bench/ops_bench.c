/* Attention and the elementwise loops with the shapes of SmolLM2-135M and DINOv2-S, each
 * the median of several rounds; a round runs every case once, so that what disturbs the
 * machine is spread over all of them. */
#include "bench/ops_bench.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "model/attention.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/vector_ops_impl.h"
#include "vision/vit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS 64
#define MAX_KEYS 8192
#define MAX_ROWS 512

/* Few rows go through so many layers in succession, as in a pass: the threads stay awake,
 * and the cache is too large to stay near them. */
enum { LAYERS = 30, N_HEAD = 9, N_HEAD_KV = 3, HEAD_DIM = 64, N_FF = 1536, VIT_HEADS = 6 };

struct bench {
    struct compute compute;
    struct arena arena;
    struct kv_cache kv;
    float position[MAX_KEYS];   /* of the keys */
    struct attention attention; /* its scratch is made once for a pass, not for a layer */
    float *x, *y;               /* [MAX_KEYS, N_FF] */
    float *out;
};

struct ops_case {
    const char *name;
    /* one run; *amount = floating point operations, bytes or elements, as the unit says */
    void (*run)(struct bench *b, const struct ops_case *c, double *amount);
    const char *unit;
    int n_queries, n_keys;
    void (*map)(float *x, size_t n);
    void (*map_two)(float *y, const float *x, size_t n);
};

static void run_attention(struct bench *b, const struct ops_case *c, double *amount)
{
    struct attention_job job = {.q = b->x,
                                .out = b->out,
                                .position = b->position + c->n_keys - c->n_queries,
                                .n = c->n_queries,
                                .n_keys = c->n_keys,
                                .kv = &b->kv.group[0]};
    double keys = 0;
    for (int i = 0; i < c->n_queries; i++) {
        keys += c->n_keys - i;
    }
    int repeat = c->n_queries > 8 ? 1 : LAYERS;
    for (job.layer = 0; job.layer < repeat; job.layer++) {
        attention_run(&b->attention, &job, 1);
    }
    *amount = repeat * (c->n_queries > 1
                            ? keys * N_HEAD * HEAD_DIM * 4
                            : (double)c->n_keys * N_HEAD_KV * HEAD_DIM * 2 * sizeof(uint16_t));
}

static void run_vit(struct bench *b, const struct ops_case *c, double *amount)
{
    struct err e = ERR_INIT;
    size_t plane = (size_t)c->n_keys * VIT_HEADS * HEAD_DIM;
    const struct vit_part whole = {.n = c->n_keys};
    (void)vit_attention(b->x, b->x + plane, b->x + 2 * plane, &whole, 1, VIT_HEADS, HEAD_DIM,
                        b->out, &b->compute, &b->arena, &e);
    *amount = (double)c->n_keys * c->n_keys * VIT_HEADS * HEAD_DIM * 4;
}

struct slices {
    struct bench *b;
    const struct ops_case *c;
};

static void map_worker(void *ctx, int ith, int nth)
{
    const struct slices *s = ctx;
    int begin;
    int end;
    pool_slice(MAX_ROWS, 1, ith, nth, &begin, &end);
    size_t at = (size_t)begin * N_FF;
    size_t n = (size_t)(end - begin) * N_FF;
    if (s->c->map) {
        s->c->map(s->b->y + at, n);
    } else {
        s->c->map_two(s->b->y + at, s->b->x + at, n);
    }
}

/* From the same numbers each time: what is applied again and again ends in zeros. */
static void run_map(struct bench *b, const struct ops_case *c, double *amount)
{
    struct slices s = {b, c};
    pool_run(b->compute.pool, map_worker, &s);
    *amount = (double)MAX_ROWS * N_FF;
}

static void run_rms_norm(struct bench *b, const struct ops_case *c, double *amount)
{
    (void)c;
    op_rms_norm(b->out, b->x, b->y, MAX_ROWS, 576, 1e-5f);
    *amount = (double)MAX_ROWS * 576;
}

static void run_layer_norm(struct bench *b, const struct ops_case *c, double *amount)
{
    (void)c;
    op_layer_norm(b->out, b->x, b->y, b->y, MAX_ROWS, 384, 1e-5f);
    *amount = (double)MAX_ROWS * 384;
}

static const struct ops_case cases[] = {
    {"prefill, 256 rows of 256", run_attention, "GFLOPS", 256, 256, NULL, NULL},
    {"prefill, 256 rows of 1024", run_attention, "GFLOPS", 256, 1024, NULL, NULL},
    {"prefill, 256 rows of 8192", run_attention, "GFLOPS", 256, 8192, NULL, NULL},
    {"decode, 1 row of 512", run_attention, "GB/s", 1, 512, NULL, NULL},
    {"decode, 1 row of 8192", run_attention, "GB/s", 1, 8192, NULL, NULL},
    {"decode, 8 rows of 2048", run_attention, "GFLOPS", 8, 2048, NULL, NULL},
    {"tower, 257 rows", run_vit, "GFLOPS", 257, 257, NULL, NULL},
    {"tower, 1025 rows", run_vit, "GFLOPS", 1025, 1025, NULL, NULL},
    {"silu * up", run_map, "G/s", 0, 0, NULL, op_silu_mul},
    {"gelu_erf", run_map, "G/s", 0, 0, op_gelu_erf, NULL},
    {"gelu_tanh", run_map, "G/s", 0, 0, op_gelu_tanh, NULL},
    {"rms_norm, one thread", run_rms_norm, "G/s", 0, 0, NULL, NULL},
    {"layer_norm, one thread", run_layer_norm, "G/s", 0, 0, NULL, NULL},
};

enum { N_CASES = sizeof cases / sizeof *cases };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The loops of that name, or NULL. */
static const struct vector_ops *loops_named(const char *name)
{
    int n;
    const struct vector_ops *const *sets = vector_ops_here(&n);
    while (n > 0 && strcmp(sets[n - 1]->name, name) != 0) {
        n--;
    }
    return n > 0 ? sets[n - 1] : NULL;
}

/* Row `row` of the cache: the same in all layers. */
static void fill_row(struct bench *b, int row)
{
    const struct kv_group *g = &b->kv.group[0];
    for (int layer = 0; layer < LAYERS; layer++) {
        for (int head = 0; head < N_HEAD_KV; head++) {
            const float *from = b->x + (size_t)(row * N_HEAD_KV + head) * HEAD_DIM;
            b->compute.kernels->f32_to_f16(kv_keys(g, layer, head, row), from, HEAD_DIM);
            b->compute.kernels->f32_to_f16(kv_values(g, layer, head, row), from + N_FF, HEAD_DIM);
        }
    }
    *kv_positions(g, row) = (float)row;
    b->position[row] = (float)row;
    *kv_log_masses(g, row) = 0;
}

static bool bench_open(struct bench *b, int n_threads)
{
    struct err e = ERR_INIT;
    struct rng r;
    struct kv_shape shape = {LAYERS, N_HEAD_KV, HEAD_DIM, KV_F16};
    const struct attention_shape heads = {N_HEAD, N_HEAD_KV, HEAD_DIM, 0.125f, 0};
    size_t n = (size_t)MAX_KEYS * N_FF;
    *b = (struct bench){.compute = {.kernels = kernels_choose(NULL, &e)}};
    b->compute.pool = pool_new(n_threads ? n_threads : threads_available(), &e);
    b->x = mem_alloc(n, sizeof(float));
    b->y = mem_alloc(n, sizeof(float));
    b->out = mem_alloc(n, sizeof(float));
    arena_init(&b->arena, (size_t)1 << 30);
    if (!b->compute.kernels || !b->compute.pool || !b->x || !b->y || !b->out ||
        kv_init(&b->kv, &shape, NULL, 0, MAX_KEYS, &e) || kv_prepare(&b->kv, MAX_KEYS, &e) ||
        attention_init(&b->attention, &heads, &b->compute, &b->arena, &e)) {
        fprintf(stderr, "bench: %s\n", e.msg);
        return false;
    }
    rng_init(&r, 1);
    for (size_t i = 0; i < n; i++) {
        b->x[i] = (float)(rng_double(&r) * 2 - 1);
    }
    for (int i = 0; i < MAX_KEYS; i++) {
        fill_row(b, i);
    }
    return true;
}

static void bench_close(struct bench *b)
{
    kv_clear(&b->kv);
    arena_clear(&b->arena);
    pool_free(b->compute.pool);
    mem_free(b->x);
    mem_free(b->y);
    mem_free(b->out);
}

static void measure(struct bench *b, int n_runs, const char *only)
{
    static double ms[N_CASES][MAX_RUNS];
    double amount[N_CASES];
    for (int i = -1; i < n_runs; i++) { /* the first round only warms up */
        for (int k = 0; k < N_CASES; k++) {
            if (!strstr(cases[k].name, only)) {
                continue;
            }
            memcpy(b->y, b->x, (size_t)MAX_ROWS * N_FF * sizeof(float));
            double begin = clock_ms();
            cases[k].run(b, &cases[k], &amount[k]);
            if (i >= 0) {
                ms[k][i] = clock_ms() - begin;
            }
        }
    }
    printf("%-28s %10s %10s %10s\n", vector_ops_used()->name, "ms", "least", "");
    for (int k = 0; k < N_CASES; k++) {
        if (!strstr(cases[k].name, only)) {
            continue;
        }
        qsort(ms[k], (size_t)n_runs, sizeof(double), by_size);
        double median = ms[k][n_runs / 2];
        printf("%-28s %10.3f %10.3f %10.1f %s\n", cases[k].name, median, ms[k][0],
               amount[k] / median * 1e-6, cases[k].unit);
    }
}

int bench_ops(int argc, char **argv)
{
    const struct vector_ops *loops = vector_ops_used();
    const char *only = "";
    int n_threads = 0;
    int n_runs = 15;
    for (int i = 0; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--loops") == 0) {
            loops = loops_named(argv[i + 1]);
        } else if (strcmp(argv[i], "--only") == 0) {
            only = argv[i + 1];
        } else if (strcmp(argv[i], "--threads") == 0) {
            n_threads = (int)strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--runs") == 0) {
            n_runs = (int)strtol(argv[i + 1], NULL, 10);
        }
    }
    if (!loops || n_threads < 0 || n_runs < 1 || n_runs > MAX_RUNS) {
        fprintf(stderr,
                "usage: ops [--loops ref|avx2|avx512] [--threads N] [--only TEXT] "
                "[--runs 1..%d]\n",
                MAX_RUNS);
        return 2;
    }
    vector_ops_use(loops);
    struct bench b;
    bool ok = bench_open(&b, n_threads);
    if (ok) {
        measure(&b, n_runs, only);
    }
    bench_close(&b);
    return ok ? 0 : 1;
}
