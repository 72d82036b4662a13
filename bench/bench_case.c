#include "bench/bench_case.h"

#include "cmd/bench_job.h"

#include <stdio.h>

/* Names from the kernel table and the profiles: no character needs escaping. */
static void print_json(const struct engine_info *info, const struct bench_case *c, const char *name,
                       int run, const struct job_result *r)
{
    printf("{\"case\":\"%s\",\"run\":%d,\"rows\":%d,\"image_rows\":%d,\"tokens\":%d,"
           "\"image_decode_ms\":%.3f,\"vision_ms\":%.3f,\"compress_ms\":%.3f,"
           "\"prompt_ms\":%.3f,\"predicted_ms\":%.3f,\"first_token_ms\":%.3f,"
           "\"peak_bytes\":%zu,\"profile\":\"%s\",\"kernel\":\"%s\",\"threads\":%d}\n",
           name, run, r->prompt_rows - r->cached_rows, r->image_rows, r->completion_tokens,
           r->image_decode_ms, r->vision_ms, r->compress_ms, r->prompt_ms, r->predicted_ms,
           r->first_token_ms, r->peak_bytes, c->profile, info->kernel, info->n_threads);
}

static void print_line(struct engine *en, const struct bench_case *c, const char *name, int run,
                       const struct job_result *r)
{
    int rows = r->prompt_rows - r->cached_rows;
    if (c->json) {
        print_json(engine_info(en), c, name, run, r);
    } else if (c->image) {
        printf("%s, %s: %d prompt rows, bytes to pixels %.1f ms, vision %.1f ms, compression %.2f "
               "ms\n",
               name, c->profile, rows, r->image_decode_ms, r->vision_ms, r->compress_ms);
    } else if (c->prefill > 0) {
        printf("%s: %d rows in %.1f ms, %.0f rows/s\n", name, rows, r->prompt_ms,
               rows * 1e3 / r->prompt_ms);
    } else {
        printf("%s: %d tokens after %d rows in %.1f ms, %.1f tokens/s\n", name,
               r->completion_tokens - 1, rows, r->predicted_ms,
               (r->completion_tokens - 1) * 1e3 / r->predicted_ms);
    }
    fflush(stdout);
}

static bool run_text(struct engine *en, const struct bench_case *c, int run, int words,
                     struct buf *prompt)
{
    struct job_result r = {0};
    /* The first token comes out of the prefill: predicted_ms covers the others. */
    int tokens = c->prefill > 0 ? 1 : c->decode + 1;
    bench_words(prompt, words, run);
    if (!bench_job(en, &c->plan, buf_str(prompt), NULL, tokens, &r)) {
        return false;
    }
    print_line(en, c, c->prefill > 0 ? "prefill" : "decode", run, &r);
    return true;
}

static bool run_picture(struct engine *en, const struct bench_case *c, int n_runs)
{
    struct buf bytes;
    struct image_bytes picture;
    buf_init(&bytes, 64 << 20);
    bool ok = bench_picture(c->image, &picture, &bytes);
    for (int run = 0; ok && run < n_runs; run++) {
        struct job_result r = {0};
        char prompt[32];
        snprintf(prompt, sizeof prompt, "What is it? %d", run);
        ok = bench_job(en, &c->plan, prompt, &picture, 1, &r);
        if (ok) {
            print_line(en, c, "picture", run, &r);
        }
    }
    buf_free(&bytes);
    return ok;
}

bool bench_case_run(struct engine *en, const struct bench_case *c, int n_runs)
{
    if (c->image) {
        return run_picture(en, c, n_runs);
    }
    struct buf prompt;
    int words = bench_prompt_words(en, &c->plan, c->prefill > 0 ? c->prefill : c->context);
    bool ok = words >= 0;
    buf_init(&prompt, BENCH_PROMPT_BYTES);
    for (int run = 0; ok && run < n_runs; run++) {
        ok = run_text(en, c, run, words, &prompt);
    }
    buf_free(&prompt);
    return ok;
}
