/* Chat templates as a table, chosen from what the file holds. A client never brings one. */
#ifndef TAMP_MODEL_CHAT_TEMPLATE_H
#define TAMP_MODEL_CHAT_TEMPLATE_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/chat.h"
#include "compress/router.h"
#include "tensor/gguf.h"

struct chat_template;

/* name NULL: recognise the file's template; unknown -> ERR_UNSUPPORTED listing the names
 * and --chat-template. */
const struct chat_template *chat_template_choose(const struct gguf *g, const char *name,
                                                 struct err *e);
const char *chat_template_name(const struct chat_template *t);
/* NULL-terminated. */
const char *const *chat_template_names(void);

/* How it tells of functions. */
const struct chat_tool_format *chat_template_tool_format(const struct chat_template *t);
/* What it says when the chat does not begin with a system message; NULL = nothing. */
const char *chat_template_default_system(const struct chat_template *t);

/* A rendered prompt: one text with the pictures cut out of it. Piece i is text; after
 * every piece but the last comes picture image[i]. */
struct prompt_piece {
    const char *text;
    size_t len;
    const struct text_range *special; /* where template text stands: specials are parsed */
    int n_special;
    /* user text: which bytes belong to which part */
    const struct prompt_source {
        size_t begin, end; /* bytes of this piece */
        int message, part;
    } * sources; /* ascending */
    int n_sources;
    int image;                     /* picture after this piece; -1 = none (the last piece) */
    int image_message, image_part; /* where that picture stands in the chat */
};

/* add_generation_prompt: end with the opening of the assistant's turn. */
int chat_template_render(const struct chat_template *t, const struct chat *chat,
                         bool add_generation_prompt, struct arena *a, struct prompt_piece **pieces,
                         int *n_pieces, struct err *e);

#endif
