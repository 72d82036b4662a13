/* The inside of the chat templates.
 *
 *   chat_template.c          the table, which template a file has, the call for users
 *   chat_template_formats.c  how each family of templates writes a chat
 *   chat_template_render.c   what they write into: pieces, special ranges, sources */
#ifndef TAMP_MODEL_CHAT_TEMPLATE_IMPL_H
#define TAMP_MODEL_CHAT_TEMPLATE_IMPL_H

#include "base/buf.h"
#include "model/chat_template.h"

#include <stdbool.h>

/* A run of one message's content. */
struct segment {
    enum { SEGMENT_TEXT, SEGMENT_JOIN, SEGMENT_IMAGE } type; /* JOIN: a text of ours */
    const char *text;
    size_t len;
    int image;
    int message, part;
};

struct content {
    struct segment *items; /* arena */
    int n;
};

/* A text under construction. The first failure sticks: the rest does nothing. */
struct renderer {
    const struct chat *chat;
    bool add_generation_prompt;
    struct arena *arena;
    struct err *e;
    bool failed;
    struct buf text; /* of the piece in hand */
    struct text_range *special;
    size_t n_special, cap_special;
    struct prompt_source *sources;
    size_t n_sources, cap_sources;
    struct prompt_piece *pieces;
    size_t n_pieces, cap_pieces;
};

void renderer_init(struct renderer *r, const struct chat *chat, bool add_generation_prompt,
                   struct arena *a, struct err *e);
/* Hands out the pieces, unless something failed (-1), and frees the working memory. */
int renderer_finish(struct renderer *r, struct prompt_piece **pieces, int *n_pieces);

/* Text of the template. */
void say(struct renderer *r, const char *text);
/* Text and pictures of a message. */
void show(struct renderer *r, const struct content *c);
/* The chat has something this template cannot say. */
void refuse_role(struct renderer *r, int message, const char *why);

/* The content of message `i`: text parts are joined with a line break, except after a
 * picture, as llama-server does. */
struct content content_of(struct renderer *r, int i);
struct content content_join(struct renderer *r, const struct content *a, const char *between,
                            const struct content *b);
/* Drop leading / trailing characters of `set`, up to a picture. */
void content_trim_left(struct content *c, const char *set);
void content_trim_right(struct content *c, const char *set);
void content_trim(struct content *c);
/* Cut at the first / last `mark`: what is before and after it. false = not there. Both
 * results are copies, and neither may be `c` itself. */
bool content_cut(struct renderer *r, const struct content *c, const char *mark, bool last,
                 struct content *before, struct content *after);
bool content_is_empty(const struct content *c);

struct chat_template {
    const char *name;
    void (*render)(struct renderer *r, const struct chat_template *t);
    /* chatml */
    const char *default_system; /* said when the chat does not begin with a system message */
    bool tool_responses;        /* tools answer inside a user turn */
    bool thinking;              /* assistant turns of the past lose their reasoning */
    const struct chat_tool_format *tools; /* NULL = the one for all */
    /* llama3 */
    const char *preamble; /* opens the system turn, which is then always there */
    /* mistral */
    const char *before_inst, *after_inst;
    bool trim_assistant;
    /* llama2 */
    bool system_tags, bos_in_history, strip;
    /* gemma */
    const char *after_system;
};

void render_chatml(struct renderer *r, const struct chat_template *t);
void render_llama3(struct renderer *r, const struct chat_template *t);
void render_llama2(struct renderer *r, const struct chat_template *t);
void render_mistral(struct renderer *r, const struct chat_template *t);
void render_mistral_v7(struct renderer *r, const struct chat_template *t);
void render_mistral_nemo(struct renderer *r, const struct chat_template *t);
void render_gemma(struct renderer *r, const struct chat_template *t);
void render_gemma2(struct renderer *r, const struct chat_template *t);

/* The template whose marks are in `source`; NULL = none of ours. */
const struct chat_template *chat_template_recognise(const char *source, size_t len);

#endif
