/* The JSON of /v1/completions: text_completion, whole and in chunks, and its logprobs, which
 * are four lists of the same length where chat has one list of objects. */
#ifndef TAMP_SERVER_COMPLETION_RESPONSE_H
#define TAMP_SERVER_COMPLETION_RESPONSE_H

#include "server/sse.h"

/* Lists of one choice, rendered, comma-separated. text_offset counts characters of the
 * answer, the first one 0. */
struct completion_logprobs {
    struct buf tokens, token_logprobs, top_logprobs, text_offset;
    int64_t offset;
};

void completion_logprobs_init(struct completion_logprobs *l);
void completion_logprobs_add(struct completion_logprobs *l, const struct job_event *ev,
                             const struct token_names *names);
/* Forget the lists, go on counting. */
void completion_logprobs_clear(struct completion_logprobs *l);
void completion_logprobs_free(struct completion_logprobs *l);

/* logprobs [n_choices], or NULL. */
void completion_render(struct buf *out, const struct completion *c, const struct choice *choices,
                       const struct completion_logprobs *logprobs, int n_choices,
                       const struct job_result *bill);
/* bill: as in sse_finish. */
void completion_chunk(const struct sse *s, int choice, const char *text, size_t n,
                      const struct completion_logprobs *logprobs, enum job_finish finish,
                      const struct job_result *bill);
void completion_usage(const struct sse *s, const struct job_result *bill);

#endif
