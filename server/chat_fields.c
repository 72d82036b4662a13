/* Everything of a chat request but its messages and its compression. */
#include "server/chat_request_impl.h"

#include "server/json_fields.h"
#include "server/limits.h"
#include "server/lora_scales.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SEED_MAX          9007199254740991.0 /* 2^53 - 1 */
#define COMPLETION_TOKENS 16                 /* as OpenAI, where nothing is said */

/* Where the tables write before the values go to their places. */
struct fields {
    int max_tokens, max_completion_tokens;
    float temperature, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
    int top_k, repeat_last_n;
    int64_t seed;
    int n, top_logprobs, max_draft, n_logprobs, best_of;
    bool echo;
    bool stream, logprobs, ignore_eos, return_progress, cache_prompt, timings_per_token;
    bool return_overlay, add_generation_prompt;
};

#define FIELD(name, type, min, max)                                                                \
    {                                                                                              \
#name, JSON_FIELD_##type, min, max, offsetof(struct fields, name)                          \
    }

#define N_FIELDS(table) (sizeof(table) / sizeof *(table))

/* Of every route that generates. */
static const struct json_field table[] = {
    FIELD(max_tokens, INT, 1, INT32_MAX),
    FIELD(max_completion_tokens, INT, 1, INT32_MAX),
    FIELD(temperature, FLOAT, 0, 2),
    FIELD(top_p, FLOAT, 0.0000001, 1),
    FIELD(n, INT, 1, LIMIT_CHOICES),
    FIELD(seed, INT64, -SEED_MAX, SEED_MAX),
    FIELD(frequency_penalty, FLOAT, -2, 2),
    FIELD(presence_penalty, FLOAT, -2, 2),
    FIELD(stream, BOOL, 0, 0),
    /* llama.cpp's */
    FIELD(top_k, INT, 0, LIMIT_TOP_K),
    FIELD(min_p, FLOAT, 0, 1),
    FIELD(repeat_penalty, FLOAT, 0.01, 10),
    FIELD(repeat_last_n, INT, -1, LIMIT_REPEAT_LAST_N),
    FIELD(ignore_eos, BOOL, 0, 0),
    FIELD(return_progress, BOOL, 0, 0),
    FIELD(cache_prompt, BOOL, 0, 0),
    FIELD(timings_per_token, BOOL, 0, 0),
    FIELD(add_generation_prompt, BOOL, 0, 0),
    /* ours */
    FIELD(return_overlay, BOOL, 0, 0),
    {"speculative.n_max", JSON_FIELD_INT, 0, INT32_MAX, offsetof(struct fields, max_draft)},
};

static const struct json_field chat_table[] = {
    FIELD(logprobs, BOOL, 0, 0),
    FIELD(top_logprobs, INT, 0, LIMIT_TOP_LOGPROBS),
};

/* Completions say with one number what chat says with two. */
static const struct json_field completion_table[] = {
    {"logprobs", JSON_FIELD_INT, 0, LIMIT_TOP_LOGPROBS, offsetof(struct fields, n_logprobs)},
    FIELD(best_of, INT, 1, LIMIT_CHOICES),
    FIELD(echo, BOOL, 0, 0),
};

static void load_defaults(struct fields *f, const struct chat_reader *c)
{
    const struct generation_params *g = &c->r->engine.gen;
    *f = (struct fields){
        .max_tokens = g->max_tokens,
        .max_completion_tokens = 0,
        .temperature = g->temperature,
        .top_p = g->top_p,
        .min_p = g->min_p,
        .repeat_penalty = g->repeat_penalty,
        .frequency_penalty = g->frequency_penalty,
        .presence_penalty = g->presence_penalty,
        .top_k = g->top_k,
        .repeat_last_n = g->penalty_last_n,
        .seed = -1,
        .n = 1,
        .top_logprobs = -1,
        .n_logprobs = -1,
        .max_draft = g->max_draft,
        .cache_prompt = true,
        .add_generation_prompt = c->limits->what != REQUEST_EMBEDDING,
    };
}

