#include "server/responses_response.h"

#include "server/api_error.h"

#include <string.h>

static void member_raw(struct json_writer *w, const char *key, const char *json)
{
    json_key(w, key);
    json_raw(w, json, strlen(json));
}

/* -- the object -------------------------------------------------------------------------------- */

static const char *status_of(const struct response *r)
{
    if (r->error) {
        return "failed";
    }
    return r->finish == JOB_FINISH_NONE     ? "in_progress"
           : r->finish == JOB_FINISH_LENGTH ? "incomplete"
                                            : "completed";
}

static void render_part(struct json_writer *w, const char *text, size_t n)
{
    json_begin_object(w);
    json_put(w, "type", "output_text");
    json_key(w, "text");
    json_string_n(w, text, n);
    member_raw(w, "annotations", "[]");
    member_raw(w, "logprobs", "[]");
    json_end_object(w);
}

/* The one item there is: the message. Before its end it has no content. */
static void render_item(struct json_writer *w, const struct response *r)
{
    json_begin_object(w);
    json_put(w, "type", "message");
    json_put(w, "id", r->item_id);
    json_put(w, "status", status_of(r));
    json_put(w, "role", "assistant");
    json_key(w, "content");
    json_begin_array(w);
    if (r->finish != JOB_FINISH_NONE) {
        render_part(w, buf_str(r->text), r->text->len);
    }
    json_end_array(w);
    json_end_object(w);
}

static void render_response_usage(struct json_writer *w, const struct job_result *b)
{
    json_key(w, "usage");
    if (!b) {
        json_null(w);
        return;
    }
    json_begin_object(w);
    json_put_int(w, "input_tokens", b->prompt_rows);
    json_key(w, "input_tokens_details");
    json_begin_object(w);
    json_put_int(w, "cached_tokens", b->cached_rows);
    json_end_object(w);
    json_put_int(w, "output_tokens", b->completion_tokens);
    json_key(w, "output_tokens_details");
    json_begin_object(w);
    json_put_int(w, "reasoning_tokens", 0);
    json_end_object(w);
    json_put_int(w, "total_tokens", (int64_t)b->prompt_rows + b->completion_tokens);
    render_compression(w, b);
    json_end_object(w);
}

static void render_error(struct json_writer *w, const struct err *e)
{
    json_key(w, "error");
    if (!e) {
        json_null(w);
        return;
    }
    json_begin_object(w);
    json_put(w, "code", "server_error");
    json_put(w, "message", e->msg);
    json_end_object(w);
}

static void render_echo(struct json_writer *w, const struct response_echo *o)
{
    member_raw(w, "instructions", o->instructions ? o->instructions : "null");
    json_key(w, "max_output_tokens");
    if (o->max_output_tokens > 0) {
        json_int(w, o->max_output_tokens);
    } else {
        json_null(w);
    }
    member_raw(w, "metadata", o->metadata ? o->metadata : "{}");
    json_key(w, "temperature");
    json_number(w, o->temperature, 6);
    json_key(w, "top_p");
    json_number(w, o->top_p, 6);
    json_key(w, "text");
    json_begin_object(w);
    member_raw(w, "format", o->format ? o->format : "{\"type\":\"text\"}");
    json_end_object(w);
}

void response_render(struct json_writer *w, const struct response *r)
{
    json_begin_object(w);
    json_put(w, "id", r->completion->id);
    json_put(w, "object", "response");
    json_put_int(w, "created_at", r->completion->created);
    json_put(w, "status", status_of(r));
    render_error(w, r->error);
    member_raw(w, "incomplete_details",
               r->finish == JOB_FINISH_LENGTH ? "{\"reason\":\"max_output_tokens\"}" : "null");
    json_put(w, "model", r->completion->model);
    json_key(w, "output");
    json_begin_array(w);
    if (r->has_item || r->finish != JOB_FINISH_NONE) {
        render_item(w, r);
    }
    json_end_array(w);
    render_echo(w, r->echo);
    member_raw(w, "parallel_tool_calls", "true");
    member_raw(w, "previous_response_id", "null");
    member_raw(w, "reasoning", "{\"effort\":null,\"summary\":null}");
    member_raw(w, "store", "false");
    json_put(w, "tool_choice", "auto");
    member_raw(w, "tools", "[]");
    json_put(w, "truncation", "disabled");
    render_response_usage(w, r->bill);
    if (r->bill) {
        render_timings(w, r->bill);
        render_memory(w, r->bill);
    }
    json_end_object(w);
}

/* -- events ---------------------------------------------------------------------------------- */

static void event_begin(struct buf *out, int *sequence, const char *type, struct json_writer *w)
{
    buf_printf(out, "event: %s\ndata: ", type);
    json_writer_init(w, out);
    json_begin_object(w);
    json_put(w, "type", type);
    json_put_int(w, "sequence_number", (*sequence)++);
}

static void event_end(struct buf *out, struct json_writer *w)
{
    json_end_object(w);
    buf_puts(out, "\n\n");
}

/* Which text of which item: there is one of each. */
static void place(struct json_writer *w, const struct response *r)
{
    json_put(w, "item_id", r->item_id);
    json_put_int(w, "output_index", 0);
    json_put_int(w, "content_index", 0);
}

void response_event(struct buf *out, int *sequence, const char *type, const struct response *r)
{
    struct json_writer w;
    event_begin(out, sequence, type, &w);
    json_key(&w, "response");
    response_render(&w, r);
    event_end(out, &w);
}

static void item_event(struct buf *out, int *sequence, const char *type, const struct response *r)
{
    struct json_writer w;
    event_begin(out, sequence, type, &w);
    json_put_int(&w, "output_index", 0);
    json_key(&w, "item");
    render_item(&w, r);
    event_end(out, &w);
}

static void part_event(struct buf *out, int *sequence, const char *type, const struct response *r)
{
    struct json_writer w;
    event_begin(out, sequence, type, &w);
    place(&w, r);
    json_key(&w, "part");
    render_part(&w, buf_str(r->text), r->text->len);
    event_end(out, &w);
}

static void text_done(struct buf *out, int *sequence, const struct response *r)
{
    struct json_writer w;
    event_begin(out, sequence, "response.output_text.done", &w);
    place(&w, r);
    json_key(&w, "text");
    json_string_n(&w, buf_str(r->text), r->text->len);
    member_raw(&w, "logprobs", "[]");
    event_end(out, &w);
}

void response_item_events(struct buf *out, int *sequence, const struct response *r, bool done)
{
    if (!done) {
        item_event(out, sequence, "response.output_item.added", r);
        part_event(out, sequence, "response.content_part.added", r);
        return;
    }
    text_done(out, sequence, r);
    part_event(out, sequence, "response.content_part.done", r);
    item_event(out, sequence, "response.output_item.done", r);
}

void response_delta(struct buf *out, int *sequence, const struct response *r, const char *text,
                    size_t n)
{
    struct json_writer w;
    event_begin(out, sequence, "response.output_text.delta", &w);
    place(&w, r);
    json_key(&w, "delta");
    json_string_n(&w, text, n);
    member_raw(&w, "logprobs", "[]");
    event_end(out, &w);
}

void response_error(struct buf *out, int *sequence, const struct err *e)
{
    struct json_writer w;
    event_begin(out, sequence, "error", &w);
    json_put(&w, "code", e->reason ? e->reason : err_code_name(e->code));
    json_put(&w, "message", e->msg);
    json_put(&w, "param", e->param[0] ? e->param : NULL);
    event_end(out, &w);
}
