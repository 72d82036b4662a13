#include "server/generation.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "server/api_error.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Rendered ahead of the socket; more waits in the jobs. */
#define STREAM_AHEAD (LIMIT_STREAM_BYTES / 4)

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

void generation_options(struct generation *g, struct chat_request *r)
{
    g->stream = r->stream;
    g->sse.include_usage = r->include_usage;
    g->return_progress = r->return_progress;
    if (!r->seed_given) {
        r->engine.gen.seed = draw_seed();
    }
}

int generation_make_choices(struct generation *g, int n_jobs, int per_job, struct err *e)
{
    int n = n_jobs * per_job;
    g->choices = mem_zalloc((size_t)n, sizeof *g->choices);
    g->jobs = mem_zalloc((size_t)n_jobs, sizeof *g->jobs);
    if (!g->choices || !g->jobs) {
        return err_no_memory(e, (size_t)n * sizeof *g->choices);
    }
    g->n_choices = n;
    g->per_job = per_job;
    for (int i = 0; i < n; i++) {
        buf_init(&g->choices[i].text, LIMIT_ANSWER_BYTES);
        buf_init(&g->choices[i].logprobs, LIMIT_ANSWER_BYTES);
        buf_init(&g->choices[i].calls, LIMIT_ANSWER_BYTES);
    }
    return 0;
}

int generation_submit(struct generation *g, struct engine_request *r, struct err *e)
{
    struct exchange *ex = g->ex;
    if (atomic_load(&ex->gone)) {
        return err_set(e, ERR_CANCELLED, "the client left");
    }
    task_identify(ex, r);
    struct job *j = job_prepare(g->engine, r, e);
    if (!j) {
        return -1;
    }
    g->jobs[g->n_jobs++].job = j;
    job_on_event(j, slot_ring, ex->slot);
    if (job_submit(j, e)) {
        return -1;
    }
    g->phase = PHASE_QUEUE;
    g->submitted_ns = clock_ns();
    atomic_store(&ex->expire_ns, in_ms((uint64_t)ex->server->times.queue_ms));
    atomic_store(&ex->ping_ns, g->stream ? in_ms(LIMIT_PING_MS) : 0);
    return 0;
}

int generation_read(struct generation *g, enum request_kind what,
                    int (*use)(struct generation *g, struct chat_request *r, struct err *e),
                    struct err *e)
{
    struct exchange *ex = g->ex;
    struct chat_request_limits limits = task_limits(ex, g->engine);
    struct chat_request r;
    limits.what = what;
    int rc = chat_request_parse(&r, ex->body.data, ex->body.len, &limits, e);
    http_drop_body(ex);
    if (rc == 0) {
        rc = use(g, &r, e);
    }
    chat_request_free(&r);
    return rc;
}

void generation_prepare(struct exchange *ex)
{
    struct err e = ERR_INIT;
    if (ex->route->form->read(ex->generation, &e)) {
        ex->generation->error = e;
    }
    http_drop_body(ex);
}

static const char *token_text(const void *engine, int32_t token, size_t *len)
{
    return engine_token_text(engine, token, len);
}

struct token_names generation_names(const struct generation *g)
{
    return (struct token_names){.text = token_text, .ctx = g->engine};
}

void generation_fail(struct generation *g)
{
    sse_error(&g->sse, &g->error);
}

/* -- events -------------------------------------------------------------------------------- */

static void open_stream(struct generation *g)
{
    if (!g->opened) {
        g->opened = true;
        g->form->open(g);
    }
}

static void on_text(struct generation *g, int choice, const struct job_event *ev)
{
    if (g->stream) {
        open_stream(g);
    }
    g->form->text(g, choice, ev);
}

static void on_done(struct generation *g, int choice, const struct job_event *ev)
{
    g->choices[choice].finish = ev->finish;
    g->n_done++;
    g->last_done = choice;
    if (g->form->done) {
        if (g->stream) {
            open_stream(g);
        }
        g->form->done(g, choice);
    }
    if (g->stream && g->n_done < g->n_choices) {
        open_stream(g);
        g->form->finish(g, choice, false);
    }
}

/* The last finish chunk waited for the bill. */
static void on_end(struct generation *g, struct generation_job *j)
{
    j->ended = true;
    bill_add(&g->bill, job_result(j->job), g->n_ended++ == 0);
    if (g->n_ended < g->n_jobs) {
        return;
    }
    g->ended = true;
    if (g->stream) {
        open_stream(g);
        g->form->finish(g, g->last_done, true);
        g->closed = true;
    }
}