/* What completions have and chat does not. */
static int store_completion(struct chat_reader *c, const struct fields *f, struct err *e)
{
    struct generation_params *g = &c->r->engine.gen;
    if (f->best_of && f->best_of != f->n) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter",
                   "'best_of' must be the same as 'n': every answer is returned");
        return err_param(e, "best_of");
    }
    if (f->echo && f->n_logprobs >= 0) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter",
                   "'echo' comes without 'logprobs': those of the prompt are not kept");
        return err_param(e, "echo");
    }
    g->n_top_logprobs = f->n_logprobs;
    if (!f->max_tokens && !f->max_completion_tokens) {
        g->max_tokens = COMPLETION_TOKENS;
    }
    c->r->echo = f->echo;
    return 0;
}

static int store(struct chat_reader *c, const struct fields *f, struct err *e)
{
    struct chat_request *r = c->r;
    struct generation_params *g = &r->engine.gen;
    bool stream = f->stream && !c->limits->no_stream;
    if (f->top_logprobs >= 0 && !f->logprobs) {
        err_reason(e, ERR_INVALID, "invalid_value", "'top_logprobs' needs 'logprobs': true");
        return err_param(e, "top_logprobs");
    }
    if (f->return_overlay && stream) {
        err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter",
                   "'return_overlay' comes with a whole answer, not with a stream");
        return err_param(e, "return_overlay");
    }
    r->engine.overlay = f->return_overlay;
    g->max_tokens = f->max_completion_tokens ? f->max_completion_tokens : f->max_tokens;
    g->temperature = f->temperature;
    g->top_p = f->top_p;
    g->min_p = f->min_p;
    g->repeat_penalty = f->repeat_penalty;
    g->frequency_penalty = f->frequency_penalty;
    g->presence_penalty = f->presence_penalty;
    g->top_k = f->top_k;
    g->penalty_last_n = f->repeat_last_n;
    g->ignore_eos = f->ignore_eos;
    g->max_draft = f->max_draft;
    g->n_choices = f->n;
    g->n_top_logprobs = !f->logprobs ? -1 : f->top_logprobs < 0 ? 0 : f->top_logprobs;
    r->seed_given = f->seed != -1;
    g->seed = r->seed_given ? (uint64_t)f->seed : 0;
    r->stream = stream;
    r->return_progress = f->return_progress;
    r->engine.cache_prompt = f->cache_prompt;
    r->engine.add_generation_prompt = f->add_generation_prompt;
    return c->limits->what == REQUEST_COMPLETION ? store_completion(c, f, e) : 0;
}

/* -- what would change the answer and is not there yet ------------------------------- */

/* A value that asks for nothing: null, false, "", [], {}, or this number. */
struct unsupported {
    const char *name;
    double neutral;
};

static const struct unsupported unsupported[] = {
    {"functions", 0},
    {"audio", 0},
    {"web_search_options", 0},
    {"chat_template", 0},
    {"chat_template_kwargs", 0},
    {"mirostat", 0},
    {"typical_p", 1},
    {"dry_multiplier", 0},
    {"xtc_probability", 0},
    {"dynatemp_range", 0},
    {"n_probs", 0},
    {"samplers", 0},
    {"n_keep", 0},
    {"suffix", 0},
};

static bool asks_for_nothing(const cJSON *v, double neutral)
{
    if (cJSON_IsNumber(v)) {
        return v->valuedouble == neutral;
    }
    if (cJSON_IsString(v)) {
        return v->valuestring[0] == '\0';
    }
    return cJSON_IsFalse(v) || ((cJSON_IsArray(v) || cJSON_IsObject(v)) && !v->child);
}

static int not_supported(const char *param, struct err *e)
{
    err_reason(e, ERR_UNSUPPORTED, "unsupported_parameter", "'%s' is not supported; leave it out",
               param);
    return err_param(e, "%s", param);
}

