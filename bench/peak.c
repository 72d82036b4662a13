/* What this machine can do at most, as the yardstick of the other figures: int8, bf16 and
 * fp32 multiply-adds from registers and reading of memory, with 1, 2, ... threads.
 *
 *   build/gcc/peak [--json] [--threads N]
 *
 * Every figure is the best of several short runs: other work on the machine can only lower
 * one. Memory is read twice over: a piece as large as a small model's weights, which a large
 * cache may hold in part, and one that no cache holds. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/threads.h"
#include "bench/peak_loops.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_TRIES     5
#define TRY_MS      60.0
#define SMALL_BYTES ((size_t)96 << 20)
#define LARGE_BYTES ((size_t)1 << 30)
#define READ_GRAIN  512
#define MAX_THREADS 256

struct work {
    const struct peak_loop *loop;
    int64_t rounds;
    const uint8_t *bytes; /* NULL: run the loop, otherwise read */
    int n_grains;
    _Atomic uint64_t sink; /* keeps the results alive */
};

static void slice(void *ctx, int ith, int nth)
{
    struct work *w = ctx;
    if (!w->bytes) {
        w->sink += (uint64_t)w->loop->run(w->rounds);
        return;
    }
    int begin;
    int end;
    pool_slice(w->n_grains, 1, ith, nth, &begin, &end);
    w->sink += peak_read(w->bytes + (size_t)begin * READ_GRAIN, (size_t)(end - begin) * READ_GRAIN);
}

static double best_ms(struct pool *pool, struct work *w)
{
    double best = 0;
    for (int i = 0; i < N_TRIES; i++) {
        double began = clock_ms();
        pool_run(pool, slice, w);
        double ms = clock_ms() - began;
        best = i == 0 || ms < best ? ms : best;
    }
    return best;
}

/* 1e9 multiplications and additions a second of all threads together. */
static double loop_gops(struct pool *pool, const struct peak_loop *loop)
{
    struct work w = {.loop = loop, .rounds = 1000};
    /* Rounds that take about TRY_MS. */
    for (double ms = 0; ms < TRY_MS / 4; w.rounds *= 2) {
        double began = clock_ms();
        pool_run(pool, slice, &w);
        ms = clock_ms() - began;
    }
    return (double)(w.rounds * loop->ops) * pool_size(pool) / best_ms(pool, &w) / 1e6;
}

static double read_gbs(struct pool *pool, const uint8_t *bytes, size_t n)
{
    struct work w = {.bytes = bytes, .n_grains = (int)(n / READ_GRAIN)};
    return (double)n / best_ms(pool, &w) / 1e6;
}

struct printer {
    bool json;
    int n; /* lines so far */
};

static void print_figure(struct printer *p, const char *what, const char *how, int threads,
                         double value, const char *unit)
{
    if (p->json) {
        printf(
            "%s\n {\"what\":\"%s\",\"how\":\"%s\",\"threads\":%d,\"value\":%.1f,\"unit\":\"%s\"}",
            p->n ? "," : "[", what, how, threads, value, unit);
    } else {
        printf("%-8s %-18s %7d %10.0f %s\n", what, how, threads, value, unit);
    }
    p->n++;
    fflush(stdout);
}

static void measure(struct pool *pool, const uint8_t *bytes, struct printer *p)
{
    int threads = pool_size(pool);
    for (const struct peak_loop *l = peak_loops; l->what; l++) {
        if (l->can_run()) {
            const char *unit = strcmp(l->what, "int8") == 0 ? "GOPS" : "GFLOPS";
            print_figure(p, l->what, l->how, threads, loop_gops(pool, l), unit);
        }
    }
    print_figure(p, "read", "96 MiB", threads, read_gbs(pool, bytes, SMALL_BYTES), "GB/s");
    print_figure(p, "read", "1 GiB", threads, read_gbs(pool, bytes, LARGE_BYTES), "GB/s");
}

static bool parse(int argc, char **argv, bool *json, int *threads)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            *json = true;
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            *threads = (int)strtol(argv[++i], NULL, 10);
        } else {
            return false;
        }
    }
    return *threads >= 1 && *threads <= MAX_THREADS;
}

int main(int argc, char **argv)
{
    struct printer p = {.json = false};
    struct err e = ERR_INIT;
    int threads = threads_available();
    if (!parse(argc, argv, &p.json, &threads)) {
        fprintf(stderr, "usage: %s [--json] [--threads 1..%d]\n", argv[0], MAX_THREADS);
        return 2;
    }
    uint8_t *bytes = mem_alloc_aligned(1, LARGE_BYTES);
    if (!bytes) {
        fputs("peak: not enough memory: it reads 1 GiB\n", stderr);
        return 1;
    }
    memset(bytes, 1, LARGE_BYTES); /* pages of its own, not the shared page of zeros */
    peak_loops_init();
    if (!p.json) {
        printf("%-8s %-18s %7s %10s\n", "what", "how", "threads", "at most");
    }
    for (int n = 1;; n = n * 2 < threads ? n * 2 : threads) {
        struct pool *pool = pool_new(n, &e);
        if (!pool) {
            fprintf(stderr, "peak: %s\n", e.msg);
            mem_free(bytes);
            return 1;
        }
        measure(pool, bytes, &p);
        pool_free(pool);
        if (n == threads) {
            break;
        }
    }
    if (p.json) {
        puts("\n]");
    }
    mem_free(bytes);
    return 0;
}
