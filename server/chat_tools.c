/* tools, tool_choice, parallel_tool_calls, and the calls in an assistant's messages. */
#include "server/chat_request_impl.h"

#include "grammar/tool_calls.h"
#include "server/json_fields.h"
#include "server/limits.h"
#include "server/tool_prompt.h"

#include <string.h>

static int invalid(struct err *e, const char *param, const char *what)
{
    err_reason(e, ERR_INVALID, "invalid_value", "'%s' %s", param, what);
    return err_param(e, "%s", param);
}

static int missing(struct err *e, const char *param)
{
    err_reason(e, ERR_INVALID, "missing_required_parameter", "'%s' is missing", param);
    return err_param(e, "%s", param);
}

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return n > 0 && n <= LIMIT_TOOL_NAME && !s[n];
}

/* object.function.name, or object.name */
static int read_name(const cJSON *object, const char *param, const char **out, struct err *e)
{
    char at[96];
    snprintf(at, sizeof at, "%s.name", param);
    const cJSON *name = json_member(object, "name");
    if (!name) {
        return missing(e, at);
    }
    if (!cJSON_IsString(name)) {
        return json_wrong_type(name, at, "a string", e);
    }
    *out = name->valuestring;
    return is_name(*out) ? 0
                         : invalid(e, at, "must have 1 to 64 letters, digits, '_' and '-' only");
}

/* {"type": "function", "function": {...}} */
static int read_function(const cJSON *v, const char *param, const cJSON **out, struct err *e)
{
    char at[80];
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, param, "an object", e);
    }
    const cJSON *type = json_member(v, "type");
    snprintf(at, sizeof at, "%s.type", param);
    if (!type) {
        return missing(e, at);
    }
    if (!cJSON_IsString(type)) {
        return json_wrong_type(type, at, "a string", e);
    }
    if (strcmp(type->valuestring, "function") != 0) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter", "'%s' must be function", at);
        return err_param(e, "%s", at);
    }
    snprintf(at, sizeof at, "%s.function", param);
    *out = json_member(v, "function");
    if (!*out) {
        return missing(e, at);
    }
    return cJSON_IsObject(*out) ? 0 : json_wrong_type(*out, at, "an object", e);
}

/* ---- calls in messages --------------------------------------------------------------------------
 */

static int check_call(const cJSON *call, const char *param, struct err *e)
{
    const cJSON *function = NULL;
    const char *name = NULL;
    char at[96];
    if (read_function(call, param, &function, e)) {
        return -1;
    }
    snprintf(at, sizeof at, "%s.function", param);
    if (read_name(function, at, &name, e)) {
        return -1;
    }
    snprintf(at, sizeof at, "%s.function.arguments", param);
    const cJSON *arguments = json_member(function, "arguments");
    if (!arguments) {
        return missing(e, at);
    }
    return cJSON_IsString(arguments) ? 0 : json_wrong_type(arguments, at, "a string", e);
}

int chat_check_calls(const cJSON *message, const char *param, const cJSON **calls, struct err *e)
{
    char at[64];
    int n = 0;
    *calls = json_member(message, "tool_calls");
    if (json_member(message, "function_call")) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter",
                   "'%s.function_call' is not supported; use tool_calls", param);
        return err_param(e, "%s.function_call", param);
    }
    if (!*calls || (cJSON_IsArray(*calls) && !(*calls)->child)) {
        *calls = NULL;
        return 0;
    }
    snprintf(at, sizeof at, "%s.tool_calls", param);
    if (!cJSON_IsArray(*calls)) {
        return json_wrong_type(*calls, at, "an array", e);
    }
    for (const cJSON *call = (*calls)->child; call; call = call->next, n++) {
        snprintf(at, sizeof at, "%s.tool_calls[%d]", param, n);
        if (n == LIMIT_CALLS) {
            return invalid(e, at, "is one too many: a message has at most 128 calls");
        }
        if (check_call(call, at, e)) {
            return -1;
        }
    }
    return 0;
}

/* ---- tools --------------------------------------------------------------------------------------
 */

struct tools {
    const cJSON *list; /* NULL = none */
    struct grammar_tool *items;
    int n;
};

static int read_parameters(struct chat_reader *c, const cJSON *function, int index,
                           struct grammar_tool *out, struct err *e)
{
    char at[64];
    snprintf(at, sizeof at, "tools[%d].function.parameters", index);
    const cJSON *v = json_member(function, "parameters");
    out->path = arena_strndup(&c->r->arena, at, strlen(at));
    if (!out->path) {
        return err_no_memory(e, sizeof at);
    }
    if (!v) {
        return 0;
    }
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, at, "an object", e);
    }
    const cJSON *type = json_member(v, "type");
    if (type && !(cJSON_IsString(type) && strcmp(type->valuestring, "object") == 0)) {
        snprintf(at, sizeof at, "tools[%d].function.parameters.type", index);
        return invalid(e, at, "must be object: arguments have names");
    }
    out->parameters = v->child ? v : NULL;
    return 0;
}

