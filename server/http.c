/* libmicrohttpd glue: from the first line of a request to its last byte. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/api_error.h"
#include "server/http_check.h"
#include "server/task.h"

#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#define STREAM_BLOCK ((size_t)16 << 10)

void http_random_id(const char *prefix, char *out, size_t n)
{
    unsigned char random[12];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        uint64_t t = clock_ns(); /* cannot happen for so few bytes; ids stay distinct */
        memcpy(random, &t, sizeof t);
        memset(random + sizeof t, 0, sizeof random - sizeof t);
    }
    int at = snprintf(out, n, "%s", prefix);
    for (size_t i = 0; i < sizeof random; i++) {
        at += snprintf(out + at, n - (size_t)at, "%02x", random[i]);
    }
}

/* -- connections -------------------------------------------------------------------- */

static uint64_t after_ms(int ms)
{
    return clock_ns() + (uint64_t)ms * 1000000u;
}

bool http_phase(struct exchange *ex, enum conn_phase phase, int timeout_ms)
{
    struct conn *c = ex->conn;
    pthread_mutex_lock(&ex->server->conns_lock);
    bool alive = c->phase != CONN_EXPIRED;
    if (alive) {
        c->phase = phase;
        c->deadline_ns = after_ms(timeout_ms);
    }
    pthread_mutex_unlock(&ex->server->conns_lock);
    return alive;
}

static void open_conn(struct server *s, struct MHD_Connection *mhd, void **socket_context)
{
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct conn *c = fd ? mem_zalloc(1, sizeof *c) : NULL;
    *socket_context = c;
    if (!c) {
        return; /* its requests are answered with a close */
    }
    *c = (struct conn){.server = s,
                       .fd = fd->connect_fd,
                       .phase = CONN_IDLE,
                       .deadline_ns = after_ms(s->times.header_ms)};
    pthread_mutex_lock(&s->conns_lock);
    c->next = s->conns;
    if (c->next) {
        c->next->prev = c;
    }
    s->conns = c;
    pthread_mutex_unlock(&s->conns_lock);
}

static void close_conn(struct server *s, struct conn *c)
{
    pthread_mutex_lock(&s->conns_lock);
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        s->conns = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    if (c->linger) {
        watch_linger(s, c->fd);
    }
    pthread_mutex_unlock(&s->conns_lock);
    mem_free(c);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        open_conn(cls, mhd, socket_context);
    } else if (*socket_context) {
        close_conn(cls, *socket_context);
        *socket_context = NULL;
    }
}

static struct conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* -- exchanges ------------------------------------------------------------------------ */

/* The request line is there. The path is kept as it came: routes are compared with what
 * was sent, never with something decoded. */
static void *on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct server *s = cls;
    struct conn *c = conn_of(mhd);
    struct exchange *ex = c ? mem_zalloc(1, sizeof *ex) : NULL;
    if (!ex) {
        return NULL;
    }
    ex->server = s;
    ex->conn = c;
    ex->mhd = mhd;
    ex->started_ns = clock_ns();
    size_t n = uri ? strcspn(uri, "?") : 0;
    if (n < sizeof ex->path) {
        memcpy(ex->path, uri ? uri : "", n);
    }
    buf_init(&ex->body, s->max_body_bytes);
    http_random_id("req_", ex->id, sizeof ex->id);
    atomic_fetch_add(&s->n_exchanges, 1);
    pthread_mutex_lock(&s->conns_lock);
    c->ex = ex;
    if (c->phase == CONN_IDLE) {
        c->phase = CONN_HEADERS;
        c->deadline_ns = after_ms(s->times.header_ms);
    }
    pthread_mutex_unlock(&s->conns_lock);
    return ex;
}

void http_drop_body(struct exchange *ex)
{
    buf_free(&ex->body);
    atomic_fetch_sub(&ex->server->bodies_bytes, ex->body_reserved);
    ex->body_reserved = 0;
}

