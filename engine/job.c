/* A job's life and its events. Two owners: the caller from job_prepare to job_free, the
 * engine from job_submit until the last event; whoever lets go last frees it. */
#include "engine/engine_impl.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const struct generation_params generation_params_default = {
    .temperature = 1.0f,
    .top_p = 1.0f,
    .repeat_penalty = 1.0f,
    .penalty_last_n = 64,
    .max_draft = LOOKUP_MAX_DRAFT,
    .n_choices = 1,
    .n_top_logprobs = -1,
};

struct event_node {
    struct event_node *next;
    struct job_event event;
    char *text;
    struct token_info *tokens;
};

static void event_free(struct event_node *n)
{
    if (n) {
        mem_free(n->text);
        mem_free(n->tokens);
        mem_free(n);
    }
}

struct job *job_new(struct engine *en, struct err *e)
{
    struct job *j = mem_zalloc(1, sizeof *j);
    if (!j) {
        err_no_memory(e, sizeof *j);
        return NULL;
    }
    j->engine = en;
    atomic_init(&j->n_refs, 1);
    arena_init(&j->arena, JOB_ARENA_BYTES);
    arena_init(&j->attempt.kept, JOB_ARENA_BYTES);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->notify_lock, NULL);
    pthread_cond_init(&j->arrived, &attr);
    pthread_condattr_destroy(&attr);
    return j;
}

void job_unref(struct job *j)
{
    if (atomic_fetch_sub(&j->n_refs, 1) != 1) {
        return;
    }
    while (j->events_head) {
        struct event_node *n = j->events_head;
        j->events_head = n->next;
        event_free(n);
    }
    event_free(j->current);
    job_drop_held(j);
    attempt_clear(j);
    grammar_unref(j->gen.grammar);
    arena_clear(&j->arena);
    pthread_cond_destroy(&j->arrived);
    pthread_mutex_destroy(&j->notify_lock);
    pthread_mutex_destroy(&j->lock);
    mem_free(j);
}

static void wake_caller(struct job *j)
{
    pthread_mutex_lock(&j->notify_lock);
    if (j->notify) {
        j->notify(j->notify_ctx);
    }
    pthread_mutex_unlock(&j->notify_lock);
}

/* A chain of events. */
static void append(struct job *j, struct event_node *first, struct event_node *last)
{
    pthread_mutex_lock(&j->lock);
    if (j->events_tail) {
        j->events_tail->next = first;
    } else {
        j->events_head = first;
    }
    j->events_tail = last;
    pthread_cond_broadcast(&j->arrived);
    pthread_mutex_unlock(&j->lock);
    wake_caller(j);
}

int job_push(struct job *j, enum job_event_type type, int choice, const char *text, size_t len,
             const struct token_info *tokens, int n_tokens, enum job_finish finish)
{
    struct event_node *n = mem_zalloc(1, sizeof *n);
    if (!n) {
        return -1;
    }
    n->event = (struct job_event){.type = type, .choice = choice, .finish = finish};
    if (len) {
        n->text = mem_strndup(text, len);
        n->event.text_len = len;
    }
    if (n_tokens) {
        n->tokens = mem_alloc((size_t)n_tokens, sizeof *tokens);
        n->event.n_tokens = n_tokens;
    }
    if ((len && !n->text) || (n_tokens && !n->tokens)) {
        event_free(n);
        return -1;
    }
    if (n_tokens) {
        memcpy(n->tokens, tokens, (size_t)n_tokens * sizeof *tokens);
    }
    n->event.text = n->text ? n->text : "";
    n->event.tokens = n->tokens;
    if (j->holds) {
        *(j->held_tail ? &j->held_tail->next : &j->held_head) = n;
        j->held_tail = n;
    } else {
        append(j, n, n);
    }
    return 0;
}

void job_release_held(struct job *j)
{
    j->holds = false;
    if (j->held_head) {
        append(j, j->held_head, j->held_tail);
        j->held_head = j->held_tail = NULL;
    }
}

void job_drop_held(struct job *j)
{
    j->holds = false;
    while (j->held_head) {
        struct event_node *n = j->held_head;
        j->held_head = n->next;
        event_free(n);
    }
    j->held_tail = NULL;
}

void job_push_progress(struct job *j, int done, int total)
{
    struct event_node *n = mem_zalloc(1, sizeof *n);
    if (n) { /* progress is a courtesy: without memory there is none */
        n->event = (struct job_event){
            .type = JOB_EVENT_PROGRESS, .text = "", .prompt_done = done, .prompt_total = total};
        append(j, n, n);
    }
}

