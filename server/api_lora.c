/* GET and POST /lora-adapters, as llama-server has them: the adapters that the server was
 * started with, and the scales of requests that name none. */
#include "server/server_impl.h"

#include "server/json_fields.h"
#include "server/json_write.h"
#include "server/lora_scales.h"

#include <cjson/cJSON.h>

static enum http_next answer_list(struct exchange *ex, struct engine *en)
{
    struct engine_lora_state state[ENGINE_MAX_LORAS];
    int n = engine_loras(en, state);
    struct buf body;
    struct json_writer w;
    buf_init(&body, (size_t)1 << 20);
    json_writer_init(&w, &body);
    json_begin_array(&w);
    for (int i = 0; i < n; i++) {
        json_begin_object(&w);
        json_key(&w, "id");
        json_int(&w, i);
        json_key(&w, "path");
        json_string(&w, state[i].path);
        json_key(&w, "name");
        json_string(&w, state[i].name);
        json_key(&w, "scale");
        json_number(&w, (double)state[i].scale, 6);
        json_key(&w, "pictures_only");
        json_bool(&w, state[i].pictures_only);
        json_end_object(&w);
    }
    json_end_array(&w);
    return http_answer(ex, 200, "application/json", &body, NULL);
}

static struct engine *ready(struct exchange *ex, struct err *e)
{
    struct engine *en = atomic_load(&ex->server->engine);
    if (!en) {
        err_reason(e, ERR_UNAVAILABLE, "loading", "the model is being loaded");
    }
    return en;
}

enum http_next loras_handle(struct exchange *ex)
{
    struct err e = ERR_INIT;
    struct engine *en = ready(ex, &e);
    return en ? answer_list(ex, en) : http_answer_error(ex, &e);
}

int loras_admit(struct exchange *ex, struct err *e)
{
    (void)ready(ex, e);
    return e->code == ERR_NONE ? 0 : -1;
}

static int set_scales(struct engine *en, const struct buf *body, struct err *e)
{
    struct json_scan_info info;
    float scales[ENGINE_MAX_LORAS];
    if (body->len > LIMIT_LORA_BYTES) {
        return err_reason(e, ERR_TOO_LARGE, "body_too_large",
                          "the list of adapters has %zu bytes, at most %d", body->len,
                          LIMIT_LORA_BYTES);
    }
    cJSON *root = json_parse_array(body->data, body->len, &info, e);
    int rc = root ? lora_scales_read(root, "body", engine_info(en)->n_loras, scales, e) : -1;
    cJSON_Delete(root);
    if (rc == 0) {
        engine_set_lora_scales(en, scales);
    }
    return rc;
}

enum http_next loras_set_handle(struct exchange *ex)
{
    struct err e = ERR_INIT;
    struct engine *en = ready(ex, &e);
    int rc = en ? set_scales(en, &ex->body, &e) : -1;
    http_drop_body(ex);
    return rc ? http_answer_error(ex, &e) : answer_list(ex, en);
}