static void finish_log(const struct exchange *ex, bool whole)
{
    char labels[96];
    /* headers that libmicrohttpd refused by itself were a bad request; an answer that
     * did not arrive is a client that left */
    int status = whole || ex->cut ? ex->status : ex->checked ? 499 : 400;
    const char *endpoint = ex->route ? ex->route->endpoint : "other";
    snprintf(labels, sizeof labels, "endpoint=\"%s\",status=\"%d\"", endpoint, status);
    metrics_add(ex->server->metrics, METRIC_REQUESTS, labels, 1);
    log_event(LOG_INFO, "request", log_str("id", ex->id), log_str("endpoint", endpoint),
              log_str("path", ex->route ? ex->route->path : ""), log_i64("status", status),
              log_f64("ms", (double)(clock_ns() - ex->started_ns) * 1e-6),
              log_i64("original_tokens", ex->original_tokens),
              log_i64("prompt_tokens", ex->prompt_tokens),
              log_i64("completion_tokens", ex->completion_tokens));
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct server *s = cls;
    struct exchange *ex = *con_cls;
    (void)mhd;
    *con_cls = NULL;
    if (!ex) {
        return;
    }
    bool whole = ex->answered && code == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    pthread_mutex_lock(&s->conns_lock);
    ex->conn->ex = NULL;
    if (ex->conn->phase != CONN_EXPIRED) {
        ex->conn->phase = CONN_IDLE;
        ex->conn->deadline_ns = after_ms(s->times.keepalive_ms);
    }
    pthread_mutex_unlock(&s->conns_lock);
    if (!whole) {
        atomic_store(&ex->gone, true);
    }
    if (ex->route && ex->route->end) {
        ex->route->end(ex);
    }
    task_leave(ex);
    finish_log(ex, whole);
    http_drop_body(ex);
    mem_free(ex);
    atomic_fetch_sub(&s->n_exchanges, 1);
}

/* -- answers --------------------------------------------------------------------------- */

static void header(struct MHD_Response *r, const char *name, const char *value)
{
    (void)MHD_add_response_header(r, name, value);
}

static void figures(struct MHD_Response *r, const struct job_result *result)
{
    char text[32];
    snprintf(text, sizeof text, "%.1f", result->total_ms);
    header(r, "X-Latency-Ms", text);
    snprintf(text, sizeof text, "%.2f", (double)result->peak_bytes / 1e6);
    header(r, "X-Mem-Mb", text);
    snprintf(text, sizeof text, "%d", result->completion_tokens);
    header(r, "X-Output-Len", text);
}

enum http_next http_queue(struct exchange *ex, int status, struct MHD_Response *r)
{
    header(r, "x-request-id", ex->id);
    bool alive = http_phase(ex, CONN_SENDING, ex->server->times.send_ms);
    ex->status = status;
    ex->answered = alive && MHD_queue_response(ex->mhd, (unsigned)status, r) == MHD_YES;
    MHD_destroy_response(r);
    return ex->answered ? HTTP_ANSWERED : HTTP_CLOSE;
}

/* The body's bytes become the response's; freed with free(), so they are copied. */
static struct MHD_Response *response(struct buf *body, const char *content_type)
{
    struct MHD_Response *r = NULL;
    if (!buf_failed(body)) {
        r = MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_COPY);
    }
    buf_free(body);
    if (r) {
        header(r, "Content-Type", content_type);
    }
    return r;
}

enum http_next http_answer(struct exchange *ex, int status, const char *content_type,
                           struct buf *body, const struct job_result *result)
{
    struct MHD_Response *r = response(body, content_type);
    if (!r) {
        return HTTP_CLOSE;
    }
    if (result) {
        figures(r, result);
    }
    if (atomic_load(&ex->server->draining)) {
        header(r, "Connection", "close");
    }
    return http_queue(ex, status, r);
}

static void retry_headers(struct exchange *ex, struct MHD_Response *r, int status)
{
    char text[16];
    struct engine *en = atomic_load(&ex->server->engine);
    int seconds = status == 429 && en ? engine_retry_after(en) : 2;
    seconds = seconds < 1 ? 1 : seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : seconds;
    snprintf(text, sizeof text, "%d", seconds);
    header(r, "Retry-After", text);
}

