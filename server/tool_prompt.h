/* Functions, calls and results as parts of a chat, the way the model's template knows them
 * (struct chat_tool_format). What tamp writes between is `ours`, what a client brought is
 * `glued`: no special token in it counts. */
#ifndef TAMP_SERVER_TOOL_PROMPT_H
#define TAMP_SERVER_TOOL_PROMPT_H

#include "base/arena.h"
#include "compress/chat.h"

#include "base/err.h"

struct cJSON;

/* Calls of an assistant's message behind its content; `calls` was checked. */
int tool_prompt_calls(const struct chat_tool_format *f, const struct cJSON *calls,
                      struct chat_message *m, struct arena *a, struct err *e);
/* A message of role tool, whose content is there, as the template takes it. */
int tool_prompt_result(const struct chat_tool_format *f, struct chat_message *m, struct arena *a,
                       struct err *e);
/* Tells of the functions: chat->messages becomes a copy with one message longer or more. */
int tool_prompt_list(const struct chat_tool_format *f, const char *default_system,
                     const struct cJSON *tools, struct chat *chat, struct arena *a, struct err *e);

#endif
