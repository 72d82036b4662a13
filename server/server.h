/* The boundary to cmd: start listening, hand over the engine when it is ready, drain,
 * stop. The order at the end is server_drain, server_stop, engine_close, server_free:
 * the engine thread may still ring a bell of the server until it is closed. */
#ifndef TAMP_SERVER_SERVER_H
#define TAMP_SERVER_SERVER_H

#include "base/err.h"
#include "compress/plan.h"
#include "engine/engine.h"

#include <stdbool.h>
#include <stddef.h>

struct server;

/* Deadlines in milliseconds; 0 = as in server/limits.h. */
struct server_times {
    int header_ms, body_ms, keepalive_ms, send_ms, queue_ms;
};

struct server_params {
    const char *host; /* name or address; NULL = 127.0.0.1 */
    int port;         /* 0 = any free one, see server_port */
    int n_threads;    /* threads that parse requests and decode pictures; 0 = 2 */
    int max_queue;    /* as engine_params: refuse before reading the body when it is full */
    int max_images;   /* in one request */
    const char *const *api_keys; /* [n_api_keys]; none = everybody may */
    int n_api_keys;
    bool insecure; /* listen beyond loopback without a key */
    bool web;      /* the page at / */
    struct plan default_plan;
    const char *version;   /* for tamp_build_info; NULL = "unknown" */
    size_t max_body_bytes; /* 0 = LIMIT_BODY_BYTES */
    struct server_times times;
};

/* Binds and answers at once: /health is 503 `loading` until the engine is there.
 * Everything in params is copied. NULL with *e: address in use, no key beyond
 * loopback, ... */
struct server *server_start(const struct server_params *params, struct err *e);
int server_port(const struct server *s);
/* From now on chat requests are taken. The engine stays the caller's. */
void server_attach_engine(struct server *s, struct engine *engine);

/* Stops listening, answers 503 to new requests, waits for those in flight. True when
 * all ended within timeout_ms; the rest is ended by server_stop. */
bool server_drain(struct server *s, int timeout_ms);
/* Ends what is still running with an error event, joins every thread. Idempotent. */
void server_stop(struct server *s);
void server_free(struct server *s); /* NULL is fine */

#endif
