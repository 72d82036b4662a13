/* server/ with a real socket and a small model, where time decides: deadlines for
 * headers, bodies, slow readers and the queue. They are short here; nothing is asserted
 * about how long anything takes. */
#include "base/alloc.h"
#include "base/buf.h"
#include "server/server.h"
#include "tests/test.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TINY "tests/golden/tiny/llama-bpe.gguf"

struct running {
    struct engine *engine;
    struct server *server;
};

static struct running start(int n_parallel, struct server_times times)
{
    struct err e = ERR_INIT;
    struct running r;
    const struct engine_params ep = {.model_path = TINY,
                                     .chat_template = "chatml",
                                     .n_parallel = n_parallel,
                                     .max_queue = 8,
                                     .n_threads = 1};
    struct server_params sp = {.port = 0, .max_queue = 8, .times = times};
    CHECK_OK(plan_from_profile(&sp.default_plan, "off", &e), e);
    r.engine = engine_open(&ep, &e);
    CHECK_OK(!r.engine, e);
    r.server = server_start(&sp, &e);
    CHECK_OK(!r.server, e);
    server_attach_engine(r.server, r.engine);
    return r;
}

static void end(struct running *r)
{
    server_stop(r->server);
    engine_close(r->engine);
    server_free(r->server);
}

/* receive_bytes > 0: how much of an answer the kernel may keep for us. */
static int dial(const struct running *r, int receive_bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)server_port(r->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* only so that a test that fails does not hang */
    const struct timeval patience = {.tv_sec = 60};
    CHECK(fd >= 0);
    CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), ==, 0);
    if (receive_bytes) {
        CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes), ==,
                  0);
    }
    CHECK_INT(connect(fd, (struct sockaddr *)&to, sizeof to), ==, 0);
    return fd;
}

static void say(int fd, const char *text)
{
    CHECK_INT(send(fd, text, strlen(text), MSG_NOSIGNAL), ==, (long long)strlen(text));
}

static void post(int fd, const char *fields)
{
    char body[512];
    char head[512];
    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],%s}",
             fields);
    snprintf(head, sizeof head,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-request-id: my-id\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    say(fd, head);
    say(fd, body);
}

/* All until the server closes. */
static void read_to_end(int fd, struct buf *out)
{
    char chunk[4096];
    ssize_t n;
    buf_init(out, (size_t)64 << 20);
    while ((n = recv(fd, chunk, sizeof chunk, 0)) > 0) {
        buf_append(out, chunk, (size_t)n);
    }
    CHECK(n == 0 || out->len > 0); /* a reset may follow the answer, a time-out may not */
}

static void check_holds(const struct buf *got, const char *part)
{
    if (!strstr(buf_str(got), part)) {
        FAIL("no \"%s\" in: %.600s", part, buf_str(got));
    }
}

static void wait_until_idle(struct engine *en, struct engine_stats *s)
{
    do {
        usleep(1000);
        engine_stats(en, s);
    } while (s->n_running + s->n_waiting > 0);
}

TEST(server_header_deadline, "headers that do not end are answered with 408 and an id")
{
    struct running r = start(1, (struct server_times){.header_ms = 200});
    struct buf got;
    int fd = dial(&r, 0);
    say(fd, "GET /health HTTP/1.1\r\nHost: localhost\r\n");
    read_to_end(fd, &got);
    check_holds(&got, "HTTP/1.1 408 ");
    check_holds(&got, "x-request-id: req_");
    check_holds(&got, "\"code\":\"timeout\"");
    buf_free(&got);
    close(fd);
    end(&r);
}

