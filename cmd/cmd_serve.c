/* `tamp serve`: configuration -> engine and server, then wait for a signal.
 *
 * The server listens at once (/health answers 503 while loading); the engine is opened
 * on a thread of its own, so that this thread can hear a signal at any time: the first
 * SIGTERM or SIGINT drains, the second ends the process at once. */
#include "base/alloc.h"
#include "base/clock.h"
#include "cmd/commands.h"
#include "cmd/engine_setup.h"
#include "cmd/greeting.h"
#include "cmd/plan_text.h"
#include "cmd/sd_notify.h"
#include "cmd/warm.h"
#include "config/version.h"
#include "server/limits.h"
#include "server/server.h"
#include "vision/image.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* How often a wait looks whether loading or draining is done. */
#define TICK_MS 50

struct loader {
    const struct config *config;
    const struct plan *plan;
    struct engine *engine; /* valid once done */
    struct err err;
    atomic_bool done;
};

/* -- signals ------------------------------------------------------------------------- */

/* The handler may run on any thread, also on those that libraries started before main
 * (OpenBLAS does), so it only writes a byte for the thread that waits. */
static int signal_pipe[2] = {-1, -1};

static void on_signal(int number)
{
    int saved = errno;
    char byte = (char)number;
    ssize_t written = write(signal_pipe[1], &byte, 1);
    (void)written; /* a full pipe holds enough signals already */
    errno = saved;
}

static int catch_signals(struct err *e)
{
    struct sigaction catch = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) || sigaction(SIGINT, &catch, NULL) ||
        sigaction(SIGTERM, &catch, NULL) || sigaction(SIGPIPE, &ignore, NULL)) {
        return err_set(e, ERR_IO, "cannot prepare for signals: %s", strerror(errno));
    }
    return 0;
}

/* True when a signal came within timeout_ms (-1 = wait for ever). */
static bool signal_came(int timeout_ms)
{
    struct pollfd p = {.fd = signal_pipe[0], .events = POLLIN};
    char byte;
    while (poll(&p, 1, timeout_ms) < 0 && errno == EINTR) {
    }
    return read(signal_pipe[0], &byte, 1) == 1;
}

static void exit_at_once(void)
{
    static const char text[] = "tamp serve: stopped at once; running requests are lost\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
        _exit(EXIT_OUTPUT);
    }
    _exit(EXIT_FAILED);
}

/* -- start ---------------------------------------------------------------------------- */

/* Prompts and keys are in memory: no core files, and no new rights for what we start. */
static void harden(void)
{
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
        log_event(LOG_WARN, "core files or new privileges could not be switched off");
    }
}

/* A socket for each connection and each that lingers, and some for files and pipes.
 * Shells often give 1024. */
static void raise_descriptor_limit(void)
{
    const rlim_t needed = LIMIT_CONNECTIONS + LIMIT_LINGERING + 128;
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < needed) {
        l.rlim_cur = l.rlim_max < needed ? l.rlim_max : needed;
        if (setrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur < needed) {
            log_event(LOG_WARN, "few file descriptors: connections may have to wait",
                      log_i64("have", (int64_t)l.rlim_cur), log_i64("needed", (int64_t)needed));
        }
    }
}

static void *load(void *arg)
{
    struct loader *l = arg;
    l->engine = engine_setup(l->config, &l->err);
    if (l->engine && warm_static_prefixes(l->engine, l->plan, &l->err)) {
        engine_close(l->engine);
        l->engine = NULL;
    }
    atomic_store(&l->done, true);
    return NULL;
}

static struct server *start_server(const struct config *c, const struct plan *plan, struct err *e)
{
    const struct server_params p = {
        .host = c->host,
        .port = (int)c->port,
        .max_queue = (int)c->max_queue,
        .max_images = (int)c->max_images,
        .api_keys = (const char *const *)c->api_keys,
        .n_api_keys = c->n_api_keys,
        .insecure = c->insecure,
        .web = c->web,
        .default_plan = *plan,
        .version = TAMP_VERSION,
    };
    return server_start(&p, e);
}

