/* POST /v1/chat/completions.
 *
 *   event loop: admit -> (body) -> chat_handle: suspend -> worker: parse, prepare, submit
 *   engine thread: rings the slot whenever there are events
 *   event loop: chat_handle again, or the stream's reader: events -> JSON or chunks
 * A streamed answer begins with its first word (or the first ping), so what fails before
 * is still an HTTP status; what fails later is an error event without [DONE]. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "server/api_error.h"
#include "server/chat_calls.h"
#include "server/chat_request.h"
#include "server/sse.h"
#include "server/task.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Rendered ahead of the socket; more waits in the job. */
#define STREAM_AHEAD (LIMIT_STREAM_BYTES / 4)

enum phase { PHASE_PREPARE, PHASE_QUEUE, PHASE_PREFILL, PHASE_DECODE };

struct chat_run {
    struct engine *engine;
    struct job *job;
    struct err error; /* code ERR_NONE = none so far */
    enum phase phase;
    bool stream, return_progress;
    bool roles_sent, ended, closed; /* closed: the last byte of the stream is rendered */
    int n_choices, n_done, last_done;
    struct choice *choices;   /* [n_choices] */
    struct chat_calls *calls; /* [n_choices]; NULL: no functions are told of */
    struct completion completion;
    struct sse sse;
    struct buf out; /* of a stream: rendered, not taken yet */
    uint64_t submitted_ns;
};

static uint64_t in_ms(uint64_t ms)
{
    return clock_ns() + ms * 1000000u;
}

/* -- on a worker -------------------------------------------------------------------------- */

static uint64_t draw_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        seed = clock_ns();
    }
    return seed;
}

static int make_choices(struct chat_run *run, int n, struct err *e)
{
    run->choices = mem_zalloc((size_t)n, sizeof *run->choices);
    if (!run->choices) {
        return err_no_memory(e, (size_t)n * sizeof *run->choices);
    }
    run->n_choices = n;
    for (int i = 0; i < n; i++) {
        buf_init(&run->choices[i].text, LIMIT_ANSWER_BYTES);
        buf_init(&run->choices[i].logprobs, LIMIT_ANSWER_BYTES);
        buf_init(&run->choices[i].calls, LIMIT_ANSWER_BYTES);
    }
    return 0;
}

static int expect_calls(struct chat_run *run, const struct chat_tool_format *f, struct err *e)
{
    if (!f) {
        return 0;
    }
    run->calls = mem_zalloc((size_t)run->n_choices, sizeof *run->calls);
    if (!run->calls) {
        return err_no_memory(e, (size_t)run->n_choices * sizeof *run->calls);
    }
    for (int i = 0; i < run->n_choices; i++) {
        chat_calls_init(&run->calls[i], f, &run->choices[i], i, run->stream ? &run->sse : NULL);
    }
    return 0;
}

static int submit(struct exchange *ex, struct chat_request *r, struct err *e)
{
    struct chat_run *run = ex->chat;
    if (atomic_load(&ex->gone)) {
        return err_set(e, ERR_CANCELLED, "the client left");
    }
    r->engine.id = ex->id;
    _Static_assert(sizeof r->engine.scope == sizeof ex->scope, "a scope is the digest of a key");
    memcpy(r->engine.scope, ex->scope, sizeof ex->scope);
    if (!r->seed_given) {
        r->engine.gen.seed = draw_seed();
    }
    run->stream = r->stream;
    run->sse.include_usage = r->include_usage;
    run->return_progress = r->return_progress;
    if (make_choices(run, r->engine.gen.n_choices, e) || expect_calls(run, r->tools, e)) {
        return -1;
    }
    run->job = job_prepare(run->engine, &r->engine, e);
    if (!run->job) {
        return -1;
    }
    job_on_event(run->job, slot_ring, ex->slot);
    if (job_submit(run->job, e)) {
        return -1;
    }
    run->phase = PHASE_QUEUE;
    run->submitted_ns = clock_ns();
    atomic_store(&ex->expire_ns, in_ms((uint64_t)ex->server->times.queue_ms));
    atomic_store(&ex->ping_ns, run->stream ? in_ms(LIMIT_PING_MS) : 0);
    return 0;
}

