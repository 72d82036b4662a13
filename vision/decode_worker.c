/* The server's side: a few helpers, lent to one picture at a time. A helper that dies or
 * misses its deadline is killed, reaped and counted; the next picture gets a new one,
 * after a pause that doubles with each death in a row, so that a client with a crashing
 * picture cannot turn the server into a process factory.
 *
 * Helpers are started by running this program again (posix_spawn), not by fork: other
 * threads may hold locks, and the server's memory (keys, prompts) stays out of the
 * process that parses hostile bytes. */
#include "vision/decode_worker.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "vision/vision_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_HELPERS         2
#define START_DEADLINE_MS 10000
#define DEADLINE_MS       5000
#define PAUSE_MAX_MS      1000
#define RECEIVE_BYTES     ((size_t)256 << 10)

struct helper {
    _Atomic pid_t pid; /* 0 = not running; written by whom it is lent to */
    int fd;
    bool lent;
    int deaths_in_a_row;
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t returned;
    struct helper helpers[N_HELPERS];
    uint64_t n_restarts;
    int deadline_ms;
    bool warned;
} state = {.mutex = PTHREAD_MUTEX_INITIALIZER,
           .returned = PTHREAD_COND_INITIALIZER,
           .deadline_ms = DEADLINE_MS};

/* -- a socket with a deadline --------------------------------------------------- */

static bool wait_for(int fd, short events, double deadline)
{
    for (;;) {
        double left = deadline - clock_ms();
        if (left <= 0) {
            errno = ETIMEDOUT;
            return false;
        }
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, (int)left + 1);
        if (n > 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
    }
}

static bool send_all(int fd, const void *data, size_t n, double deadline)
{
    for (size_t done = 0; done < n;) {
        if (!wait_for(fd, POLLOUT, deadline)) {
            return false;
        }
        ssize_t put = send(fd, (const char *)data + done, n - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
        done += put > 0 ? (size_t)put : 0;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t n, double deadline)
{
    for (size_t done = 0; done < n;) {
        if (!wait_for(fd, POLLIN, deadline)) {
            return false;
        }
        ssize_t got = recv(fd, (char *)data + done, n - done, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            errno = got == 0 ? EPIPE : errno;
            return false;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

/* -- life of a helper ------------------------------------------------------------ */

/* Kills it if it still runs. Returns its wait status. */
static int end_helper(struct helper *h)
{
    int status = 0;
    close(h->fd);
    kill(h->pid, SIGKILL);
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR) {
    }
    h->pid = 0;
    return status;
}

static int count_death(struct helper *h)
{
    int status = end_helper(h);
    pthread_mutex_lock(&state.mutex);
    state.n_restarts++;
    pthread_mutex_unlock(&state.mutex);
    h->deaths_in_a_row++;
    return status;
}

static int prepare_spawn(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, int fd)
{
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    /* Its own process group: Ctrl-C in a terminal is for the server. */
    return posix_spawn_file_actions_addopen(files, 0, "/dev/null", O_RDONLY, 0) ||
           posix_spawn_file_actions_addopen(files, 1, "/dev/null", O_WRONLY, 0) ||
           posix_spawn_file_actions_adddup2(files, fd, DECODE_WORKER_FD) ||
           posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF) ||
           posix_spawnattr_setsigmask(attr, &none) || posix_spawnattr_setsigdefault(attr, &all);
}

static int run_this_program(int fd, pid_t *pid)
{
    char name[] = "tamp-image-worker";
    char arg[] = DECODE_WORKER_ARG;
    char mark[] = DECODE_WORKER_ENV "=1";
    char blas[] = "OPENBLAS_NUM_THREADS=1";
    char *const argv[] = {name, arg, NULL};
    char *const env[] = {mark, blas, NULL}; /* the server's may hold keys */
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    if (posix_spawn_file_actions_init(&files)) {
        return ENOMEM;
    }
    if (posix_spawnattr_init(&attr)) {
        posix_spawn_file_actions_destroy(&files);
        return ENOMEM;
    }
    int failed = prepare_spawn(&files, &attr, fd)
                     ? ENOMEM
                     : posix_spawn(pid, "/proc/self/exe", &files, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return failed;
}

static void warn_unconfined(void)
{
    pthread_mutex_lock(&state.mutex);
    bool first = !state.warned;
    state.warned = true;
    pthread_mutex_unlock(&state.mutex);
    if (first) {
        log_event(LOG_WARN, "image_helper_unconfined",
                  log_str("why", "the kernel refused the seccomp filter"));
    }
}

static int cannot_start(struct err *e, int error)
{
    return err_reason(e, ERR_UNAVAILABLE, "image_worker_unavailable",
                      "cannot start the picture decoder: %s", strerror(error));
}

static int start_helper(struct helper *h, struct err *e)
{
    if (getenv(DECODE_WORKER_ENV)) { /* a program that forgot image_worker_maybe_run */
        return cannot_start(e, ELOOP);
    }
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) {
        return cannot_start(e, errno);
    }
    /* dup2 onto itself would keep close-on-exec. */
    int far = fd[1] == DECODE_WORKER_FD ? fcntl(fd[1], F_DUPFD_CLOEXEC, 4) : fd[1];
    pid_t pid = 0;
    int failed = far < 0 ? errno : run_this_program(far, &pid);
    if (far != fd[1] && far >= 0) {
        close(far);
    }
    close(fd[1]);
    if (failed) {
        close(fd[0]);
        return cannot_start(e, failed);
    }
    h->pid = pid;
    h->fd = fd[0];
    struct decode_hello hello;
    if (!receive_all(h->fd, &hello, sizeof hello, clock_ms() + START_DEADLINE_MS) ||
        hello.magic != DECODE_WORKER_MAGIC) {
        int error = errno;
        count_death(h);
        return cannot_start(e, error);
    }
    if (!hello.confined) {
        warn_unconfined();
    }
    return 0;
}

static void pause_after_deaths(const struct helper *h)
{
    if (h->deaths_in_a_row > 1) {
        int shift = h->deaths_in_a_row < 8 ? h->deaths_in_a_row : 8;
        int ms = 5 << shift < PAUSE_MAX_MS ? 5 << shift : PAUSE_MAX_MS;
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
    }
}

/* Alive, or started now. */
static int ensure_helper(struct helper *h, struct err *e)
{
    if (h->pid) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)h->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid == 0) {
            return 0;
        }
        count_death(h);
    }
    for (int attempt = 0;; attempt++) {
        pause_after_deaths(h);
        if (start_helper(h, e) == 0) {
            return 0;
        }
        if (attempt == 1) {
            return -1;
        }
    }
}

