#include "server/task.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <string.h>

/* -- who is let in -------------------------------------------------------------------------- */

int task_ready(struct exchange *ex, struct err *e)
{
    struct server *s = ex->server;
    if (atomic_load(&s->draining)) {
        return err_reason(e, ERR_UNAVAILABLE, "shutting_down", "the server is stopping");
    }
    if (!atomic_load(&s->engine)) {
        return err_reason(e, ERR_UNAVAILABLE, "loading", "the model is being loaded");
    }
    return 0;
}

int task_admit(struct exchange *ex, struct err *e)
{
    struct server *s = ex->server;
    if (task_ready(ex, e)) {
        return -1;
    }
    if (s->max_queue > 0 && engine_is_full_for(atomic_load(&s->engine), ex->scope)) {
        return err_reason(e, ERR_BUSY, "queue_full", "the queue is full; try again later");
    }
    return 0;
}

struct engine *task_enter(struct exchange *ex, struct err *e)
{
    struct server *s = ex->server;
    if (ex->route->admit(ex, e)) {
        return NULL;
    }
    ex->slot = admission_enter(&s->admission, ex->mhd);
    if (!ex->slot) {
        err_reason(e, ERR_BUSY, "queue_full", "too many requests; try again later");
        return NULL;
    }
    return atomic_load(&s->engine);
}

void task_leave(struct exchange *ex)
{
    if (ex->slot) {
        admission_leave(&ex->server->admission, ex->slot);
        ex->slot = NULL;
    }
}

void task_push(struct exchange *ex, struct err *error)
{
    struct slot *slot = ex->slot;
    slot_hold(slot); /* suspended before the worker can resume */
    if (!workers_push(ex->server->workers, ex)) {
        err_reason(error, ERR_BUSY, "queue_full", "too many requests; try again later");
        slot_unhold(slot);
    }
}

void task_run(void *exchange)
{
    struct exchange *ex = exchange;
    struct slot *slot = ex->slot;
    ex->route->prepare(ex);
    slot_unhold(slot);
}

struct chat_request_limits task_limits(const struct exchange *ex, const struct engine *en)
{
    const struct engine_info *info = engine_info(en);
    return (struct chat_request_limits){
        .n_vocab = info->n_vocab,
        .n_loras = info->n_loras,
        .max_images = info->projector ? ex->server->max_images : 0,
        .max_image_bytes = LIMIT_IMAGE_BYTES,
        .default_plan = &ex->server->default_plan,
        .header_profile = ex->profile[0] ? ex->profile : NULL,
        .tools = info->tools,
        .default_system = info->default_system,
    };
}

void task_identify(const struct exchange *ex, struct engine_request *r)
{
    _Static_assert(sizeof r->scope == sizeof ex->scope, "a scope is the digest of a key");
    r->id = ex->id;
    memcpy(r->scope, ex->scope, sizeof ex->scope);
}

/* -- on a worker ------------------------------------------------------------------------------ */

/* The next parts, as many as go together and the queue takes. */
static int submit_parts(struct task *t, struct err *e)
{
    const struct task_kind *kind = t->ex->route->task;
    int n = t->n_parts - t->n_done < t->width ? t->n_parts - t->n_done : t->width;
    while (t->n_jobs < n) {
        if (atomic_load(&t->ex->gone)) {
            return err_set(e, ERR_CANCELLED, "the client left");
        }
        struct job *j = kind->prepare(t, t->n_done + t->n_jobs, e);
        if (!j) {
            return -1;
        }
        struct err full = ERR_INIT;
        job_on_event(j, slot_ring, t->ex->slot);
        if (job_submit(j, &full)) {
            job_free(j);
            if (full.code == ERR_BUSY && t->n_jobs > 0) {
                return 0; /* the others first */
            }
            *e = full;
            return -1;
        }
        t->ended[t->n_jobs] = false;
        t->jobs[t->n_jobs++] = j;
    }
    return 0;
}

void task_prepare(struct exchange *ex)
{
    struct task *t = ex->task;
    struct err e = ERR_INIT;
    int rc = 0;
    if (!t->begun) {
        t->width = 1;
        rc = ex->route->task->begin(t, &e);
        http_drop_body(ex);
        t->begun = true;
    }
    if (rc == 0 && t->n_parts > 0) {
        uint64_t wait_ms = (uint64_t)ex->server->times.queue_ms;
        atomic_store(&ex->expire_ns, clock_ns() + wait_ms * 1000000u);
        rc = submit_parts(t, &e);
    }
    if (rc) {
        t->error = e;
    }
}

