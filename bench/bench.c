/* How fast this machine is: prefill, decode and pictures, through engine.h as the server
 * does it. Without a case it prints two tables, each line the median of several runs; with
 * one (--prefill, --decode, --picture) a line for each run, with --json for programs. The
 * first pass was made by engine_open. No run uses a cache.
 *
 *   make bench ARGS='--threads 1 --runs 5 --model FILE --mmproj FILE --image FILE'
 *   build/gcc/benchmark --prefill 512 --runs 5
 *   build/gcc/benchmark --decode 64 --context 2048
 *   build/gcc/benchmark --picture --profile balanced
 *   build/gcc/benchmark ops --threads 1     attention and elementwise loops alone
 *   build/gcc/benchmark kernels             matrix products alone, by shape */
#include "bench/bench_case.h"
#include "bench/kernel_bench.h"
#include "bench/ops_bench.h"
#include "cmd/bench_job.h"
#include "tensor/blas.h"
#include "vision/image.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS 32
#define MAX_ROWS (1 << 20)
/* What the chat template adds to the smallest prompt, and a token or two of answer. */
#define ROWS_BESIDE 64

struct settings {
    const char *model, *mmproj, *image, *profile, *kernel;
    int n_threads, n_runs;
    int prefill, decode, context;
    bool picture, json;
};

/* -- flags ------------------------------------------------------------------------- */

enum flag_type { FLAG_TEXT, FLAG_COUNT, FLAG_SWITCH };

static const struct flag {
    const char *name;
    enum flag_type type;
    int min, max; /* of FLAG_COUNT */
    size_t offset;
    const char *help;
} flags[] = {
    {"--model", FLAG_TEXT, 0, 0, offsetof(struct settings, model), "FILE"},
    {"--mmproj", FLAG_TEXT, 0, 0, offsetof(struct settings, mmproj), "FILE"},
    {"--image", FLAG_TEXT, 0, 0, offsetof(struct settings, image), "FILE"},
    {"--kernel", FLAG_TEXT, 0, 0, offsetof(struct settings, kernel), "NAME"},
    {"--profile", FLAG_TEXT, 0, 0, offsetof(struct settings, profile), "NAME (of a case)"},
    {"--threads", FLAG_COUNT, 0, 256, offsetof(struct settings, n_threads), "N"},
    {"--runs", FLAG_COUNT, 1, MAX_RUNS, offsetof(struct settings, n_runs), "N"},
    {"--prefill", FLAG_COUNT, 1, MAX_ROWS, offsetof(struct settings, prefill), "ROWS"},
    {"--decode", FLAG_COUNT, 1, MAX_ROWS, offsetof(struct settings, decode), "TOKENS"},
    {"--context", FLAG_COUNT, 1, MAX_ROWS, offsetof(struct settings, context), "ROWS"},
    {"--picture", FLAG_SWITCH, 0, 0, offsetof(struct settings, picture), ""},
    {"--json", FLAG_SWITCH, 0, 0, offsetof(struct settings, json), "(of a case)"},
};
#define N_FLAGS (sizeof flags / sizeof *flags)

static void usage(const char *program)
{
    fprintf(stderr, "usage: %s [flags]\n", program);
    for (size_t i = 0; i < N_FLAGS; i++) {
        fprintf(stderr, "  %-10s %s\n", flags[i].name, flags[i].help);
    }
    fputs("One of --prefill, --decode and --picture prints a line for each run.\n", stderr);
}

static bool set_count(const struct flag *o, const char *text, int *out)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < o->min || n > o->max) {
        fprintf(stderr, "bench: %s takes a number from %d to %d\n", o->name, o->min, o->max);
        return false;
    }
    *out = (int)n;
    return true;
}

static bool parse(int argc, char **argv, struct settings *s)
{
    for (int i = 1; i < argc; i++) {
        const struct flag *o = NULL;
        for (size_t k = 0; k < N_FLAGS && !o; k++) {
            o = strcmp(argv[i], flags[k].name) == 0 ? &flags[k] : NULL;
        }
        if (!o || (o->type != FLAG_SWITCH && i + 1 == argc)) {
            usage(argv[0]);
            return false;
        }
        char *field = (char *)s + o->offset;
        if (o->type == FLAG_SWITCH) {
            *(bool *)field = true;
        } else if (o->type == FLAG_TEXT) {
            *(const char **)field = argv[++i];
        } else if (!set_count(o, argv[++i], (int *)field)) {
            return false;
        }
    }
    if ((s->prefill > 0) + (s->decode > 0) + s->picture > 1) {
        fputs("bench: one case at a time: --prefill, --decode or --picture\n", stderr);
        return false;
    }
    return true;
}

/* -- tables -------------------------------------------------------------------------- */

struct measured {
    double value[MAX_RUNS];
    int n;
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct measured *m)
{
    if (m->n == 0) {
        return 0;
    }
    qsort(m->value, (size_t)m->n, sizeof *m->value, by_size);
    return m->value[m->n / 2];
}

