#include "server/metrics.h"

#include "base/alloc.h"

#include "server/metrics_process.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define MAX_SERIES  512
#define MAX_BUCKETS 18
#define LABEL_BYTES 96

enum kind { COUNTER, GAUGE, HISTOGRAM };

static const double seconds[MAX_BUCKETS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,   2.5,
                                            5,     10,   20,    40,   80,  160,  320, 640, 0};
static const double milliseconds[MAX_BUCKETS] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                                 0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                                 1,      2.5,     5,      10,    0};
static const double kept[MAX_BUCKETS] = {0.0625, 0.125, 0.1875, 0.25, 0.375, 0.5,
                                         0.625,  0.75,  0.875,  1,    0};
static const double bytes[MAX_BUCKETS] = {1048576,    4194304,    16777216,   33554432,
                                          67108864,   134217728,  268435456,  536870912,
                                          1073741824, 2147483648, 4294967296, 0};

/* engine_pass_bounds */
static const double pass_rows[MAX_BUCKETS] = {1, 8, 16, 32, 64, 128, 256, 512, 0};

struct metric_info {
    const char *name;
    enum kind kind;
    bool labelled; /* no series until the first event */
    const double *buckets;
    const char *help;
};

static const struct metric_info table[METRIC_COUNT] = {
    [METRIC_REQUESTS] = {"tamp_requests_total", COUNTER, true, NULL,
                         "Requests answered, by endpoint and HTTP status (499: the client left)."},
    [METRIC_REQUEST_SUCCESS] = {"tamp_request_success_total", COUNTER, true, NULL,
                                "Choices finished, by reason."},
    [METRIC_RUNNING] = {"tamp_num_requests_running", GAUGE, false, NULL,
                        "Requests in prefill or decode."},
    [METRIC_WAITING] = {"tamp_num_requests_waiting", GAUGE, false, NULL, "Requests in the queue."},
    [METRIC_ITERATION_TOKENS] = {"tamp_iteration_tokens", HISTOGRAM, false, pass_rows,
                                 "Rows of a pass through the decoder, prompts and answers."},
    [METRIC_MIXED_ITERATIONS] = {"tamp_mixed_iterations_total", COUNTER, false, NULL,
                                 "Passes with rows of both prompts and answers."},
    [METRIC_REJECTED] = {"tamp_requests_rejected_total", COUNTER, true, NULL,
                         "Requests refused, by reason."},
    [METRIC_CANCELLED] = {"tamp_requests_cancelled_total", COUNTER, true, NULL,
                          "Requests given up, by the phase they were in."},
    [METRIC_PROMPT_TOKENS] = {"tamp_prompt_tokens_total", COUNTER, false, NULL, "Prompt rows run."},
    [METRIC_PROMPT_TOKENS_CACHED] = {"tamp_prompt_tokens_cached_total", COUNTER, false, NULL,
                                     "Prompt rows taken from the prefix cache."},
    [METRIC_GENERATION_TOKENS] = {"tamp_generation_tokens_total", COUNTER, false, NULL,
                                  "Tokens generated."},
    [METRIC_DRAFT_TOKENS] = {"tamp_spec_decode_num_draft_tokens_total", COUNTER, false, NULL,
                             "Tokens that speculation drafted and a pass checked."},
    [METRIC_DRAFT_TOKENS_ACCEPTED] = {"tamp_spec_decode_num_accepted_tokens_total", COUNTER, false,
                                      NULL, "Drafted tokens that were right."},
    [METRIC_TIME_TO_FIRST_TOKEN] = {"tamp_time_to_first_token_seconds", HISTOGRAM, false, seconds,
                                    "From submission to the first token."},
    [METRIC_INTER_TOKEN_LATENCY] = {"tamp_inter_token_latency_seconds", HISTOGRAM, false, seconds,
                                    "Mean time between two tokens of a request."},
    [METRIC_E2E_LATENCY] = {"tamp_e2e_request_latency_seconds", HISTOGRAM, false, seconds,
                            "From submission to the last token."},
    [METRIC_QUEUE_TIME] = {"tamp_request_queue_time_seconds", HISTOGRAM, false, seconds,
                           "Time in the queue."},
    [METRIC_PREFILL_TIME] = {"tamp_request_prefill_time_seconds", HISTOGRAM, false, seconds,
                             "Time in prefill."},
    [METRIC_DECODE_TIME] = {"tamp_request_decode_time_seconds", HISTOGRAM, false, seconds,
                            "Time in decode."},
    [METRIC_IMAGE_DECODE] = {"tamp_image_decode_seconds", HISTOGRAM, false, seconds,
                             "Decoding the pictures of a request."},
    [METRIC_IMAGE_ENCODE] = {"tamp_image_encode_seconds", HISTOGRAM, false, seconds,
                             "Vision tower and projector of a request."},
    [METRIC_PICTURE_PASSES] = {"tamp_picture_passes_total", COUNTER, false, NULL,
                               "Passes through the vision tower."},
    [METRIC_PICTURES_ENCODED] = {"tamp_pictures_encoded_total", COUNTER, false, NULL,
                                 "Pictures in these passes."},
    [METRIC_IMAGE_CACHE_QUERIES] = {"tamp_image_cache_queries_total", COUNTER, false, NULL,
                                    "Pictures looked up in the image cache."},
    [METRIC_IMAGE_CACHE_HITS] = {"tamp_image_cache_hits_total", COUNTER, false, NULL,
                                 "Pictures found in the image cache."},
    [METRIC_PREFIX_CACHE_QUERIES] = {"tamp_prefix_cache_queries_total", COUNTER, false, NULL,
                                     "Prompt rows looked up in the prefix cache."},
    [METRIC_PREFIX_CACHE_HITS] = {"tamp_prefix_cache_hits_total", COUNTER, false, NULL,
                                  "Prompt rows found in the prefix cache."},
    [METRIC_KV_CACHE_USAGE] = {"tamp_kv_cache_usage_ratio", GAUGE, false, NULL,
                               "Share of the KV memory in use, 0 to 1."},
    [METRIC_COMPRESSION_INPUT] = {"tamp_compression_input_tokens_total", COUNTER, true, NULL,
                                  "Rows before merging."},
    [METRIC_COMPRESSION_OUTPUT] = {"tamp_compression_output_tokens_total", COUNTER, true, NULL,
                                   "Rows after merging."},
    [METRIC_COMPRESSION_SECONDS] = {"tamp_compression_seconds", HISTOGRAM, true, milliseconds,
                                    "Time spent merging in a request."},
    [METRIC_COMPRESSION_RATIO] = {"tamp_compression_ratio", HISTOGRAM, true, kept,
                                  "Rows left over rows before, 0 to 1, for each request."},
    [METRIC_COMPRESSION_SKIPPED] = {"tamp_compression_skipped_total", COUNTER, true, NULL,
                                    "Times a stage did not act, by reason."},
    [METRIC_GUARD_CHECKS] = {"tamp_guard_checks_total", COUNTER, true, NULL,
                             "Compressed answers judged before their first token was sent, by "
                             "outcome: kept as they were, or redone with more rows."},
    [METRIC_GUARD_RERUNS] = {"tamp_guard_reruns_total", COUNTER, true, NULL,
                             "Prompts run again with more rows, by reason."},
    [METRIC_RERUN_TOKENS] = {"tamp_rerun_tokens_total", COUNTER, false, NULL,
                             "Prompt rows run for answers that were not sent, part of "
                             "tamp_prompt_tokens_total."},
    [METRIC_CASCADE_RUNGS] = {"tamp_cascade_answers_total", COUNTER, true, NULL,
                              "Answers of requests with a cascade, by the rung that gave them."},
    [METRIC_BUDGETS] = {"tamp_budgets_total", COUNTER, true, NULL,
                        "Requests with a budget of milliseconds to the first token, by whether it "
                        "was met."},
    [METRIC_SHADOWS] = {"tamp_shadows_total", COUNTER, true, NULL,
                        "Requests compared with what the other prompt leads to, by outcome: done, "
                        "or abandoned because others came."},
    [METRIC_SHADOW_TOKENS] = {"tamp_shadow_tokens_total", COUNTER, false, NULL,
                              "Tokens of answers that were compared."},
    [METRIC_SHADOW_TOKENS_AGREED] = {"tamp_shadow_tokens_agreed_total", COUNTER, false, NULL,
                                     "Of these, the most likely one with both prompts."},
    [METRIC_SHADOW_DIVERGENCE] = {"tamp_shadow_first_token_kl_nats_total", COUNTER, false, NULL,
                                  "KL divergence of the compressed from the uncompressed first "
                                  "token, summed over tamp_shadows_total."},
    [METRIC_ROLLOUT_CHANGES] = {"tamp_rollout_changes_total", COUNTER, true, NULL,
                                "Changes of a plan's level, by direction."},
    [METRIC_ROLLOUT_LEVEL] = {"tamp_rollout_level", GAUGE, true, NULL,
                              "How far a profile is rolled out: 0 shadow, 1 1.3x, 2 2x, 3 4x, 4 "
                              "full."},
    [METRIC_ROLLOUT_AGREEMENT] = {"tamp_rollout_agreement_ratio", GAUGE, true, NULL,
                                  "Mean agreement of the last compared requests on that level."},
    [METRIC_REQUEST_PEAK_BYTES] = {"tamp_request_peak_bytes", HISTOGRAM, false, bytes,
                                   "Largest memory of a request: KV, activations, pictures."},
    [METRIC_IMAGE_WORKER_RESTARTS] = {"tamp_image_worker_restarts_total", COUNTER, false, NULL,
                                      "Restarts of the confined picture decoder."},
    [METRIC_ENGINE_UP] = {"tamp_engine_up", GAUGE, false, NULL,
                          "1 while the engine is ready and moves."},
    [METRIC_BUILD_INFO] = {"tamp_build_info", GAUGE, true, NULL,
                           "Always 1; the version is a label."},
    [METRIC_PROCESS_CPU] = {"process_cpu_seconds_total", COUNTER, false, NULL,
                            "User and system CPU time."},
    [METRIC_PROCESS_RESIDENT] = {"process_resident_memory_bytes", GAUGE, false, NULL,
                                 "Resident memory."},
    [METRIC_PROCESS_VIRTUAL] = {"process_virtual_memory_bytes", GAUGE, false, NULL,
                                "Virtual memory."},
    [METRIC_PROCESS_OPEN_FDS] = {"process_open_fds", GAUGE, false, NULL, "Open file descriptors."},
    [METRIC_PROCESS_MAX_FDS] = {"process_max_fds", GAUGE, false, NULL,
                                "Most file descriptors allowed."},
    [METRIC_PROCESS_START_TIME] = {"process_start_time_seconds", GAUGE, false, NULL,
                                   "Start time since the epoch."},
};

