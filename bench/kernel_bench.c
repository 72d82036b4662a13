/* Products of weights and rows through weight_matmul, as the decoder and the tower make
 * them: rounding of the rows included, the weights of many layers one after the other, so
 * that few rows find them in memory and not in a near cache. */
#include "bench/kernel_bench.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/packed_kernels.h"
#include "tensor/weight.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS   64
#define MOST_ROWS  512
#define MOST_WIDTH 2048
/* All layers of a case together: more than a near cache holds. */
#define LAYERS_BYTES ((size_t)96 << 20)
#define MOST_LAYERS  256
/* Many rows need fewer layers: operations of one run. */
#define RUN_OPS 4e9
/* As in the engine: so many rows and more are a prompt's, fewer are answers. */
#define BULK_FROM 16

/* SmolLM2-135M's layers, a layer of a 1 B model, DINOv2-S's, and its patch embedding as fp32
 * through BLAS and as 16-bit weights. */
static const struct kernel_case {
    enum tensor_type type;
    int n_out, n_in;
} cases[] = {
    {TENSOR_Q4_1, 192, 576},  {TENSOR_Q4_1, 576, 576},   {TENSOR_Q4_1, 1536, 576},
    {TENSOR_Q4_1, 576, 1536}, {TENSOR_Q4_1, 2048, 2048}, {TENSOR_Q8_0, 576, 576},
    {TENSOR_Q8_0, 1536, 576}, {TENSOR_Q8_0, 576, 1536},  {TENSOR_F16, 576, 576},
    {TENSOR_F16, 1536, 576},  {TENSOR_F16, 384, 384},    {TENSOR_F16, 1536, 384},
    {TENSOR_F16, 384, 588},   {TENSOR_F32, 384, 588},
};
static const int row_counts[] = {1, 8, 64, 256, MOST_ROWS};

enum { N_CASES = sizeof cases / sizeof *cases, N_ROWS = sizeof row_counts / sizeof *row_counts };

struct settings {
    const char *kernel, *only;
    int n_threads, n_runs;
    bool json;
};