/* -- lending ---------------------------------------------------------------------- */

static struct helper *free_helper(void)
{
    struct helper *found = NULL;
    for (int i = 0; i < N_HELPERS; i++) {
        struct helper *h = &state.helpers[i];
        if (!h->lent && (!found || (h->pid && !found->pid))) {
            found = h;
        }
    }
    return found;
}

static struct helper *borrow_helper(void)
{
    struct helper *h;
    pthread_mutex_lock(&state.mutex);
    while (!(h = free_helper())) {
        pthread_cond_wait(&state.returned, &state.mutex);
    }
    h->lent = true;
    pthread_mutex_unlock(&state.mutex);
    return h;
}

static void return_helper(struct helper *h)
{
    pthread_mutex_lock(&state.mutex);
    h->lent = false;
    pthread_cond_signal(&state.returned);
    pthread_mutex_unlock(&state.mutex);
}

/* -- one picture ------------------------------------------------------------------- */

struct picture {
    const uint8_t *bytes;
    size_t n;
    const struct image_facts *facts;
    uint64_t budget;
    const struct decode_sink *sink;
    uint64_t *peak_bytes;
};

static bool receive_rows(int fd, const struct picture *p, uint8_t *rows, size_t n_rows,
                         double deadline)
{
    size_t row_bytes = (size_t)p->facts->width * 3;
    for (int y = 0; y < p->facts->height;) {
        size_t left = (size_t)(p->facts->height - y);
        size_t n = left < n_rows ? left : n_rows;
        if (!receive_all(fd, rows, n * row_bytes, deadline)) {
            return false;
        }
        for (size_t i = 0; i < n; i++, y++) {
            p->sink->row(p->sink->ctx, y, rows + i * row_bytes);
        }
    }
    return true;
}

static int refused(const struct decode_response *r, struct err *e)
{
    if (r->status == DECODE_OVER_BUDGET) {
        return err_reason(e, ERR_TOO_LARGE, "image_bomb",
                          "the picture unpacks to more than its header says");
    }
    return image_damaged(e, "the decoder cannot read its data");
}

enum exchange { EXCHANGE_DONE, EXCHANGE_REFUSED, EXCHANGE_LOST };

