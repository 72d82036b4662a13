/* The lines of a streamed answer, appended to a buf: role first, content, finish, the
 * bill, [DONE]. Text comes in whole characters from the engine and stays whole. After
 * an error the stream ends without [DONE], so a client can tell a cut from an end. */
#ifndef TAMP_SERVER_SSE_H
#define TAMP_SERVER_SSE_H

#include "server/chat_response.h"

struct sse {
    struct buf *out;
    const struct completion *completion;
    const char *object; /* of a chunk: "chat.completion.chunk" */
    bool include_usage; /* every chunk has "usage": null, one last has the usage */
};

/* A chunk up to its choices, and from there on; bill != NULL: it carries the bill whatever
 * include_usage says. */
void sse_begin(const struct sse *s, struct json_writer *w);
void sse_end(const struct sse *s, struct json_writer *w, const struct job_result *bill);

void sse_role(const struct sse *s, int choice);
/* logprobs: entries as render_logprobs makes them, or NULL. */
void sse_text(const struct sse *s, int choice, const char *text, size_t n,
              const struct buf *logprobs);
/* The beginning of call `index` of a choice; pieces of its arguments follow. */
void sse_call(const struct sse *s, int choice, int index, const char *id, const char *name,
              size_t n);
void sse_arguments(const struct sse *s, int choice, int index, const char *text, size_t n);
/* bill: the result when this is the last chunk and no usage chunk follows, else NULL. */
void sse_finish(const struct sse *s, int choice, enum job_finish finish,
                const struct job_result *bill);
void sse_usage(const struct sse *s, const struct job_result *bill);
void sse_progress(const struct sse *s, int done, int total, double elapsed_ms);
void sse_error(const struct sse *s, const struct err *e);
void sse_done(struct buf *out);
void sse_ping(struct buf *out);

#endif
