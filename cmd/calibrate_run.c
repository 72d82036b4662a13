#include "cmd/calibrate_run.h"

#include "base/alloc.h"
#include "base/rng.h"
#include "cmd/calibrate_judge.h"
#include "config/version.h"

#include <math.h>
#include <nettle/sha2.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define MOST_DIFFERENT   10 /* of each plan, in the report */
#define ANSWER_MAX_BYTES (4 << 20)
#define SPLIT_SEED       1

/* ---- Ctrl-C ------------------------------------------------------------------------------ */

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

void calibrate_catch_signals(void)
{
    struct sigaction catch = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGINT, &catch, NULL);
    (void)sigaction(SIGTERM, &catch, NULL);
}

/* ---- one answer -------------------------------------------------------------------------- */

/* Runs a job to its end; text gets the answer. */
static int run_job(struct job *job, struct buf *text, struct err *e)
{
    if (job_submit(job, e)) {
        return -1;
    }
    for (struct job_event event = {0}; event.type != JOB_EVENT_END;) {
        job_next(job, &event);
        if (event.type == JOB_EVENT_NONE) {
            job_wait(job, 100);
        } else if (event.type == JOB_EVENT_TEXT) {
            buf_append(text, event.text, event.text_len);
        } else if (event.type == JOB_EVENT_ERROR) {
            *e = *job_error(job);
            return -1;
        }
        if (stop_asked) {
            return err_set(e, ERR_CANCELLED, "stopped");
        }
    }
    return buf_failed(text) ? err_no_memory(e, text->max_bytes) : 0;
}

static uint64_t key_of(const struct calibrate_run *c, int item, int step)
{
    struct sha256_ctx sha;
    uint8_t digest[8];
    uint64_t key = 0;
    sha256_init(&sha);
    sha256_update(&sha, CALIBRATE_DIGEST_BYTES, c->data.items[item].digest);
    sha256_update(&sha, CALIBRATE_DIGEST_BYTES, c->model);
    sha256_update(&sha, strlen(c->printed[step]), (const uint8_t *)c->printed[step]);
    sha256_digest(&sha, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        key = key << 8 | digest[i];
    }
    return key ? key : 1;
}

/* The file of answers has thousandths: a calibration that goes on must sum up the same. */
static double as_kept(double ms)
{
    return round(ms * 1000) / 1000;
}

static int ask(struct calibrate_run *c, int item, int step, uint64_t key)
{
    struct chat_request r;
    struct buf text;
    struct job *job = NULL;
    int rc = -1;
    buf_init(&text, ANSWER_MAX_BYTES);
    if (!calibrate_data_request(&c->data, item, &c->limits, &r, &c->e)) {
        r.engine.id = "calibrate";
        r.engine.plan = c->plans[step];
        r.engine.gen.max_tokens = c->max_tokens;
        job = job_prepare(c->engine, &r.engine, &c->e);
    }
    if (job && !run_job(job, &text, &c->e)) {
        const struct job_result *result = job_result(job);
        const struct calibrate_answer a = {.text = (char *)(uintptr_t)buf_str(&text),
                                           .mean_rows = result->report.mean_rows_per_layer,
                                           .prompt_ms =
                                               as_kept(result->prompt_ms + result->vision_ms),
                                           .compress_ms = as_kept(result->compress_ms)};
        rc = calibrate_pairs_add(&c->pairs, key, c->data.items[item].line, c->printed[step], &a,
                                 &c->e);
        c->n_asked++;
    }
    job_free(job);
    chat_request_free(&r);
    buf_free(&text);
    return rc && c->e.code != ERR_CANCELLED ? err_prefix(&c->e, "line %d", c->data.items[item].line)
                                            : rc;
}

/* The answer of a plan to a request, from the file or asked now; NULL with c->e set. */
static const struct calibrate_answer *answer_of(struct calibrate_run *c, int item, int step)
{
    uint64_t key = key_of(c, item, step);
    const struct calibrate_answer *a = calibrate_pairs_find(&c->pairs, key);
    if (a) {
        return a;
    }
    if (stop_asked) {
        err_set(&c->e, ERR_CANCELLED, "stopped");
        return NULL;
    }
    return ask(c, item, step, key) ? NULL : calibrate_pairs_find(&c->pairs, key);
}

/* ---- progress ------------------------------------------------------------------------------ */

