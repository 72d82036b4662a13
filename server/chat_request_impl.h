/* The parts of chat_request.c: one file for each group of fields. */
#ifndef TAMP_SERVER_CHAT_REQUEST_IMPL_H
#define TAMP_SERVER_CHAT_REQUEST_IMPL_H

#include "server/chat_request.h"

#include <cjson/cJSON.h>

struct chat_reader {
    struct chat_request *r;
    const struct chat_request_limits *limits;
    const struct json_scan_info *info;
    struct image_bytes *images; /* [n_images] so far */
    int n_images;
};

/* chat_fields.c: numbers, stop, logit_bias, stream options, what is not supported. */
int chat_read_fields(struct chat_reader *c, const cJSON *root, struct err *e);
/* chat_messages.c: roles and content. */
int chat_read_messages(struct chat_reader *c, const cJSON *root, struct err *e);
/* completion_prompts.c: what goes on, instead of messages. */
int chat_read_prompts(struct chat_reader *c, const cJSON *root, const char *key, struct err *e);
/* responses_request.c: the body becomes that of a chat, in which n_before messages stand
 * before those of `input`; and an error about it names the fields that came. */
int responses_to_chat(cJSON *root, int *n_before, struct err *e);
void responses_name_error(int n_before, struct err *e);
/* chat_images.c: an image_url part, `param` is its path ("messages[0].content[1]"). */
int chat_read_image(struct chat_reader *c, const cJSON *part, const char *param,
                    struct chat_part *out, struct err *e);
/* chat_grammar.c: response_format, grammar, json_schema into r->engine.gen.grammar. */
int chat_read_grammar(struct chat_reader *c, const cJSON *root, struct err *e);
/* chat_tools.c: tools, tool_choice, parallel_tool_calls: told of in the chat, and a grammar for
 * the answer; after the messages. */
int chat_read_tools(struct chat_reader *c, const cJSON *root, struct err *e);
/* The calls of an assistant's message, checked; NULL when there are none. */
int chat_check_calls(const cJSON *message, const char *param, const cJSON **calls, struct err *e);
/* chat_compression.c: profile and overrides into r->engine.plan. */
int chat_read_compression(struct chat_reader *c, const cJSON *root, struct err *e);

#endif