static int parse_and_submit(struct exchange *ex, struct err *e)
{
    struct chat_run *run = ex->chat;
    const struct chat_request_limits limits = task_limits(ex, run->engine);
    struct chat_request r;
    int rc = chat_request_parse(&r, ex->body.data, ex->body.len, &limits, e);
    http_drop_body(ex);
    if (rc == 0) {
        rc = model_check(engine_info(run->engine), r.model, e);
    }
    if (rc == 0) {
        rc = submit(ex, &r, e);
    }
    chat_request_free(&r);
    return rc;
}

void chat_prepare(struct exchange *ex)
{
    struct err e = ERR_INIT;
    if (parse_and_submit(ex, &e)) {
        ex->chat->error = e;
    }
}

/* -- events -------------------------------------------------------------------------------- */

static const char *token_text(const void *engine, int32_t token, size_t *len)
{
    return engine_token_text(engine, token, len);
}

static void send_roles(struct chat_run *run)
{
    for (int i = 0; !run->roles_sent && i < run->n_choices; i++) {
        sse_role(&run->sse, i);
    }
    run->roles_sent = true;
}

static void on_text(struct chat_run *run, const struct job_event *ev)
{
    const struct token_names names = {.text = token_text, .ctx = run->engine};
    struct choice *c = &run->choices[ev->choice];
    render_logprobs(&c->logprobs, ev, &names);
    if (run->stream) {
        send_roles(run);
    }
    if (run->calls) {
        if (chat_calls_add(&run->calls[ev->choice], ev->text, ev->text_len)) {
            err_no_memory(&run->error, ev->text_len);
        } else if (run->stream && c->logprobs.len) {
            sse_text(&run->sse, ev->choice, "", 0, &c->logprobs);
            buf_clear(&c->logprobs);
        }
        return;
    }
    if (!run->stream) {
        buf_append(&c->text, ev->text, ev->text_len);
        return;
    }
    sse_text(&run->sse, ev->choice, ev->text, ev->text_len, &c->logprobs);
    buf_clear(&c->logprobs);
}

static void on_done(struct chat_run *run, const struct job_event *ev)
{
    run->choices[ev->choice].finish = ev->finish;
    if (run->calls) {
        if (run->stream) {
            send_roles(run);
        }
        chat_calls_end(&run->calls[ev->choice]);
    }
    run->n_done++;
    run->last_done = ev->choice;
    if (run->stream && run->n_done < run->n_choices) {
        send_roles(run);
        sse_finish(&run->sse, ev->choice, run->choices[ev->choice].finish, NULL);
    }
}

/* The last finish chunk waited for the bill. */
static void on_end(struct chat_run *run)
{
    const struct job_result *bill = job_result(run->job);
    run->ended = true;
    if (!run->stream) {
        return;
    }
    send_roles(run);
    sse_finish(&run->sse, run->last_done, run->choices[run->last_done].finish,
               run->sse.include_usage ? NULL : bill);
    if (run->sse.include_usage) {
        sse_usage(&run->sse, bill);
    }
    sse_done(&run->out);
    run->closed = true;
}

static void on_event(struct exchange *ex, const struct job_event *ev)
{
    struct chat_run *run = ex->chat;
    switch (ev->type) {
    case JOB_EVENT_STARTED:
        run->phase = PHASE_PREFILL;
        atomic_store(&ex->expire_ns, 0);
        break;
    case JOB_EVENT_PROGRESS:
        if (run->stream && run->return_progress) {
            send_roles(run);
            sse_progress(&run->sse, ev->prompt_done, ev->prompt_total,
                         (double)(clock_ns() - run->submitted_ns) * 1e-6);
        }
        break;
    case JOB_EVENT_TEXT:
        run->phase = PHASE_DECODE;
        on_text(run, ev);
        break;
    case JOB_EVENT_DONE:
        on_done(run, ev);
        break;
    case JOB_EVENT_END:
        on_end(run);
        break;
    case JOB_EVENT_ERROR:
        run->error = *job_error(run->job);
        break;
    case JOB_EVENT_NONE:
        break;
    }
}

