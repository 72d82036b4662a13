/* messages[]: roles, and content as a string or as parts. */
#include "server/chat_request_impl.h"

#include "server/json_fields.h"
#include "server/limits.h"
#include "server/tool_prompt.h"

#include <string.h>

static const struct {
    const char *name;
    enum chat_role role;
} roles[] = {
    {"system", CHAT_SYSTEM},       {"developer", CHAT_SYSTEM}, {"user", CHAT_USER},
    {"assistant", CHAT_ASSISTANT}, {"tool", CHAT_TOOL},
};

static int read_role(const cJSON *message, const char *param, enum chat_role *out, struct err *e)
{
    char at[64];
    snprintf(at, sizeof at, "%s.role", param);
    const cJSON *v = json_member(message, "role");
    if (!v) {
        err_reason(e, ERR_INVALID, "missing_required_parameter", "'%s' is missing", at);
        return err_param(e, "%s", at);
    }
    if (!cJSON_IsString(v)) {
        return json_wrong_type(v, at, "a string", e);
    }
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(v->valuestring, roles[i].name) == 0) {
            *out = roles[i].role;
            return 0;
        }
    }
    err_reason(e, ERR_INVALID, "invalid_value",
               "'%s' must be developer, system, user, assistant or tool", at);
    return err_param(e, "%s", at);
}

static void text_part(const cJSON *v, struct chat_part *out)
{
    *out = (struct chat_part){
        .type = CHAT_PART_TEXT, .text = v->valuestring, .text_len = strlen(v->valuestring)};
}

static int image_in_role(const char *param, enum chat_role role, struct err *e)
{
    if (role == CHAT_USER) {
        return 0;
    }
    err_reason(e, ERR_UNSUPPORTED, "image_input_unsupported",
               "pictures are taken in user messages only");
    return err_param(e, "%s", param);
}

static int read_part(struct chat_reader *c, const cJSON *v, enum chat_role role, const char *param,
                     struct chat_part *out, struct err *e)
{
    char at[sizeof e->param];
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, param, "an object", e);
    }
    const cJSON *type = json_member(v, "type");
    snprintf(at, sizeof at, "%s.type", param);
    if (!cJSON_IsString(type)) {
        return json_wrong_type(type, at, "a string", e);
    }
    if (strcmp(type->valuestring, "text") == 0) {
        const cJSON *text = json_member(v, "text");
        snprintf(at, sizeof at, "%s.text", param);
        if (!cJSON_IsString(text)) {
            return json_wrong_type(text, at, "a string", e);
        }
        text_part(text, out);
        return 0;
    }
    if (strcmp(type->valuestring, "image_url") == 0) {
        return image_in_role(param, role, e) ? -1 : chat_read_image(c, v, param, out, e);
    }
    err_reason(e, ERR_INVALID, "invalid_value", "'%s' must be text or image_url", at);
    return err_param(e, "%s", at);
}

static int count_parts(const cJSON *content, const char *param, int *out, struct err *e)
{
    int n = 0;
    for (const cJSON *p = content->child; p && n <= LIMIT_PARTS; p = p->next) {
        n++;
    }
    if (n == 0 || n > LIMIT_PARTS) {
        err_reason(e, ERR_RANGE, "invalid_value", "'%s' must have 1 to %d parts", param,
                   LIMIT_PARTS);
        return err_param(e, "%s", param);
    }
    *out = n;
    return 0;
}

static int read_parts(struct chat_reader *c, const cJSON *content, const char *param,
                      struct chat_message *out, struct err *e)
{
    int n = 0;
    if (count_parts(content, param, &n, e)) {
        return -1;
    }
    struct chat_part *parts = arena_alloc(&c->r->arena, (size_t)n, sizeof *parts);
    if (!parts) {
        return err_no_memory(e, (size_t)n * sizeof *parts);
    }
    int i = 0;
    for (const cJSON *p = content->child; p; p = p->next, i++) {
        char at[64];
        snprintf(at, sizeof at, "%s[%d]", param, i);
        if (read_part(c, p, out->role, at, &parts[i], e)) {
            return -1;
        }
    }
    out->parts = parts;
    out->n_parts = n;
    return 0;
}

