/* What the answer must look like: response_format, and llama.cpp's grammar and json_schema. */
#include "server/chat_request_impl.h"

#include "grammar/grammar.h"
#include "server/json_fields.h"

#include <string.h>

#define SCHEMA_PARAM "response_format.json_schema.schema"

static int missing(const char *param, struct err *e)
{
    err_reason(e, ERR_INVALID, "missing_required_parameter", "'%s' is missing", param);
    return err_param(e, "%s", param);
}

static int use(struct chat_reader *c, struct grammar *g)
{
    c->r->engine.gen.grammar = g;
    return g ? 0 : -1;
}

static int use_schema(struct chat_reader *c, const cJSON *schema, const char *param, struct err *e)
{
    if (!cJSON_IsObject(schema)) {
        return json_wrong_type(schema, param, "an object", e);
    }
    return use(c, grammar_from_schema(schema, param, e));
}

static int read_json_schema(struct chat_reader *c, const cJSON *format, struct err *e)
{
    const cJSON *v = json_member(format, "json_schema");
    if (!v) {
        return missing("response_format.json_schema", e);
    }
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, "response_format.json_schema", "an object", e);
    }
    const cJSON *name = json_member(v, "name");
    const cJSON *strict = json_member(v, "strict");
    const cJSON *schema = json_member(v, "schema");
    if (name && !cJSON_IsString(name)) {
        return json_wrong_type(name, "response_format.json_schema.name", "a string", e);
    }
    if (strict && !cJSON_IsBool(strict)) {
        return json_wrong_type(strict, "response_format.json_schema.strict", "a boolean", e);
    }
    return schema ? use_schema(c, schema, SCHEMA_PARAM, e) : missing(SCHEMA_PARAM, e);
}

/* Also llama.cpp's {"type": "json_object", "schema": {...}}. */
static int read_response_format(struct chat_reader *c, const cJSON *v, struct err *e)
{
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, "response_format", "an object", e);
    }
    const cJSON *type = json_member(v, "type");
    if (!type) {
        return missing("response_format.type", e);
    }
    if (!cJSON_IsString(type)) {
        return json_wrong_type(type, "response_format.type", "a string", e);
    }
    if (strcmp(type->valuestring, "text") == 0) {
        return 0;
    }
    if (strcmp(type->valuestring, "json_schema") == 0) {
        return read_json_schema(c, v, e);
    }
    if (strcmp(type->valuestring, "json_object") == 0) {
        const cJSON *schema = json_member(v, "schema");
        return schema ? use_schema(c, schema, "response_format.schema", e)
                      : use(c, grammar_json_object(e));
    }
    err_reason(e, ERR_INVALID, "invalid_value",
               "'response_format.type' must be text, json_object or json_schema");
    return err_param(e, "response_format.type");
}

static int read_gbnf(struct chat_reader *c, const cJSON *v, struct err *e)
{
    if (!cJSON_IsString(v)) {
        return json_wrong_type(v, "grammar", "a string", e);
    }
    if (use(c, grammar_from_gbnf(v->valuestring, strlen(v->valuestring), e))) {
        return err_param(e, "grammar");
    }
    return 0;
}

static int read_schema(struct chat_reader *c, const cJSON *v, struct err *e)
{
    return use_schema(c, v, "json_schema", e);
}

int chat_read_grammar(struct chat_reader *c, const cJSON *root, struct err *e)
{
    static const struct {
        const char *name;
        int (*read)(struct chat_reader *c, const cJSON *v, struct err *e);
    } fields[] = {{"response_format", read_response_format},
                  {"json_schema", read_schema},
                  {"grammar", read_gbnf}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const cJSON *v = json_member(root, fields[i].name);
        if (!v || (cJSON_IsString(v) && v->valuestring[0] == '\0')) {
            continue;
        }
        if (c->r->engine.gen.grammar) {
            err_reason(e, ERR_INVALID, "invalid_value",
                       "the answer cannot keep to '%s' and to another format", fields[i].name);
            return err_param(e, "%s", fields[i].name);
        }
        if (fields[i].read(c, v, e)) {
            return -1;
        }
    }
    return 0;
}
