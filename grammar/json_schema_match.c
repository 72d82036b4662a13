/* Values against schemas, for enum and const; and whether two schemas exclude each other, for
 * oneOf. */
#include "grammar/json_schema_impl.h"

#include <math.h>
#include <string.h>

#define MOST_NESTED 4 /* properties of properties that are looked at to tell two apart */

int schema_type_of(const cJSON *v)
{
    if (cJSON_IsNumber(v)) {
        return v->valuedouble == floor(v->valuedouble) ? TYPE_INTEGER : TYPE_FRACTION;
    }
    return cJSON_IsString(v)   ? TYPE_STRING
           : cJSON_IsBool(v)   ? TYPE_BOOLEAN
           : cJSON_IsArray(v)  ? TYPE_ARRAY
           : cJSON_IsObject(v) ? TYPE_OBJECT
                               : TYPE_NULL;
}

static bool in_enum(const struct schema_part *p, const cJSON *value)
{
    const cJSON *constant = schema_key(p, "const");
    const cJSON *values = schema_key(p, "enum");
    bool found = !values;
    for (const cJSON *v = values ? values->child : NULL; v && !found; v = v->next) {
        found = cJSON_Compare(v, value, true);
    }
    return found && !(constant && !cJSON_Compare(constant, value, true));
}

static int length(const char *s)
{
    int n = 0;
    for (; *s; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
    }
    return n;
}

static bool number_fits(const struct schema_part *p, double x)
{
    const cJSON *v;
    return !((v = schema_key(p, "minimum")) && x < v->valuedouble) &&
           !((v = schema_key(p, "maximum")) && x > v->valuedouble) &&
           !((v = schema_key(p, "exclusiveMinimum")) && x <= v->valuedouble) &&
           !((v = schema_key(p, "exclusiveMaximum")) && x >= v->valuedouble);
}

static bool length_fits(const struct schema_part *p, const char *s)
{
    const cJSON *min = schema_key(p, "minLength");
    const cJSON *max = schema_key(p, "maxLength");
    return !(min && length(s) < min->valuedouble) && !(max && length(s) > max->valuedouble);
}

/* Keywords that are not compared with given values. */
static const char *not_compared(const struct schema_part *p, int type)
{
    static const struct {
        const char *name;
        int type;
    } names[] = {{"pattern", TYPE_STRING},           {"format", TYPE_STRING},
                 {"multipleOf", TYPE_NUMBER},        {"properties", TYPE_OBJECT},
                 {"required", TYPE_OBJECT},          {"additionalProperties", TYPE_OBJECT},
                 {"patternProperties", TYPE_OBJECT}, {"minProperties", TYPE_OBJECT},
                 {"maxProperties", TYPE_OBJECT},     {"items", TYPE_ARRAY},
                 {"prefixItems", TYPE_ARRAY},        {"minItems", TYPE_ARRAY},
                 {"maxItems", TYPE_ARRAY},           {"uniqueItems", TYPE_ARRAY}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((names[i].type & type) && schema_key(p, names[i].name)) {
            return names[i].name;
        }
    }
    return NULL;
}

bool schema_accepts(struct schema_compiler *c, const struct schema_list *list, const cJSON *value)
{
    int type = schema_type_of(value);
    for (int i = 0; i < list->n; i++) {
        const struct schema_part *p = &list->items[i];
        if (!(schema_types(c, p) & type) || !in_enum(p, value)) {
            return false;
        }
        const char *name = not_compared(p, type);
        if (name) {
            schema_refuse(c, p->path, name, "it stands beside enum or const, which say it all");
            return false;
        }
        if ((type & TYPE_NUMBER && !number_fits(p, value->valuedouble)) ||
            (type == TYPE_STRING && !length_fits(p, value->valuestring))) {
            return false;
        }
    }
    return !c->b->failed;
}

/* ---- excluding
 * ---------------------------------------------------------------------------------------- */