void job_push_end(struct job *j, const struct err *error)
{
    pthread_mutex_lock(&j->lock);
    j->ended = true;
    if (error) {
        j->error = *error;
    }
    pthread_cond_broadcast(&j->arrived);
    pthread_mutex_unlock(&j->lock);
    wake_caller(j);
}

void job_on_event(struct job *j, void (*notify)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&j->notify_lock);
    j->notify = notify;
    j->notify_ctx = ctx;
    pthread_mutex_unlock(&j->notify_lock);
}

void job_next(struct job *j, struct job_event *out)
{
    event_free(j->current);
    j->current = NULL;
    *out = (struct job_event){.type = JOB_EVENT_NONE, .text = ""};
    pthread_mutex_lock(&j->lock);
    struct event_node *n = j->events_head;
    if (n) {
        j->events_head = n->next;
        if (!n->next) {
            j->events_tail = NULL;
        }
        j->current = n;
        *out = n->event;
    } else if (j->ended) {
        out->type = j->error.code ? JOB_EVENT_ERROR : JOB_EVENT_END;
    }
    pthread_mutex_unlock(&j->lock);
}

bool job_wait(struct job *j, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&j->lock);
    int rc = 0;
    while (!j->events_head && !j->ended && rc != ETIMEDOUT) {
        rc = timeout_ms < 0 ? pthread_cond_wait(&j->arrived, &j->lock)
                            : pthread_cond_timedwait(&j->arrived, &j->lock, &until);
    }
    bool any = j->events_head || j->ended;
    pthread_mutex_unlock(&j->lock);
    return any;
}

const struct job_result *job_result(const struct job *j)
{
    return &j->result;
}

const struct err *job_error(const struct job *j)
{
    return &j->error;
}

int job_prompt_rows(const struct job *j, int *text_rows, int *image_rows)
{
    if (text_rows) {
        *text_rows = j->prompt.text_rows;
    }
    if (image_rows) {
        *image_rows = j->prompt.image_rows;
    }
    return j->prompt.text_rows + j->prompt.image_rows;
}

int job_prompt_bound(const struct job *j)
{
    return j->prompt.text_rows + j->prompt.rows_bound;
}

void job_cancel(struct job *j)
{
    if (atomic_exchange(&j->cancelled, true)) {
        return;
    }
    struct engine *en = j->engine;
    pthread_mutex_lock(&en->lock);
    bool waited = j->queued;
    if (waited) {
        queue_remove(en, j);
        en->n_cancelled++;
    }
    pthread_mutex_unlock(&en->lock);
    if (waited) {
        struct err e = ERR_INIT;
        err_reason(&e, ERR_CANCELLED, "cancelled", "the request was cancelled while it waited");
        job_push_end(j, &e);
        job_unref(j);
    }
}

void job_free(struct job *j)
{
    if (!j) {
        return;
    }
    job_on_event(j, NULL, NULL);
    job_cancel(j);
    job_unref(j);
}

/* It is out of the queue and will not run. */
static void end_displaced(struct job *j)
{
    struct err e = ERR_INIT;
    err_reason(&e, ERR_BUSY, "queue_share",
               "the queue is full and other keys have fewer requests in it, so the newest of yours "
               "left it: try again later");
    job_push_end(j, &e);
    job_unref(j);
}

int job_submit(struct job *j, struct err *e)
{
    struct engine *en = j->engine;
    pthread_mutex_lock(&en->lock);
    bool full = queue_is_full(en);
    struct job *displaced = full ? queue_to_displace(en, j->scope) : NULL;
    int rc = 0;
    if (!en->accepting || en->stopping) {
        rc = err_reason(e, ERR_UNAVAILABLE, "shutting_down", "the server is stopping");
    } else if (full && !displaced) {
        rc = err_reason(e, ERR_BUSY, "queue_full",
                        "all %d slots are busy and %d requests are waiting: try again later",
                        en->params.n_parallel, en->n_waiting);
    } else if (j->submitted || atomic_load(&j->cancelled)) {
        rc = err_set(e, ERR_CANCELLED, "the request was cancelled or is submitted already");
    } else {
        atomic_fetch_add(&j->n_refs, 1);
        j->submitted = true;
        j->submitted_ms = clock_ms();
        if (displaced) {
            queue_remove(en, displaced);
            en->n_displaced++;
        }
        queue_add(en, j);
        pthread_cond_signal(&en->wake);
    }
    pthread_mutex_unlock(&en->lock);
    if (displaced && rc == 0) {
        end_displaced(displaced);
    }
    return rc;
}
