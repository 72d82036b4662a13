/* Routes that count and look, without the engine thread:
 *
 *   POST /tokenize     {"content"} as llama-server, {"prompt"} or {"messages"} as vLLM: the two
 *                      differ in whether BOS is added when nothing is said
 *   POST /detokenize   {"tokens"}; the text comes as llama-server's `content` and vLLM's `prompt`
 *   POST /apply-template              a chat as its template writes it
 *   POST /v1/chat/completions/input_tokens   what a chat would cost, pictures included;
 *        /v1/responses/input_tokens          the same of a response */
#include "server/task.h"

#include "base/alloc.h"
#include "base/utf8.h"
#include "server/json_fields.h"
#include "server/json_write.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

/* The state of all of them: the answer, complete when begin returns. */
static struct buf *answer_new(struct task *t, struct err *e)
{
    struct buf *out = mem_zalloc(1, sizeof *out);
    if (!out) {
        err_no_memory(e, sizeof *out);
        return NULL;
    }
    buf_init(out, LIMIT_ANSWER_BYTES);
    t->state = out;
    return out;
}

/* The last step of begin: 0, unless something failed or the answer did not fit. */
static int answer_check(const struct task *t, int rc, struct err *e)
{
    if (rc || !buf_failed(t->state)) {
        return rc;
    }
    return err_reason(e, ERR_TOO_LARGE, "answer_too_large",
                      "the answer has more than %zu bytes: ask for less at a time",
                      LIMIT_ANSWER_BYTES);
}

static void render(struct task *t, struct buf *out)
{
    const struct buf *answer = t->state;
    buf_append(out, answer->data, answer->len);
}

static void release(struct task *t)
{
    struct buf *answer = t->state;
    if (answer) {
        buf_free(answer);
        mem_free(answer);
    }
}

/* A body of these routes: its tree, and memory for what is made of it. */
struct body {
    cJSON *root;
    struct json_scan_info info;
    struct arena arena;
};

static int body_read(struct body *b, const struct task *t, struct err *e)
{
    *b = (struct body){0};
    arena_init(&b->arena, LIMIT_REQUEST_BYTES);
    b->root = json_parse_object(t->ex->body.data, t->ex->body.len, &b->info, e);
    if (!b->root) {
        return -1;
    }
    const cJSON *model = json_member(b->root, "model");
    if (model && !cJSON_IsString(model)) {
        return json_wrong_type(model, "model", "a string", e);
    }
    return model_check(engine_info(t->engine), model ? model->valuestring : NULL, e);
}

static void body_free(struct body *b)
{
    cJSON_Delete(b->root);
    arena_clear(&b->arena);
}

static int missing(const char *param, const char *what, struct err *e)
{
    err_reason(e, ERR_INVALID, "missing_required_parameter", "%s", what);
    return err_param(e, "%s", param);
}

/* -- a chat, prepared and not run ------------------------------------------------------------ */

/* The job of the task's body, which is a chat; *r is freed by the caller either way. */
static struct job *prepare_chat(struct task *t, enum request_kind what, struct chat_request *r,
                                struct err *e)
{
    struct chat_request_limits limits = task_limits(t->ex, t->engine);
    limits.no_stream = true;
    limits.what = what;
    if (chat_request_parse(r, t->ex->body.data, t->ex->body.len, &limits, e) ||
        model_check(engine_info(t->engine), r->model, e)) {
        return NULL;
    }
    task_identify(t->ex, &r->engine);
    return job_prepare(t->engine, &r->engine, e);
}

static int count_tokens(struct task *t, enum request_kind what, struct err *e)
{
    struct buf *out = answer_new(t, e);
    struct chat_request r = {0};
    struct json_writer w;
    struct job *j = out ? prepare_chat(t, what, &r, e) : NULL;
    if (j) {
        int text;
        int image;
        int all = job_prompt_rows(j, &text, &image);
        json_writer_init(&w, out);
        json_begin_object(&w);
        json_key(&w, "object");
        json_string(&w, "response.input_tokens");
        json_put_int(&w, "input_tokens", all);
        json_key(&w, "input_tokens_details");
        json_begin_object(&w);
        json_put_int(&w, "text_tokens", text);
        json_put_int(&w, "image_tokens", image);
        json_end_object(&w);
        json_put_int(&w, "compressed_tokens_at_most", job_prompt_bound(j));
        json_end_object(&w);
        job_free(j);
    }
    chat_request_free(&r);
    return answer_check(t, j ? 0 : -1, e);
}

static int begin_input_tokens(struct task *t, struct err *e)
{
    return count_tokens(t, REQUEST_CHAT, e);
}