struct series {
    enum metric id;
    char labels[LABEL_BYTES];
    double value; /* histograms: the sum */
    uint64_t n;
    uint64_t bucket[MAX_BUCKETS]; /* not cumulative */
};

struct metrics {
    pthread_mutex_t lock;
    struct series series[MAX_SERIES];
    int n_series;
    double started; /* seconds since the epoch */
};

/* Under the lock. NULL when the table is full: the event is lost, the server is not. */
static struct series *find(struct metrics *m, enum metric id, const char *labels)
{
    for (int i = 0; i < m->n_series; i++) {
        if (m->series[i].id == id && strcmp(m->series[i].labels, labels) == 0) {
            return &m->series[i];
        }
    }
    if (m->n_series == MAX_SERIES || strlen(labels) >= LABEL_BYTES) {
        return NULL;
    }
    struct series *s = &m->series[m->n_series++];
    *s = (struct series){.id = id};
    memcpy(s->labels, labels, strlen(labels) + 1);
    return s;
}

void metrics_add(struct metrics *m, enum metric id, const char *labels, double v)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = find(m, id, labels);
    if (s) {
        s->value += v;
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_set(struct metrics *m, enum metric id, const char *labels, double v)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = find(m, id, labels);
    if (s) {
        s->value = v;
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_observe(struct metrics *m, enum metric id, const char *labels, double v)
{
    const double *limit = table[id].buckets;
    pthread_mutex_lock(&m->lock);
    struct series *s = find(m, id, labels);
    if (s) {
        int b = 0;
        while (limit[b] > 0 && v > limit[b]) {
            b++;
        }
        s->bucket[b]++;
        s->value += v;
        s->n++;
    }
    pthread_mutex_unlock(&m->lock);
}

struct metrics *metrics_new(const char *version, struct err *e)
{
    struct metrics *m = mem_zalloc(1, sizeof *m);
    if (!m) {
        err_no_memory(e, sizeof *m);
        return NULL;
    }
    pthread_mutex_init(&m->lock, NULL);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    m->started = (double)now.tv_sec;
    for (int id = 0; id < METRIC_COUNT; id++) {
        if (!table[id].labelled) {
            find(m, (enum metric)id, "");
        }
    }
    char labels[LABEL_BYTES];
    snprintf(labels, sizeof labels, "version=\"%.40s\"", version);
    metrics_set(m, METRIC_BUILD_INFO, labels, 1);
    return m;
}

void metrics_free(struct metrics *m)
{
    if (m) {
        pthread_mutex_destroy(&m->lock);
        mem_free(m);
    }
}

/* -- from a result ----------------------------------------------------------------- */

static void add_modality(struct metrics *m, enum modality which, const struct report_stage *s)
{
    char labels[LABEL_BYTES];
    if (!s->method || s->rows_in <= 0) {
        return;
    }
    snprintf(labels, sizeof labels, "modality=\"%s\",method=\"%s\"", modality_name(which),
             s->method);
    metrics_add(m, METRIC_COMPRESSION_INPUT, labels, s->rows_in);
    metrics_add(m, METRIC_COMPRESSION_OUTPUT, labels, s->rows_out);
    metrics_observe(m, METRIC_COMPRESSION_SECONDS, labels, s->ms * 1e-3);
    snprintf(labels, sizeof labels, "modality=\"%s\"", modality_name(which));
    metrics_observe(m, METRIC_COMPRESSION_RATIO, labels, (double)s->rows_out / s->rows_in);
}

static void add_report(struct metrics *m, const struct report *r)
{
    char labels[LABEL_BYTES];
    for (int i = 0; i < MODALITY_COUNT; i++) {
        add_modality(m, (enum modality)i, &r->modality[i]);
    }
    for (int i = 0; i < r->n_skipped && i < REPORT_MAX_SKIPPED; i++) {
        snprintf(labels, sizeof labels, "reason=\"%.60s\"", r->skipped[i].reason);
        metrics_add(m, METRIC_COMPRESSION_SKIPPED, labels, 1);
    }
}

void metrics_add_pictures(struct metrics *m, const struct job_result *r)
{
    metrics_add(m, METRIC_IMAGE_CACHE_QUERIES, "", r->images_queried);
    metrics_add(m, METRIC_IMAGE_CACHE_HITS, "", r->images_cached);
    if (r->image_rows > 0) {
        metrics_observe(m, METRIC_IMAGE_DECODE, "", r->image_decode_ms * 1e-3);
        metrics_observe(m, METRIC_IMAGE_ENCODE, "", r->vision_ms * 1e-3);
    }
}

static void add_attempts(struct metrics *m, const struct job_result *r)
{
    char labels[LABEL_BYTES];
    if (r->n_attempts == 0 || !r->attempts[0].looked) {
        return;
    }
    metrics_add(m, METRIC_GUARD_CHECKS,
                r->n_attempts > 1 ? "outcome=\"redone\"" : "outcome=\"kept\"", 1);
    for (int i = 0; i < r->n_attempts - 1; i++) {
        snprintf(labels, sizeof labels, "reason=\"%.60s\"", r->attempts[i].doubt);
        metrics_add(m, METRIC_GUARD_RERUNS, labels, 1);
    }
    if (r->cascade_ratio > 0) {
        const struct job_attempt *last = &r->attempts[r->n_attempts - 1];
        snprintf(labels, sizeof labels, "rung=\"%d\"", last->rung);
        metrics_add(m, METRIC_CASCADE_RUNGS, last->plain ? "rung=\"plain\"" : labels, 1);
    }
    metrics_add(m, METRIC_RERUN_TOKENS, "", r->rerun_rows);
}

void metrics_add_result(struct metrics *m, const struct job_result *r)
{
    metrics_add(m, METRIC_PROMPT_TOKENS, "", r->prompt_rows);
    metrics_add(m, METRIC_PROMPT_TOKENS_CACHED, "", r->cached_rows);
    metrics_add(m, METRIC_PREFIX_CACHE_QUERIES, "", r->looked_up_rows);
    metrics_add(m, METRIC_PREFIX_CACHE_HITS, "", r->cached_rows);
    metrics_add(m, METRIC_GENERATION_TOKENS, "", r->completion_tokens);
    metrics_add(m, METRIC_DRAFT_TOKENS, "", r->draft_tokens);
    metrics_add(m, METRIC_DRAFT_TOKENS_ACCEPTED, "", r->draft_tokens_accepted);
    if (r->completion_tokens > 0) { /* an embedding has none */
        metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN, "", r->first_token_ms * 1e-3);
        metrics_observe(m, METRIC_DECODE_TIME, "", r->predicted_ms * 1e-3);
    }
    metrics_observe(m, METRIC_E2E_LATENCY, "", r->total_ms * 1e-3);
    metrics_observe(m, METRIC_QUEUE_TIME, "", r->queue_ms * 1e-3);
    metrics_observe(m, METRIC_PREFILL_TIME, "", r->prompt_ms * 1e-3);
    metrics_observe(m, METRIC_REQUEST_PEAK_BYTES, "", (double)r->peak_bytes);
    if (r->completion_tokens > 1) {
        metrics_observe(m, METRIC_INTER_TOKEN_LATENCY, "",
                        r->predicted_ms * 1e-3 / (r->completion_tokens - 1));
    }
    metrics_add_pictures(m, r);
    add_report(m, &r->report);
    add_attempts(m, r);
    if (r->budget_ms > 0) {
        metrics_add(m, METRIC_BUDGETS,
                    r->first_token_ms <= r->budget_ms ? "outcome=\"met\"" : "outcome=\"missed\"",
                    1);
    }
}

static void set_passes(struct metrics *m, const struct engine_passes *passes)
{
    metrics_set(m, METRIC_MIXED_ITERATIONS, "", (double)passes->n_mixed);
    pthread_mutex_lock(&m->lock);
    struct series *s = find(m, METRIC_ITERATION_TOKENS, "");
    if (s) {
        s->n = passes->n;
        s->value = (double)passes->n_rows;
        memcpy(s->bucket, passes->by_rows, sizeof passes->by_rows);
    }
    pthread_mutex_unlock(&m->lock);
}

static void set_shadows(struct metrics *m, struct engine *en, const struct engine_shadow *s)
{
    struct engine_rollout levels[PLAN_MAX_PROFILES];
    int n = en ? engine_rollout(en, levels, PLAN_MAX_PROFILES) : 0;
    metrics_set(m, METRIC_SHADOWS, "outcome=\"done\"", (double)s->n_done);
    metrics_set(m, METRIC_SHADOWS, "outcome=\"abandoned\"", (double)s->n_abandoned);
    metrics_set(m, METRIC_SHADOW_TOKENS, "", (double)s->n_tokens);
    metrics_set(m, METRIC_SHADOW_TOKENS_AGREED, "", (double)s->n_agreed);
    metrics_set(m, METRIC_SHADOW_DIVERGENCE, "", s->divergence);
    metrics_set(m, METRIC_ROLLOUT_CHANGES, "direction=\"down\"", (double)s->n_falls);
    metrics_set(m, METRIC_ROLLOUT_CHANGES, "direction=\"up\"", (double)s->n_climbs);
    for (int i = 0; i < n; i++) {
        char labels[LABEL_BYTES];
        snprintf(labels, sizeof labels, "profile=\"%.31s\"", levels[i].profile);
        metrics_set(m, METRIC_ROLLOUT_LEVEL, labels, levels[i].level);
        if (!isnan(levels[i].agreement)) {
            metrics_set(m, METRIC_ROLLOUT_AGREEMENT, labels, levels[i].agreement);
        }
    }
}

void metrics_set_engine(struct metrics *m, struct engine *en)
{
    struct engine_stats s = {0};
    if (en) {
        engine_stats(en, &s);
    }
    metrics_set(m, METRIC_RUNNING, "", s.n_running);
    metrics_set(m, METRIC_WAITING, "", s.n_waiting);
    set_passes(m, &s.passes);
    set_shadows(m, en, &s.shadow);
    metrics_set(m, METRIC_PICTURE_PASSES, "", (double)s.n_picture_passes);
    metrics_set(m, METRIC_PICTURES_ENCODED, "", (double)s.n_pictures_encoded);
    metrics_set(m, METRIC_KV_CACHE_USAGE, "",
                s.kv_total_bytes ? (double)s.kv_used_bytes / (double)s.kv_total_bytes : 0);
    metrics_set(m, METRIC_IMAGE_WORKER_RESTARTS, "", (double)s.image_worker_restarts);
    metrics_set(m, METRIC_ENGINE_UP, "", en && s.alive ? 1 : 0);
}

static void set_process(struct metrics *m)
{
    struct process_usage u;
    process_usage_read(&u);
    metrics_set(m, METRIC_PROCESS_CPU, "", u.cpu_seconds);
    metrics_set(m, METRIC_PROCESS_RESIDENT, "", u.resident_bytes);
    metrics_set(m, METRIC_PROCESS_VIRTUAL, "", u.virtual_bytes);
    metrics_set(m, METRIC_PROCESS_OPEN_FDS, "", u.open_fds);
    metrics_set(m, METRIC_PROCESS_MAX_FDS, "", u.max_fds);
    metrics_set(m, METRIC_PROCESS_START_TIME, "", m->started);
}

/* -- text -------------------------------------------------------------------------- */

static void render_value(struct buf *out, const char *name, const char *suffix, const char *labels,
                         const char *le, double v)
{
    buf_printf(out, "%s%s", name, suffix);
    if (labels[0] || le) {
        buf_printf(out, "{%s%s", labels, labels[0] && le ? "," : "");
        if (le) {
            buf_printf(out, "le=\"%s\"", le);
        }
        buf_putc(out, '}');
    }
    buf_printf(out, " %.15g\n", v);
}

static void render_histogram(struct buf *out, const struct metric_info *info,
                             const struct series *s)
{
    double sum = 0;
    for (int b = 0; info->buckets[b] > 0; b++) {
        char le[32];
        snprintf(le, sizeof le, "%.12g", info->buckets[b]);
        sum += (double)s->bucket[b];
        render_value(out, info->name, "_bucket", s->labels, le, sum);
    }
    render_value(out, info->name, "_bucket", s->labels, "+Inf", (double)s->n);
    render_value(out, info->name, "_sum", s->labels, NULL, s->value);
    render_value(out, info->name, "_count", s->labels, NULL, (double)s->n);
}

static void render_metric(struct metrics *m, enum metric id, struct buf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const struct metric_info *info = &table[id];
    /* also without a series: what may come is seen from the first scrape */
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", info->name, info->help, info->name,
               kinds[info->kind]);
    for (int i = 0; i < m->n_series; i++) {
        const struct series *s = &m->series[i];
        if (s->id != id) {
            continue;
        }
        if (info->kind == HISTOGRAM) {
            render_histogram(out, info, s);
        } else {
            render_value(out, info->name, "", s->labels, NULL, s->value);
        }
    }
}

void metrics_render(struct metrics *m, struct buf *out)
{
    set_process(m);
    pthread_mutex_lock(&m->lock);
    for (int id = 0; id < METRIC_COUNT; id++) {
        render_metric(m, (enum metric)id, out);
    }
    pthread_mutex_unlock(&m->lock);
}
