/* Objects: named properties in the order of the schema, then, where additionalProperties asks
 * for them, any others. Arrays: prefixItems, then items. */
#include "grammar/json_schema_impl.h"

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMES 4096 /* properties of one object */

struct property {
    const char *name;
    bool required;
};

struct object {
    struct schema_compiler *c;
    const struct schema_list *list;
    struct property *names; /* [n_names] */
    int n_names;
    bool open;                         /* others are wanted */
    const struct schema_part *pattern; /* whose patternProperties name the keys of others */
};

static int32_t add_ws(struct schema_compiler *c, int32_t from)
{
    int32_t to = builder_state(c->b);
    builder_call(c->b, from, c->json[JSON_WS], to);
    return to;
}

static struct fragment new_fragment(struct schema_compiler *c)
{
    return (struct fragment){builder_state(c->b), builder_state(c->b)};
}

/* ---- which properties
 * ------------------------------------------------------------------------------- */

static struct property *find_name(const struct object *o, const char *name)
{
    for (int i = 0; i < o->n_names; i++) {
        if (strcmp(o->names[i].name, name) == 0) {
            return &o->names[i];
        }
    }
    return NULL;
}

static void add_name(struct object *o, const struct schema_part *p, const char *name, bool required)
{
    struct property *known = find_name(o, name);
    if (known) {
        known->required |= required;
    } else if (o->n_names == MAX_NAMES) {
        schema_refuse(o->c, p->path, "properties", "there are too many");
    } else {
        o->names[o->n_names++] = (struct property){name, required};
    }
}

static void collect_names(struct object *o)
{
    o->names = arena_alloc(&o->c->arena, MAX_NAMES, sizeof *o->names);
    if (!o->names) {
        o->c->b->failed = true;
        err_no_memory(o->c->b->e, MAX_NAMES * sizeof *o->names);
        return;
    }
    for (int i = 0; i < o->list->n && !o->c->b->failed; i++) {
        const struct schema_part *p = &o->list->items[i];
        const cJSON *properties = schema_key(p, "properties");
        for (const cJSON *v = properties ? properties->child : NULL; v; v = v->next) {
            add_name(o, p, v->string, false);
        }
    }
    for (int i = 0; i < o->list->n && !o->c->b->failed; i++) {
        const struct schema_part *p = &o->list->items[i];
        const cJSON *required = schema_key(p, "required");
        for (const cJSON *v = required ? required->child : NULL; v; v = v->next) {
            if (!cJSON_IsString(v)) {
                schema_refuse(o->c, p->path, "required", "it must be a list of names");
                return;
            }
            add_name(o, p, v->valuestring, true);
        }
    }
}

/* patternProperties are the keys of others; beside named ones a key might be both. */
static void read_patterns(struct object *o)
{
    for (int i = 0; i < o->list->n; i++) {
        const struct schema_part *p = &o->list->items[i];
        const cJSON *patterns = schema_key(p, "patternProperties");
        if (!patterns || !patterns->child) {
            continue;
        }
        if (o->pattern || patterns->child->next || o->n_names > 0) {
            schema_refuse(o->c, p->path, "patternProperties",
                          "a key might match two of its patterns, or a named property, too");
            return;
        }
        o->pattern = p;
        o->open = true;
    }
}

static void read_additional(struct object *o)
{
    bool wanted = false;
    bool closed = false;
    for (int i = 0; i < o->list->n; i++) {
        const struct schema_part *p = &o->list->items[i];
        const cJSON *v = schema_key(p, "additionalProperties");
        wanted |= v && !cJSON_IsFalse(v);
        closed |= cJSON_IsFalse(v);
        if (cJSON_IsObject(schema_key(p, "unevaluatedProperties"))) {
            schema_refuse(o->c, p->path, "unevaluatedProperties", "write additionalProperties");
        }
    }
    o->open = wanted && !closed;
    read_patterns(o);
}

/* What the value of a property must satisfy. False: there must be none. */
static bool value_list(struct object *o, const char *name, struct schema_list *out)
{
    out->n = 0;
    for (int i = 0; i < o->list->n; i++) {
        const struct schema_part *p = &o->list->items[i];
        const cJSON *properties = schema_key(p, "properties");
        const cJSON *v =
            name && properties ? cJSON_GetObjectItemCaseSensitive(properties, name) : NULL;
        if (v) {
            const char *path = schema_path(o->c, p->path, "properties");
            schema_push(o->c, out, v, schema_path(o->c, path, name));
            continue;
        }
        v = schema_key(p, "additionalProperties");
        const cJSON *patterns = schema_key(p, "patternProperties");
        if (p == o->pattern && patterns) {
            v = patterns->child;
        }
        if (cJSON_IsFalse(v)) {
            return false;
        }
        if (v && !cJSON_IsTrue(v)) {
            schema_push(o->c, out, v, schema_path(o->c, p->path, "additionalProperties"));
        }
    }
    return !o->c->b->failed;
}

