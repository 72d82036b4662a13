/* Every metric of the server in one table, rendered as Prometheus text. Counters,
 * gauges and histograms are kept under one lock and touched a few times a request.
 * Label values come from fixed sets only, so the number of series is bounded. */
#ifndef TAMP_SERVER_METRICS_H
#define TAMP_SERVER_METRICS_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/engine.h"

struct metrics;

enum metric {
    METRIC_REQUESTS,
    METRIC_REQUEST_SUCCESS,
    METRIC_RUNNING,
    METRIC_WAITING,
    METRIC_ITERATION_TOKENS,
    METRIC_MIXED_ITERATIONS,
    METRIC_REJECTED,
    METRIC_CANCELLED,
    METRIC_PROMPT_TOKENS,
    METRIC_PROMPT_TOKENS_CACHED,
    METRIC_GENERATION_TOKENS,
    METRIC_DRAFT_TOKENS,
    METRIC_DRAFT_TOKENS_ACCEPTED,
    METRIC_TIME_TO_FIRST_TOKEN,
    METRIC_INTER_TOKEN_LATENCY,
    METRIC_E2E_LATENCY,
    METRIC_QUEUE_TIME,
    METRIC_PREFILL_TIME,
    METRIC_DECODE_TIME,
    METRIC_IMAGE_DECODE,
    METRIC_IMAGE_ENCODE,
    METRIC_PICTURE_PASSES,
    METRIC_PICTURES_ENCODED,
    METRIC_IMAGE_CACHE_QUERIES,
    METRIC_IMAGE_CACHE_HITS,
    METRIC_PREFIX_CACHE_QUERIES,
    METRIC_PREFIX_CACHE_HITS,
    METRIC_KV_CACHE_USAGE,
    METRIC_COMPRESSION_INPUT,
    METRIC_COMPRESSION_OUTPUT,
    METRIC_COMPRESSION_SECONDS,
    METRIC_COMPRESSION_RATIO,
    METRIC_COMPRESSION_SKIPPED,
    METRIC_GUARD_CHECKS,
    METRIC_GUARD_RERUNS,
    METRIC_RERUN_TOKENS,
    METRIC_CASCADE_RUNGS,
    METRIC_BUDGETS,
    METRIC_SHADOWS,
    METRIC_SHADOW_TOKENS,
    METRIC_SHADOW_TOKENS_AGREED,
    METRIC_SHADOW_DIVERGENCE,
    METRIC_ROLLOUT_CHANGES,
    METRIC_ROLLOUT_LEVEL,
    METRIC_ROLLOUT_AGREEMENT,
    METRIC_REQUEST_PEAK_BYTES,
    METRIC_IMAGE_WORKER_RESTARTS,
    METRIC_ENGINE_UP,
    METRIC_BUILD_INFO,
    METRIC_PROCESS_CPU,
    METRIC_PROCESS_RESIDENT,
    METRIC_PROCESS_VIRTUAL,
    METRIC_PROCESS_OPEN_FDS,
    METRIC_PROCESS_MAX_FDS,
    METRIC_PROCESS_START_TIME,
    METRIC_COUNT
};

struct metrics *metrics_new(const char *version, struct err *e);
void metrics_free(struct metrics *m);

/* labels: "" or `status="200",endpoint="chat"`, of fixed words. */
void metrics_add(struct metrics *m, enum metric id, const char *labels, double v);
void metrics_set(struct metrics *m, enum metric id, const char *labels, double v);
void metrics_observe(struct metrics *m, enum metric id, const char *labels, double v);

/* What a request's pictures took, also where it gives no answer. */
void metrics_add_pictures(struct metrics *m, const struct job_result *r);
/* Once per request that the engine ran to its end; pictures included. */
void metrics_add_result(struct metrics *m, const struct job_result *r);
/* What is true now; en may be NULL (loading). */
void metrics_set_engine(struct metrics *m, struct engine *en);

/* The whole text, process_* included. */
void metrics_render(struct metrics *m, struct buf *out);

#endif
