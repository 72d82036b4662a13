/* GET /v1/models and /v1/models/{id}. The id is the name of the model's file. */
#include "server/server_impl.h"

#include "server/json_write.h"

#include <string.h>

bool model_name_known(const struct engine_info *info, const char *name)
{
    size_t stem = strlen(info->model_file);
    if (stem > 5 && strcmp(info->model_file + stem - 5, ".gguf") == 0) {
        stem -= 5;
    }
    return strcmp(name, "default") == 0 || strcmp(name, info->model_file) == 0 ||
           strcmp(name, info->model_name) == 0 ||
           (strlen(name) == stem && strncmp(name, info->model_file, stem) == 0);
}

int model_check(const struct engine_info *info, const char *name, struct err *e)
{
    if (!name || model_name_known(info, name)) {
        return 0;
    }
    err_reason(e, ERR_NOT_FOUND, "model_not_found", "there is no model '%.100s'; see /v1/models",
               name);
    return err_param(e, "model");
}

static void render_model(struct json_writer *w, const struct engine_info *i)
{
    json_begin_object(w);
    json_put(w, "id", i->model_file);
    json_put(w, "object", "model");
    json_put_int(w, "created", 0);
    json_put(w, "owned_by", "tamp");
    json_key(w, "meta");
    json_begin_object(w);
    json_put(w, "name", i->model_name);
    json_put(w, "family", i->family);
    json_put(w, "projector", i->projector);
    json_put_int(w, "n_vocab", i->n_vocab);
    json_put_int(w, "n_embd", i->n_embd);
    json_put_int(w, "n_ctx", i->n_ctx);
    json_put_int(w, "n_ctx_train", i->n_ctx_train);
    json_put_int(w, "image_tokens", i->image_rows);
    json_put_int(w, "size", (int64_t)i->weight_bytes);
    json_end_object(w);
    json_end_object(w);
}

static const struct engine_info *ready(struct exchange *ex, struct err *e)
{
    struct engine *en = atomic_load(&ex->server->engine);
    if (!en) {
        err_reason(e, ERR_UNAVAILABLE, "loading", "the model is being loaded");
        return NULL;
    }
    return engine_info(en);
}

enum http_next models_handle(struct exchange *ex)
{
    struct err e = ERR_INIT;
    const struct engine_info *info = ready(ex, &e);
    if (!info) {
        return http_answer_error(ex, &e);
    }
    struct buf body;
    struct json_writer w;
    buf_init(&body, 8192);
    json_writer_init(&w, &body);
    json_begin_object(&w);
    json_put(&w, "object", "list");
    json_key(&w, "data");
    json_begin_array(&w);
    render_model(&w, info);
    json_end_array(&w);
    json_end_object(&w);
    return http_answer(ex, 200, "application/json", &body, NULL);
}

enum http_next model_handle(struct exchange *ex)
{
    struct err e = ERR_INIT;
    const struct engine_info *info = ready(ex, &e);
    if (info && !model_name_known(info, ex->path + strlen("/v1/models/"))) {
        err_reason(&e, ERR_NOT_FOUND, "model_not_found", "there is no such model; see /v1/models");
        err_param(&e, "model");
        info = NULL;
    }
    if (!info) {
        return http_answer_error(ex, &e);
    }
    struct buf body;
    struct json_writer w;
    buf_init(&body, 8192);
    json_writer_init(&w, &body);
    render_model(&w, info);
    return http_answer(ex, 200, "application/json", &body, NULL);
}