static int read_tool(struct chat_reader *c, const cJSON *v, int index, struct tools *t,
                     struct err *e)
{
    char at[48];
    const cJSON *function = NULL;
    struct grammar_tool *out = &t->items[index];
    snprintf(at, sizeof at, "tools[%d]", index);
    if (read_function(v, at, &function, e)) {
        return -1;
    }
    snprintf(at, sizeof at, "tools[%d].function", index);
    const cJSON *description = json_member(function, "description");
    if (description && !cJSON_IsString(description)) {
        snprintf(at, sizeof at, "tools[%d].function.description", index);
        return json_wrong_type(description, at, "a string", e);
    }
    if (read_name(function, at, &out->name, e) || read_parameters(c, function, index, out, e)) {
        return -1;
    }
    for (int i = 0; i < index; i++) {
        if (strcmp(t->items[i].name, out->name) == 0) {
            snprintf(at, sizeof at, "tools[%d].function.name", index);
            return invalid(e, at, "is the name of another function, too");
        }
    }
    return 0;
}

static int read_list(struct chat_reader *c, const cJSON *v, struct tools *t, struct err *e)
{
    if (!v || (cJSON_IsArray(v) && !v->child)) {
        return 0;
    }
    if (!cJSON_IsArray(v)) {
        return json_wrong_type(v, "tools", "an array", e);
    }
    if (!c->limits->tools) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter", "this model takes no tools");
        return err_param(e, "tools");
    }
    t->items = arena_zalloc(&c->r->arena, LIMIT_TOOLS, sizeof *t->items);
    if (!t->items) {
        return err_no_memory(e, LIMIT_TOOLS * sizeof *t->items);
    }
    t->list = v;
    for (const cJSON *tool = v->child; tool; tool = tool->next) {
        if (t->n == LIMIT_TOOLS) {
            return invalid(e, "tools", "must have at most 128 entries");
        }
        if (read_tool(c, tool, t->n, t, e)) {
            return -1;
        }
        t->n++;
    }
    return 0;
}

/* ---- tool_choice --------------------------------------------------------------------------------
 */

struct choice {
    bool none, required;
    const struct grammar_tool *only; /* NULL = any */
};

static int read_word(const char *word, struct choice *out, struct err *e)
{
    out->none = strcmp(word, "none") == 0;
    out->required = strcmp(word, "required") == 0;
    return out->none || out->required || strcmp(word, "auto") == 0
               ? 0
               : invalid(e, "tool_choice", "must be none, auto, required or a function");
}

static int read_choice(const cJSON *v, const struct tools *t, struct choice *out, struct err *e)
{
    const cJSON *function = NULL;
    const char *name = NULL;
    *out = (struct choice){.none = t->n == 0};
    if (!v) {
        return 0;
    }
    if (cJSON_IsString(v)) {
        if (read_word(v->valuestring, out, e)) {
            return -1;
        }
    } else if (read_function(v, "tool_choice", &function, e) ||
               read_name(function, "tool_choice.function", &name, e)) {
        return -1;
    } else {
        for (int i = 0; i < t->n && name && !out->only; i++) {
            out->only = strcmp(t->items[i].name, name) == 0 ? &t->items[i] : NULL;
        }
        out->required = true;
        if (!out->only) {
            return invalid(e, "tool_choice.function.name", "is none of the tools");
        }
    }
    if (t->n == 0 && out->required) {
        return invalid(e, "tool_choice", "needs tools");
    }
    out->none |= t->n == 0;
    return 0;
}

/* ---- the answer ---------------------------------------------------------------------------------
 */

static int constrain(struct chat_reader *c, const struct tools *t, const struct choice *choice,
                     bool parallel, struct err *e)
{
    const struct chat_tool_format *f = c->limits->tools;
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%s{\"name\": \"", f->open);
    const struct tool_call_form form = {.prefix = prefix,
                                        .trigger = strlen(f->trigger),
                                        .only_first = f->open[0] == '\0',
                                        .arguments = f->arguments,
                                        .close = f->close,
                                        .between = f->between};
    if (c->r->engine.gen.grammar) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter",
                   "'tools' and a grammar or JSON response_format cannot both be kept; leave one "
                   "out, or say \"tool_choice\": \"none\"");
        return err_param(e, "tools");
    }
    const struct grammar_tool *tools = choice->only ? choice->only : t->items;
    struct grammar *g = grammar_from_tools(tools, choice->only ? 1 : t->n, &form, choice->required,
                                           parallel && !choice->only, e);
    c->r->engine.gen.grammar = g;
    c->r->tools = f;
    return g ? 0 : -1;
}

int chat_read_tools(struct chat_reader *c, const cJSON *root, struct err *e)
{
    struct tools t = {.n = 0};
    struct choice choice;
    const cJSON *parallel = json_member(root, "parallel_tool_calls");
    if (parallel && !cJSON_IsBool(parallel)) {
        return json_wrong_type(parallel, "parallel_tool_calls", "a boolean", e);
    }
    if (read_list(c, json_member(root, "tools"), &t, e) ||
        read_choice(json_member(root, "tool_choice"), &t, &choice, e)) {
        return -1;
    }
    if (choice.none) {
        return 0;
    }
    return constrain(c, &t, &choice, !cJSON_IsFalse(parallel), e) ||
                   tool_prompt_list(c->limits->tools, c->limits->default_system, t.list,
                                    &c->r->engine.chat, &c->r->arena, e)
               ? -1
               : 0;
}
