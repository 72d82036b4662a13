/* The text of /metrics: values, cumulative buckets, bounded series, promtool's opinion. */
#include "server/metrics.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct metrics *filled(void)
{
    struct err e = ERR_INIT;
    struct metrics *m = metrics_new("1.2.3", &e);
    CHECK(m);
    struct job_result r = {.prompt_rows = 90,
                           .image_rows = 64,
                           .looked_up_rows = 45,
                           .cached_rows = 10,
                           .images_queried = 3,
                           .draft_tokens = 12,
                           .draft_tokens_accepted = 5,
                           .images_cached = 2,
                           .completion_tokens = 11,
                           .first_token_ms = 30,
                           .predicted_ms = 1000,
                           .total_ms = 5000,
                           .peak_bytes = 3 << 20};
    r.report.modality[MODALITY_IMAGE] = (struct report_stage){
        .method = "tome", .stage = STAGE_VIT_LAYER, .rows_in = 256, .rows_out = 64, .ms = 3};
    r.n_attempts = 2;
    r.rerun_rows = 30;
    r.cascade_ratio = 4;
    r.attempts[0] = (struct job_attempt){.looked = true, .doubt = "narrow_margin"};
    r.attempts[1] = (struct job_attempt){.looked = true, .rung = 1};
    r.report.skipped[0].reason = "too_short";
    r.report.n_skipped = 1;
    metrics_add_result(m, &r);
    metrics_add(m, METRIC_REQUESTS, "endpoint=\"chat\",status=\"200\"", 1);
    metrics_add(m, METRIC_REQUESTS, "endpoint=\"chat\",status=\"200\"", 1);
    metrics_set(m, METRIC_KV_CACHE_USAGE, "", 0.25);
    return m;
}

static void text(struct metrics *m, struct buf *out)
{
    buf_init(out, 1 << 20);
    metrics_render(m, out);
    CHECK(!buf_failed(out));
}

TEST(metrics_values, "what was counted is what is shown")
{
    static const char *const lines[] = {
        "tamp_requests_total{endpoint=\"chat\",status=\"200\"} 2\n",
        "tamp_prompt_tokens_total 90\n",
        "tamp_prompt_tokens_cached_total 10\n",
        "tamp_prefix_cache_queries_total 45\n",
        "tamp_prefix_cache_hits_total 10\n",
        "tamp_generation_tokens_total 11\n",
        "tamp_kv_cache_usage_ratio 0.25\n",
        "tamp_time_to_first_token_seconds_bucket{le=\"0.025\"} 0\n",
        "tamp_time_to_first_token_seconds_bucket{le=\"0.05\"} 1\n",
        "tamp_time_to_first_token_seconds_bucket{le=\"640\"} 1\n",
        "tamp_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n",
        "tamp_time_to_first_token_seconds_count 1\n",
        "tamp_inter_token_latency_seconds_sum 0.1\n",
        "tamp_compression_input_tokens_total{modality=\"image\",method=\"tome\"} 256\n",
        "tamp_compression_output_tokens_total{modality=\"image\",method=\"tome\"} 64\n",
        "tamp_compression_ratio_bucket{modality=\"image\",le=\"0.1875\"} 0\n",
        "tamp_compression_ratio_bucket{modality=\"image\",le=\"0.25\"} 1\n",
        "tamp_compression_skipped_total{reason=\"too_short\"} 1\n",
        "tamp_guard_checks_total{outcome=\"redone\"} 1\n",
        "tamp_guard_reruns_total{reason=\"narrow_margin\"} 1\n",
        "tamp_rerun_tokens_total 30\n",
        "tamp_cascade_answers_total{rung=\"1\"} 1\n",
        "tamp_picture_passes_total 0\n",
        "tamp_pictures_encoded_total 0\n",
        "tamp_build_info{version=\"1.2.3\"} 1\n",
        "tamp_image_cache_queries_total 3\n",
        "tamp_image_cache_hits_total 2\n",
        "tamp_spec_decode_num_draft_tokens_total 12\n",
        "tamp_spec_decode_num_accepted_tokens_total 5\n",
    };
    struct metrics *m = filled();
    struct buf out;
    text(m, &out);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!strstr(buf_str(&out), lines[i])) {
            FAIL("not there: %s", lines[i]);
        }
    }
    buf_free(&out);
    metrics_free(m);
}

TEST(metrics_heads, "a metric without events yet is named and explained, and has no series")
{
    struct err e = ERR_INIT;
    struct metrics *m = metrics_new("1.2.3", &e);
    CHECK(m);
    struct buf out;
    text(m, &out);
    CHECK(strstr(buf_str(&out), "# HELP tamp_guard_checks_total Compressed answers judged"));
    CHECK(strstr(buf_str(&out), "\n# TYPE tamp_guard_checks_total counter\n"));
    CHECK(!strstr(buf_str(&out), "\ntamp_guard_checks_total"));
    buf_free(&out);
    metrics_free(m);
}

TEST(metrics_bounded, "a flood of label values cannot grow the table without bound")
{
    struct metrics *m = filled();
    for (int i = 0; i < 100000; i++) {
        char labels[64];
        snprintf(labels, sizeof labels, "reason=\"r%d\"", i);
        metrics_add(m, METRIC_REJECTED, labels, 1);
    }
    metrics_add(m, METRIC_PROMPT_TOKENS, "", 1);
    struct buf out;
    text(m, &out);
    CHECK_INT(out.len, <, 100000);
    CHECK(strstr(buf_str(&out), "tamp_prompt_tokens_total 91\n"));
    buf_free(&out);
    metrics_free(m);
}

TEST(metrics_process, "the process's own figures are there and sane")
{
    struct metrics *m = filled();
    struct buf out;
    text(m, &out);
    const char *rss = strstr(buf_str(&out), "\nprocess_resident_memory_bytes ");
    const char *fds = strstr(buf_str(&out), "\nprocess_open_fds ");
    CHECK(rss && fds);
    CHECK_DOUBLE(strtod(strchr(rss + 1, ' '), NULL), >, 1e5);
    CHECK_DOUBLE(strtod(strchr(fds + 1, ' '), NULL), >=, 3);
    buf_free(&out);
    metrics_free(m);
}

TEST(metrics_promtool, "promtool check metrics finds nothing")
{
    struct metrics *m = filled();
    struct buf out;
    if (system("command -v promtool >/dev/null 2>&1")) {
        SKIP("needs promtool (Debian package prometheus)");
    }
    text(m, &out);
    FILE *p = popen("promtool check metrics", "w");
    CHECK(p);
    CHECK_INT(fwrite(out.data, 1, out.len, p), ==, out.len);
    CHECK_INT(pclose(p), ==, 0);
    buf_free(&out);
    metrics_free(m);
}
