#include "grammar/json_schema_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum key_type {
    KEY_ANY,
    KEY_NUMBER,
    KEY_COUNT,
    KEY_STRING,
    KEY_BOOLEAN,
    KEY_LIST,
    KEY_OBJECT,
    KEY_SCHEMA
};

/* Keywords that say what is valid; all others are annotations and change nothing. */
static const struct keyword {
    const char *name;
    enum key_type type;
    int types;       /* it says something about values of these only; 0 = about all */
    const char *why; /* it cannot be kept */
} keywords[] = {
    {"$ref", KEY_STRING, 0, NULL},
    {"$defs", KEY_OBJECT, 0, NULL},
    {"definitions", KEY_OBJECT, 0, NULL},
    {"type", KEY_ANY, 0, NULL},
    {"enum", KEY_LIST, 0, NULL},
    {"const", KEY_ANY, 0, NULL},
    {"nullable", KEY_BOOLEAN, 0, NULL},
    {"allOf", KEY_LIST, 0, NULL},
    {"anyOf", KEY_LIST, 0, NULL},
    {"oneOf", KEY_LIST, 0, NULL},
    {"properties", KEY_OBJECT, TYPE_OBJECT, NULL},
    {"required", KEY_LIST, TYPE_OBJECT, NULL},
    {"additionalProperties", KEY_SCHEMA, TYPE_OBJECT, NULL},
    {"unevaluatedProperties", KEY_SCHEMA, TYPE_OBJECT, NULL},
    {"patternProperties", KEY_OBJECT, TYPE_OBJECT, NULL},
    {"minProperties", KEY_COUNT, TYPE_OBJECT, NULL},
    {"maxProperties", KEY_COUNT, TYPE_OBJECT, NULL},
    {"items", KEY_ANY, TYPE_ARRAY, NULL},
    {"prefixItems", KEY_LIST, TYPE_ARRAY, NULL},
    {"additionalItems", KEY_SCHEMA, TYPE_ARRAY, NULL},
    {"unevaluatedItems", KEY_SCHEMA, TYPE_ARRAY, NULL},
    {"minItems", KEY_COUNT, TYPE_ARRAY, NULL},
    {"maxItems", KEY_COUNT, TYPE_ARRAY, NULL},
    {"uniqueItems", KEY_BOOLEAN, TYPE_ARRAY, NULL},
    {"minLength", KEY_COUNT, TYPE_STRING, NULL},
    {"maxLength", KEY_COUNT, TYPE_STRING, NULL},
    {"pattern", KEY_STRING, TYPE_STRING, NULL},
    {"format", KEY_STRING, TYPE_STRING, NULL},
    {"minimum", KEY_NUMBER, TYPE_NUMBER, NULL},
    {"maximum", KEY_NUMBER, TYPE_NUMBER, NULL},
    {"exclusiveMinimum", KEY_NUMBER, TYPE_NUMBER, NULL},
    {"exclusiveMaximum", KEY_NUMBER, TYPE_NUMBER, NULL},
    {"multipleOf", KEY_NUMBER, TYPE_NUMBER, NULL},
    {"not", KEY_ANY, 0, "what is left over is no grammar"},
    {"if", KEY_ANY, 0, "write anyOf"},
    {"then", KEY_ANY, 0, "write anyOf"},
    {"else", KEY_ANY, 0, "write anyOf"},
    {"dependentRequired", KEY_ANY, TYPE_OBJECT, "write anyOf"},
    {"dependentSchemas", KEY_ANY, TYPE_OBJECT, "write anyOf"},
    {"dependencies", KEY_ANY, TYPE_OBJECT, "write anyOf"},
    {"propertyNames", KEY_ANY, TYPE_OBJECT, "write patternProperties"},
    {"contains", KEY_ANY, TYPE_ARRAY, "write items or prefixItems"},
    {"minContains", KEY_ANY, TYPE_ARRAY, "write items or prefixItems"},
    {"maxContains", KEY_ANY, TYPE_ARRAY, "write items or prefixItems"},
    {"contentEncoding", KEY_ANY, TYPE_STRING, "write a pattern"},
    {"contentSchema", KEY_ANY, TYPE_STRING, "write a pattern"},
    {"$dynamicRef", KEY_ANY, 0, "write $ref"},
    {"$recursiveRef", KEY_ANY, 0, "write $ref"},
};
#define N_KEYWORDS (sizeof keywords / sizeof *keywords)

