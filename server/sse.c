#include "server/sse.h"

#include "server/api_error.h"

void sse_begin(const struct sse *s, struct json_writer *w)
{
    buf_puts(s->out, "data: ");
    json_writer_init(w, s->out);
    render_head(w, s->completion, s->object);
    json_key(w, "choices");
    json_begin_array(w);
}

void sse_end(const struct sse *s, struct json_writer *w, const struct job_result *bill)
{
    json_end_array(w);
    if (bill) {
        render_bill(w, bill);
    } else if (s->include_usage) {
        json_key(w, "usage");
        json_null(w);
    }
    json_end_object(w);
    buf_puts(s->out, "\n\n");
}

static void begin_choice(struct json_writer *w, int choice)
{
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, choice);
    json_key(w, "delta");
    json_begin_object(w);
}

/* Behind the members of delta. */
static void end_choice(struct json_writer *w, const struct buf *logprobs, enum job_finish finish)
{
    json_end_object(w);
    json_key(w, "logprobs");
    if (logprobs && logprobs->len) {
        json_begin_object(w);
        json_key(w, "content");
        json_begin_array(w);
        json_raw(w, logprobs->data, logprobs->len);
        json_end_array(w);
        json_key(w, "refusal");
        json_null(w);
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "finish_reason");
    json_string(w, finish_name(finish));
    json_end_object(w);
}

void sse_role(const struct sse *s, int choice)
{
    struct json_writer w;
    sse_begin(s, &w);
    begin_choice(&w, choice);
    json_key(&w, "role");
    json_string(&w, "assistant");
    json_key(&w, "content");
    json_string(&w, "");
    end_choice(&w, NULL, JOB_FINISH_NONE);
    sse_end(s, &w, NULL);
}

void sse_text(const struct sse *s, int choice, const char *text, size_t n,
              const struct buf *logprobs)
{
    struct json_writer w;
    sse_begin(s, &w);
    begin_choice(&w, choice);
    json_key(&w, "content");
    json_string_n(&w, text, n);
    end_choice(&w, logprobs, JOB_FINISH_NONE);
    sse_end(s, &w, NULL);
}

/* delta.tool_calls with one entry; id NULL: it is known already. */
static void call_chunk(const struct sse *s, int choice, int index, const char *id, const char *name,
                       size_t n_name, const char *arguments, size_t n)
{
    struct json_writer w;
    sse_begin(s, &w);
    begin_choice(&w, choice);
    json_key(&w, "tool_calls");
    json_begin_array(&w);
    json_begin_object(&w);
    json_key(&w, "index");
    json_int(&w, index);
    if (id) {
        json_key(&w, "id");
        json_string(&w, id);
        json_key(&w, "type");
        json_string(&w, "function");
    }
    json_key(&w, "function");
    json_begin_object(&w);
    if (id) {
        json_key(&w, "name");
        json_string_n(&w, name, n_name);
    }
    json_key(&w, "arguments");
    json_string_n(&w, arguments, n);
    json_end_object(&w);
    json_end_object(&w);
    json_end_array(&w);
    end_choice(&w, NULL, JOB_FINISH_NONE);
    sse_end(s, &w, NULL);
}

void sse_call(const struct sse *s, int choice, int index, const char *id, const char *name,
              size_t n)
{
    call_chunk(s, choice, index, id, name, n, "", 0);
}

void sse_arguments(const struct sse *s, int choice, int index, const char *text, size_t n)
{
    call_chunk(s, choice, index, NULL, NULL, 0, text, n);
}

void sse_finish(const struct sse *s, int choice, enum job_finish finish,
                const struct job_result *bill)
{
    struct json_writer w;
    sse_begin(s, &w);
    begin_choice(&w, choice);
    end_choice(&w, NULL, finish);
    sse_end(s, &w, bill);
}

void sse_usage(const struct sse *s, const struct job_result *bill)
{
    struct json_writer w;
    sse_begin(s, &w);
    sse_end(s, &w, bill);
}

void sse_progress(const struct sse *s, int done, int total, double elapsed_ms)
{
    struct json_writer w;
    sse_begin(s, &w);
    json_end_array(&w);
    json_key(&w, "prompt_progress");
    json_begin_object(&w);
    json_key(&w, "total");
    json_int(&w, total);
    json_key(&w, "processed");
    json_int(&w, done);
    json_key(&w, "time_ms");
    json_number(&w, elapsed_ms, 0);
    json_end_object(&w);
    json_end_object(&w);
    buf_puts(s->out, "\n\n");
}

void sse_error(const struct sse *s, const struct err *e)
{
    buf_puts(s->out, "data: ");
    api_error_render(e, s->out);
    buf_puts(s->out, "\n\n");
}

void sse_done(struct buf *out)
{
    buf_puts(out, "data: [DONE]\n\n");
}

void sse_ping(struct buf *out)
{
    buf_puts(out, ": ping\n\n");
}
