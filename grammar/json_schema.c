#include "grammar/json_schema_impl.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

#define ARENA_MAX ((size_t)64 << 20)
#define N_BUCKETS 1024

/* A list that has a rule, perhaps under construction: that is what makes recursion end. */
struct schema_rule {
    struct schema_rule *next; /* in its bucket */
    struct schema_part *items;
    int n;
    int32_t rule;
};

static const char *const json_names[] = {
    [JSON_WS] = "ws",
    [JSON_CHAR] = "char",
    [JSON_STRING] = "string",
    [JSON_INTEGER] = "integer",
    [JSON_NUMBER] = "number",
    [JSON_BOOLEAN] = "boolean",
    [JSON_NULL] = "null",
    [JSON_OBJECT] = "object",
    [JSON_ARRAY] = "array",
    [JSON_VALUE] = "value",
    [JSON_MEMBER] = "member",
    [JSON_FIRST_FORMAT] = "date",
    "time",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uuid",
};
#define N_JSON (sizeof json_names / sizeof *json_names)
_Static_assert(N_JSON <= JSON_MAX_RULES, "rules fit into their array");

int schema_compiler_init(struct schema_compiler *c, struct grammar_builder *b)
{
    *c = (struct schema_compiler){.b = b};
    arena_init(&c->arena, ARENA_MAX);
    return gbnf_add(b, json_rules, strlen(json_rules), json_names, (int)N_JSON, c->json);
}

void schema_compiler_clear(struct schema_compiler *c)
{
    arena_clear(&c->arena);
}

static void fail_memory(struct schema_compiler *c, size_t bytes)
{
    if (!c->b->failed) {
        c->b->failed = true;
        err_no_memory(c->b->e, bytes);
    }
}

/* ---- lists --------------------------------------------------------------------------------------
 */

bool schema_push(struct schema_compiler *c, struct schema_list *list, const cJSON *schema,
                 const char *path)
{
    if (list->n == SCHEMA_MAX_PARTS) {
        schema_refuse(c, path, "allOf", "too many schemas at once");
        return false;
    }
    if (!cJSON_IsObject(schema) && !cJSON_IsBool(schema)) {
        builder_fail(c->b, ERR_INVALID, "'%s' must be a schema: an object or a boolean", path);
        err_param(c->b->e, "%s", path);
        return false;
    }
    list->items[list->n++] = (struct schema_part){.schema = schema, .path = path};
    return true;
}

static bool same_part(const struct schema_part *a, const struct schema_part *b)
{
    return a->schema == b->schema && a->without_any == b->without_any &&
           a->without_one == b->without_one;
}

static bool push_once(struct schema_compiler *c, struct schema_list *list,
                      const struct schema_part *p)
{
    for (int i = 0; i < list->n; i++) {
        if (same_part(&list->items[i], p)) {
            return true;
        }
    }
    bool pushed = schema_push(c, list, p->schema, p->path);
    if (pushed) {
        list->items[list->n - 1] = *p;
    }
    return pushed;
}

bool schema_flatten(struct schema_compiler *c, const struct schema_list *list,
                    struct schema_list *out)
{
    struct schema_list todo = *list;
    out->n = 0;
    for (int i = 0; i < todo.n && !c->b->failed; i++) {
        struct schema_part p = todo.items[i];
        if (cJSON_IsFalse(p.schema)) {
            return false;
        }
        if (cJSON_IsTrue(p.schema) || !schema_check_keys(c, &p) || !push_once(c, out, &p)) {
            continue;
        }
        if (schema_key(&p, "$ref")) {
            struct schema_part target = {.schema = NULL};
            target.schema = schema_target(c, &p, &target.path);
            if (target.schema == p.schema) {
                schema_refuse(c, p.path, "$ref", "it means itself");
            } else if (target.schema) {
                push_once(c, &todo, &target);
            }
        }
        const cJSON *all = schema_key(&p, "allOf");
        int k = 0;
        for (const cJSON *s = all ? all->child : NULL; s && !c->b->failed; s = s->next, k++) {
            char name[32];
            snprintf(name, sizeof name, "allOf[%d]", k);
            struct schema_part part = {.schema = s, .path = schema_path(c, p.path, name)};
            push_once(c, &todo, &part);
        }
    }
    return !c->b->failed;
}

