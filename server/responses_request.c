/* The body of /v1/responses as that of a chat: the same reader then checks both. Big strings
 * are moved, not copied.
 *
 *   instructions, input                 messages
 *   input_text, output_text             text
 *   input_image                         image_url
 *   max_output_tokens                   max_completion_tokens
 *   text.format                         response_format
 * Nothing is kept between requests, so previous_response_id is refused; `store` has no
 * effect, and the answer says that nothing was stored. */
#include "server/chat_request_impl.h"

#include "server/json_fields.h"

#include <stdio.h>
#include <string.h>

static int no_room(struct err *e)
{
    return err_no_memory(e, sizeof(cJSON));
}

static int add(cJSON *object, const char *key, cJSON *v, struct err *e)
{
    if (!v || !cJSON_AddItemToObject(object, key, v)) {
        cJSON_Delete(v);
        return no_room(e);
    }
    return 0;
}

/* Under another name; absent stays absent. */
static int move(cJSON *from, const char *key, cJSON *to, const char *name, struct err *e)
{
    cJSON *v = cJSON_DetachItemFromObjectCaseSensitive(from, key);
    if (!v) {
        return 0;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(to, name);
    return add(to, name, v, e);
}

static int refuse(const char *param, const char *what, struct err *e)
{
    err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter", "'%s': %s", param, what);
    return err_param(e, "%s", param);
}

/* {"type":"input_image","image_url":url,"detail":d} with the url an object, as chat has it. */
static int convert_image(cJSON *part, const char *param, struct err *e)
{
    char at[128];
    snprintf(at, sizeof at, "%s.file_id", param);
    if (json_member(part, "file_id")) {
        return refuse(at, "there are no stored files; send the picture as image_url", e);
    }
    cJSON *image = cJSON_CreateObject();
    if (!image) {
        return no_room(e);
    }
    if (move(part, "image_url", image, "url", e) || move(part, "detail", image, "detail", e)) {
        cJSON_Delete(image);
        return -1;
    }
    return add(part, "image_url", image, e);
}

static int set_type(cJSON *part, const char *type, struct err *e)
{
    cJSON_DeleteItemFromObjectCaseSensitive(part, "type");
    return add(part, "type", cJSON_CreateString(type), e);
}

static int convert_part(cJSON *part, const char *param, struct err *e)
{
    const cJSON *type = cJSON_IsObject(part) ? json_member(part, "type") : NULL;
    const char *name = cJSON_IsString(type) ? type->valuestring : "";
    if (strcmp(name, "input_text") == 0 || strcmp(name, "output_text") == 0) {
        return set_type(part, "text", e);
    }
    if (strcmp(name, "input_image") == 0) {
        return convert_image(part, param, e) || set_type(part, "image_url", e) ? -1 : 0;
    }
    if (!cJSON_IsString(type)) {
        return 0; /* the reader of chats says what is wrong */
    }
    char at[128];
    snprintf(at, sizeof at, "%s.type", param);
    err_reason(e, ERR_INVALID, "invalid_value",
               "'%s' must be input_text, input_image or output_text", at);
    return err_param(e, "%s", at);
}

/* 1: it becomes a message; 0: it says nothing to this model. */
static int convert_item(cJSON *item, int i, struct err *e)
{
    char param[64];
    const cJSON *type = cJSON_IsObject(item) ? json_member(item, "type") : NULL;
    if (cJSON_IsString(type) && strcmp(type->valuestring, "message") != 0) {
        snprintf(param, sizeof param, "input[%d].type", i);
        return strcmp(type->valuestring, "reasoning") == 0
                   ? 0
                   : refuse(param, "only messages are taken", e);
    }
    cJSON *content =
        cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, "content") : NULL;
    int k = 0;
    for (cJSON *p = cJSON_IsArray(content) ? content->child : NULL; p; p = p->next, k++) {
        snprintf(param, sizeof param, "input[%d].content[%d]", i, k);
        if (convert_part(p, param, e)) {
            return -1;
        }
    }
    return 1;
}

static int add_message(cJSON *messages, const char *role, cJSON *content, struct err *e)
{
    cJSON *m = cJSON_CreateObject();
    if (!m || !content) {
        cJSON_Delete(m);
        cJSON_Delete(content);
        return no_room(e);
    }
    if (add(m, "role", cJSON_CreateString(role), e)) {
        cJSON_Delete(content);
        cJSON_Delete(m);
        return -1;
    }
    if (add(m, "content", content, e) || !cJSON_AddItemToArray(messages, m)) {
        cJSON_Delete(m);
        return no_room(e);
    }
    return 0;
}

