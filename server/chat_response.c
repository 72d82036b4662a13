#include "server/chat_response.h"

#include <string.h>

const char *finish_name(enum job_finish f)
{
    return f == JOB_FINISH_STOP         ? "stop"
           : f == JOB_FINISH_LENGTH     ? "length"
           : f == JOB_FINISH_TOOL_CALLS ? "tool_calls"
                                        : NULL;
}

/* -- logprobs ---------------------------------------------------------------------- */

static void token_members(struct json_writer *w, int32_t token, float logprob,
                          const struct token_names *names)
{
    size_t len = 0;
    const char *text = names->text(names->ctx, token, &len);
    json_key(w, "token");
    json_string_n(w, text ? text : "", text ? len : 0);
    json_key(w, "logprob");
    /* OpenAI's floor: what is impossible is -9999, never an infinity */
    json_number(w, logprob > -9999.0F ? (double)logprob : -9999.0, 6);
    json_key(w, "bytes");
    json_begin_array(w);
    for (size_t i = 0; text && i < len; i++) {
        json_int(w, (unsigned char)text[i]);
    }
    json_end_array(w);
}

static void logprob_entry(struct buf *out, const struct token_info *t,
                          const struct token_names *names)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    token_members(&w, t->token, t->logprob, names);
    json_key(&w, "top_logprobs");
    json_begin_array(&w);
    for (int i = 0; i < t->n_top; i++) {
        json_begin_object(&w);
        token_members(&w, t->top[i].token, t->top[i].logprob, names);
        json_end_object(&w);
    }
    json_end_array(&w);
    json_end_object(&w);
}

void render_logprobs(struct buf *out, const struct job_event *ev, const struct token_names *names)
{
    for (int i = 0; i < ev->n_tokens; i++) {
        if (out->len) {
            buf_putc(out, ',');
        }
        logprob_entry(out, &ev->tokens[i], names);
    }
}

/* -- calls of functions ---------------------------------------------------------------- */

void render_call(struct buf *out, const char *id, const char *name, size_t n)
{
    buf_puts(out, out->len ? ",{\"id\":\"" : "{\"id\":\"");
    buf_puts(out, id);
    buf_puts(out, "\",\"type\":\"function\",\"function\":{\"name\":\"");
    json_escape(out, name, n);
    buf_puts(out, "\",\"arguments\":\"");
}

void render_arguments(struct buf *out, const char *s, size_t n)
{
    json_escape(out, s, n);
}

void render_call_end(struct buf *out)
{
    buf_puts(out, "\"}}");
}

/* -- several jobs, one bill ------------------------------------------------------------- */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void add_report(struct report *sum, const struct report *r)
{
    sum->original_rows += r->original_rows;
    sum->compressed_rows += r->compressed_rows;
    sum->mean_rows_per_layer += r->mean_rows_per_layer;
    for (int m = 0; m < MODALITY_COUNT; m++) {
        struct report_stage *s = &sum->modality[m];
        const struct report_stage *from = &r->modality[m];
        if (from->method) {
            s->method = from->method;
            s->stage = from->stage;
        }
        s->rows_in += from->rows_in;
        s->rows_out += from->rows_out;
        s->dropped += from->dropped;
        s->ms += from->ms;
    }
    for (int i = 0; i < r->n_skipped; i++) {
        report_skip(sum, r->skipped[i].stage, r->skipped[i].reason);
    }
}

void bill_add(struct job_result *sum, const struct job_result *r, bool first)
{
    if (first) {
        *sum = *r;
        return;
    }
    sum->prompt_rows += r->prompt_rows;
    sum->text_rows += r->text_rows;
    sum->image_rows += r->image_rows;
    sum->looked_up_rows += r->looked_up_rows;
    sum->cached_rows += r->cached_rows;
    sum->completion_tokens += r->completion_tokens;
    sum->draft_tokens += r->draft_tokens;
    sum->draft_tokens_accepted += r->draft_tokens_accepted;
    sum->queue_ms = larger(sum->queue_ms, r->queue_ms);
    sum->compress_ms += r->compress_ms;
    sum->prompt_ms += r->prompt_ms;
    sum->predicted_ms += r->predicted_ms;
    sum->first_token_ms = larger(sum->first_token_ms, r->first_token_ms);
    sum->total_ms = larger(sum->total_ms, r->total_ms);
    sum->kv_bytes += r->kv_bytes;
    sum->kv_bytes_saved += r->kv_bytes_saved;
    sum->peak_bytes += r->peak_bytes;
    add_report(&sum->report, &r->report);
}

/* -- usage, timings, memory ----------------------------------------------------------- */

static void member_number(struct json_writer *w, const char *key, double v, int decimals)
{
    json_key(w, key);
    json_number(w, v, decimals);
}

