/* Every route there is: one dispatch point, so authorisation has one, too. */
#include "server/generation.h"

#include <string.h>

#define GENERATION(p, label, how)                                                                  \
    {                                                                                              \
        .method = "POST", .path = (p), .auth = AUTH_KEY, .endpoint = (label), .body = true,        \
        .admit = task_admit, .handle = generation_handle, .prepare = generation_prepare,           \
        .end = generation_end, .form = &(how)                                                      \
    }
#define TASK(p, label, how, kind)                                                                  \
    {                                                                                              \
        .method = "POST", .path = (p), .auth = AUTH_KEY, .endpoint = (label), .body = true,        \
        .admit = (how), .handle = task_handle, .prepare = task_prepare, .end = task_end,           \
        .task = &(kind)                                                                            \
    }
#define GET(p, is_prefix, class, label, fn)                                                        \
    {                                                                                              \
        .method = "GET", .path = (p), .prefix = (is_prefix), .auth = (class), .endpoint = (label), \
        .handle = (fn)                                                                             \
    }

const struct route routes[] = {
    GENERATION("/v1/chat/completions", "chat", chat_form),
    GENERATION("/chat/completions", "chat", chat_form),
    GENERATION("/v1/completions", "completions", completion_form),
    GENERATION("/v1/responses", "responses", response_form),
    GENERATION("/responses", "responses", response_form),
    TASK("/v1/compress", "compress", task_admit, compress_task),
    GET("/v1/compression/methods", false, AUTH_KEY, "methods", methods_handle),
    TASK("/v1/embeddings", "embeddings", task_admit, embeddings_task),
    TASK("/embeddings", "embeddings", task_admit, embeddings_task),
    TASK("/v1/chat/completions/input_tokens", "input_tokens", task_ready, input_tokens_task),
    TASK("/chat/completions/input_tokens", "input_tokens", task_ready, input_tokens_task),
    TASK("/v1/responses/input_tokens", "input_tokens", task_ready, response_tokens_task),
    TASK("/responses/input_tokens", "input_tokens", task_ready, response_tokens_task),
    TASK("/tokenize", "tokenize", task_ready, tokenize_task),
    TASK("/detokenize", "detokenize", task_ready, detokenize_task),
    TASK("/apply-template", "apply_template", task_ready, template_task),
    GET("/props", false, AUTH_KEY, "props", props_handle),
    GET("/v1/models", false, AUTH_KEY, "models", models_handle),
    GET("/models", false, AUTH_KEY, "models", models_handle),
    GET("/v1/models/", true, AUTH_KEY, "models", model_handle),
    GET("/lora-adapters", false, AUTH_KEY, "lora", loras_handle),
    {.method = "POST",
     .path = "/lora-adapters",
     .auth = AUTH_KEY,
     .endpoint = "lora",
     .body = true,
     .admit = loras_admit,
     .handle = loras_set_handle},
    GET("/health", false, AUTH_PUBLIC, "health", health_handle),
    GET("/v1/health", false, AUTH_PUBLIC, "health", health_handle),
    GET("/metrics", false, AUTH_KEY, "metrics", metrics_handle),
    GET("/", false, AUTH_PUBLIC, "web", web_handle),
    GET("/web/", true, AUTH_PUBLIC, "web", web_handle),
    {.method = NULL},
};

static bool matches(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);
    return r->prefix ? strncmp(path, r->path, n) == 0 && path[n] : strcmp(path, r->path) == 0;
}

const struct route *route_find(const char *method, const char *path, const char **allow,
                               struct err *e)
{
    bool get = false;
    bool post = false;
    for (const struct route *r = routes; r->method; r++) {
        if (!matches(r, path)) {
            continue;
        }
        bool head = strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0;
        if (head || strcmp(method, r->method) == 0) {
            return r;
        }
        get |= strcmp(r->method, "GET") == 0;
        post |= strcmp(r->method, "POST") == 0;
    }
    if (get || post) {
        *allow = !post ? "GET, HEAD" : !get ? "POST" : "GET, HEAD, POST";
        err_reason(e, ERR_INVALID, "method_not_allowed", "this route takes %s", *allow);
        return NULL;
    }
    err_reason(e, ERR_NOT_FOUND, "unknown_route", "there is no such route");
    return NULL;
}
