#include "cmd/http_get.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEFAULT_PORT "8080"
#define HEAD_BYTES   16384

/* -- URL ------------------------------------------------------------------------------- */

static int bad_url(const char *url, struct err *e)
{
    return err_reason(e, ERR_INVALID, "invalid_config",
                      "'%.200s' is no address of a server; give http://HOST:PORT", url);
}

static bool copy_part(char *out, size_t size, const char *from, size_t n)
{
    if (n == 0 || n >= size) {
        return false;
    }
    memcpy(out, from, n);
    out[n] = '\0';
    return true;
}

int http_target_parse(const char *url, struct http_target *t, struct err *e)
{
    static const char scheme[] = "http://";
    const char *at = url;
    if (strncmp(at, "https://", 8) == 0) {
        return err_reason(e, ERR_UNSUPPORTED, "invalid_config",
                          "%.200s: only http:// is spoken here; ask the server on its own machine",
                          url);
    }
    if (strncmp(at, scheme, sizeof scheme - 1) == 0) {
        at += sizeof scheme - 1;
    }
    bool v6 = *at == '[';
    size_t n = v6 ? strcspn(++at, "]") : strcspn(at, ":/");
    if (!copy_part(t->host, sizeof t->host, at, n) || (v6 && at[n] != ']') ||
        strpbrk(t->host, " @?#\r\n\t")) {
        return bad_url(url, e);
    }
    at += n + v6;
    snprintf(t->port, sizeof t->port, "%s", DEFAULT_PORT);
    if (*at == ':') {
        n = strspn(at + 1, "0123456789");
        if (!copy_part(t->port, sizeof t->port, at + 1, n) || strtol(t->port, NULL, 10) > 65535) {
            return bad_url(url, e);
        }
        at += n + 1;
    }
    if (*at && strcmp(at, "/") != 0) {
        return bad_url(url, e);
    }
    snprintf(t->shown, sizeof t->shown, "http://%s%s%s:%s", v6 ? "[" : "", t->host, v6 ? "]" : "",
             t->port);
    return 0;
}

/* -- socket ------------------------------------------------------------------------------ */

/* 0 when the socket is ready before the deadline. */
static int wait_for(int fd, short events, uint64_t until_ns)
{
    for (;;) {
        uint64_t now = clock_ns();
        struct pollfd p = {.fd = fd, .events = events};
        int ms = now >= until_ns ? 0 : (int)((until_ns - now) / 1000000u) + 1;
        int n = poll(&p, 1, ms);
        if (n > 0) {
            return 0;
        }
        if (n == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        if (errno != EINTR) {
            return -1;
        }
    }
}

static int dial(const struct addrinfo *a, uint64_t until_ns)
{
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0) {
        return -1;
    }
    int failed = connect(fd, a->ai_addr, a->ai_addrlen);
    if (failed && errno == EINPROGRESS) {
        socklen_t n = sizeof failed;
        if (wait_for(fd, POLLOUT, until_ns) == 0 &&
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &n) == 0) {
            errno = failed;
        }
    }
    if (failed) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int open_socket(const struct http_target *t, uint64_t until_ns, struct err *e)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct addrinfo *all = NULL;
    int rc = getaddrinfo(t->host, t->port, &hints, &all);
    if (rc) {
        return err_set(e, ERR_IO, "%s: %s", t->host, gai_strerror(rc));
    }
    int fd = -1;
    errno = 0;
    for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = dial(a, until_ns);
    }
    int saved = errno;
    freeaddrinfo(all);
    if (fd < 0) {
        return err_set(e, ERR_IO, "%s cannot be reached: %s; is tamp serve running there?",
                       t->shown, strerror(saved));
    }
    return fd;
}

static int send_all(int fd, const struct buf *b, uint64_t until_ns)
{
    for (size_t at = 0; at < b->len;) {
        ssize_t n = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);
        if (n > 0) {
            at += (size_t)n;
        } else if ((errno != EAGAIN && errno != EINTR) || wait_for(fd, POLLOUT, until_ns)) {
            return -1;
        }
    }
    return 0;
}

static int receive_all(int fd, struct buf *out, uint64_t until_ns)
{
    char chunk[16384];
    for (;;) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n == 0) {
            return 0;
        }
        if (n > 0) {
            if (buf_append(out, chunk, (size_t)n)) {
                errno = EFBIG;
                return -1;
            }
        } else if ((errno != EAGAIN && errno != EINTR) || wait_for(fd, POLLIN, until_ns)) {
            return -1;
        }
    }
}

/* -- the answer ---------------------------------------------------------------------------- */

/* "HTTP/1.1 200 OK" -> 200, or 0. */
static long status_of(const char *text)
{
    return strncmp(text, "HTTP/1.", 7) == 0 && strlen(text) > 12 && text[8] == ' '
               ? strtol(text + 9, NULL, 10)
               : 0;
}

int http_answer_body(const struct buf *answer, const char *server, struct buf *out, struct err *e)
{
    const char *text = buf_str(answer);
    const char *end = strstr(text, "\r\n\r\n");
    long status = status_of(text);
    if (status < 100 || !end) {
        return err_set(e, ERR_FORMAT, "%s: this is no HTTP", server);
    }
    if (status == 401) {
        return err_set(e, ERR_AUTH, "%s wants an API key: put it into TAMP_API_KEY", server);
    }
    if (status != 200) {
        return err_set(e, ERR_UNAVAILABLE, "%s answers %ld; is it tamp?", server, status);
    }
    const char *body = end + 4;
    if (buf_append(out, body, answer->len - (size_t)(body - text))) {
        return err_no_memory(e, answer->len);
    }
    return 0;
}

int http_get(const struct http_target *t, const char *path, const char *key, int timeout_ms,
             struct buf *out, struct err *e)
{
    uint64_t until_ns = clock_ns() + (uint64_t)timeout_ms * 1000000u;
    struct buf request;
    struct buf answer;
    int fd = open_socket(t, until_ns, e);
    if (fd < 0) {
        return -1;
    }
    buf_init(&request, HEAD_BYTES);
    buf_init(&answer, out->max_bytes + HEAD_BYTES);
    /* 1.0: the answer comes in one piece and ends with the connection */
    buf_printf(&request, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: tamp\r\n", path,
               t->shown + strlen("http://"));
    if (key && *key) {
        buf_printf(&request, "Authorization: Bearer %s\r\n", key);
    }
    buf_puts(&request, "\r\n");
    int rc;
    if (buf_failed(&request)) {
        rc = err_set(e, ERR_TOO_LARGE, "the API key is too long");
    } else if (send_all(fd, &request, until_ns) || receive_all(fd, &answer, until_ns)) {
        rc = err_set(e, ERR_IO, "%s: %s", t->shown, strerror(errno));
    } else {
        rc = http_answer_body(&answer, t->shown, out, e);
    }
    close(fd);
    if (request.data) {
        explicit_bzero(request.data, request.len);
    }
    buf_free(&request);
    buf_free(&answer);
    return rc;
}
