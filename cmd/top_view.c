#include "cmd/top_view.h"

#include <string.h>

#define BAR_WIDTH 16
#define MIB       (1024.0 * 1024.0)

#define FIRST_TOKEN  "tamp_time_to_first_token_seconds"
#define BETWEEN      "tamp_inter_token_latency_seconds"
#define ROWS_IN      "tamp_compression_input_tokens_total"
#define ROWS_OUT     "tamp_compression_output_tokens_total"
#define NUMBER_BYTES 32

struct view {
    const struct top_readings *r;
    bool colour;
    struct buf *out;
};

static void heading(const struct view *v, const char *name)
{
    buf_printf(v->out, "%s%-15s%s", v->colour ? "\033[2m" : "", name, v->colour ? "\033[0m" : "");
}

static void figure(const struct view *v, const char *before, const char *number, const char *after)
{
    buf_printf(v->out, "%s%s%s%s%s", before, v->colour ? "\033[1m" : "", number,
               v->colour ? "\033[0m" : "", after);
}

/* 1234567 -> 1,234,567 */
static const char *count_text(double n, char out[NUMBER_BYTES])
{
    char digits[NUMBER_BYTES];
    int len = snprintf(digits, sizeof digits, "%.0f", n < 1e15 ? n : 1e15);
    size_t at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) {
            out[at++] = ',';
        }
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

static const char *seconds_text(double s, char out[NUMBER_BYTES])
{
    if (s < 0) {
        snprintf(out, NUMBER_BYTES, "-");
    } else if (s < 1) {
        snprintf(out, NUMBER_BYTES, s < 0.01 ? "%.1f ms" : "%.0f ms", s * 1e3);
    } else {
        snprintf(out, NUMBER_BYTES, s < 10 ? "%.2f s" : "%.0f s", s);
    }
    return out;
}

static const char *share_text(double part, double all, char out[NUMBER_BYTES])
{
    snprintf(out, NUMBER_BYTES, all > 0 ? "%.0f %%" : "-", all > 0 ? 100 * part / all : 0);
    return out;
}

static double seconds_between(const struct scrape *before, const struct scrape *after)
{
    return before ? (after->at_ms - before->at_ms) * 1e-3 : 0;
}

static double rate(const struct view *v, const char *name)
{
    double dt = seconds_between(v->r->last, v->r->now);
    return dt > 0 ? scrape_growth(v->r->last, v->r->now, name, NULL) / dt : 0;
}

/* -- lines -------------------------------------------------------------------------------- */

static void print_title(const struct view *v)
{
    double up = (double)v->r->wall - scrape_total(v->r->now, "process_start_time_seconds", NULL);
    char version[32] = "";
    for (int i = 0; i < v->r->now->n; i++) {
        if (strcmp(v->r->now->samples[i].name, "tamp_build_info") == 0) {
            sample_label(&v->r->now->samples[i], "version", version, sizeof version);
        }
    }
    char title[64];
    snprintf(title, sizeof title, "tamp %s", version);
    figure(v, "", title, "");
    long minutes = up > 0 && up < 1e10 ? (long)(up / 60) : 0;
    buf_printf(v->out, "  %.40s  up ", v->r->server);
    if (minutes >= 1440) {
        buf_printf(v->out, "%ld d %ld h", minutes / 1440, minutes / 60 % 24);
    } else {
        buf_printf(v->out, "%ld h %ld min", minutes / 60, minutes % 60);
    }
    bool ready = scrape_total(v->r->now, "tamp_engine_up", NULL) > 0;
    buf_printf(v->out, "%s\n\n", ready ? "" : "  (not ready)");
}

static void print_requests(const struct view *v)
{
    const struct scrape *s = v->r->now;
    char n[NUMBER_BYTES];
    heading(v, "requests");
    figure(v, "running ", count_text(scrape_total(s, "tamp_num_requests_running", NULL), n), "");
    figure(v, "   waiting ", count_text(scrape_total(s, "tamp_num_requests_waiting", NULL), n), "");
    figure(v, "   done ", count_text(scrape_total(s, "tamp_request_success_total", NULL), n), "");
    figure(v, "   refused ", count_text(scrape_total(s, "tamp_requests_rejected_total", NULL), n),
           "");
    figure(v, "   left ", count_text(scrape_total(s, "tamp_requests_cancelled_total", NULL), n),
           "\n");
}