static void greet(const struct config *c, const struct engine *en, const struct plan *plan,
                  int port)
{
    struct buf text;
    buf_init(&text, 16384);
    greeting_print(c, engine_info(en), plan, port, &text);
    fputs(buf_str(&text), stdout);
    fflush(stdout);
    buf_free(&text);
}

/* A manager that cannot be told is the administrator's to see; requests are served all the same. */
static void tell_manager(const char *state)
{
    struct err e = ERR_INIT;
    if (sd_notify_send(getenv("NOTIFY_SOCKET"), state, &e)) {
        log_event(LOG_WARN, "service manager", log_str("error", e.msg));
    }
}

/* -- the two waits ---------------------------------------------------------------------- */

/* True when the engine is there; false when a signal came first. A second signal ends
 * the process, because opening cannot be interrupted. */
static bool wait_until_loaded(struct loader *l)
{
    bool stop = false;
    while (!atomic_load(&l->done)) {
        if (signal_came(TICK_MS)) {
            if (stop) {
                exit_at_once();
            }
            stop = true;
        }
    }
    return !stop;
}

static void drain(struct server *s, int64_t timeout_s)
{
    double end_ms = clock_ms() + (double)timeout_s * 1e3;
    log_event(LOG_INFO, "draining", log_i64("timeout_s", timeout_s));
    while (!server_drain(s, TICK_MS)) {
        if (signal_came(0)) {
            exit_at_once();
        }
        if (clock_ms() >= end_ms) {
            log_event(LOG_WARN, "drain timeout: the rest is ended");
            return;
        }
    }
    log_event(LOG_INFO, "drained");
}

static int serve_until_signal(const struct config *c, const struct plan *plan, struct server *s)
{
    struct loader l = {.config = c, .plan = plan};
    pthread_t thread;
    if (pthread_create(&thread, NULL, load, &l)) {
        err_set(&l.err, ERR_IO, "cannot start a thread");
        server_stop(s);
        return cmd_fail("serve", EXIT_FAILED, &l.err);
    }
    bool loaded = wait_until_loaded(&l);
    pthread_join(thread, NULL);
    if (!l.engine) {
        server_stop(s);
        return cmd_fail("serve", EXIT_FAILED, &l.err);
    }
    if (loaded) {
        server_attach_engine(s, l.engine);
        greet(c, l.engine, plan, server_port(s));
        tell_manager(SD_NOTIFY_READY);
        while (!signal_came(-1)) {
        }
        tell_manager(SD_NOTIFY_STOPPING);
        drain(s, c->drain_timeout_s);
    }
    server_stop(s);
    engine_close(l.engine);
    return EXIT_OK;
}

static int serve(const struct config *c)
{
    struct err e = ERR_INIT;
    struct plan plan;
    log_init((enum log_format)c->log_format, (enum log_level)c->log_level);
    config_log_warnings(c, CONFIG_SERVE);
    if (plan_text_from_config(&plan, c, &e)) {
        return cmd_fail("serve", EXIT_USAGE, &e);
    }
    harden();
    raise_descriptor_limit();
    if (catch_signals(&e)) {
        return cmd_fail("serve", EXIT_FAILED, &e);
    }
    if (*c->mmproj && image_worker_start(&e)) {
        return cmd_fail("serve", EXIT_FAILED, &e);
    }
    struct server *s = start_server(c, &plan, &e);
    int rc = s ? serve_until_signal(c, &plan, s) : cmd_fail("serve", EXIT_FAILED, &e);
    server_free(s);
    image_worker_stop();
    return rc;
}

int cmd_serve(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct config c;
    int n_words = 0;
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("serve");
    }
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("serve", EXIT_FAILED, &e);
    }
    int rc = config_load(&c, CONFIG_SERVE, NULL, argc - 1, argv + 1, words, &n_words, &e);
    if (!rc && n_words > 0) {
        rc = err_reason(&e, ERR_INVALID, "unknown_flag",
                        "'%.64s' is no flag; flags begin with two dashes", words[0]);
        config_clear(&c);
    }
    mem_free(words);
    if (rc) {
        return cmd_fail("serve", cmd_exit_code(&e), &e);
    }
    rc = serve(&c);
    config_clear(&c);
    return rc;
}