/* Counts that the properties keep by themselves, whichever of them there are. */
static void check_counts(struct object *o)
{
    int min = schema_count(o->c, o->list, "minProperties", false);
    int max = schema_count(o->c, o->list, "maxProperties", true);
    int n_required = 0;
    for (int i = 0; i < o->n_names; i++) {
        n_required += o->names[i].required;
    }
    for (int i = 0; i < o->list->n; i++) {
        const struct schema_part *p = &o->list->items[i];
        if (schema_key(p, "minProperties") && n_required < min) {
            schema_refuse(o->c, p->path, "minProperties", "name the properties in `required`");
        }
        if (schema_key(p, "maxProperties") && max >= 0 && (o->open || o->n_names > max)) {
            schema_refuse(o->c, p->path, "maxProperties",
                          "name the properties, no more than that, and no others");
        }
    }
}

/* ---- keys of others
 * ---------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct property *)a)->name, ((const struct property *)b)->name);
}

/* Characters of a key, without those that need an escape. */
static void key_chars(struct schema_compiler *c, int32_t from, struct codepoint_range *except,
                      int n_except, int32_t to)
{
    static const struct codepoint_range plain[] = {
        {0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0x7e}, {0xa0, 0x10ffff}};
    uint32_t next = 0;
    int n = codepoint_normalise(except, n_except, false);
    for (int i = 0; i <= n; i++) {
        uint32_t end = except && i < n ? except[i].lo : 0x110000;
        for (int k = 0; k < 4; k++) {
            struct codepoint_range r = {plain[k].lo > next ? plain[k].lo : next,
                                        plain[k].hi < end ? plain[k].hi : end - 1};
            if (next < end && r.lo <= r.hi) {
                builder_codepoints(c->b, from, &r, 1, to);
            }
        }
        next = except && i < n ? except[i].hi + 1 : next;
    }
}

/* Names first..end-1, sorted, agree in their first `at` bytes, where `from` is: keys that go
 * on differently reach `free`, keys that end and are none of them `end`. */
static void other_keys(struct object *o, const struct property *names, int n, size_t at,
                       int32_t from, int32_t free, int32_t end)
{
    struct codepoint_range *taken = arena_alloc(&o->c->arena, (size_t)n + 1, sizeof *taken);
    int n_taken = 0;
    bool is_name = false;
    for (int i = 0; i < n && taken && !o->c->b->failed;) {
        uint32_t ch = 0;
        const char *rest = names[i].name + at;
        size_t len = utf8_next(rest, strlen(rest), &ch);
        if (!*rest) {
            is_name = true;
            i++;
            continue;
        }
        int same = 1;
        while (i + same < n && strncmp(names[i + same].name + at, rest, len) == 0) {
            same++;
        }
        taken[n_taken++] = (struct codepoint_range){ch, ch};
        if (ch >= 0x20 && ch != '"' && ch != '\\' && ch != 0x7f && at < 512) {
            int32_t next = builder_text(o->c->b, from, rest, len);
            other_keys(o, names + i, same, at + len, next, free, end);
        }
        i += same;
    }
    if (!taken) {
        builder_fail(o->c->b, ERR_TOO_LARGE, "the schema has too many properties");
        return;
    }
    key_chars(o->c, from, taken, n_taken, free);
    if (!is_name) {
        builder_empty(o->c->b, from, end);
    }
}

/* "key": value, where the key is none of the names. */
static struct fragment other_member(struct object *o, const struct schema_list *values)
{
    struct schema_compiler *c = o->c;
    struct fragment f = new_fragment(c);
    int32_t open = builder_text(c->b, f.start, "\"", 1);
    int32_t close = builder_state(c->b);
    if (o->pattern) {
        const cJSON *patterns = schema_key(o->pattern, "patternProperties");
        const char *reason = NULL;
        int32_t end = regex_add(c->b, patterns->child->string, open, &reason);
        if (reason) {
            schema_refuse(c, o->pattern->path, "patternProperties", reason);
        }
        builder_empty(c->b, end < 0 ? open : end, close);
    } else {
        struct property *sorted = arena_alloc(&c->arena, (size_t)o->n_names + 1, sizeof *sorted);
        int32_t free = builder_state(c->b);
        if (!sorted) {
            builder_fail(c->b, ERR_TOO_LARGE, "the schema has too many properties");
            return f;
        }
        memcpy(sorted, o->names, (size_t)o->n_names * sizeof *sorted);
        qsort(sorted, (size_t)o->n_names, sizeof *sorted, compare_names);
        other_keys(o, sorted, o->n_names, 0, open, free, close);
        key_chars(c, free, NULL, 0, free);
        builder_empty(c->b, free, close);
    }
    int32_t colon = builder_text(c->b, close, "\":", 2);
    builder_call(c->b, add_ws(c, colon), schema_rule_of(c, values), f.end);
    return f;
}

