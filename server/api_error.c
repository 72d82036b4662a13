#include "server/api_error.h"

#include "server/json_write.h"

#include <string.h>

static const char invalid_request[] = "invalid_request_error";

static const struct {
    int status;
    const char *type;
    const char *code; /* when the error has no reason of its own */
} by_code[ERR_CODE_COUNT] = {
    [ERR_NONE] = {500, "server_error", "internal_error"},
    [ERR_INVALID] = {400, invalid_request, "invalid_value"},
    [ERR_TYPE] = {400, invalid_request, "invalid_type"},
    [ERR_RANGE] = {400, invalid_request, "out_of_range"},
    [ERR_NOT_FOUND] = {404, "not_found_error", "not_found"},
    [ERR_UNSUPPORTED] = {400, invalid_request, "unsupported_parameter"},
    [ERR_TOO_LARGE] = {400, invalid_request, "too_large"},
    [ERR_CONTEXT_LENGTH] = {400, invalid_request, "context_length_exceeded"},
    [ERR_FORMAT] = {400, invalid_request, "invalid_format"},
    [ERR_IO] = {500, "server_error", "io_error"},
    [ERR_NO_MEMORY] = {503, "overloaded_error", "out_of_memory"},
    [ERR_BUSY] = {429, "rate_limit_error", "queue_full"},
    [ERR_UNAVAILABLE] = {503, "overloaded_error", "unavailable"},
    [ERR_CANCELLED] = {499, invalid_request, "cancelled"},
    [ERR_TIMEOUT] = {408, invalid_request, "timeout"},
    [ERR_AUTH] = {401, "authentication_error", "invalid_api_key"},
    [ERR_FORBIDDEN] = {403, "permission_error", "forbidden"},
    [ERR_NUMERICAL] = {500, "server_error", "numerical_error"},
    [ERR_INTERNAL] = {500, "server_error", "internal_error"},
};

/* HTTP has statuses of its own for these. */
static const struct {
    const char *reason;
    int status;
} by_reason[] = {
    {"method_not_allowed", 405},     {"length_required", 411},    {"body_too_large", 413},
    {"unsupported_media_type", 415}, {"expectation_failed", 417}, {"unsupported_http_version", 505},
    {"queue_timeout", 503},
};

static unsigned known(enum err_code code)
{
    return (unsigned)code < ERR_CODE_COUNT ? (unsigned)code : ERR_INTERNAL;
}

int api_error_status(const struct err *e)
{
    for (size_t i = 0; e->reason && i < sizeof by_reason / sizeof *by_reason; i++) {
        if (strcmp(e->reason, by_reason[i].reason) == 0) {
            return by_reason[i].status;
        }
    }
    return by_code[known(e->code)].status;
}

void api_error_render(const struct err *e, struct buf *out)
{
    unsigned code = known(e->code);
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "error");
    json_begin_object(&w);
    json_key(&w, "message");
    json_string(&w, e->msg);
    json_key(&w, "type");
    json_string(&w, by_code[code].type);
    json_key(&w, "param");
    json_string(&w, e->param[0] ? e->param : NULL);
    json_key(&w, "code");
    json_string(&w, e->reason ? e->reason : by_code[code].code);
    json_end_object(&w);
    json_end_object(&w);
}
