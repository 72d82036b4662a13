/* POST /v1/responses: the form of its answers. One message of one text; its stream is
 * created, in_progress, the item and its part added, deltas, each of them done, completed. */
#include "base/alloc.h"
#include "server/chat_request.h"
#include "server/generation.h"
#include "server/json_fields.h"
#include "server/responses_response.h"

#include <cjson/cJSON.h>

struct state {
    struct response_echo echo;
    char item_id[48];
    int sequence;
};

/* -- on a worker -------------------------------------------------------------------------- */

static int keep(const cJSON *v, char **out, struct err *e)
{
    if (v) {
        *out = cJSON_PrintUnformatted(v);
        return *out ? 0 : err_no_memory(e, LIMIT_BODY_BYTES);
    }
    return 0;
}

static int check_metadata(const cJSON *v, struct err *e)
{
    return !v || cJSON_IsObject(v) ? 0 : json_wrong_type(v, "metadata", "an object", e);
}

static int state_new(struct generation *g, const struct chat_request *r, struct err *e)
{
    const cJSON *text = json_member(r->root, "text");
    const cJSON *metadata = json_member(r->root, "metadata");
    struct state *s = mem_zalloc(1, sizeof *s);
    if (!s) {
        return err_no_memory(e, sizeof *s);
    }
    g->state = s;
    http_random_id("msg_", s->item_id, sizeof s->item_id);
    s->echo.max_output_tokens = r->engine.gen.max_tokens;
    s->echo.temperature = (double)r->engine.gen.temperature;
    s->echo.top_p = (double)r->engine.gen.top_p;
    return check_metadata(metadata, e) || keep(metadata, &s->echo.metadata, e) ||
                   keep(json_member(r->root, "instructions"), &s->echo.instructions, e) ||
                   keep(text ? json_member(text, "format") : NULL, &s->echo.format, e)
               ? -1
               : 0;
}

static int read_request(struct generation *g, struct chat_request *r, struct err *e)
{
    if (model_check(engine_info(g->engine), r->model, e) || state_new(g, r, e)) {
        return -1;
    }
    generation_options(g, r);
    return generation_make_choices(g, 1, 1, e) || generation_submit(g, &r->engine, e) ? -1 : 0;
}

static int read_body(struct generation *g, struct err *e)
{
    return generation_read(g, REQUEST_RESPONSE, read_request, e);
}

/* -- events ----------------------------------------------------------------------------------- */

static struct response response_of(const struct generation *g)
{
    const struct state *s = g->state;
    return (struct response){.completion = &g->completion,
                             .echo = &s->echo,
                             .item_id = s->item_id,
                             .text = &g->choices[0].text,
                             .finish = g->choices[0].finish};
}

static void open_stream(struct generation *g)
{
    struct state *s = g->state;
    const struct response r = response_of(g);
    response_event(&g->out, &s->sequence, "response.created", &r);
    response_event(&g->out, &s->sequence, "response.in_progress", &r);
    response_item_events(&g->out, &s->sequence, &r, false);
}

static void on_text(struct generation *g, int choice, const struct job_event *ev)
{
    struct state *s = g->state;
    if (g->stream) {
        const struct response r = response_of(g);
        response_delta(&g->out, &s->sequence, &r, ev->text, ev->text_len);
    }
    /* streamed, too: the last events have the whole text */
    buf_append(&g->choices[choice].text, ev->text, ev->text_len);
}

static void on_finish(struct generation *g, int choice, bool last)
{
    (void)choice;
    (void)last; /* there is one */
    struct state *s = g->state;
    struct response r = response_of(g);
    r.bill = &g->bill;
    response_item_events(&g->out, &s->sequence, &r, true);
    response_event(&g->out, &s->sequence,
                   r.finish == JOB_FINISH_LENGTH ? "response.incomplete" : "response.completed",
                   &r);
}

static void on_fail(struct generation *g)
{
    struct state *s = g->state;
    struct response r = response_of(g);
    r.error = &g->error;
    response_error(&g->out, &s->sequence, &g->error);
    response_event(&g->out, &s->sequence, "response.failed", &r);
}

static void whole(struct generation *g, struct buf *out)
{
    struct json_writer w;
    struct response r = response_of(g);
    r.bill = &g->bill;
    json_writer_init(&w, out);
    response_render(&w, &r);
}

static void release(struct generation *g)
{
    struct state *s = g->state;
    if (s) {
        cJSON_free(s->echo.instructions);
        cJSON_free(s->echo.metadata);
        cJSON_free(s->echo.format);
        mem_free(s);
    }
}

const struct generation_form response_form = {
    .id_prefix = "resp_",
    .stream_bytes = LIMIT_ANSWER_BYTES,
    .read = read_body,
    .open = open_stream,
    .text = on_text,
    .finish = on_finish,
    .fail = on_fail,
    .whole = whole,
    .free = release,
};
