/* POST /v1/compress: what plans make of a chat request, without an answer. The body is that
 * of /v1/chat/completions (fields of generation are checked and have no effect) and
 *
 *   plans   array of what `compression` may be; absent: `compression` alone if it is given,
 *           else every profile
 *
 * One job for each plan, one after the other: pictures that a plan has shown once come from
 * the image cache. GET /v1/compression/methods is in api_methods.c. */
#include "server/task.h"

#include "base/alloc.h"
#include "server/chat_response.h"
#include "server/compress_response.h"
#include "server/json_fields.h"

#include <cjson/cJSON.h>
#include <string.h>

struct preview {
    struct chat_request request;
    struct plan plans[LIMIT_PREVIEW_PLANS];
    struct buf asked[LIMIT_PREVIEW_PLANS]; /* JSON, as it came */
    struct buf entries;                    /* of "plans", rendered so far, comma-separated */
};

/* "compression.image.ratio" is "plans[2].image.ratio" here; the header keeps its name. */
static int name_plan(struct err *e, int i)
{
    static const char field[] = "compression";
    char rest[sizeof e->param];
    if (strncmp(e->param, field, sizeof field - 1) != 0) {
        return -1;
    }
    memcpy(rest, e->param + sizeof field - 1, sizeof rest - (sizeof field - 1));
    return err_param(e, "plans[%d]%s", i, rest);
}

static int keep_asked(struct buf *out, const cJSON *v, struct err *e)
{
    char *text = cJSON_PrintUnformatted(v);
    if (!text || buf_puts(out, text)) {
        cJSON_free(text);
        return err_no_memory(e, LIMIT_BODY_BYTES);
    }
    cJSON_free(text);
    return 0;
}

static int read_plans(struct preview *p, const struct chat_request_limits *limits, const cJSON *v,
                      int *n, struct err *e)
{
    if (!cJSON_IsArray(v)) {
        return json_wrong_type(v, "plans", "an array of profiles and objects", e);
    }
    for (const cJSON *item = v->child; item; item = item->next, ++*n) {
        if (*n == LIMIT_PREVIEW_PLANS) {
            err_reason(e, ERR_TOO_LARGE, "too_many_plans", "'plans' takes at most %d",
                       LIMIT_PREVIEW_PLANS);
            return err_param(e, "plans");
        }
        if (chat_plan_parse(item, limits, &p->plans[*n], e)) {
            return name_plan(e, *n);
        }
        if (keep_asked(&p->asked[*n], item, e)) {
            return -1;
        }
    }
    if (*n == 0) {
        err_reason(e, ERR_RANGE, "invalid_value",
                   "'plans' must not be empty; leave it out for all "
                   "profiles");
        return err_param(e, "plans");
    }
    return 0;
}

static int all_profiles(struct preview *p, int *n, struct err *e)
{
    for (; *n < LIMIT_PREVIEW_PLANS && plan_profile_name(*n); ++*n) {
        const char *name = plan_profile_name(*n);
        if (plan_from_profile(&p->plans[*n], name, e)) {
            return -1;
        }
        buf_printf(&p->asked[*n], "\"%s\"", name);
    }
    return 0;
}

static int choose_plans(struct task *t, const struct chat_request_limits *limits, struct err *e)
{
    struct preview *p = t->state;
    const cJSON *root = p->request.root;
    const cJSON *plans = json_member(root, "plans");
    const cJSON *one = json_member(root, "compression");
    if (plans) {
        return read_plans(p, limits, plans, &t->n_parts, e);
    }
    if (!one) {
        return all_profiles(p, &t->n_parts, e);
    }
    p->plans[0] = p->request.engine.plan;
    t->n_parts = 1;
    return keep_asked(&p->asked[0], one, e);
}

static int begin(struct task *t, struct err *e)
{
    struct exchange *ex = t->ex;
    struct preview *p = mem_zalloc(1, sizeof *p);
    struct chat_request_limits limits = task_limits(ex, t->engine);
    limits.no_stream = true;
    if (!p) {
        return err_no_memory(e, sizeof *p);
    }
    t->state = p;
    buf_init(&p->entries, LIMIT_ANSWER_BYTES);
    for (int i = 0; i < LIMIT_PREVIEW_PLANS; i++) {
        buf_init(&p->asked[i], LIMIT_BODY_BYTES);
    }
    if (chat_request_parse(&p->request, ex->body.data, ex->body.len, &limits, e) ||
        model_check(engine_info(t->engine), p->request.model, e)) {
        return -1;
    }
    p->request.engine.purpose = JOB_PREVIEW;
    task_identify(ex, &p->request.engine);
    return choose_plans(t, &limits, e);
}

static struct job *prepare(struct task *t, int part, struct err *e)
{
    struct preview *p = t->state;
    p->request.engine.plan = p->plans[part];
    return job_prepare(t->engine, &p->request.engine, e);
}

static int collect(struct task *t, int part, struct job *j, struct err *e)
{
    struct preview *p = t->state;
    if (part > 0) {
        buf_putc(&p->entries, ',');
    }
    metrics_add_pictures(t->ex->server->metrics, job_result(j));
    render_preview(&p->entries, buf_str(&p->asked[part]), job_result(j));
    if (buf_failed(&p->entries)) {
        return err_reason(e, ERR_TOO_LARGE, "answer_too_large",
                          "the answer has more than %zu bytes: ask for fewer plans at a time, or "
                          "without return_overlay",
                          LIMIT_ANSWER_BYTES);
    }
    return 0;
}

static void render(struct task *t, struct buf *out)
{
    const struct preview *p = t->state;
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "object");
    json_string(&w, "compression.preview");
    json_key(&w, "model");
    json_string(&w, engine_info(t->engine)->model_file);
    json_key(&w, "plans");
    json_begin_array(&w);
    json_raw(&w, p->entries.data, p->entries.len);
    json_end_array(&w);
    json_end_object(&w);
}

static void release(struct task *t)
{
    struct preview *p = t->state;
    if (p) {
        chat_request_free(&p->request);
        for (int i = 0; i < LIMIT_PREVIEW_PLANS; i++) {
            buf_free(&p->asked[i]);
        }
        buf_free(&p->entries);
        mem_free(p);
    }
}

const struct task_kind compress_task = {begin, prepare, collect, render, release};