/* ---- alternatives -------------------------------------------------------------------------------
 */

struct fragment schema_call(struct schema_compiler *c, int32_t rule)
{
    struct fragment f = {builder_state(c->b), builder_state(c->b)};
    builder_call(c->b, f.start, rule, f.end);
    return f;
}

static void add_choice(struct schema_compiler *c, struct fragment *all, struct fragment one)
{
    builder_empty(c->b, all->start, one.start);
    builder_empty(c->b, one.end, all->end);
}

/* anyOf, oneOf of part `index`: each alternative with all the other parts. */
static void choices(struct schema_compiler *c, const struct schema_list *list, int index,
                    const char *name, struct fragment *out)
{
    const struct schema_part *p = &list->items[index];
    bool one = strcmp(name, "oneOf") == 0;
    struct schema_list before = {.n = 0};
    int k = 0;
    for (const cJSON *s = schema_key(p, name)->child; s && !c->b->failed; s = s->next, k++) {
        char at[32];
        snprintf(at, sizeof at, "%s[%d]", name, k);
        struct schema_list with = *list;
        with.items[index].without_any |= !one;
        with.items[index].without_one |= one;
        const char *path = schema_path(c, p->path, at);
        if (!schema_push(c, &with, s, path)) {
            return;
        }
        if (one && k < SCHEMA_MAX_PARTS) {
            for (int i = 0; i < before.n; i++) {
                struct schema_list other = *list;
                other.items[index].without_one = true;
                if (!schema_push(c, &other, before.items[i].schema, before.items[i].path)) {
                    return;
                }
                if (!schema_exclusive(c, &with, &other, 0)) {
                    schema_refuse(c, p->path, "oneOf",
                                  "two of its schemas may match the same value; make them differ "
                                  "in type, in a const, or in a required property, or write anyOf");
                    return;
                }
            }
            schema_push(c, &before, s, path);
        }
        add_choice(c, out, schema_call(c, schema_rule_of(c, &with)));
    }
}

/* ---- one list -----------------------------------------------------------------------------------
 */

/* enum and const: the values that satisfy everything else, too. False: there is none. */
static bool constants(struct schema_compiler *c, const struct schema_list *list,
                      struct fragment *out)
{
    const cJSON *values = NULL;
    const cJSON *constant = NULL;
    for (int i = 0; i < list->n && !constant; i++) {
        values = values ? values : schema_key(&list->items[i], "enum");
        constant = schema_key(&list->items[i], "const");
    }
    if (!values && !constant) {
        return false;
    }
    for (const cJSON *v = constant ? constant : values->child; v && !c->b->failed;
         v = constant ? NULL : v->next) {
        if (schema_accepts(c, list, v)) {
            add_choice(c, out, schema_literal(c, v));
        }
    }
    return true;
}

static void types(struct schema_compiler *c, const struct schema_list *list, struct fragment *out)
{
    int allowed = TYPE_ANY;
    int implied = 0;
    for (int i = 0; i < list->n; i++) {
        allowed &= schema_types(c, &list->items[i]);
        implied |= schema_implied_types(&list->items[i]);
    }
    if (allowed == TYPE_ANY && implied == 0) {
        add_choice(c, out, schema_call(c, c->json[JSON_VALUE]));
        return;
    }
    if (allowed == TYPE_ANY) {
        allowed = implied; /* `properties` without a type wants an object */
    }
    if (allowed & TYPE_OBJECT) {
        add_choice(c, out, schema_object(c, list));
    }
    if (allowed & TYPE_ARRAY) {
        add_choice(c, out, schema_array(c, list));
    }
    if (allowed & TYPE_STRING) {
        add_choice(c, out, schema_string(c, list));
    }
    if (allowed & TYPE_NUMBER) {
        add_choice(c, out, schema_number(c, list, !(allowed & TYPE_FRACTION)));
    }
    if (allowed & TYPE_BOOLEAN) {
        add_choice(c, out, schema_call(c, c->json[JSON_BOOLEAN]));
    }
    if (allowed & TYPE_NULL) {
        add_choice(c, out, schema_call(c, c->json[JSON_NULL]));
    }
}