static int check_size(struct chat_run *run)
{
    bool failed = run->stream && buf_failed(&run->out);
    size_t bytes = 0;
    for (int i = 0; i < run->n_choices; i++) {
        const struct choice *c = &run->choices[i];
        failed |= buf_failed(&c->text) || buf_failed(&c->logprobs) || buf_failed(&c->calls);
        bytes += c->text.len + c->logprobs.len + c->calls.len;
    }
    if (bytes > LIMIT_ANSWER_BYTES / 2) { /* escaped, it may be longer */
        return err_reason(&run->error, ERR_TOO_LARGE, "answer_too_large",
                          "the answer has more than %zu bytes: ask for fewer choices, tokens or "
                          "logprobs, or stream it",
                          LIMIT_ANSWER_BYTES / 2);
    }
    return failed ? err_reason(&run->error, ERR_NO_MEMORY, "out_of_memory",
                               "there is no memory for the answer")
                  : 0;
}

/* What ends a request from our side. */
static void check_ends(struct exchange *ex)
{
    struct chat_run *run = ex->chat;
    uint64_t expire = atomic_load(&ex->expire_ns);
    if (run->error.code != ERR_NONE || check_size(run) || run->ended) {
        return;
    }
    if (atomic_load(&ex->server->stopping)) {
        err_reason(&run->error, ERR_UNAVAILABLE, "shutting_down", "the server is stopping");
    } else if (expire && clock_ns() >= expire) {
        err_reason(&run->error, ERR_UNAVAILABLE, "queue_timeout", "waited too long in the queue");
    }
}

/* Events into the answer, until there are none, it ended, or enough is rendered. */
static void pump(struct exchange *ex)
{
    struct chat_run *run = ex->chat;
    struct job_event ev;
    while (run->job && !run->ended && run->error.code == ERR_NONE && run->out.len < STREAM_AHEAD) {
        job_next(run->job, &ev);
        if (ev.type == JOB_EVENT_NONE) {
            break;
        }
        on_event(ex, &ev);
    }
    check_ends(ex);
}

/* -- the stream ------------------------------------------------------------------------------ */

static void ping_if_due(struct exchange *ex)
{
    struct chat_run *run = ex->chat;
    uint64_t at = atomic_load(&ex->ping_ns);
    if (at && clock_ns() >= at && run->out.len == 0) {
        sse_ping(&run->out);
    }
}

static ssize_t take(struct exchange *ex, char *dst, size_t max)
{
    struct chat_run *run = ex->chat;
    size_t n = run->out.len < max ? run->out.len : max;
    memcpy(dst, run->out.data, n);
    /* at once: the ceiling is for what is unsent, however long the stream is */
    buf_drop(&run->out, n);
    atomic_store(&ex->ping_ns, in_ms(LIMIT_PING_MS));
    return (ssize_t)n;
}