static void print_tokens(const struct view *v)
{
    const struct scrape *s = v->r->now;
    double drafted = scrape_total(s, "tamp_spec_decode_num_draft_tokens_total", NULL);
    double right = scrape_total(s, "tamp_spec_decode_num_accepted_tokens_total", NULL);
    char n[NUMBER_BYTES];
    heading(v, "tokens");
    figure(v, "answers ", count_text(rate(v, "tamp_generation_tokens_total"), n), "/s");
    figure(v, "   prompts ", count_text(rate(v, "tamp_prompt_tokens_total"), n), "/s");
    figure(v, "   drafts right ", share_text(right, drafted, n), "\n");
}

/* Of the last minute; of all time when nothing came in it. */
static void print_quantiles(const struct view *v, const char *name, const char *metric)
{
    char count[64];
    char n[NUMBER_BYTES];
    snprintf(count, sizeof count, "%s_count", metric);
    bool lately = v->r->old && scrape_growth(v->r->old, v->r->now, count, NULL) > 0;
    const struct scrape *from = lately ? v->r->old : NULL;
    heading(v, name);
    figure(v, "p50 ", seconds_text(scrape_quantile(from, v->r->now, metric, 0.5), n), "");
    figure(v, "   p95 ", seconds_text(scrape_quantile(from, v->r->now, metric, 0.95), n), "");
    buf_printf(v->out, "   %s\n", lately ? "(last minute)" : "(since the start)");
}

/* A line for each modality and method that merged something. */
static void print_rows(const struct view *v)
{
    const struct scrape *s = v->r->now;
    double in = scrape_total(s, ROWS_IN, NULL);
    double saved = in - scrape_total(s, ROWS_OUT, NULL);
    char a[NUMBER_BYTES];
    char b[NUMBER_BYTES];
    heading(v, "rows saved");
    figure(v, "", count_text(saved, a), "");
    buf_printf(v->out, "   %s of what could merge\n", share_text(saved, in, b));
    for (int i = 0; i < s->n; i++) {
        char modality[24];
        char method[24];
        if (strcmp(s->samples[i].name, ROWS_IN) != 0) {
            continue;
        }
        double out = scrape_total(s, ROWS_OUT, s->samples[i].labels);
        if (out >= s->samples[i].value) {
            continue;
        }
        sample_label(&s->samples[i], "modality", modality, sizeof modality);
        sample_label(&s->samples[i], "method", method, sizeof method);
        buf_printf(v->out, "%15s%-6s %-10s %14s -> %s", "", modality, method,
                   count_text(s->samples[i].value, a), count_text(out, b));
        buf_printf(v->out, out > 0 ? "   %.1fx\n" : "\n",
                   s->samples[i].value / (out > 0 ? out : 1));
    }
}

static void print_caches(const struct view *v)
{
    const struct scrape *s = v->r->now;
    double used = scrape_total(s, "tamp_kv_cache_usage_ratio", NULL);
    int filled = (int)(used * BAR_WIDTH + 0.5);
    char n[NUMBER_BYTES];
    heading(v, "caches");
    figure(v, "pictures ",
           share_text(scrape_total(s, "tamp_image_cache_hits_total", NULL),
                      scrape_total(s, "tamp_image_cache_queries_total", NULL), n),
           "");
    figure(v, "   prompts ",
           share_text(scrape_total(s, "tamp_prefix_cache_hits_total", NULL),
                      scrape_total(s, "tamp_prefix_cache_queries_total", NULL), n),
           "");
    figure(v, "   KV memory ", share_text(used, 1, n), " [");
    for (int i = 0; i < BAR_WIDTH; i++) {
        buf_putc(v->out, i < filled ? '#' : '.');
    }
    buf_puts(v->out, "]\n");
}

static void print_process(const struct view *v)
{
    char n[NUMBER_BYTES];
    double resident = scrape_total(v->r->now, "process_resident_memory_bytes", NULL);
    heading(v, "process");
    figure(v, "", count_text(resident / MIB, n), " MiB");
    figure(v, "   CPU ", share_text(rate(v, "process_cpu_seconds_total"), 1, n), "\n");
}

void top_view_print(const struct top_readings *r, bool colour, struct buf *out)
{
    const struct view v = {r, colour, out};
    print_title(&v);
    print_requests(&v);
    print_tokens(&v);
    print_quantiles(&v, "first token", FIRST_TOKEN);
    print_quantiles(&v, "between tokens", BETWEEN);
    print_rows(&v);
    print_caches(&v);
    print_process(&v);
}
