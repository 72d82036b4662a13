/* The listening socket: made by us, so that "address in use" is one clear line and port 0
 * can be asked for. Beyond loopback a key is needed. */
#include "server/server_impl.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 256

static bool is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, sa, sizeof in6);
    return sa->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

static int bound_port(int fd)
{
    struct sockaddr_storage sa = {0};
    socklen_t n = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &n)) {
        return 0;
    }
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    memcpy(&in, &sa, sizeof in);
    memcpy(&in6, &sa, sizeof in6);
    return ntohs(sa.ss_family == AF_INET6 ? in6.sin6_port : in.sin_port);
}

static int open_socket(const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, BACKLOG)) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int listen_at(const struct addrinfo *ai, const char *host, const struct server_params *p,
                     struct server *s, struct err *e)
{
    s->loopback = is_loopback(ai->ai_addr);
    if (!s->loopback && p->n_api_keys == 0 && !p->insecure) {
        return err_reason(e, ERR_FORBIDDEN, "key_needed",
                          "listening on %s lets others in: set an API key, or say --insecure",
                          host);
    }
    s->listen_fd = open_socket(ai);
    if (s->listen_fd < 0) {
        return err_reason(e, ERR_IO, "cannot_listen", "cannot listen on %s port %d: %s%s", host,
                          p->port, strerror(errno),
                          errno == EADDRINUSE ? "; choose another with --port" : "");
    }
    s->port = bound_port(s->listen_fd);
    return 0;
}

int http_listen(const struct server_params *p, struct server *s, struct err *e)
{
    const char *host = p->host && p->host[0] ? p->host : "127.0.0.1";
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", p->port);
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc) {
        return err_reason(e, ERR_INVALID, "unknown_host", "cannot listen on '%s': %s", host,
                          gai_strerror(rc));
    }
    rc = listen_at(found, host, p, s, e);
    freeaddrinfo(found);
    return rc;
}
