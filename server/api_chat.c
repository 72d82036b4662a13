/* POST /v1/chat/completions: the form of its answers. */
#include "base/alloc.h"
#include "server/chat_calls.h"
#include "server/chat_request.h"
#include "server/generation.h"

/* The state: a struct chat_calls for each choice; NULL: no functions are told of. */
static int expect_calls(struct generation *g, const struct chat_tool_format *f, struct err *e)
{
    struct chat_calls *calls = f ? mem_zalloc((size_t)g->n_choices, sizeof *calls) : NULL;
    if (f && !calls) {
        return err_no_memory(e, (size_t)g->n_choices * sizeof *calls);
    }
    for (int i = 0; f && i < g->n_choices; i++) {
        chat_calls_init(&calls[i], f, &g->choices[i], i, g->stream ? &g->sse : NULL);
    }
    g->state = calls;
    return 0;
}

static int read_request(struct generation *g, struct chat_request *r, struct err *e)
{
    if (model_check(engine_info(g->engine), r->model, e)) {
        return -1;
    }
    generation_options(g, r);
    return generation_make_choices(g, 1, r->engine.gen.n_choices, e) ||
                   expect_calls(g, r->tools, e) || generation_submit(g, &r->engine, e)
               ? -1
               : 0;
}

static int read_body(struct generation *g, struct err *e)
{
    return generation_read(g, REQUEST_CHAT, read_request, e);
}

static void open_stream(struct generation *g)
{
    for (int i = 0; i < g->n_choices; i++) {
        sse_role(&g->sse, i);
    }
}

static void on_text(struct generation *g, int choice, const struct job_event *ev)
{
    const struct token_names names = generation_names(g);
    struct choice *c = &g->choices[choice];
    struct chat_calls *calls = g->state;
    render_logprobs(&c->logprobs, ev, &names);
    if (calls) {
        if (chat_calls_add(&calls[choice], ev->text, ev->text_len)) {
            err_no_memory(&g->error, ev->text_len);
        } else if (g->stream && c->logprobs.len) {
            sse_text(&g->sse, choice, "", 0, &c->logprobs);
            buf_clear(&c->logprobs);
        }
    } else if (g->stream) {
        sse_text(&g->sse, choice, ev->text, ev->text_len, &c->logprobs);
        buf_clear(&c->logprobs);
    } else {
        buf_append(&c->text, ev->text, ev->text_len);
    }
}

static void on_done(struct generation *g, int choice)
{
    struct chat_calls *calls = g->state;
    if (calls) {
        chat_calls_end(&calls[choice]);
    }
}

static void on_finish(struct generation *g, int choice, bool last)
{
    enum job_finish finish = g->choices[choice].finish;
    sse_finish(&g->sse, choice, finish, last && !g->sse.include_usage ? &g->bill : NULL);
    if (last && g->sse.include_usage) {
        sse_usage(&g->sse, &g->bill);
    }
    if (last) {
        sse_done(&g->out);
    }
}

static void on_progress(struct generation *g, const struct job_event *ev, double elapsed_ms)
{
    sse_progress(&g->sse, ev->prompt_done, ev->prompt_total, elapsed_ms);
}

static void whole(struct generation *g, struct buf *out)
{
    render_completion(out, &g->completion, g->choices, g->n_choices, &g->bill);
}

static void release(struct generation *g)
{
    struct chat_calls *calls = g->state;
    for (int i = 0; calls && i < g->n_choices; i++) {
        chat_calls_clear(&calls[i]);
    }
    mem_free(calls);
}

const struct generation_form chat_form = {
    .id_prefix = "chatcmpl-",
    .chunk = "chat.completion.chunk",
    .read = read_body,
    .open = open_stream,
    .text = on_text,
    .done = on_done,
    .finish = on_finish,
    .fail = generation_fail,
    .progress = on_progress,
    .whole = whole,
    .free = release,
};
