#define ERR_NO_ANALYSER_HINTS
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 4, 0))) static void
fill(struct err *e, enum err_code code, const char *reason, const char *fmt, va_list ap)
{
    if (!e) {
        return;
    }
    e->code = code;
    e->reason = reason;
    e->param[0] = '\0';
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(e, code, NULL, fmt, ap);
    va_end(ap);
    return -1;
}

int err_reason(struct err *e, enum err_code code, const char *reason, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(e, code, reason, fmt, ap);
    va_end(ap);
    return -1;
}

int err_param(struct err *e, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->param, sizeof e->param, fmt, ap);
        va_end(ap);
    }
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    if (e) {
        char old[sizeof e->msg];
        memcpy(old, e->msg, sizeof old);
        va_list ap;
        va_start(ap, fmt);
        int used = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
        va_end(ap);
        if (used >= 0 && (size_t)used < sizeof e->msg) {
            size_t room = sizeof e->msg - (size_t)used;
            snprintf(e->msg + used, room, ": %.*s", (int)(room > 3 ? room - 3 : 0), old);
        }
    }
    return -1;
}

int err_no_memory(struct err *e, unsigned long long bytes)
{
    return err_reason(e, ERR_NO_MEMORY, "out_of_memory", "cannot allocate %llu bytes", bytes);
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[ERR_CODE_COUNT] = {
        [ERR_NONE] = "none",
        [ERR_INVALID] = "invalid",
        [ERR_TYPE] = "type",
        [ERR_RANGE] = "range",
        [ERR_NOT_FOUND] = "not_found",
        [ERR_UNSUPPORTED] = "unsupported",
        [ERR_TOO_LARGE] = "too_large",
        [ERR_CONTEXT_LENGTH] = "context_length",
        [ERR_FORMAT] = "format",
        [ERR_IO] = "io",
        [ERR_NO_MEMORY] = "no_memory",
        [ERR_BUSY] = "busy",
        [ERR_UNAVAILABLE] = "unavailable",
        [ERR_CANCELLED] = "cancelled",
        [ERR_TIMEOUT] = "timeout",
        [ERR_AUTH] = "auth",
        [ERR_FORBIDDEN] = "forbidden",
        [ERR_NUMERICAL] = "numerical",
        [ERR_INTERNAL] = "internal",
    };
    return (unsigned)code < ERR_CODE_COUNT ? names[code] : "unknown";
}