/* ---- the object
 * -------------------------------------------------------------------------------------- */

static int32_t add_comma(struct schema_compiler *c, int32_t from)
{
    return add_ws(c, builder_text(c->b, add_ws(c, from), ",", 1));
}

/* "name": value from `from` to `to`. */
static void add_member(struct object *o, int32_t from, const char *name, int32_t to)
{
    struct schema_list values;
    if (!value_list(o, name, &values)) {
        return; /* it must not be there */
    }
    cJSON key = {.type = cJSON_String};
    char *text = arena_strndup(&o->c->arena, name, strlen(name));
    if (!text) {
        builder_fail(o->c->b, ERR_TOO_LARGE, "the schema has too many properties");
        return;
    }
    key.valuestring = text;
    struct fragment k = schema_literal(o->c, &key);
    builder_empty(o->c->b, from, k.start);
    int32_t colon = builder_text(o->c->b, k.end, ":", 1);
    builder_call(o->c->b, add_ws(o->c, colon), schema_rule_of(o->c, &values), to);
}

/* at[0]: no property has come yet; at[1]: one has. A line of such pairs, property by
 * property. */
static void add_properties(struct object *o, int32_t at[2])
{
    struct schema_compiler *c = o->c;
    for (int i = 0; i < o->n_names && !c->b->failed; i++) {
        int32_t next[2] = {builder_state(c->b), builder_state(c->b)};
        int32_t key = builder_state(c->b);
        builder_empty(c->b, at[0], key);
        builder_empty(c->b, add_comma(c, at[1]), key);
        add_member(o, key, o->names[i].name, next[1]);
        if (!o->names[i].required) {
            builder_empty(c->b, at[0], next[0]);
            builder_empty(c->b, at[1], next[1]);
        }
        at[0] = next[0];
        at[1] = next[1];
    }
}

static void add_others(struct object *o, int32_t at[2])
{
    struct schema_compiler *c = o->c;
    struct schema_list values;
    if (!o->open || !value_list(o, NULL, &values)) {
        return;
    }
    struct fragment other = other_member(o, &values);
    int32_t behind = builder_state(c->b);
    builder_empty(c->b, at[0], other.start);
    builder_empty(c->b, add_comma(c, at[1]), other.start);
    builder_empty(c->b, other.end, behind);
    builder_empty(c->b, behind, at[1]);
}

struct fragment schema_object(struct schema_compiler *c, const struct schema_list *list)
{
    bool any = true;
    for (int i = 0; i < list->n; i++) {
        any &= !(schema_implied_types(&list->items[i]) & TYPE_OBJECT);
    }
    if (any) {
        return schema_call(c, c->json[JSON_OBJECT]);
    }
    struct object o = {.c = c, .list = list};
    collect_names(&o);
    if (!c->b->failed) {
        read_additional(&o);
        check_counts(&o);
    }
    struct fragment f = new_fragment(c);
    if (c->b->failed) {
        return f;
    }
    int32_t open = add_ws(c, builder_text(c->b, f.start, "{", 1));
    int32_t at[2] = {open, builder_state(c->b)};
    add_properties(&o, at);
    add_others(&o, at);
    builder_bytes(c->b, at[0], '}', '}', f.end);
    builder_bytes(c->b, add_ws(c, at[1]), '}', '}', f.end);
    return f;
}

/* ---- the array
 * --------------------------------------------------------------------------------------- */

struct array {
    struct schema_compiler *c;
    const struct schema_list *list;
    int min, max; /* -1 = none */
    int n_prefix; /* the longest prefixItems */
    bool rest;    /* elements behind the prefix are wanted */
};

/* `items` as a list is the older way to write prefixItems. */
static const cJSON *prefix_of(const struct schema_part *p)
{
    const cJSON *items = schema_key(p, "items");
    const cJSON *prefix = schema_key(p, "prefixItems");
    return prefix ? prefix : cJSON_IsArray(items) ? items : NULL;
}

static const cJSON *rest_of(const struct schema_part *p, const char **name)
{
    const cJSON *items = schema_key(p, "items");
    *name = cJSON_IsArray(items) ? "additionalItems" : "items";
    return cJSON_IsArray(items) ? schema_key(p, "additionalItems") : items;
}

