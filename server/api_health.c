/* GET /health and GET /metrics. */
#include "server/server_impl.h"

static int state(struct server *s, struct err *e)
{
    struct engine *en = atomic_load(&s->engine);
    if (atomic_load(&s->draining)) {
        return err_reason(e, ERR_UNAVAILABLE, "shutting_down", "the server is stopping");
    }
    if (!en) {
        return err_reason(e, ERR_UNAVAILABLE, "loading", "the model is being loaded");
    }
    struct engine_stats stats;
    engine_stats(en, &stats);
    if (!stats.alive) {
        return err_reason(e, ERR_UNAVAILABLE, "engine_unresponsive",
                          "the engine has not moved for a while");
    }
    return 0;
}

enum http_next health_handle(struct exchange *ex)
{
    struct err e = ERR_INIT;
    if (state(ex->server, &e)) {
        return http_answer_error(ex, &e);
    }
    struct buf body;
    buf_init(&body, 64);
    buf_puts(&body, "{\"status\":\"ok\"}");
    return http_answer(ex, 200, "application/json", &body, NULL);
}

enum http_next metrics_handle(struct exchange *ex)
{
    struct buf body;
    buf_init(&body, LIMIT_METRICS_BYTES);
    metrics_set_engine(ex->server->metrics, atomic_load(&ex->server->engine));
    metrics_render(ex->server->metrics, &body);
    return http_answer(ex, 200, "text/plain; version=0.0.4; charset=utf-8", &body, NULL);
}