static int refuse_unsupported(const cJSON *root, struct err *e)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const cJSON *v = json_member(root, unsupported[i].name);
        if (v && !asks_for_nothing(v, unsupported[i].neutral)) {
            return not_supported(unsupported[i].name, e);
        }
    }
    return 0;
}

/* Choices by name of which only some can be kept: without tools, "none" and "auto" are
 * the same. */
static int check_word(const cJSON *v, const char *param, const char *a, const char *b,
                      struct err *e)
{
    if (!v ||
        (cJSON_IsString(v) && (strcmp(v->valuestring, a) == 0 || strcmp(v->valuestring, b) == 0))) {
        return 0;
    }
    return not_supported(param, e);
}

static int check_modalities(const cJSON *root, struct err *e)
{
    const cJSON *v = json_member(root, "modalities");
    if (!v) {
        return 0;
    }
    if (!cJSON_IsArray(v)) {
        return json_wrong_type(v, "modalities", "an array", e);
    }
    for (const cJSON *m = v->child; m; m = m->next) {
        if (check_word(m, "modalities", "text", "text", e)) {
            return -1;
        }
    }
    return 0;
}

static int check_supported(const cJSON *root, struct err *e)
{
    if (refuse_unsupported(root, e) || check_modalities(root, e)) {
        return -1;
    }
    return check_word(json_member(root, "function_call"), "function_call", "none", "auto", e);
}

/* -- lists and objects ----------------------------------------------------------------- */

static int stop_string(const cJSON *v, const char *param, const char **out, struct err *e)
{
    if (!cJSON_IsString(v)) {
        return json_wrong_type(v, param, "a string", e);
    }
    size_t n = strlen(v->valuestring);
    if (n == 0 || n > LIMIT_STOP_BYTES) {
        err_reason(e, ERR_RANGE, "invalid_value", "'%s' must have 1 to %d bytes", param,
                   LIMIT_STOP_BYTES);
        return err_param(e, "%s", param);
    }
    *out = v->valuestring;
    return 0;
}

static int read_stop(struct chat_request *r, const cJSON *root, struct err *e)
{
    const cJSON *v = json_member(root, "stop");
    if (!v) {
        return 0;
    }
    const char **stop = arena_alloc(&r->arena, LIMIT_STOP, sizeof *stop);
    if (!stop) {
        return err_no_memory(e, LIMIT_STOP * sizeof *stop);
    }
    r->engine.gen.stop = stop;
    if (cJSON_IsString(v)) {
        r->engine.gen.n_stop = 1;
        return stop_string(v, "stop", &stop[0], e);
    }
    if (!cJSON_IsArray(v)) {
        return json_wrong_type(v, "stop", "a string or an array of strings", e);
    }
    int n = 0;
    for (const cJSON *s = v->child; s; s = s->next, n++) {
        char param[32];
        snprintf(param, sizeof param, "stop[%d]", n);
        if (n == LIMIT_STOP) {
            err_reason(e, ERR_TOO_LARGE, "invalid_value", "'stop' takes at most %d strings",
                       LIMIT_STOP);
            return err_param(e, "stop");
        }
        if (stop_string(s, param, &stop[n], e)) {
            return -1;
        }
    }
    r->engine.gen.n_stop = n;
    return 0;
}

static int bad_bias(struct err *e, enum err_code code, const char *what)
{
    err_reason(e, code, code == ERR_TYPE ? "invalid_type" : "invalid_value",
               "'logit_bias' maps token ids to numbers from -100 to 100: %s", what);
    return err_param(e, "logit_bias");
}