void render_modality(struct json_writer *w, const struct report *r, enum modality m)
{
    const struct report_stage *s = &r->modality[m];
    json_key(w, modality_name(m));
    if (!s->method) {
        json_null(w);
        return;
    }
    json_begin_object(w);
    json_key(w, "method");
    json_string(w, s->method);
    json_key(w, "stage");
    json_string(w, stage_name(s->stage));
    json_put_int(w, "rows_in", s->rows_in);
    json_put_int(w, "rows_out", s->rows_out);
    member_number(w, "ratio", s->rows_out > 0 ? (double)s->rows_in / s->rows_out : 1, 4);
    member_number(w, "ms", s->ms, 3);
    if (s->dropped > 0) {
        json_put_int(w, "dropped", s->dropped);
    }
    if (s->n_rungs > 0) {
        json_put_int(w, "rung", s->rung);
        json_put_int(w, "rungs", s->n_rungs);
    }
    json_end_object(w);
}

static void render_attempt(struct json_writer *w, const struct job_attempt *a)
{
    json_begin_object(w);
    json_put_int(w, "rows", a->rows);
    json_put_int(w, "rung", a->rung);
    json_key(w, "plain");
    json_bool(w, a->plain);
    json_key(w, "margin");
    a->looked ? json_number(w, a->margin, 4) : json_null(w);
    json_key(w, "entropy");
    a->looked ? json_number(w, a->entropy, 4) : json_null(w);
    json_key(w, "doubt");
    json_string(w, a->doubt);
    json_end_object(w);
}

/* Only where an answer was judged. */
static void render_guard(struct json_writer *w, const struct job_result *r)
{
    if (r->n_attempts == 0 || !r->attempts[0].looked) {
        return;
    }
    json_key(w, "guard");
    json_begin_object(w);
    json_put_int(w, "redone", r->n_attempts - 1);
    if (r->cascade_ratio > 0) {
        member_number(w, "expected_ratio", r->cascade_ratio, 4);
    }
    json_key(w, "attempts");
    json_begin_array(w);
    for (int i = 0; i < r->n_attempts; i++) {
        render_attempt(w, &r->attempts[i]);
    }
    json_end_array(w);
    json_end_object(w);
}

void render_skipped(struct json_writer *w, const struct report *r)
{
    json_key(w, "skipped");
    json_begin_array(w);
    for (int i = 0; i < r->n_skipped && i < REPORT_MAX_SKIPPED; i++) {
        json_begin_object(w);
        json_key(w, "stage");
        json_string(w, stage_name(r->skipped[i].stage));
        json_key(w, "reason");
        json_string(w, r->skipped[i].reason);
        json_end_object(w);
    }
    json_end_array(w);
}

void render_compression(struct json_writer *w, const struct job_result *result)
{
    const struct report *r = &result->report;
    json_key(w, "compression");
    json_begin_object(w);
    json_put_int(w, "original_tokens", r->original_rows);
    json_put_int(w, "compressed_tokens", r->compressed_rows);
    member_number(w, "ratio", report_ratio(r), 4);
    json_key(w, "profile");
    json_string(w, r->profile);
    for (int m = 0; m < MODALITY_COUNT; m++) {
        render_modality(w, r, (enum modality)m);
    }
    member_number(w, "mean_rows_per_layer", r->mean_rows_per_layer, 2);
    if (r->rollout) {
        json_key(w, "rollout");
        json_string(w, r->rollout);
    }
    if (result->budget_ms > 0) {
        json_key(w, "budget");
        json_begin_object(w);
        member_number(w, "ms", result->budget_ms, 3);
        member_number(w, "expected_ms", result->budget_expected_ms, 3);
        json_key(w, "cap");
        result->budget_cap > 0 ? json_number(w, result->budget_cap, 2) : json_null(w);
        json_key(w, "met");
        json_bool(w, result->first_token_ms <= result->budget_ms);
        json_end_object(w);
    }
    render_guard(w, result);
    render_skipped(w, r);
    json_end_object(w);
}

/* Of the rows that were run, so that the parts add up to prompt_tokens. */
static int image_tokens(const struct job_result *r)
{
    const struct report_stage *s = &r->report.modality[MODALITY_IMAGE];
    int n = (s->method ? s->rows_out : r->image_rows) + r->rerun_image_rows;
    return n < r->prompt_rows ? n : r->prompt_rows;
}

