/* The body of /v1/chat/completions, or of /v1/completions -> what the engine takes. Every field is
 * checked for type and range; what tamp cannot do yet and would change the answer is refused by
 * name; unknown fields are ignored.
 *
 * Choices where the contract leaves one: a number written 1.0 is not an integer; a seed
 * beyond 2^53 - 1 is refused (JSON numbers are doubles) and -1 draws one, as in
 * llama.cpp; max_tokens beyond the context is cut by the engine; keys in another case
 * are unknown fields; the `compression` field wins over the X-Compression header;
 * timings_per_token is checked and has no effect, timings come with the last chunk. */
#ifndef TAMP_SERVER_CHAT_REQUEST_H
#define TAMP_SERVER_CHAT_REQUEST_H

#include "base/arena.h"
#include "engine/engine.h"
#include "server/json_scan.h"

#include <stdbool.h>
#include <stddef.h>

struct cJSON;

enum request_kind {
    REQUEST_CHAT,
    REQUEST_COMPLETION, /* `prompt`, not `messages` */
    REQUEST_EMBEDDING,  /* `input`, or `messages` */
    REQUEST_RESPONSE    /* `input` and `instructions`, which become messages */
};

/* What the model can do, and what the operator chose. */
struct chat_request_limits {
    int n_vocab;
    int n_loras;
    int max_images; /* 0 = the model takes text only */
    size_t max_image_bytes;
    const struct plan *default_plan;
    const char *header_profile;           /* X-Compression, NULL = absent */
    const struct chat_tool_format *tools; /* of the model's template; NULL = it takes none */
    const char *default_system;           /* the same */
    bool no_stream;                       /* the route has none: `stream` has no effect */
    enum request_kind what;
};

/* One of /v1/completions: a text, or tokens when `ids` is set. */
struct completion_prompt {
    const char *text; /* [len] */
    size_t len;
    int32_t *ids; /* [n_ids] */
    int n_ids;
};

struct chat_request {
    struct engine_request engine; /* engine.id stays the caller's */
    const char *model;            /* NULL = not given */
    bool stream, include_usage, return_progress;
    bool seed_given;
    const struct chat_tool_format *tools;    /* calls are to be read in the answer; NULL = none */
    bool echo;                               /* completion: the prompt goes before the answer */
    const struct completion_prompt *prompts; /* [n_prompts] */
    int n_prompts;

    struct arena arena; /* parts, messages, pictures */
    struct cJSON *root; /* texts are views into it */
};

/* 0, or -1 with *e (param names the field); chat_request_free either way. The body may
 * go as soon as this returns. The seed is 0 unless seed_given. */
int chat_request_parse(struct chat_request *r, const char *body, size_t n,
                       const struct chat_request_limits *limits, struct err *e);
/* The plan of a request whose `compression` is v (NULL = not given). */
int chat_plan_parse(const struct cJSON *v, const struct chat_request_limits *limits, struct plan *p,
                    struct err *e);
void chat_request_free(struct chat_request *r);

#endif
