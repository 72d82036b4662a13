#include "server/chat_calls.h"

#include "server/server_impl.h"

static void on_text(void *ctx, const char *s, size_t n)
{
    struct chat_calls *k = ctx;
    if (k->sse) {
        sse_text(k->sse, k->index, s, n, NULL);
    } else {
        buf_append(&k->choice->text, s, n);
    }
}

static void on_call(void *ctx, const char *name, size_t n)
{
    struct chat_calls *k = ctx;
    char id[40];
    http_random_id("call_", id, sizeof id);
    k->open = true;
    if (k->sse) {
        sse_call(k->sse, k->index, k->parser.n_calls, id, name, n);
    } else {
        render_call(&k->choice->calls, id, name, n);
    }
}

static void on_arguments(void *ctx, const char *s, size_t n)
{
    struct chat_calls *k = ctx;
    if (k->sse) {
        sse_arguments(k->sse, k->index, k->parser.n_calls - 1, s, n);
    } else {
        render_arguments(&k->choice->calls, s, n);
    }
}

static void on_end_call(void *ctx)
{
    struct chat_calls *k = ctx;
    k->open = false;
    if (!k->sse) {
        render_call_end(&k->choice->calls);
    }
}

static struct tool_sink sink_of(struct chat_calls *k)
{
    return (struct tool_sink){.text = on_text,
                              .call = on_call,
                              .arguments = on_arguments,
                              .end_call = on_end_call,
                              .ctx = k};
}

void chat_calls_init(struct chat_calls *k, const struct chat_tool_format *f, struct choice *choice,
                     int index, const struct sse *sse)
{
    *k = (struct chat_calls){.choice = choice, .index = index, .sse = sse};
    tool_parser_init(&k->parser, f);
}

void chat_calls_clear(struct chat_calls *k)
{
    tool_parser_clear(&k->parser);
}

int chat_calls_add(struct chat_calls *k, const char *s, size_t n)
{
    struct tool_sink sink = sink_of(k);
    return tool_parser_add(&k->parser, s, n, &sink);
}

void chat_calls_end(struct chat_calls *k)
{
    struct tool_sink sink = sink_of(k);
    tool_parser_end(&k->parser, &sink);
    if (k->open) { /* cut by max_tokens: the entry is whole, its arguments are not */
        on_end_call(k);
    }
    if (k->parser.n_calls > 0 && k->choice->finish == JOB_FINISH_STOP) {
        k->choice->finish = JOB_FINISH_TOOL_CALLS;
    }
}
