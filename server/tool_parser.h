/* Calls of functions in the text of an answer, found while it comes. The answer keeps to the
 * grammar of grammar/tool_calls.h, so what begins like a call is one. */
#ifndef TAMP_SERVER_TOOL_PARSER_H
#define TAMP_SERVER_TOOL_PARSER_H

#include "base/buf.h"
#include "compress/chat.h"

#include <stdbool.h>
#include <stddef.h>

/* Who hears what was found; whole characters only. */
struct tool_sink {
    void (*text)(void *ctx, const char *s, size_t n);
    void (*call)(void *ctx, const char *name, size_t n); /* a call begins */
    void (*arguments)(void *ctx, const char *s, size_t n);
    void (*end_call)(void *ctx);
    void *ctx;
};

struct tool_parser {
    const struct chat_tool_format *format;
    enum {
        TOOL_TEXT,
        TOOL_PLAIN,
        TOOL_HEAD,
        TOOL_NAME,
        TOOL_BETWEEN,
        TOOL_ARGUMENTS,
        TOOL_TAIL,
        TOOL_AFTER
    } state;
    struct buf held; /* text that may be the beginning of a call, or the blanks before it */
    size_t matched;  /* bytes of what is expected now */
    int depth;       /* of brackets in the arguments */
    bool quoted, escaped;
    int n_calls; /* begun */
};

void tool_parser_init(struct tool_parser *p, const struct chat_tool_format *f);
void tool_parser_clear(struct tool_parser *p);
/* More of the answer. -1: no memory. */
int tool_parser_add(struct tool_parser *p, const char *s, size_t n, const struct tool_sink *sink);
/* The answer is over: what was held is text. */
void tool_parser_end(struct tool_parser *p, const struct tool_sink *sink);

#endif
