/* `compression` of a request: "off", a profile, or an object; and the X-Compression
 * header, for clients that cannot add a field. configuration (+) header (+) field:
 * the more particular wins. */
#include "server/chat_request_impl.h"

#include "server/json_fields.h"

#include <string.h>

/* "off" is what was in force, uncompressed: a prompt is the same with it and without. */
static int set_profile(struct plan *p, const char *name, const char *param, struct err *e)
{
    int rc = strcmp(name, "off") == 0 ? plan_turn_off(p, e) : plan_from_profile(p, name, e);
    return rc ? err_param(e, "%s", param) : 0;
}

static int set_option(struct plan *p, enum modality m, const cJSON *v, struct err *e)
{
    if (cJSON_IsNumber(v)) {
        return plan_set_number(p, m, v->string, v->valuedouble, e);
    }
    if (cJSON_IsBool(v)) {
        return plan_set_number(p, m, v->string, cJSON_IsTrue(v) ? 1 : 0, e);
    }
    if (cJSON_IsString(v)) {
        return plan_set_text(p, m, v->string, v->valuestring, e);
    }
    char at[96];
    snprintf(at, sizeof at, "compression.%s.%.40s", modality_name(m), v->string);
    return json_wrong_type(v, at, "a number, a string or a boolean", e);
}

/* The method first, whatever the order of the keys: it resets the options. */
static int set_modality(struct plan *p, enum modality m, const cJSON *v, struct err *e)
{
    char at[64];
    snprintf(at, sizeof at, "compression.%s", modality_name(m));
    if (cJSON_IsString(v)) {
        return plan_set_method(p, m, v->valuestring, e);
    }
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, at, "an object or the name of a method", e);
    }
    const cJSON *method = json_member(v, "method");
    snprintf(at, sizeof at, "compression.%s.method", modality_name(m));
    if (method && !cJSON_IsString(method)) {
        return json_wrong_type(method, at, "a string", e);
    }
    if (method && plan_set_method(p, m, method->valuestring, e)) {
        return -1;
    }
    for (const cJSON *o = v->child; o; o = o->next) {
        if (strcmp(o->string, "method") != 0 && !cJSON_IsNull(o) && set_option(p, m, o, e)) {
            return -1;
        }
    }
    return 0;
}

/* true, false, or an object, which switches it on unless it says otherwise. */
static int set_guard(struct plan *p, const cJSON *v, struct err *e)
{
    if (cJSON_IsBool(v)) {
        return plan_set_guard(p, "on", cJSON_IsTrue(v), e);
    }
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, "compression.guard", "an object, true or false", e);
    }
    p->guard.on = true;
    for (const cJSON *o = v->child; o; o = o->next) {
        char at[96];
        snprintf(at, sizeof at, "compression.guard.%.40s", o->string);
        bool is_switch = strcmp(o->string, "on") == 0;
        if (cJSON_IsNull(o)) {
            continue;
        }
        if (is_switch ? !cJSON_IsBool(o) : !cJSON_IsNumber(o)) {
            return json_wrong_type(o, at, is_switch ? "true or false" : "a number", e);
        }
        if (!is_switch && plan_set_guard(p, o->string, o->valuedouble, e)) {
            return -1;
        }
    }
    const cJSON *on = json_member(v, "on");
    return on ? plan_set_guard(p, "on", cJSON_IsTrue(on), e) : 0;
}

static int set_member(struct plan *p, const cJSON *v, struct err *e)
{
    for (int m = 0; m < MODALITY_COUNT; m++) {
        if (strcmp(v->string, modality_name((enum modality)m)) == 0) {
            return set_modality(p, (enum modality)m, v, e);
        }
    }
    if (strcmp(v->string, "guard") == 0) {
        return set_guard(p, v, e);
    }
    if (strcmp(v->string, "budget_ms") == 0) {
        return cJSON_IsNumber(v) ? plan_set_budget(p, v->valuedouble, e)
                                 : json_wrong_type(v, "compression.budget_ms", "a number", e);
    }
    err_reason(e, ERR_INVALID, "unknown_parameter",
               "'compression' takes profile, image, text, lm, guard and budget_ms, not '%.40s'",
               v->string);
    return err_param(e, "compression.%.40s", v->string);
}

static int set_object(struct plan *p, const cJSON *v, struct err *e)
{
    const cJSON *profile = json_member(v, "profile");
    if (profile && !cJSON_IsString(profile)) {
        return json_wrong_type(profile, "compression.profile", "a string", e);
    }
    if (profile && set_profile(p, profile->valuestring, "compression.profile", e)) {
        return -1;
    }
    for (const cJSON *o = v->child; o; o = o->next) {
        if (strcmp(o->string, "profile") != 0 && !cJSON_IsNull(o) && set_member(p, o, e)) {
            return -1;
        }
    }
    return 0;
}

int chat_plan_parse(const cJSON *v, const struct chat_request_limits *limits, struct plan *p,
                    struct err *e)
{
    const char *header = limits->header_profile;
    *p = *limits->default_plan;
    if (header && set_profile(p, header, "X-Compression", e)) {
        return -1;
    }
    if (!v) {
        return 0;
    }
    if (cJSON_IsString(v)) {
        return set_profile(p, v->valuestring, "compression", e);
    }
    return cJSON_IsObject(v) ? set_object(p, v, e)
                             : json_wrong_type(v, "compression", "a profile or an object", e);
}

int chat_read_compression(struct chat_reader *c, const cJSON *root, struct err *e)
{
    return chat_plan_parse(json_member(root, "compression"), c->limits, &c->r->engine.plan, e);
}
