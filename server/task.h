/* Requests that are prepared on a worker and answered in one piece: a body is read, then
 * parts of it may go through the engine as jobs, a few at a time, then the answer is
 * written. What differs between the routes is a table of functions; what they share with
 * chat (who is let in, the bell, the worker) is below it.
 *
 *   event loop: admit -> (body) -> task_handle: suspend -> worker: begin, prepare, submit
 *   engine thread: rings the slot -> event loop: collect -> worker: the next parts, or render */
#ifndef TAMP_SERVER_TASK_H
#define TAMP_SERVER_TASK_H

#include "server/chat_request.h"
#include "server/server_impl.h"

/* Jobs of one request that may be in the engine at the same time. */
#define TASK_WIDTH 16

struct task {
    struct exchange *ex;
    struct engine *engine;
    struct err error; /* code ERR_NONE = none so far */
    void *state;      /* the kind's own */
    int n_parts;      /* set by begin; 0 = no jobs */
    int width;        /* parts that go together, 1..TASK_WIDTH; set by begin, 1 if left alone */
    bool begun;
    int n_done; /* collected */
    struct job *jobs[TASK_WIDTH];
    bool ended[TASK_WIDTH];
    int n_jobs; /* of parts n_done, n_done + 1, ... */
};

struct task_kind {
    /* On a worker: the body, which goes when this returns, becomes t->state. */
    int (*begin)(struct task *t, struct err *e);
    /* On a worker: the job of a part; NULL with *e set. */
    struct job *(*prepare)(struct task *t, int part, struct err *e);
    /* Event loop, part by part in order: its job has ended well. */
    int (*collect)(struct task *t, int part, struct job *j, struct err *e);
    /* Event loop, at the end: the whole body. */
    void (*render)(struct task *t, struct buf *out);
    void (*free)(struct task *t); /* also when begin failed half-way; state may be NULL */
};

/* The rows of routes.c for these. */
enum http_next task_handle(struct exchange *ex);
void task_prepare(struct exchange *ex);
void task_end(struct exchange *ex);
extern const struct task_kind compress_task;                    /* api_compress.c */
extern const struct task_kind tokenize_task, detokenize_task;   /* api_tokens.c */
extern const struct task_kind response_tokens_task;             /* api_tokens.c */
extern const struct task_kind embeddings_task;                  /* api_embeddings.c */
extern const struct task_kind template_task, input_tokens_task; /* api_tokens.c */

/* -- what chat needs of it, too -------------------------------------------------------- */

/* Before the body: is there a model, and a place in the queue. */
int task_admit(struct exchange *ex, struct err *e);
/* Is there a model: for what needs no place. */
int task_ready(struct exchange *ex, struct err *e);
/* admit again, and a slot; the engine, or NULL with *e set. */
struct engine *task_enter(struct exchange *ex, struct err *e);
/* Suspends, and has a worker call the route's prepare; *error when it cannot. */
void task_push(struct exchange *ex, struct err *error);
/* On a worker: the item is the exchange. */
void task_run(void *exchange);
/* Gives the slot back, if there is one. */
void task_leave(struct exchange *ex);
struct chat_request_limits task_limits(const struct exchange *ex, const struct engine *en);
/* Fills in what of an engine request follows from who asks. */
void task_identify(const struct exchange *ex, struct engine_request *r);

#endif
