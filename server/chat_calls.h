/* An answer in which functions may be called, on its way to the client: text stays text, calls
 * become entries of tool_calls or chunks of a stream. */
#ifndef TAMP_SERVER_CHAT_CALLS_H
#define TAMP_SERVER_CHAT_CALLS_H

#include "server/chat_response.h"
#include "server/sse.h"
#include "server/tool_parser.h"

struct chat_calls {
    struct tool_parser parser;
    struct choice *choice;
    int index;             /* of the choice */
    const struct sse *sse; /* NULL: the answer is not streamed */
    bool open;             /* a call has begun and not ended */
};

/* choice and sse are borrowed. */
void chat_calls_init(struct chat_calls *k, const struct chat_tool_format *f, struct choice *choice,
                     int index, const struct sse *sse);
void chat_calls_clear(struct chat_calls *k);
int chat_calls_add(struct chat_calls *k, const char *s, size_t n); /* -1: no memory */
/* The choice is over, with choice->finish: "stop" becomes "tool_calls" where there are any. */
void chat_calls_end(struct chat_calls *k);

#endif
