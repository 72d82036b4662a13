#include "server/completion_response.h"

#include "base/utf8.h"
#include "server/limits.h"

#define OBJECT "text_completion"

/* -- logprobs ----------------------------------------------------------------------------- */

static struct buf *list_of(struct completion_logprobs *l, int i)
{
    struct buf *lists[] = {&l->tokens, &l->token_logprobs, &l->top_logprobs, &l->text_offset};
    return lists[i];
}

void completion_logprobs_init(struct completion_logprobs *l)
{
    l->offset = 0;
    for (int i = 0; i < 4; i++) {
        buf_init(list_of(l, i), LIMIT_ANSWER_BYTES);
    }
}

void completion_logprobs_clear(struct completion_logprobs *l)
{
    for (int i = 0; i < 4; i++) {
        buf_clear(list_of(l, i));
    }
}

void completion_logprobs_free(struct completion_logprobs *l)
{
    for (int i = 0; i < 4; i++) {
        buf_free(list_of(l, i));
    }
}

/* Part of a character as OpenAI writes it: bytes:\xe2\x98. As a key it must be told from
 * other parts. */
static void name_of(int32_t token, const struct token_names *names, struct buf *out)
{
    size_t len = 0;
    const char *text = names->text(names->ctx, token, &len);
    if (!text || utf8_valid_prefix(text, len) == len) {
        buf_append(out, text, len);
        return;
    }
    buf_puts(out, "bytes:");
    for (size_t i = 0; i < len; i++) {
        buf_printf(out, "\\x%02x", (unsigned char)text[i]);
    }
}

static int64_t characters(const char *text, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return count;
}

static double finite_logprob(float v)
{
    return v > -9999.0F ? (double)v : -9999.0;
}

static void add_top(struct json_writer *w, const struct token_info *t,
                    const struct token_names *names)
{
    struct buf name;
    buf_init(&name, 4096);
    json_begin_object(w);
    for (int i = 0; i < t->n_top; i++) {
        buf_clear(&name);
        name_of(t->top[i].token, names, &name);
        json_key(w, buf_str(&name));
        json_number(w, finite_logprob(t->top[i].logprob), 6);
    }
    json_end_object(w);
    buf_free(&name);
}

static void add_token(struct completion_logprobs *l, const struct token_info *t,
                      const struct token_names *names)
{
    struct json_writer w[4];
    struct buf name;
    size_t len = 0;
    const char *text = names->text(names->ctx, t->token, &len);
    for (int i = 0; i < 4; i++) {
        json_writer_init(&w[i], list_of(l, i));
        w[i].comma = list_of(l, i)->len > 0;
    }
    buf_init(&name, 4096);
    name_of(t->token, names, &name);
    json_string_n(&w[0], buf_str(&name), name.len);
    json_number(&w[1], finite_logprob(t->logprob), 6);
    add_top(&w[2], t, names);
    json_int(&w[3], l->offset);
    l->offset += text ? characters(text, len) : 0;
    buf_free(&name);
}

void completion_logprobs_add(struct completion_logprobs *l, const struct job_event *ev,
                             const struct token_names *names)
{
    for (int i = 0; i < ev->n_tokens; i++) {
        add_token(l, &ev->tokens[i], names);
    }
}

static void render_logprobs_of(struct json_writer *w, const struct completion_logprobs *l)
{
    static const char *const keys[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    const struct buf *lists[] = {&l->tokens, &l->token_logprobs, &l->top_logprobs, &l->text_offset};
    json_begin_object(w);
    for (int i = 0; i < 4; i++) {
        json_key(w, keys[i]);
        json_begin_array(w);
        if (lists[i]->len) {
            json_raw(w, lists[i]->data, lists[i]->len);
        }
        json_end_array(w);
    }
    json_end_object(w);
}

/* -- answers --------------------------------------------------------------------------------- */

static void render_choice(struct json_writer *w, int index, const char *text, size_t n,
                          const struct completion_logprobs *logprobs, enum job_finish finish)
{
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, index);
    json_key(w, "text");
    json_string_n(w, text ? text : "", n);
    json_key(w, "logprobs");
    if (logprobs) {
        render_logprobs_of(w, logprobs);
    } else {
        json_null(w);
    }
    json_key(w, "finish_reason");
    json_string(w, finish_name(finish));
    json_end_object(w);
}

void completion_chunk(const struct sse *s, int choice, const char *text, size_t n,
                      const struct completion_logprobs *logprobs, enum job_finish finish,
                      const struct job_result *bill)
{
    struct json_writer w;
    sse_begin(s, &w);
    render_choice(&w, choice, text, n, logprobs, finish);
    sse_end(s, &w, bill);
}

void completion_usage(const struct sse *s, const struct job_result *bill)
{
    struct json_writer w;
    sse_begin(s, &w);
    sse_end(s, &w, bill);
}

void completion_render(struct buf *out, const struct completion *c, const struct choice *choices,
                       const struct completion_logprobs *logprobs, int n_choices,
                       const struct job_result *bill)
{
    struct json_writer w;
    json_writer_init(&w, out);
    render_head(&w, c, OBJECT);
    json_key(&w, "choices");
    json_begin_array(&w);
    for (int i = 0; i < n_choices; i++) {
        const struct choice *one = &choices[i];
        render_choice(&w, i, buf_str(&one->text), one->text.len, logprobs ? &logprobs[i] : NULL,
                      one->finish);
    }
    json_end_array(&w);
    render_bill(&w, bill);
    json_end_object(&w);
}