static int begin_response_tokens(struct task *t, struct err *e)
{
    return count_tokens(t, REQUEST_RESPONSE, e);
}

static int begin_template(struct task *t, struct err *e)
{
    struct buf *out = answer_new(t, e);
    struct chat_request r = {0};
    struct chat_request_limits limits = task_limits(t->ex, t->engine);
    struct buf prompt;
    limits.no_stream = true;
    buf_init(&prompt, LIMIT_ANSWER_BYTES);
    int rc = -1;
    if (out && chat_request_parse(&r, t->ex->body.data, t->ex->body.len, &limits, e) == 0 &&
        model_check(engine_info(t->engine), r.model, e) == 0 &&
        engine_render_chat(t->engine, &r.engine.chat, r.engine.add_generation_prompt, &r.arena,
                           &prompt, e) == 0) {
        struct json_writer w;
        json_writer_init(&w, out);
        json_begin_object(&w);
        json_key(&w, "prompt");
        json_string_n(&w, buf_str(&prompt), prompt.len);
        json_end_object(&w);
        rc = 0;
    }
    buf_free(&prompt);
    chat_request_free(&r);
    return answer_check(t, rc, e);
}

const struct task_kind response_tokens_task = {
    .begin = begin_response_tokens, .render = render, .free = release};
const struct task_kind input_tokens_task = {
    .begin = begin_input_tokens, .render = render, .free = release};
const struct task_kind template_task = {.begin = begin_template, .render = render, .free = release};

/* -- tokenize -------------------------------------------------------------------------------- */

struct options {
    bool add_special, parse_special, with_pieces, return_token_strs;
};

#define OPTION(name, field)                                                                        \
    {                                                                                              \
        name, JSON_FIELD_BOOL, 0, 0, offsetof(struct options, field)                               \
    }

static const struct json_field option_table[] = {
    OPTION("add_special", add_special),
    OPTION("add_special_tokens", add_special),
    OPTION("parse_special", parse_special),
    OPTION("with_pieces", with_pieces),
    OPTION("return_token_strs", return_token_strs),
};

static void render_piece(struct json_writer *w, const struct engine *en, int32_t id)
{
    size_t len = 0;
    const char *text = engine_token_text(en, id, &len);
    if (utf8_valid_prefix(text, len) == len) {
        json_string_n(w, text, len);
        return;
    }
    json_begin_array(w); /* part of a character: its bytes */
    for (size_t i = 0; i < len; i++) {
        json_int(w, (unsigned char)text[i]);
    }
    json_end_array(w);
}

static void render_tokens(struct json_writer *w, const struct engine *en, const int32_t *ids, int n,
                          bool with_pieces)
{
    json_begin_array(w);
    for (int i = 0; i < n; i++) {
        if (with_pieces) {
            json_begin_object(w);
            json_put_int(w, "id", ids[i]);
            json_key(w, "piece");
            render_piece(w, en, ids[i]);
            json_end_object(w);
        } else {
            json_int(w, ids[i]);
        }
    }
    json_end_array(w);
}

/* count: with the rows of pictures, which are no tokens. */
static void render_tokenized(struct buf *out, const struct engine *en, const struct options *o,
                             const int32_t *ids, int n, int count)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_int(&w, "count", count);
    json_put_int(&w, "max_model_len", engine_info(en)->n_ctx);
    json_key(&w, "tokens");
    render_tokens(&w, en, ids, n, o->with_pieces);
    json_key(&w, "token_strs");
    if (o->return_token_strs) {
        json_begin_array(&w);
        for (int i = 0; i < n; i++) {
            size_t len = 0;
            const char *text = engine_token_text(en, ids[i], &len);
            json_string_n(&w, text, len);
        }
        json_end_array(&w);
    } else {
        json_null(&w);
    }
    json_end_object(&w);
}

static int tokenize_text(struct task *t, struct body *b, const cJSON *text, const char *param,
                         const struct options *o, struct err *e)
{
    int32_t *ids = NULL;
    int n = 0;
    if (!cJSON_IsString(text)) {
        return json_wrong_type(text, param, "a string", e);
    }
    size_t len = strlen(text->valuestring);
    if (len > LIMIT_TOKENIZE_BYTES) {
        err_reason(e, ERR_TOO_LARGE, "text_too_large", "'%s' has %zu bytes, more than %zu", param,
                   len, LIMIT_TOKENIZE_BYTES);
        return err_param(e, "%s", param);
    }
    if (engine_tokenize(t->engine, text->valuestring, len, o->add_special, o->parse_special,
                        &b->arena, &ids, &n, e)) {
        return -1;
    }
    render_tokenized(t->state, t->engine, o, ids, n, n);
    return 0;
}