void render_usage(struct json_writer *w, const struct job_result *r)
{
    json_key(w, "usage");
    json_begin_object(w);
    json_put_int(w, "prompt_tokens", r->prompt_rows);
    json_put_int(w, "completion_tokens", r->completion_tokens);
    json_put_int(w, "total_tokens", (int64_t)r->prompt_rows + r->completion_tokens);
    json_key(w, "prompt_tokens_details");
    json_begin_object(w);
    json_put_int(w, "cached_tokens", r->cached_rows);
    json_put_int(w, "text_tokens", r->prompt_rows - image_tokens(r));
    json_put_int(w, "image_tokens", image_tokens(r));
    json_end_object(w);
    render_compression(w, r);
    json_end_object(w);
}

static void render_rate(struct json_writer *w, const char *stem, int n, double ms)
{
    char key[48];
    snprintf(key, sizeof key, "%s_n", stem);
    json_put_int(w, key, n);
    snprintf(key, sizeof key, "%s_ms", stem);
    member_number(w, key, ms, 3);
    snprintf(key, sizeof key, "%s_per_token_ms", stem);
    member_number(w, key, n > 0 ? ms / n : 0, 3);
    snprintf(key, sizeof key, "%s_per_second", stem);
    member_number(w, key, ms > 0 ? n * 1e3 / ms : 0, 3);
}

void render_timings(struct json_writer *w, const struct job_result *r)
{
    json_key(w, "timings");
    json_begin_object(w);
    json_put_int(w, "cache_n", r->cached_rows);
    render_rate(w, "prompt", r->prompt_rows - r->cached_rows, r->prompt_ms);
    render_rate(w, "predicted", r->completion_tokens, r->predicted_ms);
    if (r->draft_tokens > 0) { /* as llama-server: only where something was drafted */
        json_put_int(w, "draft_n", r->draft_tokens);
        json_put_int(w, "draft_n_accepted", r->draft_tokens_accepted);
    }
    member_number(w, "queue_ms", r->queue_ms, 3);
    member_number(w, "image_decode_ms", r->image_decode_ms, 3);
    member_number(w, "vision_ms", r->vision_ms, 3);
    member_number(w, "compress_ms", r->compress_ms, 3);
    member_number(w, "first_token_ms", r->first_token_ms, 3);
    member_number(w, "total_ms", r->total_ms, 3);
    json_end_object(w);
}

void render_memory(struct json_writer *w, const struct job_result *r)
{
    json_key(w, "memory");
    json_begin_object(w);
    json_put_int(w, "kv_bytes", (int64_t)r->kv_bytes);
    json_put_int(w, "kv_bytes_saved", (int64_t)r->kv_bytes_saved);
    json_put_int(w, "peak_bytes", (int64_t)r->peak_bytes);
    json_end_object(w);
}

void render_bill(struct json_writer *w, const struct job_result *r)
{
    render_usage(w, r);
    render_timings(w, r);
    render_memory(w, r);
}

void render_head(struct json_writer *w, const struct completion *c, const char *object)
{
    json_begin_object(w);
    json_key(w, "id");
    json_string(w, c->id);
    json_key(w, "object");
    json_string(w, object);
    json_put_int(w, "created", c->created);
    json_key(w, "model");
    json_string(w, c->model);
}

/* -- the whole ------------------------------------------------------------------------- */

static void render_choice(struct json_writer *w, int index, const struct choice *c)
{
    json_begin_object(w);
    json_put_int(w, "index", index);
    json_key(w, "message");
    json_begin_object(w);
    json_key(w, "role");
    json_string(w, "assistant");
    json_key(w, "content");
    json_string_n(w, c->calls.len && !c->text.len ? NULL : buf_str(&c->text), c->text.len);
    json_key(w, "refusal");
    json_null(w);
    if (c->calls.len) {
        json_key(w, "tool_calls");
        json_begin_array(w);
        json_raw(w, c->calls.data, c->calls.len);
        json_end_array(w);
    }
    json_end_object(w);
    json_key(w, "logprobs");
    if (c->logprobs.len) {
        json_begin_object(w);
        json_key(w, "content");
        json_begin_array(w);
        json_raw(w, c->logprobs.data, c->logprobs.len);
        json_end_array(w);
        json_key(w, "refusal");
        json_null(w);
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "finish_reason");
    json_string(w, finish_name(c->finish));
    json_end_object(w);
}

void render_completion(struct buf *out, const struct completion *c, const struct choice *choices,
                       int n_choices, const struct job_result *r)
{
    struct json_writer w;
    json_writer_init(&w, out);
    render_head(&w, c, "chat.completion");
    json_key(&w, "choices");
    json_begin_array(&w);
    for (int i = 0; i < n_choices; i++) {
        render_choice(&w, i, &choices[i]);
    }
    json_end_array(&w);
    render_bill(&w, r);
    if (r->n_overlays > 0) {
        render_overlays(&w, r);
    }
    json_end_object(&w);
}