static bool must_close(const struct exchange *ex, const struct err *e)
{
    static const char *const reasons[] = {"bad_framing", "body_too_large", "length_required",
                                          "unsupported_http_version", "expectation_failed"};
    for (size_t i = 0; e->reason && i < sizeof reasons / sizeof *reasons; i++) {
        if (strcmp(e->reason, reasons[i]) == 0) {
            return true;
        }
    }
    return atomic_load(&ex->server->draining);
}

static void count_rejected(const struct exchange *ex, const struct err *e)
{
    char labels[96];
    snprintf(labels, sizeof labels, "reason=\"%.60s\"",
             e->reason ? e->reason : err_code_name(e->code));
    metrics_add(ex->server->metrics, METRIC_REJECTED, labels, 1);
}

enum http_next http_answer_error(struct exchange *ex, const struct err *e)
{
    int status = api_error_status(e);
    if (status < 500 || status == 503) { /* 500: not refused, but failed */
        count_rejected(ex, e);
    }
    struct buf body;
    buf_init(&body, 8192);
    api_error_render(e, &body);
    struct MHD_Response *r = response(&body, "application/json");
    if (!r) {
        return HTTP_CLOSE;
    }
    if (status == 401) {
        header(r, "WWW-Authenticate", "Bearer");
    }
    if (status == 405 && ex->allow) {
        header(r, "Allow", ex->allow);
    }
    if (status == 429 || status == 503) {
        retry_headers(ex, r, status);
    }
    if (status == 500) {
        header(r, "x-should-retry", "false");
    }
    if (must_close(ex, e)) {
        header(r, "Connection", "close");
    }
    return http_queue(ex, status, r);
}

enum http_next http_answer_stream(struct exchange *ex, MHD_ContentReaderCallback reader)
{
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, reader, ex, NULL);
    if (!r) {
        return HTTP_CLOSE;
    }
    header(r, "Content-Type", "text/event-stream");
    header(r, "Cache-Control", "no-cache");
    header(r, "X-Accel-Buffering", "no"); /* nginx: pass every line on at once */
    return http_queue(ex, 200, r);
}

/* -- the access handler ------------------------------------------------------------------ */

static enum MHD_Result add_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                  size_t n_name, const char *value, size_t n_value)
{
    (void)kind;
    http_head_add(cls, name, n_name, value, n_value);
    return MHD_YES;
}

static int check_headers(struct exchange *ex, const char *method, const char *version,
                         struct err *e)
{
    struct server *s = ex->server;
    struct http_head h = {0};
    MHD_get_connection_values_n(ex->mhd, MHD_HEADER_KIND, add_header, &h);
    if (http_request_id_ok(h.request_id)) {
        pthread_mutex_lock(&s->conns_lock); /* the watcher may be answering with it */
        snprintf(ex->id, sizeof ex->id, "%s", h.request_id);
        pthread_mutex_unlock(&s->conns_lock);
    }
    if (http_head_check(&h, version, e) || (s->loopback && http_host_check(h.host, e))) {
        return -1;
    }
    ex->route = route_find(method, ex->path, &ex->allow, e);
    struct err denied = ERR_INIT;
    bool is_public = ex->route && ex->route->auth == AUTH_PUBLIC;
    if (!is_public && auth_check(&s->auth, h.authorization, &denied)) {
        *e = denied; /* before 404 and 405: a stranger learns no routes */
        return -1;
    }
    if (!ex->route) {
        return -1;
    }
    if (!is_public) {
        auth_scope(&s->auth, h.authorization, ex->scope);
    }
    if (h.compression) {
        snprintf(ex->profile, sizeof ex->profile, "%s", h.compression);
    }
    if (!ex->route->body) {
        return 0;
    }
    if (http_body_check(&h, s->max_body_bytes, e)) {
        return -1;
    }
    return ex->route->admit ? ex->route->admit(ex, e) : 0;
}

static enum MHD_Result refuse(struct exchange *ex, const struct err *e)
{
    pthread_mutex_lock(&ex->server->conns_lock);
    ex->conn->linger = true;
    pthread_mutex_unlock(&ex->server->conns_lock);
    return http_answer_error(ex, e) == HTTP_ANSWERED ? MHD_YES : MHD_NO;
}

