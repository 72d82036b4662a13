/* What libmicrohttpd does not see: its time-out starts anew with every byte, and it does
 * not look at a suspended connection at all. One thread looks at every connection ten
 * times a second: absolute deadlines for headers, body and slow readers, clients that
 * left, pings that are due, and the rest of refused uploads.
 *
 * A client that closes its writing half counts as one that left, as for nginx and for
 * Go's server: the two look alike until something is written, and libmicrohttpd closes
 * such a connection itself when it next reads. */
#include "server/server_impl.h"

#include "base/clock.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void expire(struct conn *c, const char *label, bool answer)
{
    c->phase = CONN_EXPIRED;
    c->linger = false;
    if (answer && c->ex) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_TIMEOUT, "the request came too slowly");
        http_cut(c->ex, &e);
    }
    metrics_add(c->server->metrics, METRIC_REJECTED, label, 1);
    shutdown(c->fd, SHUT_RDWR);
}

static void give_up(struct exchange *ex)
{
    atomic_store(&ex->gone, true);
    if (ex->slot) {
        slot_ring(ex->slot);
    }
}

static bool peer_left(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static bool due(_Atomic uint64_t *at, uint64_t now)
{
    uint64_t t = atomic_load(at);
    return t && now >= t;
}

static void watch_busy(struct conn *c, uint64_t now)
{
    struct exchange *ex = c->ex;
    if (!ex || atomic_load(&ex->gone)) {
        return;
    }
    if (peer_left(c->fd)) {
        give_up(ex);
    } else if (ex->slot && (due(&ex->ping_ns, now) || due(&ex->expire_ns, now))) {
        slot_ring(ex->slot);
    }
}

static void watch_conn(struct conn *c, uint64_t now)
{
    switch (c->phase) {
    case CONN_IDLE:
        if (now > c->deadline_ns) {
            expire(c, "reason=\"header_timeout\"", false);
        }
        break;
    case CONN_HEADERS:
        if (now > c->deadline_ns) {
            expire(c, "reason=\"header_timeout\"", true);
        }
        break;
    case CONN_BODY:
        if (now > c->deadline_ns) {
            expire(c, "reason=\"body_timeout\"", true);
        }
        break;
    case CONN_BUSY:
        watch_busy(c, now);
        break;
    case CONN_SENDING:
        if (now > c->deadline_ns) {
            if (c->ex) {
                give_up(c->ex);
            }
            expire(c, "reason=\"slow_reader\"", false);
        }
        break;
    case CONN_EXPIRED:
        break;
    }
}

/* Reads what the client still sends, so that our close is no reset that would take the
 * answer away from under it. True when it is over. */
static bool drop_rest(struct lingering *l, uint64_t now)
{
    char waste[65536];
    for (int i = 0; i < 64; i++) {
        ssize_t n = recv(l->fd, waste, sizeof waste, MSG_DONTWAIT);
        if (n == 0) {
            return true;
        }
        if (n < 0) {
            break;
        }
    }
    return now > l->deadline_ns;
}

static void watch_lingering(struct server *s, uint64_t now)
{
    for (int i = 0; i < s->n_lingering;) {
        if (drop_rest(&s->lingering[i], now)) {
            close(s->lingering[i].fd);
            s->lingering[i] = s->lingering[--s->n_lingering];
        } else {
            i++;
        }
    }
}

void watch_linger(struct server *s, int fd)
{
    if (s->n_lingering == LIMIT_LINGERING) {
        return;
    }
    int kept = dup(fd);
    if (kept >= 0) {
        s->lingering[s->n_lingering++] = (struct lingering){
            .fd = kept, .deadline_ns = clock_ns() + LIMIT_LINGER_MS * 1000000ull};
    }
}

static void *watch(void *arg)
{
    struct server *s = arg;
    pthread_mutex_lock(&s->conns_lock);
    while (!s->watcher_stop) {
        uint64_t now = clock_ns();
        for (struct conn *c = s->conns; c; c = c->next) {
            watch_conn(c, now);
        }
        watch_lingering(s, now);
        struct timespec until;
        uint64_t wake = now + WATCH_TICK_MS * 1000000ull;
        until.tv_sec = (time_t)(wake / 1000000000u);
        until.tv_nsec = (long)(wake % 1000000000u);
        pthread_cond_timedwait(&s->watch_cond, &s->conns_lock, &until);
    }
    pthread_mutex_unlock(&s->conns_lock);
    return NULL;
}

int watch_start(struct server *s, struct err *e)
{
    if (pthread_create(&s->watcher, NULL, watch, s)) {
        return err_set(e, ERR_IO, "cannot start the watcher thread");
    }
    s->watcher_started = true;
    return 0;
}

void watch_stop(struct server *s)
{
    if (!s->watcher_started) {
        return;
    }
    pthread_mutex_lock(&s->conns_lock);
    s->watcher_stop = true;
    pthread_cond_signal(&s->watch_cond);
    pthread_mutex_unlock(&s->conns_lock);
    pthread_join(s->watcher, NULL);
    s->watcher_started = false;
    for (int i = 0; i < s->n_lingering; i++) {
        close(s->lingering[i].fd);
    }
    s->n_lingering = 0;
}