static void on_event(struct generation *g, int k, const struct job_event *ev)
{
    struct generation_job *j = &g->jobs[k];
    int choice = k * g->per_job + ev->choice;
    switch (ev->type) {
    case JOB_EVENT_STARTED:
        g->phase = PHASE_PREFILL;
        atomic_store(&g->ex->expire_ns, 0);
        break;
    case JOB_EVENT_PROGRESS:
        if (g->stream && g->return_progress && g->form->progress) {
            open_stream(g);
            g->form->progress(g, ev, (double)(clock_ns() - g->submitted_ns) * 1e-6);
        }
        break;
    case JOB_EVENT_TEXT:
        g->phase = PHASE_DECODE;
        on_text(g, choice, ev);
        break;
    case JOB_EVENT_DONE:
        on_done(g, choice, ev);
        break;
    case JOB_EVENT_END:
        on_end(g, j);
        break;
    case JOB_EVENT_ERROR:
        g->error = *job_error(j->job);
        break;
    case JOB_EVENT_NONE:
        break;
    }
}

static int check_size(struct generation *g)
{
    bool failed = g->stream && buf_failed(&g->out);
    size_t bytes = 0;
    for (int i = 0; i < g->n_choices; i++) {
        const struct choice *c = &g->choices[i];
        failed |= buf_failed(&c->text) || buf_failed(&c->logprobs) || buf_failed(&c->calls);
        bytes += c->text.len + c->logprobs.len + c->calls.len;
    }
    if (bytes > LIMIT_ANSWER_BYTES / 2) { /* escaped, it may be longer */
        return err_reason(&g->error, ERR_TOO_LARGE, "answer_too_large",
                          "the answer has more than %zu bytes: ask for fewer choices, tokens or "
                          "logprobs, or stream it",
                          LIMIT_ANSWER_BYTES / 2);
    }
    return failed ? err_reason(&g->error, ERR_NO_MEMORY, "out_of_memory",
                               "there is no memory for the answer")
                  : 0;
}

/* What ends a request from our side. */
static void check_ends(struct exchange *ex)
{
    struct generation *g = ex->generation;
    uint64_t expire = atomic_load(&ex->expire_ns);
    if (g->error.code != ERR_NONE || check_size(g) || g->ended) {
        return;
    }
    if (atomic_load(&ex->server->stopping)) {
        err_reason(&g->error, ERR_UNAVAILABLE, "shutting_down", "the server is stopping");
    } else if (expire && clock_ns() >= expire) {
        err_reason(&g->error, ERR_UNAVAILABLE, "queue_timeout", "waited too long in the queue");
    }
}

/* Events into the answer, until there are none, it ended, or enough is rendered. */
static void pump(struct exchange *ex)
{
    struct generation *g = ex->generation;
    bool more = true;
    while (more && !g->ended && g->error.code == ERR_NONE && g->out.len < STREAM_AHEAD) {
        more = false;
        for (int k = 0; k < g->n_jobs && g->error.code == ERR_NONE; k++) {
            struct job_event ev = {.type = JOB_EVENT_NONE};
            if (!g->jobs[k].ended) {
                job_next(g->jobs[k].job, &ev);
            }
            more |= ev.type != JOB_EVENT_NONE;
            on_event(g, k, &ev);
        }
    }
    check_ends(ex);
}

/* -- the stream ------------------------------------------------------------------------------ */

static void ping_if_due(struct exchange *ex)
{
    struct generation *g = ex->generation;
    uint64_t at = atomic_load(&ex->ping_ns);
    if (at && clock_ns() >= at && g->out.len == 0) {
        sse_ping(&g->out);
    }
}

static ssize_t take(struct exchange *ex, char *dst, size_t max)
{
    struct generation *g = ex->generation;
    size_t n = g->out.len < max ? g->out.len : max;
    memcpy(dst, g->out.data, n);
    /* at once: the ceiling is for what is unsent, however long the stream is */
    buf_drop(&g->out, n);
    atomic_store(&ex->ping_ns, in_ms(LIMIT_PING_MS));
    return (ssize_t)n;
}