static void show_progress(const char *what, int done, int total, int different)
{
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    fprintf(stderr, "\r\033[K%.60s: %d of %d", what, done, total);
    if (different) {
        fprintf(stderr, ", %d differ", different);
    }
    if (done == total) {
        fputc('\n', stderr);
    }
}

/* ---- the sequence ---------------------------------------------------------------------------- */

static void remember_difference(struct calibrate_run *c, int step, int item, const char *without,
                                const char *with)
{
    if (c->n_different[step]++ < MOST_DIFFERENT) {
        c->differences[c->n_differences++] = (struct calibrate_difference){
            .step = step, .line = c->data.items[item].line, .without = without, .with = with};
    }
}

int calibrate_agrees(void *ctx, int step, int half, int i)
{
    struct calibrate_run *c = ctx;
    int item = c->order[half][i];
    const struct calibrate_answer *a = answer_of(c, item, step);
    if (!a) {
        return -1;
    }
    const char *with = a->text;
    struct calibrate_cost *cost = &c->cost[step];
    cost->rows += a->mean_rows;
    cost->prompt += a->prompt_ms;
    a = answer_of(c, item, c->n_steps);
    if (!a) {
        return -1;
    }
    cost->rows_off += a->mean_rows;
    cost->prompt_off += a->prompt_ms;
    bool alike = calibrate_alike(c->data.items[item].expected, a->text, with);
    if (!alike) {
        remember_difference(c, step, item, a->text, with);
    }
    show_progress(c->steps[step], i + 1, c->n_items[half], c->n_different[step]);
    return alike;
}

int calibrate_deal(struct calibrate_run *c, struct err *e)
{
    int n = c->data.n;
    int *judged = mem_alloc((size_t)n, sizeof *judged);
    c->order[0] = mem_alloc((size_t)n, sizeof(int));
    c->order[1] = mem_alloc((size_t)n, sizeof(int));
    if (!judged || !c->order[0] || !c->order[1]) {
        mem_free(judged);
        return err_no_memory(e, 3 * sizeof(int) * (size_t)n);
    }
    int n_judged = 0;
    for (int i = 0; i < n; i++) {
        const struct calibrate_answer *a = answer_of(c, i, c->n_steps);
        if (!a) {
            mem_free(judged);
            *e = c->e;
            return -1;
        }
        if (calibrate_alike(c->data.items[i].expected, a->text, a->text)) {
            judged[n_judged++] = i;
        }
        show_progress("without compression", i + 1, n, 0);
    }
    struct rng rng;
    rng_init(&rng, SPLIT_SEED);
    for (int i = n_judged - 1; i > 0; i--) {
        int k = (int)rng_below(&rng, (uint64_t)i + 1);
        int kept = judged[i];
        judged[i] = judged[k];
        judged[k] = kept;
    }
    for (int i = 0; i < n_judged; i++) {
        c->order[i % HALF_COUNT][c->n_items[i % HALF_COUNT]++] = judged[i];
    }
    mem_free(judged);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void digest_model(struct calibrate_run *c, const struct config *config)
{
    const struct engine_info *info = engine_info(c->engine);
    struct buf text;
    struct sha256_ctx sha;
    buf_init(&text, 1 << 16);
    buf_printf(&text, "%s %s %s %s %zu %s %s %d %d", TAMP_VERSION, info->model_name,
               info->model_file, info->mmproj_name ? info->mmproj_name : "", info->weight_bytes,
               info->precision, info->cache_type, info->n_ctx, c->max_tokens);
    buf_printf(&text, " %s %s %s", config->chat_template, config->lora, config->mmproj_lora);
    sha256_init(&sha);
    sha256_update(&sha, text.len, (const uint8_t *)buf_str(&text));
    sha256_digest(&sha, sizeof c->model, c->model);
    buf_free(&text);
}

int calibrate_run_init(struct calibrate_run *c, const struct config *config, struct err *e)
{
    size_t n = (size_t)CALIBRATE_MAX_STEPS * MOST_DIFFERENT;
    c->differences = mem_zalloc(n, sizeof *c->differences);
    if (!c->differences) {
        return err_no_memory(e, n * sizeof *c->differences);
    }
    digest_model(c, config);
    return 0;
}

void calibrate_run_clear(struct calibrate_run *c)
{
    for (int i = 0; i <= CALIBRATE_MAX_STEPS; i++) {
        mem_free(c->printed[i]);
    }
    mem_free(c->order[0]);
    mem_free(c->order[1]);
    mem_free(c->differences);
    calibrate_pairs_close(&c->pairs);
    calibrate_data_close(&c->data);
}
