/* What the engine gave back -> the JSON of a chat completion and of its parts; sse.h
 * wraps the same parts into chunks. */
#ifndef TAMP_SERVER_CHAT_RESPONSE_H
#define TAMP_SERVER_CHAT_RESPONSE_H

#include "base/buf.h"
#include "engine/engine.h"
#include "server/json_write.h"

#include <stddef.h>
#include <stdint.h>

/* The same in every chunk of an answer. */
struct completion {
    char id[48]; /* "chatcmpl-..." from getrandom */
    int64_t created;
    const char *model;
};

struct choice {
    struct buf text;     /* UTF-8 */
    struct buf logprobs; /* entries of logprobs.content, comma-separated; empty = null */
    struct buf calls;    /* entries of tool_calls, the same */
    enum job_finish finish;
};

/* How a token reads; NULL text for an unknown one. Kept apart from the engine so that
 * rendering can be tested alone. */
struct token_names {
    const char *(*text)(const void *ctx, int32_t token, size_t *len);
    const void *ctx;
};

const char *finish_name(enum job_finish f); /* "stop", "length", ...; NULL while unfinished */
/* An entry of choice.calls: its beginning, pieces of its arguments, its end. */
void render_call(struct buf *out, const char *id, const char *name, size_t n);
void render_arguments(struct buf *out, const char *s, size_t n);
void render_call_end(struct buf *out);
/* Appends one entry for each token of the event. */
void render_logprobs(struct buf *out, const struct job_event *ev, const struct token_names *names);
/* Adds the figures of one job to those of an answer that has several; first: *sum becomes
 * this one's. Counts and work add up, waiting is that of the slowest. */
void bill_add(struct job_result *sum, const struct job_result *r, bool first);
/* The three objects every answer ends with; each writes its key and its value. */
void render_usage(struct json_writer *w, const struct job_result *r);
void render_timings(struct json_writer *w, const struct job_result *r);
void render_memory(struct json_writer *w, const struct job_result *r);
/* Of usage.compression: one of "image", "text", "lm", and the list "skipped", with keys. */
void render_modality(struct json_writer *w, const struct report *r, enum modality m);
void render_skipped(struct json_writer *w, const struct report *r);
/* Of usage: "compression" and its object. */
void render_compression(struct json_writer *w, const struct job_result *r);
/* All three. */
void render_bill(struct json_writer *w, const struct job_result *r);
/* The beginning of a body: the object is open, id to model are written. */
void render_head(struct json_writer *w, const struct completion *c, const char *object);
/* For return_overlay: grid, groups with their patches, and a PNG of each picture
 * (chat_overlay.c). */
void render_overlays(struct json_writer *w, const struct job_result *r);
/* One of them, a value without a key. */
void render_overlay(struct json_writer *w, const struct job_result *r, int i);
/* The whole body of an answer that is not streamed. */
void render_completion(struct buf *out, const struct completion *c, const struct choice *choices,
                       int n_choices, const struct job_result *r);

#endif
