/* POST /v1/embeddings: texts, token ids, or one chat with pictures, as vectors of length 1.
 *
 *   input             a string, token ids, or an array of either; what reads like a special
 *                     token in a string is text
 *   messages          instead of input, as vLLM has it: a chat through the template, one vector
 *   encoding_format   "float", or "base64" of little-endian fp32, which the Node client asks for
 *   dimensions        only the model's own: cut vectors are worth something only where a model
 *                     was trained for it
 * Fields of generation are checked and have no effect; compression acts as in a chat. */
#include "server/task.h"

#include "base/alloc.h"
#include "server/chat_response.h"
#include "server/json_fields.h"

#include <cjson/cJSON.h>
#include <nettle/base64.h>
#include <string.h>

struct embeddings {
    struct chat_request request;
    bool base64;
    struct buf entries; /* of "data", rendered so far, comma-separated */
    struct job_result bill;
};

/* -- the body ------------------------------------------------------------------------------- */

static int read_format(struct embeddings *m, struct err *e)
{
    const cJSON *v = json_member(m->request.root, "encoding_format");
    if (v && !cJSON_IsString(v)) {
        return json_wrong_type(v, "encoding_format", "a string", e);
    }
    m->base64 = v && strcmp(v->valuestring, "base64") == 0;
    if (v && !m->base64 && strcmp(v->valuestring, "float") != 0) {
        err_reason(e, ERR_INVALID, "invalid_value", "'encoding_format' must be float or base64");
        return err_param(e, "encoding_format");
    }
    return 0;
}

static int check_dimensions(const struct embeddings *m, int n_embd, struct err *e)
{
    const cJSON *v = json_member(m->request.root, "dimensions");
    if (v && !cJSON_IsNumber(v)) {
        return json_wrong_type(v, "dimensions", "a plain integer", e);
    }
    if (v && v->valuedouble != n_embd) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_dimensions",
                   "'dimensions': this model's vectors have %d and were not trained to be cut",
                   n_embd);
        return err_param(e, "dimensions");
    }
    return 0;
}

static int begin(struct task *t, struct err *e)
{
    struct exchange *ex = t->ex;
    const struct engine_info *info = engine_info(t->engine);
    struct embeddings *m = mem_zalloc(1, sizeof *m);
    struct chat_request_limits limits = task_limits(ex, t->engine);
    limits.no_stream = true;
    limits.what = REQUEST_EMBEDDING;
    if (!m) {
        return err_no_memory(e, sizeof *m);
    }
    t->state = m;
    buf_init(&m->entries, LIMIT_ANSWER_BYTES);
    if (chat_request_parse(&m->request, ex->body.data, ex->body.len, &limits, e) ||
        model_check(info, m->request.model, e) || read_format(m, e) ||
        check_dimensions(m, info->n_embd, e)) {
        return -1;
    }
    m->request.engine.purpose = JOB_EMBED;
    task_identify(ex, &m->request.engine);
    t->n_parts = m->request.prompts ? m->request.n_prompts : 1;
    t->width = info->n_parallel < TASK_WIDTH ? info->n_parallel : TASK_WIDTH;
    return 0;
}

/* -- parts ------------------------------------------------------------------------------------ */

static struct job *prepare(struct task *t, int part, struct err *e)
{
    const struct embeddings *m = t->state;
    struct engine_request one = m->request.engine;
    if (!m->request.prompts) {
        return job_prepare(t->engine, &one, e);
    }
    const struct completion_prompt *p = &m->request.prompts[part];
    struct chat_part text = {.type = CHAT_PART_TEXT, .text = p->text, .text_len = p->len};
    struct chat_message message = {.role = CHAT_USER, .parts = &text, .n_parts = 1};
    one.form = p->ids ? PROMPT_TOKENS : PROMPT_PLAIN;
    one.chat = (struct chat){.messages = &message, .n_messages = 1};
    one.prompt_ids = p->ids;
    one.n_prompt_ids = p->n_ids;
    struct job *j = job_prepare(t->engine, &one, e);
    if (!j && (strcmp(e->param, "prompt") == 0 || strcmp(e->param, "messages") == 0)) {
        err_param(e, "input[%d]", part);
    }
    return j;
}

static void put_base64(struct json_writer *w, const float *x, int n)
{
    uint8_t bytes[4];
    size_t n_text = BASE64_ENCODE_LENGTH(4 * (size_t)n) + BASE64_ENCODE_FINAL_LENGTH;
    char *text = mem_alloc(n_text, 1);
    struct base64_encode_ctx ctx;
    size_t at = 0;
    if (!text) {
        w->out->failed = true;
        return;
    }
    base64_encode_init(&ctx);
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        for (int b = 0; b < 4; b++) {
            bytes[b] = (uint8_t)(bits >> 8 * b);
        }
        at += base64_encode_update(&ctx, text + at, sizeof bytes, bytes);
    }
    at += base64_encode_final(&ctx, text + at);
    json_string_n(w, text, at);
    mem_free(text);
}

static int collect(struct task *t, int part, struct job *j, struct err *e)
{
    struct embeddings *m = t->state;
    const struct job_result *r = job_result(j);
    int n = engine_info(t->engine)->n_embd;
    struct json_writer w;
    json_writer_init(&w, &m->entries);
    w.comma = part > 0;
    json_begin_object(&w);
    json_key(&w, "object");
    json_string(&w, "embedding");
    json_key(&w, "index");
    json_int(&w, part);
    json_key(&w, "embedding");
    if (m->base64) {
        put_base64(&w, r->embedding, n);
    } else {
        json_begin_array(&w);
        for (int i = 0; i < n; i++) {
            json_number(&w, (double)r->embedding[i], 9);
        }
        json_end_array(&w);
    }
    json_end_object(&w);
    bill_add(&m->bill, r, part == 0);
    metrics_add_result(t->ex->server->metrics, r);
    if (buf_failed(&m->entries)) {
        return err_reason(e, ERR_TOO_LARGE, "answer_too_large",
                          "the answer has more than %zu bytes: send fewer inputs at a time, or ask "
                          "for base64",
                          LIMIT_ANSWER_BYTES);
    }
    return 0;
}

static void render(struct task *t, struct buf *out)
{
    struct embeddings *m = t->state;
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "object");
    json_string(&w, "list");
    json_key(&w, "data");
    json_begin_array(&w);
    json_raw(&w, m->entries.data, m->entries.len);
    json_end_array(&w);
    json_key(&w, "model");
    json_string(&w, engine_info(t->engine)->model_file);
    render_bill(&w, &m->bill);
    json_end_object(&w);
    t->ex->original_tokens = m->bill.report.original_rows;
    t->ex->prompt_tokens = m->bill.prompt_rows;
}

static void release(struct task *t)
{
    struct embeddings *m = t->state;
    if (m) {
        chat_request_free(&m->request);
        buf_free(&m->entries);
        mem_free(m);
    }
}

const struct task_kind embeddings_task = {begin, prepare, collect, render, release};
