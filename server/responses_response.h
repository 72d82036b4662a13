/* The JSON of /v1/responses: the response object, and the events of its stream, numbered,
 * each with its name on a line of its own. */
#ifndef TAMP_SERVER_RESPONSES_RESPONSE_H
#define TAMP_SERVER_RESPONSES_RESPONSE_H

#include "server/chat_response.h"

/* What of a request comes back in its response. */
struct response_echo {
    char *instructions, *metadata, *format; /* JSON; NULL = null, {}, {"type":"text"} */
    int max_output_tokens;                  /* 0 = null */
    double temperature, top_p;
};

struct response {
    const struct completion *completion;
    const struct response_echo *echo;
    const char *item_id;
    const struct buf *text;
    enum job_finish finish;        /* NONE: in progress */
    const struct err *error;       /* failed */
    const struct job_result *bill; /* when it has ended well */
    bool has_item;                 /* of one in progress: output is not empty */
};

void response_render(struct json_writer *w, const struct response *r);

/* Events, appended; *sequence is the number of the next one. */
void response_event(struct buf *out, int *sequence, const char *type, const struct response *r);
/* response.output_item.added and response.content_part.added, or their .done. */
void response_item_events(struct buf *out, int *sequence, const struct response *r, bool done);
void response_delta(struct buf *out, int *sequence, const struct response *r, const char *text,
                    size_t n);
void response_error(struct buf *out, int *sequence, const struct err *e);

#endif