/* What element i satisfies; i == n_prefix: all behind. False: there is none. */
static bool element_list(struct array *a, int i, struct schema_list *out)
{
    out->n = 0;
    for (int k = 0; k < a->list->n; k++) {
        const struct schema_part *p = &a->list->items[k];
        const cJSON *prefix = prefix_of(p);
        const char *name = "prefixItems";
        const cJSON *v = prefix ? cJSON_GetArrayItem(prefix, i) : NULL;
        if (!v) {
            v = rest_of(p, &name);
        }
        if (cJSON_IsFalse(v)) {
            return false;
        }
        if (v && !cJSON_IsTrue(v)) {
            schema_push(a->c, out, v, schema_path(a->c, p->path, name));
        }
    }
    return !a->c->b->failed;
}

static void read_array(struct array *a)
{
    struct schema_compiler *c = a->c;
    bool given = false;
    a->min = schema_count(c, a->list, "minItems", false);
    a->max = schema_count(c, a->list, "maxItems", true);
    for (int i = 0; i < a->list->n; i++) {
        const struct schema_part *p = &a->list->items[i];
        const char *name;
        const cJSON *prefix = prefix_of(p);
        int n = prefix ? cJSON_GetArraySize(prefix) : 0;
        a->n_prefix = n > a->n_prefix ? n : a->n_prefix;
        given |= rest_of(p, &name) != NULL;
        if (cJSON_IsTrue(schema_key(p, "uniqueItems")) && !(a->max >= 0 && a->max <= 1)) {
            schema_refuse(c, p->path, "uniqueItems", "a grammar does not remember elements");
        }
        if (cJSON_IsObject(schema_key(p, "unevaluatedItems"))) {
            schema_refuse(c, p->path, "unevaluatedItems", "write items");
        }
    }
    /* behind a prefix only what is asked for */
    a->rest = given || a->n_prefix == 0 || a->min > a->n_prefix;
    if (a->n_prefix > GRAMMAR_MAX_REPEAT) {
        builder_fail(c->b, ERR_TOO_LARGE, "the schema has too many prefixItems");
    }
}

/* Elements behind the prefix: from `from` (the first has a comma before it, if `comma`), at
 * least min, at most max (-1 = any number). */
static int32_t add_rest(struct array *a, int32_t from, bool comma, int min, int max)
{
    struct schema_compiler *c = a->c;
    struct schema_list values;
    int32_t end = builder_state(c->b);
    if (min <= 0) {
        builder_empty(c->b, from, end);
    }
    if (!a->rest || max == 0 || !element_list(a, a->n_prefix, &values)) {
        return end;
    }
    int32_t rule = schema_rule_of(c, &values);
    int32_t first = builder_state(c->b);
    builder_call(c->b, comma ? add_comma(c, from) : from, rule, first);
    int32_t mark = c->b->n_states;
    struct fragment more = new_fragment(c);
    builder_call(c->b, add_comma(c, more.start), rule, more.end);
    struct fragment all =
        builder_repeat(c->b, mark, more, min > 1 ? min - 1 : 0, max < 0 ? -1 : max - 1);
    builder_empty(c->b, first, all.start);
    builder_empty(c->b, all.end, end);
    return end;
}

struct fragment schema_array(struct schema_compiler *c, const struct schema_list *list)
{
    struct array a = {.c = c, .list = list};
    read_array(&a);
    struct fragment f = new_fragment(c);
    if (c->b->failed || (a.max >= 0 && a.min > a.max)) {
        return f;
    }
    int32_t at = add_ws(c, builder_text(c->b, f.start, "[", 1));
    int32_t close = builder_state(c->b);
    if (a.n_prefix > 0 && a.min <= 0) {
        builder_empty(c->b, at, close);
    }
    for (int i = 0; i < a.n_prefix && (a.max < 0 || i < a.max) && !c->b->failed; i++) {
        struct schema_list values;
        int32_t next = builder_state(c->b);
        if (!element_list(&a, i, &values)) {
            break;
        }
        builder_call(c->b, i ? add_comma(c, at) : at, schema_rule_of(c, &values), next);
        at = next;
        if (i + 1 >= a.min) {
            builder_empty(c->b, at, close);
        }
    }
    if (a.max < 0 || a.max >= a.n_prefix) {
        int32_t end = add_rest(&a, at, a.n_prefix > 0, a.min - a.n_prefix,
                               a.max < 0 ? -1 : a.max - a.n_prefix);
        builder_empty(c->b, end, close);
    }
    builder_bytes(c->b, add_ws(c, close), ']', ']', f.end);
    return f;
}