static int add_input(cJSON *root, cJSON *messages, struct err *e)
{
    const cJSON *input = json_member(root, "input");
    if (!input) {
        err_reason(e, ERR_INVALID, "missing_required_parameter", "'input' is missing");
        return err_param(e, "input");
    }
    if (cJSON_IsString(input)) {
        return add_message(messages, "user", cJSON_DetachItemFromObjectCaseSensitive(root, "input"),
                           e);
    }
    if (!cJSON_IsArray(input) || !input->child) {
        return json_wrong_type(input, "input", "a string or an array of messages", e);
    }
    cJSON *items = cJSON_DetachItemFromObjectCaseSensitive(root, "input");
    int rc = 0;
    for (int i = 0; rc == 0 && items->child; i++) {
        cJSON *item = cJSON_DetachItemViaPointer(items, items->child);
        int kept = convert_item(item, i, e);
        if (kept > 0 && !cJSON_AddItemToArray(messages, item)) {
            kept = no_room(e);
        }
        if (kept <= 0) {
            cJSON_Delete(item);
        }
        rc = kept < 0 ? -1 : 0;
    }
    cJSON_Delete(items);
    return rc;
}

static int add_instructions(cJSON *root, cJSON *messages, struct err *e)
{
    const cJSON *v = json_member(root, "instructions");
    if (!v) {
        return 0;
    }
    if (!cJSON_IsString(v)) {
        return json_wrong_type(v, "instructions", "a string", e);
    }
    return add_message(messages, "system", cJSON_Duplicate(v, true), e);
}

/* {"format":{"type":"json_schema","name":..,"schema":..}} is chat's response_format with the
 * rest one level deeper. */
static int convert_format(cJSON *root, struct err *e)
{
    const cJSON *text = json_member(root, "text");
    if (text && !cJSON_IsObject(text)) {
        return json_wrong_type(text, "text", "an object", e);
    }
    const cJSON *format = text ? json_member(text, "format") : NULL;
    if (!format) {
        return 0;
    }
    if (!cJSON_IsObject(format)) {
        return json_wrong_type(format, "text.format", "an object", e);
    }
    cJSON *own = cJSON_Duplicate(format, true);
    cJSON *outer = cJSON_CreateObject();
    const cJSON *type = json_member(format, "type");
    int rc = own && outer ? 0 : no_room(e);
    if (rc == 0 && cJSON_IsString(type)) {
        rc = add(outer, "type", cJSON_CreateString(type->valuestring), e);
    }
    if (rc == 0 && cJSON_IsString(type) && strcmp(type->valuestring, "json_schema") == 0) {
        cJSON_DeleteItemFromObjectCaseSensitive(own, "type");
        rc = add(outer, "json_schema", own, e);
        own = NULL;
    }
    cJSON_Delete(own);
    if (rc) {
        cJSON_Delete(outer);
        return -1;
    }
    return add(root, "response_format", outer, e);
}

static int refuse_state(const cJSON *root, struct err *e)
{
    const cJSON *background = json_member(root, "background");
    const cJSON *tools = json_member(root, "tools");
    if (tools && !(cJSON_IsArray(tools) && !tools->child)) {
        return refuse("tools", "responses call no functions; leave it out", e);
    }
    if (json_member(root, "previous_response_id")) {
        return refuse("previous_response_id",
                      "nothing is kept between requests; send the whole conversation as input", e);
    }
    if (json_member(root, "conversation")) {
        return refuse("conversation",
                      "nothing is kept between requests; send the whole conversation as input", e);
    }
    if (background && !cJSON_IsFalse(background)) {
        return refuse("background", "answers are given at once; leave it out or stream", e);
    }
    return 0;
}

int responses_to_chat(cJSON *root, int *n_before, struct err *e)
{
    cJSON *messages = cJSON_CreateArray();
    *n_before = 0;
    if (!messages) {
        return no_room(e);
    }
    if (refuse_state(root, e) || add_instructions(root, messages, e)) {
        cJSON_Delete(messages);
        return -1;
    }
    *n_before = cJSON_GetArraySize(messages);
    if (add_input(root, messages, e)) {
        cJSON_Delete(messages);
        return -1;
    }
    static const char *const unused[] = {
        "messages", "n", "logprobs", "top_logprobs", "stream_options", "response_format"};
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
        cJSON_DeleteItemFromObjectCaseSensitive(root, unused[i]);
    }
    return add(root, "messages", messages, e) || convert_format(root, e) ||
                   move(root, "max_output_tokens", root, "max_completion_tokens", e)
               ? -1
               : 0;
}

/* "messages[1].content" is "input[0].content" where one message was put before them. */
void responses_name_error(int n_before, struct err *e)
{
    static const char *const pairs[][2] = {{"max_completion_tokens", "max_output_tokens"},
                                           {"response_format", "text.format"},
                                           {"messages", "input"}};
    int i = 0;
    int end = 0;
    char rest[sizeof e->param];
    if (sscanf(e->param, "messages[%d]%n", &i, &end) == 1 && end > 0) {
        memcpy(rest, e->param + end, sizeof rest - (size_t)end);
        (void)(i < n_before ? err_param(e, "instructions")
                            : err_param(e, "input[%d]%s", i - n_before, rest));
        return;
    }
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
        if (strcmp(e->param, pairs[k][0]) == 0) {
            (void)err_param(e, "%s", pairs[k][1]);
            return;
        }
    }
}