struct bench {
    struct settings s;
    struct compute compute;
    struct rng r;
    float *x, *y;
    uint8_t *blocks; /* of one matrix, as a file has them */
    struct weight layers[MOST_LAYERS];
    int n_layers;
    double ms[N_ROWS][MAX_RUNS]; /* of one product */
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Random weights of about +-0.1 in the file's own blocks. */
static void draw_blocks(struct bench *b, const struct kernel_case *c, size_t bytes)
{
    const struct tensor_type_traits *t = tensor_type_traits(c->type);
    const uint16_t factors[2] = {op_f32_to_f16(c->type == TENSOR_Q4_1 ? 0.0125f : 0.0008f),
                                 op_f32_to_f16(-0.1f)};
    size_t n_factors = c->type == TENSOR_Q4_1 ? 2 : 1;
    for (size_t at = 0; at < bytes; at += (size_t)t->block_bytes) {
        float w = (float)(rng_double(&b->r) * 0.2 - 0.1);
        uint16_t half = op_f32_to_f16(w);
        if (c->type == TENSOR_F32) {
            memcpy(b->blocks + at, &w, sizeof w);
        } else if (c->type == TENSOR_F16) {
            memcpy(b->blocks + at, &half, sizeof half);
        } else {
            for (int i = 0; i < t->block_bytes; i++) {
                b->blocks[at + (size_t)i] = (uint8_t)rng_u64(&b->r);
            }
            memcpy(b->blocks + at, factors, n_factors * sizeof *factors);
        }
    }
}

static size_t bytes_of(const struct weight *w)
{
    const struct packed *p = &w->packed;
    return p->data ? (size_t)p->n_panels * (size_t)p->n_blocks * p->block_bytes
                   : (size_t)w->n_out * w->row_bytes;
}

static void clear_layers(struct bench *b)
{
    for (int i = 0; i < b->n_layers; i++) {
        weight_clear(&b->layers[i]);
    }
    b->n_layers = 0;
    mem_free(b->blocks);
    b->blocks = NULL;
}

/* Layers that are packed have memory of their own; fp32 is read where it is, by all. */
static int make_layers(struct bench *b, const struct kernel_case *c, struct err *e)
{
    const struct tensor_type_traits *t = tensor_type_traits(c->type);
    size_t row_bytes = (size_t)(c->n_in / t->block_elements) * (size_t)t->block_bytes;
    size_t bytes = (size_t)c->n_out * row_bytes;
    b->blocks = mem_alloc_aligned(bytes, 1);
    if (!b->blocks) {
        return err_no_memory(e, bytes);
    }
    draw_blocks(b, c, bytes);
    struct weight *layers[MOST_LAYERS];
    int n = (int)(LAYERS_BYTES / bytes);
    n = n > MOST_LAYERS ? MOST_LAYERS : n;
    for (int i = 0; i < n; i++) {
        layers[i] = &b->layers[b->n_layers++];
        *layers[i] = (struct weight){.n_out = c->n_out,
                                     .n_in = c->n_in,
                                     .type = c->type,
                                     .data = b->blocks,
                                     .row_bytes = row_bytes};
    }
    return weights_pack(layers, n, &b->compute, e);
}

/* Milliseconds of one product. */
static int run(struct bench *b, const struct kernel_case *c, int n_rows, double *ms, struct err *e)
{
    double ops = 2.0 * c->n_out * c->n_in * n_rows;
    int n = RUN_OPS / ops < b->n_layers ? 1 + (int)(RUN_OPS / ops) : b->n_layers;
    n = n > b->n_layers ? b->n_layers : n;
    b->compute.bulk = n_rows >= BULK_FROM;
    b->compute.n_answer_rows = b->compute.bulk ? 0 : n_rows;
    double began = clock_ms();
    for (int i = 0; i < n; i++) {
        if (weight_matmul(&b->layers[i], b->x, c->n_in, n_rows, b->y, c->n_out, &b->compute, e)) {
            return -1;
        }
    }
    *ms = (clock_ms() - began) / n;
    return 0;
}

static void print_case(const struct bench *b, const struct kernel_case *c, int n_rows,
                       const double *sorted)
{
    double ms = sorted[b->s.n_runs / 2];
    double gops = 2e-6 * c->n_out * c->n_in * n_rows / ms;
    double gbs = (double)bytes_of(&b->layers[0]) / ms * 1e-6;
    const char *type = tensor_type_traits(c->type)->name;
    bool bulk = n_rows >= BULK_FROM && b->layers[0].packed.data &&
                b->compute.kernels->packed->bulk_multiply;
    if (b->s.json) {
        printf("{\"type\":\"%s\",\"n_out\":%d,\"n_in\":%d,\"rows\":%d,\"bulk\":%s,\"ms\":%.5f,"
               "\"gops\":%.2f,\"gb_per_s\":%.3f,\"kernel\":\"%s\",\"threads\":%d}\n",
               type, c->n_out, c->n_in, n_rows, bulk ? "true" : "false", ms, gops, gbs,
               b->compute.kernels->name, pool_size(b->compute.pool));
    } else {
        printf("%-6s %5d x %-5d %5d %10.4f %10.4f %10.1f %10.2f\n", type, c->n_out, c->n_in, n_rows,
               ms, sorted[0], gops, gbs);
    }
    fflush(stdout);
}

/* A round runs every number of rows once, so that what disturbs is spread over all. */
static int measure(struct bench *b, const struct kernel_case *c, struct err *e)
{
    for (int i = -1; i < b->s.n_runs; i++) { /* the first round only warms up */
        for (int k = 0; k < N_ROWS; k++) {
            double ms;
            if (run(b, c, row_counts[k], &ms, e)) {
                return -1;
            }
            b->ms[k][i < 0 ? 0 : i] = ms;
        }
    }
    for (int k = 0; k < N_ROWS; k++) {
        qsort(b->ms[k], (size_t)b->s.n_runs, sizeof(double), by_size);
        print_case(b, c, row_counts[k], b->ms[k]);
    }
    return 0;
}

static int run_cases(struct bench *b, struct err *e)
{
    b->compute.kernels = kernels_choose(b->s.kernel, e);
    if (!b->compute.kernels) {
        return -1;
    }
    b->compute.pool = pool_new(b->s.n_threads ? b->s.n_threads : threads_available(), e);
    size_t n = (size_t)MOST_ROWS * MOST_WIDTH;
    b->x = mem_alloc_aligned(n, sizeof(float));
    b->y = mem_alloc_aligned(n, sizeof(float));
    if (!b->compute.pool) {
        return -1;
    }
    if (!b->x || !b->y) {
        return err_no_memory(e, n * sizeof(float));
    }
    rng_init(&b->r, 1);
    for (size_t i = 0; i < n; i++) {
        b->x[i] = (float)(rng_double(&b->r) * 2 - 1);
    }
    if (!b->s.json) {
        printf("%-6s %13s %5s %10s %10s %10s %10s\n", b->compute.kernels->name, "out x in", "rows",
               "ms", "least", "GOPS", "GB/s");
    }
    int rc = 0;
    for (int i = 0; i < N_CASES && !rc; i++) {
        if (strstr(tensor_type_traits(cases[i].type)->name, b->s.only)) {
            rc = make_layers(b, &cases[i], e) || measure(b, &cases[i], e) ? -1 : 0;
            clear_layers(b);
        }
    }
    return rc;
}

static bool parse(int argc, char **argv, struct settings *s)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            s->json = true;
        } else if (i + 1 == argc) {
            return false;
        } else if (strcmp(argv[i], "--kernel") == 0) {
            s->kernel = argv[++i];
        } else if (strcmp(argv[i], "--only") == 0) {
            s->only = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0) {
            s->n_threads = (int)strtol(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--runs") == 0) {
            s->n_runs = (int)strtol(argv[++i], NULL, 10);
        } else {
            return false;
        }
    }
    return s->n_threads >= 0 && s->n_runs >= 1 && s->n_runs <= MAX_RUNS;
}

int bench_kernels(int argc, char **argv)
{
    static struct bench b;
    struct err e = ERR_INIT;
    b.s = (struct settings){.only = "", .n_runs = 7};
    if (!parse(argc, argv, &b.s)) {
        fprintf(stderr,
                "usage: kernels [--kernel NAME] [--threads N] [--only TYPE] [--runs 1..%d] "
                "[--json]\n",
                MAX_RUNS);
        return 2;
    }
    int rc = run_cases(&b, &e);
    if (rc) {
        fprintf(stderr, "bench: %s\n", e.msg);
    }
    pool_free(b.compute.pool);
    mem_free(b.x);
    mem_free(b.y);
    return rc ? 1 : 0;
}