static ssize_t read_stream(void *cls, uint64_t pos, char *dst, size_t max)
{
    struct exchange *ex = cls;
    struct generation *g = ex->generation;
    (void)pos;
    if (!http_phase(ex, CONN_SENDING, ex->server->times.send_ms)) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    for (;;) {
        if (atomic_load(&ex->gone)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        pump(ex);
        if (buf_failed(&g->out)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (g->error.code != ERR_NONE && !g->closed) {
            g->form->fail(g);
            g->closed = true;
        }
        ping_if_due(ex);
        if (g->out.len > 0) {
            return take(ex, dst, max);
        }
        if (g->closed) {
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

static struct generation *generation_new(struct exchange *ex, struct engine *en)
{
    struct generation *g = mem_zalloc(1, sizeof *g);
    if (!g) {
        return NULL;
    }
    g->ex = ex;
    g->engine = en;
    g->form = ex->route->form;
    g->completion.created = (int64_t)time(NULL);
    g->completion.model = engine_info(en)->model_file;
    http_random_id(g->form->id_prefix, g->completion.id, sizeof g->completion.id);
    buf_init(&g->out, g->form->stream_bytes ? g->form->stream_bytes : LIMIT_STREAM_BYTES);
    g->sse.out = &g->out;
    g->sse.completion = &g->completion;
    g->sse.object = g->form->chunk;
    return g;
}

static enum http_next start(struct exchange *ex)
{
    struct err e = ERR_INIT;
    struct engine *en = task_enter(ex, &e);
    if (!en) {
        return http_answer_error(ex, &e);
    }
    ex->generation = generation_new(ex, en);
    if (!ex->generation) {
        err_no_memory(&e, sizeof *ex->generation);
        return http_answer_error(ex, &e);
    }
    task_push(ex, &ex->generation->error);
    return HTTP_WAIT;
}

static enum http_next answer(struct exchange *ex)
{
    struct generation *g = ex->generation;
    struct buf body;
    buf_init(&body, LIMIT_ANSWER_BYTES);
    g->form->whole(g, &body);
    if (buf_failed(&body)) {
        struct err e = ERR_INIT;
        buf_free(&body);
        err_no_memory(&e, LIMIT_ANSWER_BYTES);
        return http_answer_error(ex, &e);
    }
    return http_answer(ex, 200, "application/json", &body, &g->bill);
}

enum http_next generation_handle(struct exchange *ex)
{
    struct generation *g = ex->generation;
    if (!g) {
        return start(ex);
    }
    do {
        if (atomic_load(&ex->gone)) {
            return HTTP_CLOSE;
        }
        pump(ex);
        if (g->error.code != ERR_NONE && !g->opened) {
            return http_answer_error(ex, &g->error);
        }
        uint64_t ping = atomic_load(&ex->ping_ns);
        if (g->stream && (g->out.len || (ping && clock_ns() >= ping))) {
            return http_answer_stream(ex, read_stream);
        }
        if (g->ended) {
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
    struct generation *g = ex->generation;
    static const char *const reasons[] = {[JOB_FINISH_NONE] = "finished_reason=\"stop\"",
                                          [JOB_FINISH_STOP] = "finished_reason=\"stop\"",
                                          [JOB_FINISH_LENGTH] = "finished_reason=\"length\"",
                                          [JOB_FINISH_TOOL_CALLS] =
                                              "finished_reason=\"tool_calls\""};
    struct metrics *m = ex->server->metrics;
    if (!g->ended) {
        if (atomic_load(&ex->gone)) {
            metrics_add(m, METRIC_CANCELLED, phases[g->phase], 1);
        }
        return;
    }
    for (int k = 0; k < g->n_jobs; k++) {
        metrics_add_result(m, job_result(g->jobs[k].job));
    }
    for (int i = 0; i < g->n_choices; i++) {
        metrics_add(m, METRIC_REQUEST_SUCCESS, reasons[g->choices[i].finish], 1);
    }
    ex->original_tokens = g->bill.report.original_rows;
    ex->prompt_tokens = g->bill.prompt_rows;
    ex->completion_tokens = g->bill.completion_tokens;
}

void generation_end(struct exchange *ex)
{
    struct generation *g = ex->generation;
    if (!g) {
        return;
    }
    count(ex);
    for (int k = 0; k < g->n_jobs; k++) {
        job_free(g->jobs[k].job);
    }
    for (int i = 0; i < g->n_choices; i++) {
        buf_free(&g->choices[i].text);
        buf_free(&g->choices[i].logprobs);
        buf_free(&g->choices[i].calls);
    }
    if (g->form->free) {
        g->form->free(g);
    }
    mem_free(g->jobs);
    mem_free(g->choices);
    buf_free(&g->out);
    mem_free(g);
    ex->generation = NULL;
}