static ssize_t read_stream(void *cls, uint64_t pos, char *dst, size_t max)
{
    struct exchange *ex = cls;
    struct chat_run *run = ex->chat;
    (void)pos;
    if (!http_phase(ex, CONN_SENDING, ex->server->times.send_ms)) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    for (;;) {
        if (atomic_load(&ex->gone)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        pump(ex);
        if (buf_failed(&run->out)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (run->error.code != ERR_NONE && !run->closed) {
            sse_error(&run->sse, &run->error);
            run->closed = true;
        }
        ping_if_due(ex);
        if (run->out.len > 0) {
            return take(ex, dst, max);
        }
        if (run->closed) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        http_phase(ex, CONN_BUSY, 0);
        if (slot_wait(ex->slot)) {
            return 0;
        }
        http_phase(ex, CONN_SENDING, ex->server->times.send_ms);
    }
}

/* -- the handler --------------------------------------------------------------------------------
 */

static struct chat_run *run_new(struct engine *en)
{
    struct chat_run *run = mem_zalloc(1, sizeof *run);
    if (!run) {
        return NULL;
    }
    run->engine = en;
    run->completion.created = (int64_t)time(NULL);
    run->completion.model = engine_info(en)->model_file;
    http_random_id("chatcmpl-", run->completion.id, sizeof run->completion.id);
    buf_init(&run->out, LIMIT_STREAM_BYTES);
    run->sse.out = &run->out;
    run->sse.completion = &run->completion;
    return run;
}

static enum http_next start(struct exchange *ex)
{
    struct err e = ERR_INIT;
    struct engine *en = task_enter(ex, &e);
    if (!en) {
        return http_answer_error(ex, &e);
    }
    ex->chat = run_new(en);
    if (!ex->chat) {
        err_no_memory(&e, sizeof *ex->chat);
        return http_answer_error(ex, &e);
    }
    task_push(ex, &ex->chat->error);
    return HTTP_WAIT;
}

static enum http_next answer(struct exchange *ex)
{
    struct chat_run *run = ex->chat;
    struct buf body;
    buf_init(&body, LIMIT_ANSWER_BYTES);
    render_completion(&body, &run->completion, run->choices, run->n_choices, job_result(run->job));
    if (buf_failed(&body)) {
        struct err e = ERR_INIT;
        buf_free(&body);
        err_no_memory(&e, LIMIT_ANSWER_BYTES);
        return http_answer_error(ex, &e);
    }
    return http_answer(ex, 200, "application/json", &body, job_result(run->job));
}

enum http_next chat_handle(struct exchange *ex)
{
    struct chat_run *run = ex->chat;
    if (!run) {
        return start(ex);
    }
    do {
        if (atomic_load(&ex->gone)) {
            return HTTP_CLOSE;
        }
        pump(ex);
        if (run->error.code != ERR_NONE && !run->roles_sent) {
            return http_answer_error(ex, &run->error);
        }
        uint64_t ping = atomic_load(&ex->ping_ns);
        if (run->stream && (run->out.len || (ping && clock_ns() >= ping))) {
            return http_answer_stream(ex, read_stream);
        }
        if (run->ended) {
            return answer(ex);
        }
    } while (!slot_wait(ex->slot));
    return HTTP_WAIT;
}

/* -- the end --------------------------------------------------------------------------------------
 */

static void count(struct exchange *ex)
{
    static const char *const phases[] = {"phase=\"prepare\"", "phase=\"queue\"",
                                         "phase=\"prefill\"", "phase=\"decode\""};
    struct chat_run *run = ex->chat;
    struct metrics *m = ex->server->metrics;
    if (!run->ended) {
        if (atomic_load(&ex->gone)) {
            metrics_add(m, METRIC_CANCELLED, phases[run->phase], 1);
        }
        return;
    }
    const struct job_result *r = job_result(run->job);
    metrics_add_result(m, r);
    for (int i = 0; i < run->n_choices; i++) {
        static const char *const reasons[] = {
            [JOB_FINISH_NONE] = "finished_reason=\"stop\"",
            [JOB_FINISH_STOP] = "finished_reason=\"stop\"",
            [JOB_FINISH_LENGTH] = "finished_reason=\"length\"",
            [JOB_FINISH_TOOL_CALLS] = "finished_reason=\"tool_calls\"",
        };
        metrics_add(m, METRIC_REQUEST_SUCCESS, reasons[run->choices[i].finish], 1);
    }
    ex->original_tokens = r->report.original_rows;
    ex->prompt_tokens = r->prompt_rows;
    ex->completion_tokens = r->completion_tokens;
}

void chat_end(struct exchange *ex)
{
    struct chat_run *run = ex->chat;
    if (run) {
        count(ex);
        if (run->job) {
            job_free(run->job);
        }
        for (int i = 0; i < run->n_choices; i++) {
            buf_free(&run->choices[i].text);
            buf_free(&run->choices[i].logprobs);
            buf_free(&run->choices[i].calls);
            if (run->calls) {
                chat_calls_clear(&run->calls[i]);
            }
        }
        mem_free(run->calls);
        mem_free(run->choices);
        buf_free(&run->out);
        mem_free(run);
        ex->chat = NULL;
    }
}
