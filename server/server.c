/* Start, drain, stop: the life of the HTTP side. */
#include "server/server_impl.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/task.h"

#include <time.h>
#include <unistd.h>

#define STOP_WAIT_MS 10000

static struct server_times times_or_limits(struct server_times t)
{
    return (struct server_times){
        .header_ms = t.header_ms ? t.header_ms : LIMIT_HEADER_MS,
        .body_ms = t.body_ms ? t.body_ms : LIMIT_BODY_MS,
        .keepalive_ms = t.keepalive_ms ? t.keepalive_ms : LIMIT_KEEPALIVE_MS,
        .send_ms = t.send_ms ? t.send_ms : LIMIT_SEND_MS,
        .queue_ms = t.queue_ms ? t.queue_ms : LIMIT_QUEUE_MS,
    };
}

static void copy_params(struct server *s, const struct server_params *p)
{
    s->listen_fd = -1;
    s->web = p->web;
    s->max_queue = p->max_queue;
    s->max_images = p->max_images;
    s->max_body_bytes = p->max_body_bytes ? p->max_body_bytes : LIMIT_BODY_BYTES;
    s->times = times_or_limits(p->times);
    s->default_plan = p->default_plan;
    snprintf(s->version, sizeof s->version, "%s", p->version ? p->version : "unknown");
}

static void init_locks(struct server *s)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->watch_cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->conns_lock, NULL);
}

static int start(struct server *s, const struct server_params *p, struct err *e)
{
    if (auth_init(&s->auth, p->api_keys, p->n_api_keys, e) || http_listen(p, s, e) ||
        admission_init(&s->admission, LIMIT_REQUESTS, e)) {
        return -1;
    }
    s->metrics = metrics_new(s->version, e);
    if (!s->metrics) {
        return -1;
    }
    s->workers = workers_new(p->n_threads > 0 ? p->n_threads : 2, LIMIT_PREPARE_QUEUE, task_run, e);
    if (!s->workers || watch_start(s, e)) {
        return -1;
    }
    return http_start(s, e);
}

struct server *server_start(const struct server_params *params, struct err *e)
{
    struct server *s = mem_zalloc(1, sizeof *s);
    if (!s) {
        err_no_memory(e, sizeof *s);
        return NULL;
    }
    copy_params(s, params);
    init_locks(s);
    if (start(s, params, e)) {
        server_stop(s);
        server_free(s);
        return NULL;
    }
    return s;
}

int server_port(const struct server *s)
{
    return s->port;
}

void server_attach_engine(struct server *s, struct engine *engine)
{
    atomic_store(&s->engine, engine);
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_nsec = ms * 1000000};
    nanosleep(&t, NULL);
}

static void stop_listening(struct server *s)
{
    if (s->daemon && s->listen_fd >= 0) {
        int fd = MHD_quiesce_daemon(s->daemon);
        if (fd >= 0) {
            close(fd);
        }
        s->listen_fd = -1;
    }
}

bool server_drain(struct server *s, int timeout_ms)
{
    struct engine *en = atomic_load(&s->engine);
    atomic_store(&s->draining, true);
    stop_listening(s);
    if (en) {
        engine_stop_accepting(en);
    }
    uint64_t until = clock_ns() + (uint64_t)timeout_ms * 1000000u;
    while (atomic_load(&s->n_exchanges) > 0) {
        if (clock_ns() >= until) {
            return false;
        }
        pause_ms(10);
    }
    return true;
}

/* Rings every chat exchange; how many there are. libmicrohttpd must not be stopped while
 * one is suspended. */
static int ring_all(struct server *s)
{
    int n = 0;
    pthread_mutex_lock(&s->conns_lock);
    for (struct conn *c = s->conns; c; c = c->next) {
        if (c->ex && c->ex->slot) {
            n++;
            slot_ring(c->ex->slot);
        }
    }
    pthread_mutex_unlock(&s->conns_lock);
    return n;
}

void server_stop(struct server *s)
{
    if (!s || s->stopped) {
        return;
    }
    s->stopped = true;
    atomic_store(&s->draining, true);
    atomic_store(&s->stopping, true);
    uint64_t until = clock_ns() + STOP_WAIT_MS * 1000000ull;
    while (s->daemon && ring_all(s) > 0 && clock_ns() < until) {
        pause_ms(10);
    }
    workers_free(s->workers);
    s->workers = NULL;
    http_stop(s);
    watch_stop(s);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
        s->listen_fd = -1;
    }
}

void server_free(struct server *s)
{
    if (!s) {
        return;
    }
    metrics_free(s->metrics);
    admission_clear(&s->admission);
    auth_clear(&s->auth);
    pthread_mutex_destroy(&s->conns_lock);
    pthread_cond_destroy(&s->watch_cond);
    mem_free(s);
}
