/* How fast this machine is: prefill, decode and pictures, through engine.h as the server
 * does it. Each line is the median of several runs; the first pass was made by
 * engine_open. Prompts differ from run to run, so that no cache can answer.
 *
 *   make bench ARGS='--threads 1 --runs 5 --model FILE --mmproj FILE --image FILE'
 *   make bench ARGS='ops --threads 1' measures attention and elementwise loops alone. */
#include "base/buf.h"
#include "bench/ops_bench.h"
#include "compress/plan.h"
#include "engine/engine.h"
#include "tensor/blas.h"
#include "vision/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS 32

struct settings {
    const char *model, *mmproj, *image;
    int n_threads, n_runs;
};

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

/* About n rows of text that no other run has. */
static void make_prompt(struct buf *b, int n, int run)
{
    static const char *const words[] = {"red", "shoe", "paper", "tea", "glass", "coat", "lamp"};
    buf_clear(b);
    buf_printf(b, "Run %d:", run);
    for (int i = 0; i < n; i++) {
        buf_printf(b, " %s", words[(i * 5 + run * 3 + i / 7) % 7]);
    }
}

/* One request to its end; false with the reason on stderr. */
static bool run_job(struct engine *en, const struct plan *plan, const char *prompt,
                    const struct image_bytes *picture, int n_tokens, struct job_result *result)
{
    struct err e = ERR_INIT;
    const struct chat_part parts[] = {
        {.type = CHAT_PART_TEXT, .text = prompt, .text_len = strlen(prompt)},
        {.type = CHAT_PART_IMAGE, .image = 0},
    };
    const struct chat_message message = {
        .role = CHAT_USER, .parts = parts, .n_parts = picture ? 2 : 1};
    struct engine_request r = {
        .id = "bench",
        .chat = {.messages = &message, .n_messages = 1, .n_images = picture ? 1 : 0},
        .images = picture,
        .plan = *plan,
        .gen = generation_params_default,
        .add_generation_prompt = true,
    };
    r.gen.max_tokens = n_tokens;
    r.gen.temperature = 0;
    r.gen.ignore_eos = true;
    struct job *job = job_prepare(en, &r, &e);
    bool ok = job && !job_submit(job, &e);
    for (struct job_event event = {0}; ok && event.type != JOB_EVENT_END;) {
        job_next(job, &event);
        if (event.type == JOB_EVENT_NONE) {
            job_wait(job, -1);
        } else if (event.type == JOB_EVENT_ERROR) {
            e = *job_error(job);
            ok = false;
        }
    }
    if (ok) {
        *result = *job_result(job);
    } else {
        fprintf(stderr, "bench: %s\n", e.msg);
    }
    job_free(job);
    return ok;
}

static void bench_text(struct engine *en, const struct settings *s)
{
    static const int sizes[] = {32, 128, 512, 1024};
    struct buf prompt;
    struct plan off;
    if (plan_from_profile(&off, "off", NULL)) {
        return;
    }
    buf_init(&prompt, 1 << 16);
    printf("\n%-28s %10s %14s %14s\n", "text, no compression", "rows", "prefill rows/s",
           "decode tok/s");
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct measured prefill = {.n = 0};
        struct measured decode = {.n = 0};
        struct job_result r = {0};
        for (int i = 0; i < s->n_runs; i++) {
            make_prompt(&prompt, sizes[k], i + (int)k * MAX_RUNS);
            if (!run_job(en, &off, buf_str(&prompt), NULL, 32, &r)) {
                break;
            }
            prefill.value[prefill.n++] = (r.prompt_rows - r.cached_rows) * 1e3 / r.prompt_ms;
            decode.value[decode.n++] = r.completion_tokens * 1e3 / r.predicted_ms;
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
            if (!run_job(en, &plan, prompt, picture, 1, &r)) {
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

static bool read_picture(const char *path, struct image_bytes *out, struct buf *b)
{
    char chunk[65536];
    size_t got;
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "bench: cannot open %s; name a picture with --image\n", path);
        return false;
    }
    while ((got = fread(chunk, 1, sizeof chunk, f)) > 0) {
        buf_append(b, chunk, got);
    }
    fclose(f);
    *out = (struct image_bytes){.data = (const uint8_t *)buf_str(b), .n = b->len};
    return !buf_failed(b);
}

static bool parse(int argc, char **argv, struct settings *s)
{
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value && strcmp(argv[i], "--model") == 0) {
            s->model = value;
        } else if (value && strcmp(argv[i], "--mmproj") == 0) {
            s->mmproj = value;
        } else if (value && strcmp(argv[i], "--image") == 0) {
            s->image = value;
        } else if (value && strcmp(argv[i], "--threads") == 0) {
            s->n_threads = (int)strtol(value, NULL, 10);
        } else if (value && strcmp(argv[i], "--runs") == 0) {
            s->n_runs = (int)strtol(value, NULL, 10);
        } else {
            return false;
        }
    }
    return s->n_runs >= 1 && s->n_runs <= MAX_RUNS && s->n_threads >= 0;
}

int main(int argc, char **argv)
{
    image_worker_maybe_run(argc, argv);
    blas_init(argv);
    if (argc > 1 && strcmp(argv[1], "ops") == 0) {
        return bench_ops(argc - 2, argv + 2);
    }
    struct settings s = {.model = "models/SmolLM2-135M-Instruct.Q4_1.gguf",
                         .mmproj = "models/mmproj-dinov2-s14-smollm2.gguf",
                         .image = "docs/images/tshirt.jpg",
                         .n_runs = 3};
    struct err e = ERR_INIT;
    if (!parse(argc, argv, &s)) {
        fprintf(stderr,
                "usage: %s [--model FILE] [--mmproj FILE] [--image FILE] [--threads N] "
                "[--runs 1..%d]\n",
                argv[0], MAX_RUNS);
        return 2;
    }
    const struct engine_params p = {.model_path = s.model,
                                    .mmproj_path = s.mmproj,
                                    .n_threads = s.n_threads,
                                    .n_parallel = 1,
                                    .max_images = 1};
    struct engine *en = engine_open(&p, &e);
    if (!en) {
        fprintf(stderr, "bench: %s\n", e.msg);
        return 1;
    }
    const struct engine_info *info = engine_info(en);
    printf("%s; %s kernels, %d threads, OpenBLAS core %s\n", info->model_name, info->kernel,
           info->n_threads, info->blas_core);
    bench_text(en, &s);
    struct buf bytes;
    struct image_bytes picture;
    buf_init(&bytes, 64 << 20);
    if (info->mmproj_name && read_picture(s.image, &picture, &bytes)) {
        bench_pictures(en, &s, &picture);
    }
    buf_free(&bytes);
    engine_close(en);
    image_worker_stop();
    return 0;
}