static void bench_text(struct engine *en, const struct settings *s)
{
    static const int sizes[] = {64, 128, 512, 1024};
    struct buf prompt;
    struct plan off;
    if (plan_from_profile(&off, "off", NULL)) {
        return;
    }
    buf_init(&prompt, BENCH_PROMPT_BYTES);
    printf("\n%-28s %10s %14s %14s\n", "text, no compression", "rows", "prefill rows/s",
           "decode tok/s");
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct measured prefill = {.n = 0};
        struct measured decode = {.n = 0};
        struct job_result r = {0};
        int words = bench_prompt_words(en, &off, sizes[k]);
        for (int i = 0; words >= 0 && i < s->n_runs; i++) {
            bench_words(&prompt, words, i + (int)k * MAX_RUNS);
            if (!bench_job(en, &off, buf_str(&prompt), NULL, 33, &r)) {
                break;
            }
            prefill.value[prefill.n++] = (r.prompt_rows - r.cached_rows) * 1e3 / r.prompt_ms;
            decode.value[decode.n++] = (r.completion_tokens - 1) * 1e3 / r.predicted_ms;
        }
        printf("%-28s %10d %14.0f %14.1f\n", "", r.prompt_rows, median(&prefill), median(&decode));
    }
    buf_free(&prompt);
}

static void bench_pictures(struct engine *en, const struct settings *s,
                           const struct image_bytes *picture)
{
    static const char *const profiles[] = {"off", "product_search", "balanced", "customer_service"};
    printf("\n%-28s %10s %14s %14s %14s\n", "one picture, by profile", "rows", "decode ms",
           "vision ms", "compress ms");
    for (size_t k = 0; k < sizeof profiles / sizeof *profiles; k++) {
        struct measured decode = {.n = 0};
        struct measured vision = {.n = 0};
        struct measured compress = {.n = 0};
        struct job_result r = {0};
        struct plan plan;
        char prompt[32];
        if (plan_from_profile(&plan, profiles[k], NULL)) {
            continue;
        }
        for (int i = 0; i < s->n_runs; i++) {
            snprintf(prompt, sizeof prompt, "What is it? %d", i);
            if (!bench_job(en, &plan, prompt, picture, 1, &r)) {
                break;
            }
            decode.value[decode.n++] = r.image_decode_ms;
            vision.value[vision.n++] = r.vision_ms;
            compress.value[compress.n++] = r.compress_ms;
        }
        printf("%-28s %10d %14.1f %14.1f %14.2f\n", profiles[k], r.image_rows, median(&decode),
               median(&vision), median(&compress));
    }
}

static void print_tables(struct engine *en, const struct settings *s)
{
    const struct engine_info *info = engine_info(en);
    struct buf bytes;
    struct image_bytes picture;
    printf("%s; %s kernels, %d threads, OpenBLAS core %s\n", info->model_name, info->kernel,
           info->n_threads, info->blas_core);
    bench_text(en, s);
    buf_init(&bytes, 64 << 20);
    if (info->mmproj_name && bench_picture(s->image, &picture, &bytes)) {
        bench_pictures(en, s, &picture);
    }
    buf_free(&bytes);
}

/* -- the program --------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    image_worker_maybe_run(argc, argv);
    blas_init(argv);
    if (argc > 1 && strcmp(argv[1], "ops") == 0) {
        return bench_ops(argc - 2, argv + 2);
    }
    if (argc > 1 && strcmp(argv[1], "kernels") == 0) {
        return bench_kernels(argc - 2, argv + 2);
    }
    struct settings s = {.model = "models/SmolLM2-135M-Instruct.Q4_1.gguf",
                         .mmproj = "models/mmproj-dinov2-s14-smollm2.gguf",
                         .image = "docs/images/tshirt.jpg",
                         .profile = "off",
                         .n_runs = 3,
                         .context = 64};
    struct err e = ERR_INIT;
    if (!parse(argc, argv, &s)) {
        return 2;
    }
    struct bench_case c = {.prefill = s.prefill,
                           .decode = s.decode,
                           .context = s.context,
                           .image = s.picture ? s.image : NULL,
                           .profile = s.profile,
                           .json = s.json};
    if (plan_from_profile(&c.plan, s.profile, &e)) {
        fprintf(stderr, "bench: %s\n", e.msg);
        return 2;
    }
    bool one_case = s.prefill > 0 || s.decode > 0 || s.picture;
    const struct engine_params p = {
        .model_path = s.model,
        /* A case of text alone does without the tower. */
        .mmproj_path = one_case && !s.picture ? NULL : s.mmproj,
        .kernel = s.kernel,
        .ctx_size = one_case && !s.picture ? s.prefill + s.decode + s.context + ROWS_BESIDE : 0,
        .n_threads = s.n_threads,
        .n_parallel = 1,
        .max_images = 1,
    };
    struct engine *en = engine_open(&p, &e);
    if (!en) {
        fprintf(stderr, "bench: %s\n", e.msg);
        return 1;
    }
    bool ok = true;
    if (one_case) {
        ok = bench_case_run(en, &c, s.n_runs);
    } else {
        print_tables(en, &s);
    }
    engine_close(en);
    image_worker_stop();
    return ok ? 0 : 1;
}