/* LOST: the helper is gone or must go (errno says which); *e is not set. */
static enum exchange exchange(struct helper *h, const struct picture *p, uint8_t *rows,
                              size_t n_rows, struct err *e)
{
    double deadline = clock_ms() + state.deadline_ms;
    struct decode_request request = {.magic = DECODE_WORKER_MAGIC,
                                     .width = p->facts->width,
                                     .height = p->facts->height,
                                     .n = p->n,
                                     .budget = p->budget};
    struct decode_response response;
    if (!send_all(h->fd, &request, sizeof request, deadline) ||
        !send_all(h->fd, p->bytes, p->n, deadline) ||
        !receive_all(h->fd, &response, sizeof response, deadline)) {
        return EXCHANGE_LOST;
    }
    if (response.magic != DECODE_WORKER_MAGIC) {
        errno = EPROTO;
        return EXCHANGE_LOST;
    }
    if (p->peak_bytes) {
        *p->peak_bytes = response.peak_bytes;
    }
    if (response.status != DECODE_OK) {
        refused(&response, e);
        return EXCHANGE_REFUSED;
    }
    return receive_rows(h->fd, p, rows, n_rows, deadline) ? EXCHANGE_DONE : EXCHANGE_LOST;
}

static int lost(bool timed_out, struct err *e)
{
    log_event(LOG_WARN, "image_helper_lost",
              log_str("why", timed_out ? "deadline" : "it ended while decoding"));
    return err_reason(e, ERR_FORMAT, "image_decode_failed",
                      timed_out ? "decoding the picture takes too long"
                                : "the picture is damaged: the decoder gave up on it");
}

/* Its socket is closed: give it a moment to leave its own exit status behind. */
static void let_it_end(const struct helper *h)
{
    for (int i = 0; i < 100; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)h->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid) {
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

/* A helper that somebody else killed (the out-of-memory killer, an operator) says
 * nothing about the picture: it gets one more try. */
static int run_on(struct helper *h, const struct picture *p, uint8_t *rows, size_t n_rows,
                  struct err *e)
{
    for (int attempt = 0;; attempt++) {
        if (ensure_helper(h, e)) {
            return -1;
        }
        enum exchange result = exchange(h, p, rows, n_rows, e);
        if (result != EXCHANGE_LOST) {
            h->deaths_in_a_row = 0;
            return result == EXCHANGE_DONE ? 0 : -1;
        }
        bool timed_out = errno == ETIMEDOUT;
        if (!timed_out) {
            let_it_end(h);
        }
        int status = count_death(h);
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        if (timed_out || !killed || attempt == 1) {
            return lost(timed_out, e);
        }
    }
}

int decode_worker_run(const uint8_t *bytes, size_t n, const struct image_facts *facts,
                      uint64_t budget, const struct decode_sink *sink, uint64_t *peak_bytes,
                      struct err *e)
{
    struct picture p = {bytes, n, facts, budget, sink, peak_bytes};
    size_t row_bytes = (size_t)facts->width * 3;
    size_t n_rows = row_bytes < RECEIVE_BYTES ? RECEIVE_BYTES / row_bytes : 1;
    uint8_t *rows = mem_alloc(n_rows, row_bytes);
    if (!rows) {
        return err_no_memory(e, n_rows * row_bytes);
    }
    struct helper *h = borrow_helper();
    int result = run_on(h, &p, rows, n_rows, e);
    return_helper(h);
    mem_free(rows);
    return result;
}

/* -- for the server and the tests --------------------------------------------------- */

int image_worker_start(struct err *e)
{
    struct helper *h = borrow_helper();
    int result = ensure_helper(h, e);
    return_helper(h);
    return result;
}

void image_worker_stop(void)
{
    for (int i = 0; i < N_HELPERS; i++) {
        struct helper *h = &state.helpers[i];
        pthread_mutex_lock(&state.mutex);
        while (h->lent) {
            pthread_cond_wait(&state.returned, &state.mutex);
        }
        if (h->pid) {
            end_helper(h);
        }
        pthread_cond_signal(&state.returned);
        pthread_mutex_unlock(&state.mutex);
    }
}

uint64_t image_worker_restarts(void)
{
    pthread_mutex_lock(&state.mutex);
    uint64_t n = state.n_restarts;
    pthread_mutex_unlock(&state.mutex);
    return n;
}

pid_t decode_worker_pid(int i)
{
    return i >= 0 && i < N_HELPERS ? state.helpers[i].pid : 0;
}

void decode_worker_set_deadline_ms(int ms)
{
    state.deadline_ms = ms > 0 ? ms : DEADLINE_MS;
}