const cJSON *schema_key(const struct schema_part *p, const char *name)
{
    if ((p->without_any && strcmp(name, "anyOf") == 0) ||
        (p->without_one && strcmp(name, "oneOf") == 0)) {
        return NULL;
    }
    return cJSON_GetObjectItemCaseSensitive(p->schema, name);
}

const char *schema_path(struct schema_compiler *c, const char *path, const char *name)
{
    char text[SCHEMA_PATH];
    int n = snprintf(text, sizeof text, name[0] == '[' ? "%s%s" : "%s.%s", path, name);
    n = n < (int)sizeof text ? n : (int)sizeof text - 1;
    const char *copy = arena_strndup(&c->arena, text, (size_t)n);
    if (!copy && !c->b->failed) {
        c->b->failed = true;
        err_no_memory(c->b->e, (size_t)n);
    }
    return copy ? copy : "";
}

void schema_refuse(struct schema_compiler *c, const char *path, const char *keyword,
                   const char *why)
{
    if (c->b->failed) {
        return;
    }
    builder_fail(c->b, ERR_UNSUPPORTED, "'%s.%s' cannot be kept: %s", path, keyword, why);
    err_param(c->b->e, "%s.%s", path, keyword);
}

static void wrong(struct schema_compiler *c, const char *path, const char *keyword, const char *why)
{
    if (!c->b->failed) {
        builder_fail(c->b, ERR_INVALID, "'%s.%s' must be %s", path, keyword, why);
        err_param(c->b->e, "%s.%s", path, keyword);
    }
}

static bool is_count(const cJSON *v)
{
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= 1e9 &&
           v->valuedouble == floor(v->valuedouble);
}

/* NULL: it fits. */
static const char *wants(enum key_type type, const cJSON *v)
{
    switch (type) {
    case KEY_NUMBER:
        return cJSON_IsNumber(v) ? NULL : "a number";
    case KEY_COUNT:
        return is_count(v) ? NULL : "a whole number from 0";
    case KEY_STRING:
        return cJSON_IsString(v) ? NULL : "a string";
    case KEY_BOOLEAN:
        return cJSON_IsBool(v) ? NULL : "a boolean";
    case KEY_LIST:
        return cJSON_IsArray(v) && v->child ? NULL : "an array with elements";
    case KEY_OBJECT:
        return cJSON_IsObject(v) ? NULL : "an object";
    case KEY_SCHEMA:
        return cJSON_IsObject(v) || cJSON_IsBool(v) ? NULL : "a schema";
    default:
        return NULL;
    }
}

bool schema_check_keys(struct schema_compiler *c, const struct schema_part *p)
{
    for (size_t i = 0; i < N_KEYWORDS && !c->b->failed; i++) {
        const cJSON *v = schema_key(p, keywords[i].name);
        if (!v) {
            continue;
        }
        bool empty_list = keywords[i].type == KEY_LIST && cJSON_IsArray(v) && !v->child;
        if (empty_list && (strcmp(keywords[i].name, "required") == 0 ||
                           strcmp(keywords[i].name, "prefixItems") == 0)) {
            continue;
        }
        const char *type = wants(keywords[i].type, v);
        if (keywords[i].why) {
            schema_refuse(c, p->path, keywords[i].name, keywords[i].why);
        } else if (type) {
            wrong(c, p->path, keywords[i].name, type);
        }
    }
    return !c->b->failed;
}

static int type_named(const char *name)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"null", TYPE_NULL},     {"boolean", TYPE_BOOLEAN}, {"integer", TYPE_INTEGER},
                 {"number", TYPE_NUMBER}, {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}};
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return types[i].type;
        }
    }
    return 0;
}