static int read_content(struct chat_reader *c, const cJSON *message, const char *param,
                        struct chat_message *out, struct err *e)
{
    char at[48];
    snprintf(at, sizeof at, "%s.content", param);
    const cJSON *v = json_member(message, "content");
    if (!v) {
        err_reason(e, ERR_INVALID, "missing_required_parameter", "'%s' is missing", at);
        return err_param(e, "%s", at);
    }
    if (cJSON_IsArray(v)) {
        return read_parts(c, v, at, out, e);
    }
    if (!cJSON_IsString(v)) {
        return json_wrong_type(v, at, "a string or an array of parts", e);
    }
    struct chat_part *part = arena_alloc(&c->r->arena, 1, sizeof *part);
    if (!part) {
        return err_no_memory(e, sizeof *part);
    }
    text_part(v, part);
    out->parts = part;
    out->n_parts = 1;
    return 0;
}

/* An assistant's message with calls may have no content. */
static int read_assistant(struct chat_reader *c, const cJSON *v, const char *param,
                          struct chat_message *out, struct err *e)
{
    const cJSON *calls;
    if (chat_check_calls(v, param, &calls, e)) {
        return -1;
    }
    if ((!calls || json_member(v, "content")) && read_content(c, v, param, out, e)) {
        return -1;
    }
    if (calls && !c->limits->tools) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter", "this model takes no tools");
        return err_param(e, "%s.tool_calls", param);
    }
    return calls ? tool_prompt_calls(c->limits->tools, calls, out, &c->r->arena, e) : 0;
}

static int read_result(struct chat_reader *c, const cJSON *v, const char *param,
                       struct chat_message *out, struct err *e)
{
    char at[48];
    snprintf(at, sizeof at, "%s.tool_call_id", param);
    const cJSON *id = json_member(v, "tool_call_id");
    if (id && !cJSON_IsString(id)) {
        return json_wrong_type(id, at, "a string", e);
    }
    if (read_content(c, v, param, out, e)) {
        return -1;
    }
    return c->limits->tools ? tool_prompt_result(c->limits->tools, out, &c->r->arena, e) : 0;
}

static int read_message(struct chat_reader *c, const cJSON *v, int i, struct chat_message *out,
                        struct err *e)
{
    char param[32];
    snprintf(param, sizeof param, "messages[%d]", i);
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, param, "an object", e);
    }
    if (read_role(v, param, &out->role, e)) {
        return -1;
    }
    return out->role == CHAT_ASSISTANT ? read_assistant(c, v, param, out, e)
           : out->role == CHAT_TOOL    ? read_result(c, v, param, out, e)
                                       : read_content(c, v, param, out, e);
}

static int count_messages(const cJSON *v, int *out, struct err *e)
{
    int n = 0;
    for (const cJSON *m = v->child; m && n <= LIMIT_MESSAGES; m = m->next) {
        n++;
    }
    if (n == 0 || n > LIMIT_MESSAGES) {
        err_reason(e, ERR_RANGE, "invalid_value", "'messages' must have 1 to %d entries",
                   LIMIT_MESSAGES);
        return err_param(e, "messages");
    }
    *out = n;
    return 0;
}

int chat_read_messages(struct chat_reader *c, const cJSON *root, struct err *e)
{
    const cJSON *v = json_member(root, "messages");
    int n = 0;
    if (!v) {
        err_reason(e, ERR_INVALID, "missing_required_parameter", "'messages' is missing");
        return err_param(e, "messages");
    }
    if (!cJSON_IsArray(v)) {
        return json_wrong_type(v, "messages", "an array", e);
    }
    if (count_messages(v, &n, e)) {
        return -1;
    }
    struct chat_message *messages = arena_zalloc(&c->r->arena, (size_t)n, sizeof *messages);
    int room = c->limits->max_images > 0 ? c->limits->max_images : 1;
    c->images = arena_zalloc(&c->r->arena, (size_t)room, sizeof *c->images);
    if (!messages || !c->images) {
        return err_no_memory(e, (size_t)n * sizeof *messages);
    }
    int i = 0;
    for (const cJSON *m = v->child; m; m = m->next, i++) {
        if (read_message(c, m, i, &messages[i], e)) {
            return -1;
        }
    }
    c->r->engine.chat =
        (struct chat){.messages = messages, .n_messages = n, .n_images = c->n_images};
    c->r->engine.images = c->images;
    return 0;
}