/* Types that a value of the list may have, with those of the values it names. */
static int types_of(struct schema_compiler *c, const struct schema_list *list)
{
    int types = TYPE_ANY;
    for (int i = 0; i < list->n; i++) {
        const struct schema_part *p = &list->items[i];
        const cJSON *values = schema_key(p, "enum");
        const cJSON *constant = schema_key(p, "const");
        int named = constant ? schema_type_of(constant) : 0;
        for (const cJSON *v = values ? values->child : NULL; v; v = v->next) {
            named |= schema_type_of(v);
        }
        types &= schema_types(c, p);
        types &= named ? named : TYPE_ANY;
    }
    return types;
}

/* Only objects are written for it. */
static bool writes_objects(struct schema_compiler *c, const struct schema_list *list)
{
    int types = types_of(c, list);
    int implied = 0;
    for (int i = 0; i < list->n; i++) {
        implied |= schema_implied_types(&list->items[i]);
    }
    return types == TYPE_OBJECT || (types == TYPE_ANY && implied == TYPE_OBJECT);
}

/* No value that `a` names is among those of `b`; false also when one of them names none. */
static bool values_differ(const struct schema_list *a, const struct schema_list *b)
{
    for (int i = 0; i < a->n; i++) {
        const cJSON *constant = schema_key(&a->items[i], "const");
        const cJSON *values = schema_key(&a->items[i], "enum");
        const cJSON *v = constant ? constant : values ? values->child : NULL;
        if (!v) {
            continue;
        }
        bool differ = true;
        for (; v && differ; v = constant ? NULL : v->next) {
            bool outside = false;
            for (int k = 0; k < b->n && !outside; k++) {
                outside = !in_enum(&b->items[k], v);
            }
            differ = outside;
        }
        if (differ) {
            return true;
        }
    }
    return false;
}

/* The schemas of a property. False: it must not be there. */
static bool property_list(struct schema_compiler *c, const struct schema_list *list,
                          const char *name, struct schema_list *out)
{
    out->n = 0;
    for (int i = 0; i < list->n; i++) {
        const struct schema_part *p = &list->items[i];
        const cJSON *properties = schema_key(p, "properties");
        const cJSON *v = properties ? cJSON_GetObjectItemCaseSensitive(properties, name) : NULL;
        if (!v && cJSON_IsFalse(schema_key(p, "additionalProperties")) &&
            !schema_key(p, "patternProperties")) {
            return false;
        }
        if (v) {
            schema_push(c, out, v, p->path);
        }
    }
    return true;
}

/* Every object of `a` has a property that makes it none of `b`. */
static bool property_excludes(struct schema_compiler *c, const struct schema_list *a,
                              const struct schema_list *b, int depth)
{
    for (int i = 0; i < a->n; i++) {
        const cJSON *required = schema_key(&a->items[i], "required");
        for (const cJSON *v = required ? required->child : NULL; v; v = v->next) {
            struct schema_list mine;
            struct schema_list theirs;
            if (!cJSON_IsString(v) || !property_list(c, a, v->valuestring, &mine)) {
                continue;
            }
            if (!property_list(c, b, v->valuestring, &theirs)) {
                return true;
            }
            if (schema_exclusive(c, &mine, &theirs, depth + 1)) {
                return true;
            }
        }
    }
    return false;
}

bool schema_exclusive(struct schema_compiler *c, const struct schema_list *a,
                      const struct schema_list *b, int depth)
{
    struct schema_list x;
    struct schema_list y;
    if (depth > MOST_NESTED) {
        return false;
    }
    if (!schema_flatten(c, a, &x) || !schema_flatten(c, b, &y)) {
        return true; /* one of them matches nothing */
    }
    if ((types_of(c, &x) & types_of(c, &y)) == 0 || values_differ(&x, &y) ||
        values_differ(&y, &x)) {
        return true;
    }
    return writes_objects(c, &x) && writes_objects(c, &y) &&
           (property_excludes(c, &x, &y, depth) || property_excludes(c, &y, &x, depth));
}
