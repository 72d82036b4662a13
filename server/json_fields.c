#include "server/json_fields.h"

#include "base/alloc.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

static void *tree_alloc(size_t n)
{
    return mem_alloc(n, 1);
}

/* cJSON's hooks are global; every tree of this process goes through mem_alloc. */
static void set_hooks(void)
{
    cJSON_Hooks hooks = {.malloc_fn = tree_alloc, .free_fn = mem_free};
    cJSON_InitHooks(&hooks);
}

static cJSON *parse(const char *s, size_t n, struct json_scan_info *info,
                    cJSON_bool (*is_wanted)(const cJSON *), const char *wanted, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_hooks);
    if (json_scan(s, n, info, e)) {
        return NULL;
    }
    cJSON *root = cJSON_ParseWithLengthOpts(s, n, NULL, 0);
    if (!root) {
        err_no_memory(e, n);
        return NULL;
    }
    if (!is_wanted(root)) {
        err_reason(e, ERR_TYPE, "invalid_type", "the body must be a JSON %s, not %s", wanted,
                   json_type_name(root));
        cJSON_Delete(root);
        return NULL;
    }
    return root;
}

cJSON *json_parse_object(const char *s, size_t n, struct json_scan_info *info, struct err *e)
{
    return parse(s, n, info, cJSON_IsObject, "object", e);
}

cJSON *json_parse_array(const char *s, size_t n, struct json_scan_info *info, struct err *e)
{
    return parse(s, n, info, cJSON_IsArray, "array", e);
}

const cJSON *json_member(const cJSON *object, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    return v && !cJSON_IsNull(v) ? v : NULL;
}

const char *json_type_name(const cJSON *v)
{
    if (cJSON_IsString(v)) {
        return "a string";
    }
    if (cJSON_IsNumber(v)) {
        return "a number";
    }
    if (cJSON_IsBool(v)) {
        return "a boolean";
    }
    if (cJSON_IsArray(v)) {
        return "an array";
    }
    return cJSON_IsObject(v) ? "an object" : "null";
}

int json_wrong_type(const cJSON *v, const char *param, const char *wanted, struct err *e)
{
    err_reason(e, ERR_TYPE, "invalid_type", "'%s' must be %s, not %s", param, wanted,
               json_type_name(v));
    return err_param(e, "%s", param);
}

static bool is_fractional(const struct json_scan_info *info, const char *name)
{
    for (int i = 0; info && i < info->n_fractional; i++) {
        if (strcmp(info->fractional[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static int read_bool(const cJSON *v, const struct json_field *f, void *out, struct err *e)
{
    if (!cJSON_IsBool(v)) {
        return json_wrong_type(v, f->name, "a boolean", e);
    }
    *(bool *)out = cJSON_IsTrue(v);
    return 0;
}

static int read_number(const cJSON *v, const struct json_field *f, bool fractional, void *out,
                       struct err *e)
{
    bool whole = f->type != JSON_FIELD_FLOAT;
    if (!cJSON_IsNumber(v) || (whole && fractional)) {
        return json_wrong_type(v, f->name, whole ? "a plain integer" : "a number", e);
    }
    double x = v->valuedouble;
    if (!isfinite(x) || x < f->min || x > f->max) {
        err_reason(e, ERR_RANGE, "out_of_range", "'%s' must be between %.15g and %.15g", f->name,
                   f->min, f->max);
        return err_param(e, "%s", f->name);
    }
    if (f->type == JSON_FIELD_INT) {
        *(int *)out = (int)x;
    } else if (f->type == JSON_FIELD_INT64) {
        *(int64_t *)out = (int64_t)x;
    } else {
        *(float *)out = (float)x;
    }
    return 0;
}

int json_read_fields(const cJSON *object, const struct json_scan_info *info,
                     const struct json_field *fields, size_t n, void *out, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct json_field *f = &fields[i];
        const cJSON *v = json_member(object, f->name);
        if (!v) {
            continue;
        }
        void *at = (char *)out + f->offset;
        int rc = f->type == JSON_FIELD_BOOL
                     ? read_bool(v, f, at, e)
                     : read_number(v, f, is_fractional(info, f->name), at, e);
        if (rc) {
            return rc;
        }
    }
    return 0;
}