static enum MHD_Result first_call(struct exchange *ex, const char *method, const char *version)
{
    struct err e = ERR_INIT;
    ex->checked = true;
    if (!http_phase(ex, CONN_BODY, ex->server->times.body_ms)) {
        return MHD_NO;
    }
    return check_headers(ex, method, version, &e) ? refuse(ex, &e) : MHD_YES;
}

void http_cut(struct exchange *ex, const struct err *e)
{
    struct buf body;
    struct buf out;
    buf_init(&body, 4096);
    buf_init(&out, 8192);
    api_error_render(e, &body);
    ex->status = api_error_status(e);
    ex->cut = true;
    buf_printf(&out,
               "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
               "Connection: close\r\n%sx-request-id: %s\r\n\r\n%s",
               ex->status, MHD_get_reason_phrase_for((unsigned)ex->status), body.len,
               ex->status == 503 ? "Retry-After: 2\r\n" : "", ex->id, buf_str(&body));
    if (!buf_failed(&out)) {
        (void)!send(ex->conn->fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    buf_free(&body);
    buf_free(&out);
}

/* A response cannot be queued in the middle of an upload, so the answer to a body that
 * grows beyond its limit while it comes is written past libmicrohttpd. */
static enum MHD_Result cut_upload(struct exchange *ex, const struct err *e)
{
    pthread_mutex_lock(&ex->server->conns_lock);
    if (ex->conn->phase != CONN_EXPIRED) {
        http_cut(ex, e);
        ex->conn->linger = true;
    }
    pthread_mutex_unlock(&ex->server->conns_lock);
    count_rejected(ex, e);
    return MHD_NO;
}

static enum MHD_Result upload(struct exchange *ex, const char *data, size_t *n)
{
    struct server *s = ex->server;
    struct err e = ERR_INIT;
    if (ex->route && ex->route->body) {
        if (*n > s->max_body_bytes - ex->body.len) {
            err_reason(&e, ERR_TOO_LARGE, "body_too_large", "the body has more than %zu bytes",
                       s->max_body_bytes);
            return cut_upload(ex, &e);
        }
        size_t all = atomic_fetch_add(&s->bodies_bytes, *n) + *n;
        ex->body_reserved += *n;
        if (all > LIMIT_BODIES_BYTES || buf_append(&ex->body, data, *n)) {
            err_reason(&e, ERR_NO_MEMORY, "out_of_memory", "too many uploads at once");
            return cut_upload(ex, &e);
        }
    }
    *n = 0;
    return MHD_YES;
}

static enum MHD_Result complete(struct exchange *ex)
{
    struct err e = ERR_INIT;
    if (!http_phase(ex, CONN_BUSY, 0)) {
        return MHD_NO;
    }
    bool again = ex->complete; /* resumed: the body may be gone already */
    ex->complete = true;
    if (ex->route->body && ex->body.len == 0 && !again) {
        err_reason(&e, ERR_INVALID, "empty_body", "the body is empty");
        return http_answer_error(ex, &e) == HTTP_ANSWERED ? MHD_YES : MHD_NO;
    }
    return ex->route->handle(ex) == HTTP_CLOSE ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n_data, void **con_cls)
{
    struct exchange *ex = *con_cls;
    (void)cls;
    (void)mhd;
    (void)url;
    if (!ex) {
        return MHD_NO;
    }
    if (!ex->checked) {
        return first_call(ex, method, version);
    }
    return *n_data ? upload(ex, data, n_data) : complete(ex);
}

int http_start(struct server *s, struct err *e)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME;
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)LIMIT_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)LIMIT_INACTIVE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, LIMIT_CONNECTION_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_URI_LOG_CALLBACK, on_request_line,
        s, MHD_OPTION_END);
    if (!s->daemon) {
        return err_set(e, ERR_IO, "cannot start the HTTP event loop");
    }
    return 0;
}

void http_stop(struct server *s)
{
    if (s->daemon) {
        MHD_stop_daemon(s->daemon);
        s->daemon = NULL;
        s->listen_fd = -1; /* closed with the daemon, or by server_drain */
    }
}