int schema_types(struct schema_compiler *c, const struct schema_part *p)
{
    const cJSON *v = schema_key(p, "type");
    int types = v ? 0 : TYPE_ANY;
    if (v && cJSON_IsString(v)) {
        types = type_named(v->valuestring);
    } else if (v && cJSON_IsArray(v)) {
        for (const cJSON *t = v->child; t; t = t->next) {
            int one = type_named(cJSON_GetStringValue(t));
            if (one == 0) {
                types = 0;
                break;
            }
            types |= one;
        }
    }
    if (types == 0) {
        wrong(c, p->path, "type",
              "null, boolean, integer, number, string, array, object, or a list of these");
    }
    return cJSON_IsTrue(schema_key(p, "nullable")) ? types | TYPE_NULL : types;
}

int schema_implied_types(const struct schema_part *p)
{
    int types = 0;
    for (size_t i = 0; i < N_KEYWORDS; i++) {
        if (keywords[i].types && schema_key(p, keywords[i].name)) {
            types |= keywords[i].types;
        }
    }
    return types;
}

int schema_count(struct schema_compiler *c, const struct schema_list *list, const char *name,
                 bool smallest)
{
    int best = -1;
    for (int i = 0; i < list->n; i++) {
        const cJSON *v = schema_key(&list->items[i], name);
        if (!v) {
            continue;
        }
        int n = (int)v->valuedouble;
        if (n > GRAMMAR_MAX_REPEAT) {
            if (smallest) {
                continue; /* more than that is not told from no end */
            }
            schema_refuse(c, list->items[i].path, name, "it is too large");
            return -1;
        }
        if (best < 0 || (smallest ? n < best : n > best)) {
            best = n;
        }
    }
    return best;
}

/* ---- references --------------------------------------------------------------------------------
 */

/* One step of a JSON pointer (RFC 6901) in a URI fragment. */
static bool pointer_token(const char **at, char *out, size_t size)
{
    size_t n = 0;
    for (; **at && **at != '/'; (*at)++) {
        char ch = **at;
        unsigned int code;
        if (ch == '~' && ((*at)[1] == '0' || (*at)[1] == '1')) {
            ch = *++*at == '0' ? '~' : '/';
        } else if (ch == '%' && sscanf(*at + 1, "%2x", &code) == 1 && (*at)[1] && (*at)[2]) {
            ch = (char)code;
            *at += 2;
        }
        if (n + 1 >= size) {
            return false;
        }
        out[n++] = ch;
    }
    out[n] = '\0';
    return true;
}

static const cJSON *follow(const cJSON *v, const char *pointer)
{
    char token[SCHEMA_PATH];
    while (v && *pointer) {
        if (*pointer != '/') {
            return NULL;
        }
        pointer++;
        if (!pointer_token(&pointer, token, sizeof token)) {
            return NULL;
        }
        if (cJSON_IsArray(v)) {
            size_t digits = strspn(token, "0123456789");
            int index =
                digits > 0 && digits < 8 && !token[digits] ? (int)strtol(token, NULL, 10) : -1;
            v = index < 0 ? NULL : cJSON_GetArrayItem(v, index);
        } else {
            v = cJSON_GetObjectItemCaseSensitive(v, token);
        }
    }
    return v;
}

const cJSON *schema_target(struct schema_compiler *c, const struct schema_part *p,
                           const char **path)
{
    const char *ref = schema_key(p, "$ref")->valuestring;
    if (ref[0] != '#') {
        schema_refuse(c, p->path, "$ref", "only references into the same schema (#...) are known");
        return NULL;
    }
    const cJSON *target = follow(c->root, ref + 1);
    if (!cJSON_IsObject(target) && !cJSON_IsBool(target)) {
        schema_refuse(c, p->path, "$ref", "there is no schema where it points");
        return NULL;
    }
    char text[SCHEMA_PATH];
    snprintf(text, sizeof text, "%s%s", c->root_path, ref + 1);
    for (char *s = text + strlen(c->root_path); *s; s++) {
        *s = *s == '/' ? '.' : *s;
    }
    *path = arena_strndup(&c->arena, text, strlen(text));
    if (!*path) {
        c->b->failed = true;
        err_no_memory(c->b->e, strlen(text));
        return NULL;
    }
    return target;
}