static int bias_entry(const cJSON *v, int n_vocab, struct logit_bias_entry *out, struct err *e)
{
    const char *s = v->string;
    size_t n = strspn(s, "0123456789");
    if (n == 0 || n > 9 || s[n]) {
        return bad_bias(e, ERR_INVALID, "a key is not a token id");
    }
    long id = strtol(s, NULL, 10);
    if (id >= n_vocab) {
        return bad_bias(e, ERR_RANGE, "a token id is outside the vocabulary");
    }
    if (!cJSON_IsNumber(v)) {
        return bad_bias(e, ERR_TYPE, "a value is not a number");
    }
    if (!(fabs(v->valuedouble) <= 100)) {
        return bad_bias(e, ERR_RANGE, "a value is out of range");
    }
    *out = (struct logit_bias_entry){.token = (int32_t)id, .bias = (float)v->valuedouble};
    return 0;
}

static int read_logit_bias(struct chat_reader *c, const cJSON *root, struct err *e)
{
    struct generation_params *g = &c->r->engine.gen;
    const cJSON *v = json_member(root, "logit_bias");
    if (!v) {
        return 0;
    }
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, "logit_bias", "an object", e);
    }
    int n = 0;
    for (const cJSON *b = v->child; b; b = b->next) {
        n++;
    }
    if (n > LIMIT_LOGIT_BIAS) {
        return bad_bias(e, ERR_TOO_LARGE, "too many entries");
    }
    struct logit_bias_entry *bias = arena_alloc(&c->r->arena, (size_t)n + 1, sizeof *bias);
    if (!bias) {
        return err_no_memory(e, (size_t)n * sizeof *bias);
    }
    n = 0;
    for (const cJSON *b = v->child; b; b = b->next) {
        if (bias_entry(b, c->limits->n_vocab, &bias[n++], e)) {
            return -1;
        }
    }
    g->logit_bias = bias;
    g->n_logit_bias = n;
    return 0;
}

/* Without the field the server's own choice holds; [] asks for the model as it is. */
static int read_lora(struct chat_reader *c, const cJSON *root, struct err *e)
{
    const cJSON *v = json_member(root, "lora");
    if (!v) {
        return 0;
    }
    float *scales = arena_alloc(&c->r->arena, ENGINE_MAX_LORAS, sizeof *scales);
    if (!scales) {
        return err_no_memory(e, ENGINE_MAX_LORAS * sizeof *scales);
    }
    c->r->engine.lora_scales = scales;
    return lora_scales_read(v, "lora", c->limits->n_loras, scales, e);
}

static int read_stream_options(struct chat_request *r, const cJSON *root, struct err *e)
{
    const cJSON *v = json_member(root, "stream_options");
    if (!v) {
        return 0;
    }
    if (!cJSON_IsObject(v)) {
        return json_wrong_type(v, "stream_options", "an object", e);
    }
    const cJSON *usage = json_member(v, "include_usage");
    if (usage && !cJSON_IsBool(usage)) {
        return json_wrong_type(usage, "stream_options.include_usage", "a boolean", e);
    }
    r->include_usage = cJSON_IsTrue(usage);
    return 0;
}

static int read_model(struct chat_request *r, const cJSON *root, struct err *e)
{
    const cJSON *v = json_member(root, "model");
    if (v && !cJSON_IsString(v)) {
        return json_wrong_type(v, "model", "a string", e);
    }
    r->model = v ? v->valuestring : NULL;
    return 0;
}

int chat_read_fields(struct chat_reader *c, const cJSON *root, struct err *e)
{
    struct fields f;
    bool completion = c->limits->what == REQUEST_COMPLETION;
    const struct json_field *own = completion ? completion_table : chat_table;
    size_t n_own = completion ? N_FIELDS(completion_table) : N_FIELDS(chat_table);
    load_defaults(&f, c);
    if (read_model(c->r, root, e) || check_supported(root, e) ||
        json_read_fields(root, c->info, table, N_FIELDS(table), &f, e) ||
        json_read_fields(root, c->info, own, n_own, &f, e) || store(c, &f, e) ||
        read_stop(c->r, root, e) || read_logit_bias(c, root, e) || read_lora(c, root, e)) {
        return -1;
    }
    return read_stream_options(c->r, root, e);
}