static struct fragment compile(struct schema_compiler *c, const struct schema_list *list)
{
    struct fragment out = {builder_state(c->b), builder_state(c->b)};
    struct schema_list flat;
    if (!schema_flatten(c, list, &flat)) {
        return out; /* no way through: the automaton cuts it off */
    }
    for (int i = 0; i < flat.n; i++) {
        const char *name = schema_key(&flat.items[i], "anyOf")   ? "anyOf"
                           : schema_key(&flat.items[i], "oneOf") ? "oneOf"
                                                                 : NULL;
        if (name) {
            choices(c, &flat, i, name, &out);
            return out;
        }
    }
    if (!constants(c, &flat, &out)) {
        types(c, &flat, &out);
    }
    return out;
}

static uint64_t hash_list(const struct schema_list *list)
{
    uint64_t h = 0;
    for (int i = 0; i < list->n; i++) {
        const struct schema_part *p = &list->items[i];
        h = (h ^ (uint64_t)(uintptr_t)p->schema) * 0x9e3779b97f4a7c15u;
        h ^= (h >> 29) + p->without_any + 2u * p->without_one;
    }
    return h;
}

static struct schema_rule *find_rule(struct schema_rule *bucket, const struct schema_list *list)
{
    for (; bucket; bucket = bucket->next) {
        bool same = bucket->n == list->n;
        for (int i = 0; i < list->n && same; i++) {
            same = same_part(&bucket->items[i], &list->items[i]);
        }
        if (same) {
            return bucket;
        }
    }
    return NULL;
}

int32_t schema_rule_of(struct schema_compiler *c, const struct schema_list *list)
{
    if (c->b->failed) {
        return 0;
    }
    if (!c->rules) {
        c->rules = arena_zalloc(&c->arena, N_BUCKETS, sizeof *c->rules);
    }
    struct schema_rule *bucket = c->rules ? &c->rules[hash_list(list) % N_BUCKETS] : NULL;
    struct schema_rule *known = bucket ? find_rule(bucket->next, list) : NULL;
    if (known) {
        return known->rule;
    }
    const char *path = list->n ? list->items[list->n - 1].path : c->root_path;
    if (c->depth == SCHEMA_MAX_DEPTH || c->n_rules == SCHEMA_MAX_RULES) {
        builder_fail(c->b, ERR_TOO_LARGE, "the schema at '%.200s' is too %s", path,
                     c->depth == SCHEMA_MAX_DEPTH ? "deep" : "large");
        err_param(c->b->e, "%s", path);
        return 0;
    }
    struct schema_rule *r = arena_alloc(&c->arena, 1, sizeof *r);
    struct schema_part *items = arena_alloc(&c->arena, (size_t)list->n + 1, sizeof *items);
    if (!bucket || !r || !items) {
        fail_memory(c, sizeof *r + ((size_t)list->n + 1) * sizeof *items);
        return 0;
    }
    memcpy(items, list->items, (size_t)list->n * sizeof *items);
    *r = (struct schema_rule){bucket->next, items, list->n, builder_rule(c->b)};
    bucket->next = r;
    c->n_rules++;
    c->depth++;
    builder_define(c->b, r->rule, compile(c, list));
    c->depth--;
    return r->rule;
}

int32_t schema_document(struct schema_compiler *c, const cJSON *schema, const char *path)
{
    struct schema_list list = {.n = 0};
    c->root = schema;
    c->root_path = path;
    return schema_push(c, &list, schema, path) ? schema_rule_of(c, &list) : 0;
}

/* ---- for users
 * ----------------------------------------------------------------------------------- */

struct grammar *grammar_from_schema(const struct cJSON *schema, const char *param, struct err *e)
{
    struct grammar_builder b;
    struct schema_compiler c;
    struct grammar *g = NULL;
    builder_init(&b, e);
    if (schema_compiler_init(&c, &b) == 0) {
        int32_t root = schema_document(&c, schema, param);
        g = automaton_build(&b, root);
        if (!g && e && !e->param[0]) {
            err_param(e, "%s", param);
        }
    }
    schema_compiler_clear(&c);
    builder_clear(&b);
    return g;
}

struct grammar *grammar_json_object(struct err *e)
{
    struct grammar_builder b;
    struct schema_compiler c;
    builder_init(&b, e);
    struct grammar *g =
        schema_compiler_init(&c, &b) == 0 ? automaton_build(&b, c.json[JSON_OBJECT]) : NULL;
    schema_compiler_clear(&c);
    builder_clear(&b);
    return g;
}
