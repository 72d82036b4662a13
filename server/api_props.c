/* GET /props: what llama-server's has, as far as tamp has it. Templates are a table here, so
 * chat_template is a name and no Jinja; the model's path is not told, only its file. */
#include "server/task.h"

#include "server/json_write.h"

static void member_number(struct json_writer *w, const char *key, double v)
{
    json_key(w, key);
    json_number(w, v, 6);
}

static void member_bool(struct json_writer *w, const char *key, bool v)
{
    json_key(w, key);
    json_bool(w, v);
}

static void member_token(struct json_writer *w, const char *key, const struct engine *en,
                         int32_t id)
{
    size_t len = 0;
    const char *text = id >= 0 ? engine_token_text(en, id, &len) : NULL;
    json_key(w, key);
    json_string_n(w, text ? text : "", len);
}

static void render_defaults(struct json_writer *w, const struct engine_info *info)
{
    const struct generation_params *g = &generation_params_default;
    json_key(w, "default_generation_settings");
    json_begin_object(w);
    json_put_int(w, "n_ctx", info->n_ctx);
    json_key(w, "params");
    json_begin_object(w);
    json_put_int(w, "seed", -1);
    json_put_int(w, "max_tokens", g->max_tokens > 0 ? g->max_tokens : -1);
    member_number(w, "temperature", (double)g->temperature);
    json_put_int(w, "top_k", g->top_k);
    member_number(w, "top_p", (double)g->top_p);
    member_number(w, "min_p", (double)g->min_p);
    json_put_int(w, "repeat_last_n", g->penalty_last_n);
    member_number(w, "repeat_penalty", (double)g->repeat_penalty);
    member_number(w, "presence_penalty", (double)g->presence_penalty);
    member_number(w, "frequency_penalty", (double)g->frequency_penalty);
    json_put_int(w, "speculative.n_max", g->max_draft);
    json_end_object(w);
    json_end_object(w);
}

enum http_next props_handle(struct exchange *ex)
{
    struct err e = ERR_INIT;
    struct buf body;
    struct json_writer w;
    if (task_ready(ex, &e)) {
        return http_answer_error(ex, &e);
    }
    const struct engine *en = atomic_load(&ex->server->engine);
    const struct engine_info *info = engine_info(en);
    buf_init(&body, 8192);
    json_writer_init(&w, &body);
    json_begin_object(&w);
    render_defaults(&w, info);
    json_put_int(&w, "total_slots", info->n_parallel);
    json_put(&w, "model_alias", info->model_name);
    json_put(&w, "model_path", info->model_file);
    json_key(&w, "modalities");
    json_begin_object(&w);
    member_bool(&w, "vision", info->projector != NULL);
    member_bool(&w, "audio", false);
    json_end_object(&w);
    json_put(&w, "chat_template", info->chat_template);
    member_token(&w, "bos_token", en, info->bos);
    member_token(&w, "eos_token", en, info->eos);
    json_put(&w, "build_info", ex->server->version);
    json_put(&w, "compression", ex->server->default_plan.profile);
    json_end_object(&w);
    return http_answer(ex, 200, "application/json", &body, NULL);
}
