#include "server/lora_scales.h"

#include "engine/engine.h"
#include "server/json_fields.h"

#include <cjson/cJSON.h>
#include <math.h>

static int bad_entry(struct err *e, enum err_code code, const char *param, int i,
                     const char *member, const char *what)
{
    err_reason(e, code, code == ERR_TYPE ? "invalid_type" : "invalid_value", "'%s[%d].%s' %s",
               param, i, member, what);
    return err_param(e, "%s[%d].%s", param, i, member);
}

static int read_entry(const cJSON *v, const char *param, int i, int n_loras, float *scales,
                      bool *seen, struct err *e)
{
    const cJSON *id = json_member(v, "id");
    const cJSON *scale = json_member(v, "scale");
    if (!cJSON_IsNumber(id) || id->valuedouble != floor(id->valuedouble)) {
        return bad_entry(e, ERR_TYPE, param, i, "id", "must be an integer");
    }
    if (id->valuedouble < 0 || id->valuedouble >= n_loras) {
        return bad_entry(e, ERR_RANGE, param, i, "id", "is no adapter; see GET /lora-adapters");
    }
    if (!cJSON_IsNumber(scale)) {
        return bad_entry(e, ERR_TYPE, param, i, "scale", "must be a number");
    }
    if (!(fabs(scale->valuedouble) <= ENGINE_LORA_MAX_SCALE)) {
        return bad_entry(e, ERR_RANGE, param, i, "scale", "must be from -100 to 100");
    }
    int at = (int)id->valuedouble;
    if (seen[at]) {
        return bad_entry(e, ERR_INVALID, param, i, "id", "was there before");
    }
    seen[at] = true;
    scales[at] = (float)scale->valuedouble;
    return 0;
}

int lora_scales_read(const cJSON *list, const char *param, int n_loras, float *scales,
                     struct err *e)
{
    bool seen[ENGINE_MAX_LORAS] = {false};
    if (!cJSON_IsArray(list)) {
        return json_wrong_type(list, param, "an array of {id, scale}", e);
    }
    for (int i = 0; i < n_loras; i++) {
        scales[i] = 0;
    }
    int i = 0;
    for (const cJSON *v = list->child; v; v = v->next, i++) {
        if (!cJSON_IsObject(v)) {
            return json_wrong_type(v, param, "an array of {id, scale}", e);
        }
        if (read_entry(v, param, i, n_loras, scales, seen, e)) {
            return -1;
        }
    }
    return 0;
}