static int tokenize_chat(struct task *t, struct body *b, const struct options *o, struct err *e)
{
    struct chat_request r = {0};
    int32_t *ids = NULL;
    int n = 0;
    struct job *j = prepare_chat(t, REQUEST_CHAT, &r, e);
    int rc = j ? job_prompt_tokens(j, &b->arena, &ids, &n, e) : -1;
    if (rc == 0) {
        render_tokenized(t->state, t->engine, o, ids, n, job_prompt_rows(j, NULL, NULL));
    }
    job_free(j);
    chat_request_free(&r);
    return rc;
}

static int tokenize(struct task *t, struct body *b, struct err *e)
{
    const cJSON *content = json_member(b->root, "content");
    const cJSON *prompt = json_member(b->root, "prompt");
    struct options o = {.add_special = !content, .parse_special = true};
    if (json_read_fields(b->root, &b->info, option_table,
                         sizeof option_table / sizeof *option_table, &o, e)) {
        return -1;
    }
    if (content || prompt) {
        return tokenize_text(t, b, content ? content : prompt, content ? "content" : "prompt", &o,
                             e);
    }
    if (json_member(b->root, "messages")) {
        return tokenize_chat(t, b, &o, e);
    }
    return missing("content", "give 'content', 'prompt' or 'messages' to tokenise", e);
}

static int begin_tokenize(struct task *t, struct err *e)
{
    struct body b;
    int rc = body_read(&b, t, e);
    if (rc == 0) {
        rc = answer_new(t, e) ? tokenize(t, &b, e) : -1;
    }
    body_free(&b);
    return answer_check(t, rc, e);
}

const struct task_kind tokenize_task = {.begin = begin_tokenize, .render = render, .free = release};

/* -- detokenize -------------------------------------------------------------------------------- */

static int token_at(const struct task *t, const cJSON *v, int i, int32_t *id, struct err *e)
{
    char at[32];
    snprintf(at, sizeof at, "tokens[%d]", i);
    if (!cJSON_IsNumber(v)) {
        return json_wrong_type(v, at, "a token id", e);
    }
    double x = v->valuedouble;
    int n_vocab = engine_info(t->engine)->n_vocab;
    if (!(x >= 0 && x < n_vocab && x == (int32_t)x)) {
        err_reason(e, ERR_RANGE, "out_of_range", "'%s' must be an id from 0 to %d", at,
                   n_vocab - 1);
        return err_param(e, "%s", at);
    }
    *id = (int32_t)x;
    return 0;
}

static int detokenize(struct task *t, const struct body *b, struct buf *text, struct err *e)
{
    const cJSON *tokens = json_member(b->root, "tokens");
    if (!tokens) {
        return missing("tokens", "'tokens' is missing", e);
    }
    if (!cJSON_IsArray(tokens)) {
        return json_wrong_type(tokens, "tokens", "an array of token ids", e);
    }
    int i = 0;
    for (const cJSON *v = tokens->child; v; v = v->next, i++) {
        int32_t id = 0;
        size_t len = 0;
        if (i == LIMIT_DETOKENIZE) {
            err_reason(e, ERR_TOO_LARGE, "too_many_tokens", "'tokens' takes at most %d",
                       LIMIT_DETOKENIZE);
            return err_param(e, "tokens");
        }
        if (token_at(t, v, i, &id, e)) {
            return -1;
        }
        const char *piece = engine_token_text(t->engine, id, &len);
        buf_append(text, piece, len);
    }
    return buf_failed(text) ? err_no_memory(e, text->len) : 0;
}

static int begin_detokenize(struct task *t, struct err *e)
{
    struct body b;
    struct buf text;
    buf_init(&text, LIMIT_ANSWER_BYTES);
    int rc = body_read(&b, t, e);
    if (rc == 0) {
        rc = answer_new(t, e) ? detokenize(t, &b, &text, e) : -1;
    }
    if (rc == 0) {
        struct json_writer w;
        json_writer_init(&w, t->state);
        json_begin_object(&w);
        json_key(&w, "content");
        json_string_n(&w, buf_str(&text), text.len);
        json_key(&w, "prompt");
        json_string_n(&w, buf_str(&text), text.len);
        json_end_object(&w);
    }
    buf_free(&text);
    body_free(&b);
    return answer_check(t, rc, e);
}

const struct task_kind detokenize_task = {
    .begin = begin_detokenize, .render = render, .free = release};
