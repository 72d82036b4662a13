/* `prompt` of /v1/completions, `input` of /v1/embeddings: a string, strings, token ids, or lists of
 * them. */
#include "server/chat_request_impl.h"

#include "server/json_fields.h"
#include "server/limits.h"

#include <stdio.h>
#include <string.h>

#define FORMS "a string, token ids, or an array of either"

static int read_ids(struct chat_reader *c, const cJSON *v, const char *param,
                    struct completion_prompt *out, struct err *e)
{
    int n = cJSON_GetArraySize(v);
    out->ids = arena_alloc(&c->r->arena, (size_t)n, sizeof *out->ids);
    if (!out->ids) {
        return err_no_memory(e, (size_t)n * sizeof *out->ids);
    }
    for (const cJSON *id = v->child; id; id = id->next) {
        double x = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (!(x >= 0 && x < c->limits->n_vocab && x == (int32_t)x)) {
            err_reason(e, ERR_RANGE, "out_of_range", "'%s[%d]' must be a token id from 0 to %d",
                       param, out->n_ids, c->limits->n_vocab - 1);
            return err_param(e, "%s[%d]", param, out->n_ids);
        }
        out->ids[out->n_ids++] = (int32_t)x;
    }
    return 0;
}

static int read_one(struct chat_reader *c, const cJSON *v, const char *param,
                    struct completion_prompt *out, struct err *e)
{
    *out = (struct completion_prompt){0};
    if (cJSON_IsString(v)) {
        out->text = v->valuestring;
        out->len = strlen(v->valuestring);
        return 0;
    }
    if (!cJSON_IsArray(v) || !cJSON_IsNumber(v->child)) {
        return json_wrong_type(v, param, "a string or an array of token ids", e);
    }
    return read_ids(c, v, param, out, e);
}

static int check_count(const struct chat_reader *c, int n, const char *key, struct err *e)
{
    bool embeds = c->limits->what == REQUEST_EMBEDDING;
    int most = embeds ? LIMIT_EMBEDDINGS : LIMIT_PROMPTS;
    int n_choices = embeds ? 0 : c->r->engine.gen.n_choices;
    if (n > most || n * n_choices > LIMIT_CHOICES) {
        err_reason(e, ERR_TOO_LARGE, "too_many_prompts",
                   "'%s' takes at most %d entries, and completions %d answers in all", key, most,
                   LIMIT_CHOICES);
        return err_param(e, "%s", key);
    }
    return 0;
}

int chat_read_prompts(struct chat_reader *c, const cJSON *root, const char *key, struct err *e)
{
    const cJSON *v = json_member(root, key);
    if (!v) {
        err_reason(e, ERR_INVALID, "missing_required_parameter", "'%s' is missing", key);
        return err_param(e, "%s", key);
    }
    bool many = cJSON_IsArray(v) && v->child && !cJSON_IsNumber(v->child);
    int n = many ? cJSON_GetArraySize(v) : 1;
    if (!cJSON_IsString(v) && !(cJSON_IsArray(v) && v->child)) {
        return json_wrong_type(v, key, FORMS, e);
    }
    if (check_count(c, n, key, e)) {
        return -1;
    }
    struct completion_prompt *prompts = arena_alloc(&c->r->arena, (size_t)n, sizeof *prompts);
    if (!prompts) {
        return err_no_memory(e, (size_t)n * sizeof *prompts);
    }
    c->r->prompts = prompts;
    for (const cJSON *p = many ? v->child : v; c->r->n_prompts < n; p = p->next) {
        char at[32];
        if (many) {
            snprintf(at, sizeof at, "%s[%d]", key, c->r->n_prompts);
        } else {
            snprintf(at, sizeof at, "%s", key);
        }
        if (read_one(c, p, at, &prompts[c->r->n_prompts++], e)) {
            return -1;
        }
    }
    return 0;
}