TEST(server_body_deadline, "a body that does not end is answered with 408 and the client's id")
{
    struct running r = start(1, (struct server_times){.body_ms = 200});
    struct buf got;
    int fd = dial(&r, 0);
    say(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-request-id: my-id\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"mess");
    read_to_end(fd, &got);
    check_holds(&got, "HTTP/1.1 408 ");
    check_holds(&got, "x-request-id: my-id\r\n");
    check_holds(&got, "\"code\":\"timeout\"");
    buf_free(&got);
    close(fd);
    fd = dial(&r, 0);
    say(fd, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    read_to_end(fd, &got);
    check_holds(&got, "tamp_requests_total{endpoint=\"chat\",status=\"408\"} 1");
    check_holds(&got, "tamp_requests_rejected_total{reason=\"body_timeout\"} 1");
    buf_free(&got);
    close(fd);
    end(&r);
}

TEST(server_idle_connection, "a connection without a request is closed without a word")
{
    struct running r = start(1, (struct server_times){.header_ms = 200});
    char byte;
    int fd = dial(&r, 0);
    CHECK_INT(recv(fd, &byte, 1, 0), ==, 0);
    close(fd);
    end(&r);
}

TEST(server_slow_reader, "who does not read his stream loses it, and its slot is free again")
{
    struct running r = start(1, (struct server_times){.send_ms = 200});
    struct engine_stats s;
    int fd = dial(&r, 4096);
    /* more bytes than all the buffers on the way take */
    post(fd, "\"stream\":true,\"n\":64,\"max_tokens\":450,\"ignore_eos\":true,\"logprobs\":true,"
             "\"top_logprobs\":20");
    do {
        usleep(1000);
        engine_stats(r.engine, &s);
    } while (s.n_cancelled == 0 && s.n_done == 0);
    CHECK_INT(s.n_cancelled, ==, 1);
    wait_until_idle(r.engine, &s);
    close(fd);
    end(&r);
}

TEST(server_late_reader, "a stream longer than every buffer reaches a reader who is always behind")
{
    struct running r = start(1, (struct server_times){0});
    struct engine_stats s;
    struct buf got;
    char chunk[65536];
    ssize_t n;
    int fd = dial(&r, 4096);
    post(fd, "\"stream\":true,\"n\":12,\"max_tokens\":450,\"ignore_eos\":true,\"logprobs\":true,"
             "\"top_logprobs\":20");
    do { /* all tokens wait: what is taken from the server's buffer is replaced at once */
        usleep(1000);
        engine_stats(r.engine, &s);
    } while (s.n_done + s.n_cancelled == 0);
    buf_init(&got, (size_t)64 << 20);
    do {
        n = recv(fd, chunk, sizeof chunk, 0);
        CHECK_INT(buf_append(&got, chunk, n > 0 ? (size_t)n : 0), ==, 0);
    } while (n > 0 && !strstr(buf_str(&got) + (got.len > 64 ? got.len - 64 : 0), "[DONE]"));
    CHECK_INT(s.n_done, ==, 1);
    if (!strstr(buf_str(&got) + (got.len > 64 ? got.len - 64 : 0), "data: [DONE]")) {
        FAIL("the stream was cut after %zu bytes", got.len);
    }
    CHECK_INT(got.len, >, 6 << 20); /* a socket keeps 4 MiB at most */
    buf_free(&got);
    close(fd);
    end(&r);
}

TEST(server_queue_timeout, "who waits too long for a slot gets 503, a code and Retry-After")
{
    struct running r = start(1, (struct server_times){.queue_ms = 200});
    struct engine_stats s;
    struct buf got;
    int first = dial(&r, 4096);
    int second = dial(&r, 0);
    /* nobody reads it: it runs until this test lets it go */
    post(first, "\"stream\":true,\"n\":128,\"max_tokens\":450,\"ignore_eos\":true,"
                "\"logprobs\":true,\"top_logprobs\":20");
    do {
        usleep(1000);
        engine_stats(r.engine, &s);
    } while (s.n_running == 0);
    post(second, "\"max_tokens\":1");
    char chunk[4096];
    ssize_t n;
    buf_init(&got, (size_t)1 << 20);
    do { /* the connection stays open: until the answer's last word */
        n = recv(second, chunk, sizeof chunk, 0);
        buf_append(&got, chunk, n > 0 ? (size_t)n : 0);
    } while (n > 0 && !strstr(buf_str(&got), "}}"));
    check_holds(&got, "HTTP/1.1 503 ");
    check_holds(&got, "Retry-After: ");
    check_holds(&got, "\"code\":\"queue_timeout\"");
    buf_free(&got);
    close(first);
    close(second);
    wait_until_idle(r.engine, &s);
    end(&r);
}

TEST(server_counts_refusals, "what is refused is counted by its reason, wherever it is found")
{
    struct running r = start(1, (struct server_times){0});
    struct buf got;
    int fd = dial(&r, 0);
    post(fd, "\"n\":0");
    say(fd, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    read_to_end(fd, &got);
    check_holds(&got, "\"code\":\"out_of_range\"");
    check_holds(&got, "tamp_requests_rejected_total{reason=\"out_of_range\"} 1");
    buf_free(&got);
    close(fd);
    end(&r);
}
