/* POST /v1/completions: the form of its answers. Each prompt is a job of its own; choice i of
 * prompt k has the index k * n + i. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "server/chat_request.h"
#include "server/completion_response.h"
#include "server/generation.h"

#include <string.h>

/* Behind which text the logprobs of each choice are, and those of an answer in one piece. */
struct state {
    struct completion_logprobs *logprobs; /* [n_choices] */
    struct buf *echo;                     /* [n_prompts], or NULL */
    int n_prompts;
    bool with_logprobs;
};

/* -- on a worker -------------------------------------------------------------------------- */

static void echo_prompt(const struct engine *en, const struct completion_prompt *p, struct buf *out)
{
    buf_append(out, p->text, p->len);
    for (int i = 0; i < p->n_ids; i++) {
        size_t len = 0;
        const char *text = engine_token_text(en, p->ids[i], &len);
        buf_append(out, text, len);
    }
}

static int state_new(struct generation *g, const struct chat_request *r, struct err *e)
{
    struct state *s = mem_zalloc(1, sizeof *s);
    if (!s) {
        return err_no_memory(e, sizeof *s);
    }
    g->state = s;
    s->with_logprobs = r->engine.gen.n_top_logprobs >= 0;
    s->logprobs = mem_zalloc((size_t)g->n_choices, sizeof *s->logprobs);
    s->echo = r->echo ? mem_zalloc((size_t)r->n_prompts, sizeof *s->echo) : NULL;
    if (!s->logprobs || (r->echo && !s->echo)) {
        return err_no_memory(e, (size_t)g->n_choices * sizeof *s->logprobs);
    }
    for (int i = 0; i < g->n_choices; i++) {
        completion_logprobs_init(&s->logprobs[i]);
    }
    s->n_prompts = s->echo ? r->n_prompts : 0;
    for (int k = 0; k < s->n_prompts; k++) {
        buf_init(&s->echo[k], LIMIT_ANSWER_BYTES);
        echo_prompt(g->engine, &r->prompts[k], &s->echo[k]);
        for (int i = 0; i < g->per_job; i++) {
            struct choice *c = &g->choices[k * g->per_job + i];
            buf_append(&c->text, s->echo[k].data, s->echo[k].len);
        }
    }
    return 0;
}

static int submit(struct generation *g, struct chat_request *r, int k, struct err *e)
{
    const struct completion_prompt *p = &r->prompts[k];
    struct chat_part part = {.type = CHAT_PART_TEXT, .text = p->text, .text_len = p->len};
    struct chat_message message = {.role = CHAT_USER, .parts = &part, .n_parts = 1};
    struct engine_request one = r->engine;
    one.form = p->ids ? PROMPT_TOKENS : PROMPT_TEXT;
    one.chat = (struct chat){.messages = &message, .n_messages = 1};
    one.prompt_ids = p->ids;
    one.n_prompt_ids = p->n_ids;
    return generation_submit(g, &one, e);
}

static int read_request(struct generation *g, struct chat_request *r, struct err *e)
{
    if (model_check(engine_info(g->engine), r->model, e)) {
        return -1;
    }
    generation_options(g, r);
    if (generation_make_choices(g, r->n_prompts, r->engine.gen.n_choices, e) ||
        state_new(g, r, e)) {
        return -1;
    }
    for (int k = 0; k < r->n_prompts; k++) {
        if (submit(g, r, k, e)) {
            return -1;
        }
    }
    return 0;
}

static int read_body(struct generation *g, struct err *e)
{
    return generation_read(g, REQUEST_COMPLETION, read_request, e);
}

/* -- events ----------------------------------------------------------------------------------- */

/* A stream that echoes begins with the prompts. */
static void open_stream(struct generation *g)
{
    const struct state *s = g->state;
    for (int i = 0; s->echo && i < g->n_choices; i++) {
        const struct buf *prompt = &s->echo[i / g->per_job];
        completion_chunk(&g->sse, i, prompt->data, prompt->len, NULL, JOB_FINISH_NONE, NULL);
    }
}

static void on_text(struct generation *g, int choice, const struct job_event *ev)
{
    const struct token_names names = generation_names(g);
    struct state *s = g->state;
    struct completion_logprobs *l = &s->logprobs[choice];
    completion_logprobs_add(l, ev, &names);
    if (g->stream) {
        completion_chunk(&g->sse, choice, ev->text, ev->text_len, s->with_logprobs ? l : NULL,
                         JOB_FINISH_NONE, NULL);
        completion_logprobs_clear(l);
    } else {
        buf_append(&g->choices[choice].text, ev->text, ev->text_len);
    }
}

static void on_finish(struct generation *g, int choice, bool last)
{
    const struct job_result *bill = last && !g->sse.include_usage ? &g->bill : NULL;
    completion_chunk(&g->sse, choice, "", 0, NULL, g->choices[choice].finish, bill);
    if (last && g->sse.include_usage) {
        completion_usage(&g->sse, &g->bill);
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
    const struct state *s = g->state;
    completion_render(out, &g->completion, g->choices, s->with_logprobs ? s->logprobs : NULL,
                      g->n_choices, &g->bill);
}

static void release(struct generation *g)
{
    struct state *s = g->state;
    if (!s) {
        return;
    }
    for (int i = 0; s->logprobs && i < g->n_choices; i++) {
        completion_logprobs_free(&s->logprobs[i]);
    }
    for (int k = 0; k < s->n_prompts; k++) {
        buf_free(&s->echo[k]);
    }
    mem_free(s->logprobs);
    mem_free(s->echo);
    mem_free(s);
}

const struct generation_form completion_form = {
    .id_prefix = "cmpl-",
    .chunk = "text_completion",
    .read = read_body,
    .open = open_stream,
    .text = on_text,
    .finish = on_finish,
    .fail = generation_fail,
    .progress = on_progress,
    .whole = whole,
    .free = release,
};
