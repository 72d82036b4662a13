/* Answers that are generated, whatever they are called: chat, completions, responses. A
 * request is one job for each of its prompts; what comes back goes into choices or, as it
 * comes, into the chunks of a stream. What differs is a table of functions, the form.
 *
 *   event loop: admit -> (body) -> generation_handle: suspend -> worker: form.read
 *   engine thread: rings the slot whenever there are events
 *   event loop: generation_handle again, or the stream's reader: events -> JSON or chunks
 * A streamed answer begins with its first word (or the first ping), so what fails before
 * is still an HTTP status; what fails later is an error event and no end. */
#ifndef TAMP_SERVER_GENERATION_H
#define TAMP_SERVER_GENERATION_H

#include "server/sse.h"
#include "server/task.h"

enum generation_phase { PHASE_PREPARE, PHASE_QUEUE, PHASE_PREFILL, PHASE_DECODE };

struct generation_job {
    struct job *job;
    bool ended;
};

struct generation {
    struct exchange *ex;
    struct engine *engine;
    const struct generation_form *form;
    void *state;      /* the form's own */
    struct err error; /* code ERR_NONE = none so far */
    enum generation_phase phase;
    bool stream, return_progress;
    bool opened, ended, closed;  /* closed: the last byte of the stream is rendered */
    struct generation_job *jobs; /* [n_jobs] */
    int n_jobs, n_ended;
    int per_job; /* choices of a job: choice i of job k is k * per_job + i */
    int n_choices, n_done, last_done;
    struct choice *choices; /* [n_choices] */
    struct completion completion;
    struct job_result bill; /* of all jobs together, once ended */
    struct sse sse;
    struct buf out; /* of a stream: rendered, not taken yet */
    uint64_t submitted_ns;
};

struct generation_form {
    const char *id_prefix, *chunk; /* of ids, and the object that a chunk is */
    size_t stream_bytes;           /* most that may be rendered and unsent; 0 = LIMIT_STREAM_BYTES:
                                      more where one event holds all that came before */
    /* Worker: the body into choices and jobs, with the functions below. The body goes then. */
    int (*read)(struct generation *g, struct err *e);
    /* Event loop. A stream's beginning, before anything else of it. */
    void (*open)(struct generation *g);
    /* More of a choice, streamed or not: into the choice, or the chunk of a stream. */
    void (*text)(struct generation *g, int choice, const struct job_event *ev);
    /* A choice has ended, streamed or not; may be NULL. */
    void (*done)(struct generation *g, int choice);
    /* Of a stream: a choice has ended; `last`: all have, the bill is there, so ends the stream. */
    void (*finish)(struct generation *g, int choice, bool last);
    /* Of a stream, with g->error set; and how far the prompt is, where that was asked for (NULL:
     * the form has no place for it). */
    void (*fail)(struct generation *g);
    void (*progress)(struct generation *g, const struct job_event *ev, double elapsed_ms);
    /* The body of an answer in one piece. */
    void (*whole)(struct generation *g, struct buf *out);
    void (*free)(struct generation *g); /* of the state, which may be NULL; may be NULL */
};

/* For `read`: first the choices of all jobs, then each job into the queue. */
int generation_make_choices(struct generation *g, int n_jobs, int per_job, struct err *e);
int generation_submit(struct generation *g, struct engine_request *r, struct err *e);
/* Parses the body, which is then given back, and hands what it says to `use`. */
int generation_read(struct generation *g, enum request_kind what,
                    int (*use)(struct generation *g, struct chat_request *r, struct err *e),
                    struct err *e);
/* What of a request decides how it is answered; draws a seed where it names none. */
void generation_options(struct generation *g, struct chat_request *r);
struct token_names generation_names(const struct generation *g);
/* A stream's error event, for forms that end theirs without [DONE]. */
void generation_fail(struct generation *g);

/* The rows of routes.c. */
enum http_next generation_handle(struct exchange *ex);
void generation_prepare(struct exchange *ex);
void generation_end(struct exchange *ex);
extern const struct generation_form chat_form;       /* api_chat.c */
extern const struct generation_form completion_form; /* api_completions.c */
extern const struct generation_form response_form;   /* api_responses.c */

#endif
