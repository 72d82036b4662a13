/* What the files of server/ share: connections, exchanges, slots.
 *
 *   connection  one socket; watched for deadlines and for a client that left
 *   exchange    one request and its answer, from its first line to its last byte
 *   slot        the bell of an exchange that a worker prepares: worker and engine thread
 *               ring it, the event loop wakes the suspended exchange; lives as long as the
 *               server
 *
 * Threads: one event loop (libmicrohttpd) runs every callback of http.c and every route
 * handler; workers parse and prepare; the watcher ends what takes too long.
 * Locks, outermost first: conns_lock, slot.lock, libmicrohttpd's own. */
#ifndef TAMP_SERVER_SERVER_IMPL_H
#define TAMP_SERVER_SERVER_IMPL_H

#include "base/buf.h"
#include "server/admission.h"
#include "server/auth.h"
#include "server/limits.h"
#include "server/metrics.h"
#include "server/server.h"
#include "server/workers.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum auth_class { AUTH_PUBLIC, AUTH_KEY };
/* What a handler did: queued an answer, suspended until its slot rings, or gave up. */
enum http_next { HTTP_ANSWERED, HTTP_WAIT, HTTP_CLOSE };

struct exchange;

struct route {
    const char *method, *path;
    bool prefix; /* path ends in a name: /v1/models/{id} */
    enum auth_class auth;
    const char *endpoint; /* label in metrics and log */
    bool body;            /* JSON body needed */
    /* Before the body is read; NULL = nothing to check. */
    int (*admit)(struct exchange *ex, struct err *e);
    /* When the request is complete, and again after every HTTP_WAIT. */
    enum http_next (*handle)(struct exchange *ex);
    /* On a worker, for each task_push. */
    void (*prepare)(struct exchange *ex);
    /* When the exchange is over, however: gives back what handle and prepare took. */
    void (*end)(struct exchange *ex);
    const struct task_kind *task;       /* of handle = task_handle */
    const struct generation_form *form; /* of handle = generation_handle */
};
extern const struct route routes[]; /* ends with method NULL */
/* ERR_NOT_FOUND, or ERR_INVALID method_not_allowed with *allow set. */
const struct route *route_find(const char *method, const char *path, const char **allow,
                               struct err *e);

enum conn_phase {
    CONN_IDLE,    /* nothing of a request yet */
    CONN_HEADERS, /* its first line is there */
    CONN_BODY,
    CONN_BUSY,    /* suspended, or in a handler */
    CONN_SENDING, /* the answer is on its way */
    CONN_EXPIRED  /* the watcher ended it */
};

struct conn {
    struct server *server;
    struct conn *prev, *next;
    int fd;
    /* all under server->conns_lock */
    enum conn_phase phase;
    uint64_t deadline_ns; /* of IDLE, HEADERS, BODY, SENDING */
    struct exchange *ex;
    bool linger; /* an upload was refused: read and drop before closing */
};

struct exchange {
    struct server *server;
    struct conn *conn;
    struct MHD_Connection *mhd;
    const struct route *route; /* NULL until headers are complete */
    const char *allow;         /* of a 405 */
    char path[LIMIT_PATH_BYTES];
    char id[LIMIT_REQUEST_ID_BYTES + 1];
    char profile[64];                 /* X-Compression; "" = absent */
    uint8_t scope[AUTH_DIGEST_BYTES]; /* of the caches: whose key it is */
    uint64_t started_ns;
    bool checked;  /* headers were looked at */
    bool complete; /* its last byte is there */
    bool answered; /* a response is queued */
    bool cut;      /* answered past libmicrohttpd, in the middle of an upload */
    int status;
    struct buf body;
    size_t body_reserved; /* of server->bodies_bytes */

    /* for the log */
    int original_tokens, prompt_tokens, completion_tokens;

    /* of routes with a worker's part */
    _Atomic(struct slot *) slot;
    struct generation *generation; /* generation.c */
    struct task *task;             /* task.c */
    _Atomic bool gone;             /* the client left, or reads too slowly */
    _Atomic uint64_t ping_ns;      /* when silence is to be broken; 0 = never */
    _Atomic uint64_t expire_ns;    /* when waiting in the queue ends; 0 = never */
};

struct lingering {
    int fd;
    uint64_t deadline_ns;
};

struct server {
    struct MHD_Daemon *daemon;
    int listen_fd, port;
    bool loopback;
    bool web; /* the page at / */
    char version[48];
    int max_queue, max_images;
    size_t max_body_bytes;
    struct server_times times; /* none is 0 */
    struct plan default_plan;
    struct auth auth;
    struct metrics *metrics;
    struct admission admission;
    struct workers *workers;
    _Atomic(struct engine *) engine;
    _Atomic bool draining, stopping;
    _Atomic size_t bodies_bytes;
    _Atomic int n_exchanges;

    pthread_mutex_t conns_lock;
    pthread_cond_t watch_cond; /* server_stop wakes the watcher */
    struct conn *conns;
    struct lingering lingering[LIMIT_LINGERING];
    int n_lingering;
    pthread_t watcher;
    bool watcher_started, watcher_stop, stopped;
};

/* http.c */
int http_start(struct server *s, struct err *e);
void http_stop(struct server *s);
enum http_next http_answer(struct exchange *ex, int status, const char *content_type,
                           struct buf *body, const struct job_result *result);
enum http_next http_answer_error(struct exchange *ex, const struct err *e);
/* Adds the id and hands the response over; r is used up. */
enum http_next http_queue(struct exchange *ex, int status, struct MHD_Response *r);
enum http_next http_answer_stream(struct exchange *ex, MHD_ContentReaderCallback reader);
/* Tells the watcher what the connection does. False: the watcher ended it already. */
bool http_phase(struct exchange *ex, enum conn_phase phase, int timeout_ms);
/* An error written past libmicrohttpd, which is in the middle of reading; conns_lock is
 * held, and the connection must be closed afterwards. */
void http_cut(struct exchange *ex, const struct err *e);
/* "req_" / "chatcmpl-" and 24 hexadecimal digits from getrandom. */
void http_random_id(const char *prefix, char *out, size_t n);
/* Give back what the body holds. */
void http_drop_body(struct exchange *ex);

/* http_listen.c */
int http_listen(const struct server_params *p, struct server *s, struct err *e);

/* http_watch.c */
int watch_start(struct server *s, struct err *e);
void watch_stop(struct server *s);
/* A connection whose last upload was refused is being closed: keep its socket a while. */
void watch_linger(struct server *s, int fd);

/* api_*.c */
enum http_next methods_handle(struct exchange *ex);
enum http_next props_handle(struct exchange *ex);
enum http_next models_handle(struct exchange *ex);
enum http_next model_handle(struct exchange *ex);
int loras_admit(struct exchange *ex, struct err *e);
enum http_next loras_handle(struct exchange *ex);
enum http_next loras_set_handle(struct exchange *ex);
enum http_next health_handle(struct exchange *ex);
enum http_next metrics_handle(struct exchange *ex);
enum http_next web_handle(struct exchange *ex);
/* "default", the file's name with or without .gguf, or general.name. */
bool model_name_known(const struct engine_info *info, const char *name);
/* ERR_NOT_FOUND for a name that is not known; NULL is. */
int model_check(const struct engine_info *info, const char *name, struct err *e);

#endif