/* -- on the event loop --------------------------------------------------------------------------
 */

/* True when the job has ended; a failure is the task's. */
static bool drain(struct task *t, struct job *j)
{
    struct job_event ev;
    for (job_next(j, &ev); ev.type != JOB_EVENT_NONE; job_next(j, &ev)) {
        atomic_store(&t->ex->expire_ns, 0); /* it runs: there is a place */
        if (ev.type == JOB_EVENT_ERROR) {
            t->error = *job_error(j);
        }
        if (ev.type == JOB_EVENT_END || ev.type == JOB_EVENT_ERROR) {
            return true;
        }
    }
    return false;
}

/* True when no job is under way: all parts of this round are collected. */
static bool collect(struct task *t)
{
    int n_ended = 0;
    for (int i = 0; i < t->n_jobs; i++) {
        t->ended[i] = t->ended[i] || drain(t, t->jobs[i]);
        n_ended += t->ended[i];
    }
    if (n_ended < t->n_jobs) {
        return false;
    }
    for (int i = 0; i < t->n_jobs; i++) {
        struct err e = ERR_INIT;
        if (t->error.code == ERR_NONE &&
            t->ex->route->task->collect(t, t->n_done + i, t->jobs[i], &e)) {
            t->error = e;
        }
        job_free(t->jobs[i]);
    }
    t->n_done += t->n_jobs;
    t->n_jobs = 0;
    return true;
}

static void check_ends(struct task *t)
{
    uint64_t expire = atomic_load(&t->ex->expire_ns);
    if (t->error.code != ERR_NONE) {
        return;
    }
    if (atomic_load(&t->ex->server->stopping)) {
        err_reason(&t->error, ERR_UNAVAILABLE, "shutting_down", "the server is stopping");
    } else if (expire && clock_ns() >= expire) {
        err_reason(&t->error, ERR_UNAVAILABLE, "queue_timeout", "waited too long in the queue");
    }
}

static enum http_next answer(struct task *t)
{
    struct buf body;
    buf_init(&body, LIMIT_ANSWER_BYTES);
    t->ex->route->task->render(t, &body);
    if (buf_failed(&body)) {
        struct err e = ERR_INIT;
        buf_free(&body);
        err_reason(&e, ERR_TOO_LARGE, "answer_too_large",
                   "the answer has more than %zu bytes: ask for less at a time",
                   LIMIT_ANSWER_BYTES);
        return http_answer_error(t->ex, &e);
    }
    return http_answer(t->ex, 200, "application/json", &body, NULL);
}

static enum http_next start(struct exchange *ex)
{
    struct err e = ERR_INIT;
    struct engine *en = task_enter(ex, &e);
    ex->task = en ? mem_zalloc(1, sizeof *ex->task) : NULL;
    if (!ex->task) {
        if (en) {
            err_no_memory(&e, sizeof *ex->task);
        }
        return http_answer_error(ex, &e);
    }
    ex->task->ex = ex;
    ex->task->engine = en;
    task_push(ex, &ex->task->error);
    return HTTP_WAIT;
}

enum http_next task_handle(struct exchange *ex)
{
    struct task *t = ex->task;
    if (!t) {
        return start(ex);
    }
    do {
        if (atomic_load(&ex->gone)) {
            return HTTP_CLOSE;
        }
        bool idle = collect(t);
        check_ends(t);
        if (t->error.code != ERR_NONE) {
            return http_answer_error(ex, &t->error);
        }
        if (idle && t->n_done == t->n_parts) {
            return answer(t);
        }
        if (idle) {
            task_push(ex, &t->error);
            return HTTP_WAIT;
        }
    } while (!slot_wait(ex->slot));
    return HTTP_WAIT;
}

void task_end(struct exchange *ex)
{
    struct task *t = ex->task;
    if (!t) {
        return;
    }
    for (int i = 0; i < t->n_jobs; i++) {
        job_free(t->jobs[i]);
    }
    ex->route->task->free(t);
    mem_free(t);
    ex->task = NULL;
}
