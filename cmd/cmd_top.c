/* `tamp top`: what a running server does, read from its /metrics every few seconds. On a
 * terminal the picture is drawn anew in its place; through a pipe one follows another. */
#include "base/alloc.h"
#include "base/clock.h"
#include "cmd/commands.h"
#include "cmd/http_get.h"
#include "cmd/top_view.h"
#include "server/limits.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_URL "http://127.0.0.1:8080"
#define TIMEOUT_MS  10000
#define WINDOW_MS   60000
#define MAX_KEPT    61 /* readings of a minute at one a second */
#define SCREEN_MAX  65536

struct top_flags {
    double interval;
    bool once;
    char *api_key;
};

#define AT(member) offsetof(struct top_flags, member)
#define ALL        1u

static const struct schema_option options[] = {
    {.name = "once",
     .group = "Watching",
     .type = SCHEMA_BOOL,
     .def = "false",
     .metavar = "",
     .unit = "",
     .help = "print once and end; rates are those of one interval",
     .offset = AT(once),
     .flags = SCHEMA_FLAG_ONLY,
     .commands = ALL},
    {.name = "interval",
     .group = "Watching",
     .type = SCHEMA_FLOAT,
     .def = "2",
     .min = 1,
     .max = 3600,
     .metavar = "N",
     .unit = "seconds",
     .help = "time between two readings",
     .offset = AT(interval),
     .flags = SCHEMA_FLAG_ONLY,
     .commands = ALL},
    {.name = "api-key",
     .group = "Watching",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "KEY",
     .unit = "",
     .help = "key of the server; a flag can be seen by every user of the machine, so "
             "prefer TAMP_API_KEY",
     .offset = AT(api_key),
     .flags = SCHEMA_NOT_IN_FILE | SCHEMA_SECRET,
     .commands = ALL},
};

#define N_OPTIONS ((int)(sizeof options / sizeof *options))

static const struct schema top_schema = {.options = options, .n = N_OPTIONS};

const struct schema *cmd_top_schema(void)
{
    return &top_schema;
}

/* The readings of the last minute, oldest first. */
struct history {
    struct scrape kept[MAX_KEPT];
    int n;
};

static void forget_first(struct history *h)
{
    scrape_clear(&h->kept[0]);
    memmove(h->kept, h->kept + 1, (size_t)--h->n * sizeof *h->kept);
}

static void remember(struct history *h, const struct scrape *s)
{
    while (h->n == MAX_KEPT || (h->n > 1 && s->at_ms - h->kept[1].at_ms >= WINDOW_MS)) {
        forget_first(h);
    }
    h->kept[h->n++] = *s;
}

static int read_server(const struct http_target *t, const char *key, struct history *h,
                       struct err *e)
{
    struct buf body;
    struct scrape s = {0};
    buf_init(&body, LIMIT_METRICS_BYTES);
    int rc = http_get(t, "/metrics", key, TIMEOUT_MS, &body, e);
    if (!rc && body.len == 0) {
        rc = err_set(e, ERR_FORMAT, "%s: /metrics is empty", t->shown);
    }
    if (!rc) {
        size_t n;
        rc = scrape_parse(&s, buf_take(&body, &n), clock_ms(), e);
    }
    if (!rc && scrape_total(&s, "tamp_build_info", NULL) <= 0) {
        rc = err_set(e, ERR_FORMAT, "%s: these are the metrics of another program", t->shown);
    }
    buf_free(&body);
    if (rc) {
        scrape_clear(&s);
        return -1;
    }
    remember(h, &s);
    return 0;
}

static int show(const struct http_target *t, const struct history *h, bool screen)
{
    const struct scrape *now = &h->kept[h->n - 1];
    const struct top_readings r = {
        .now = now,
        .last = h->n > 1 ? now - 1 : NULL,
        .old = h->n > 1 ? h->kept : NULL,
        .server = t->shown,
        .wall = time(NULL),
    };
    struct buf text;
    buf_init(&text, SCREEN_MAX);
    buf_puts(&text, screen ? "\033[H\033[J" : "");
    top_view_print(&r, cmd_colour(STDOUT_FILENO), &text);
    buf_puts(&text, screen ? "" : "\n");
    fputs(buf_str(&text), stdout);
    buf_free(&text);
    return cmd_finish_output("top");
}

static void pause_s(double seconds)
{
    const struct timespec t = {.tv_sec = (time_t)seconds,
                               .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

static int watch(const struct http_target *t, const struct top_flags *f)
{
    struct history h = {.n = 0};
    struct err e = ERR_INIT;
    bool screen = isatty(STDOUT_FILENO) && !f->once;
    int rc = EXIT_OK;
    for (bool more = true; more && rc == EXIT_OK;) {
        if (read_server(t, f->api_key, &h, &e)) {
            rc = cmd_fail("top", EXIT_FAILED, &e);
            break;
        }
        if (!f->once || h.n > 1) {
            rc = show(t, &h, screen);
            more = !f->once;
        }
        if (more && rc == EXIT_OK) {
            pause_s(f->interval);
        }
    }
    while (h.n > 0) {
        forget_first(&h);
    }
    return rc;
}

static int parse(struct schema_values *v, struct http_target *t, int argc, char **argv,
                 const char **words, struct err *e)
{
    int n = 0;
    if (schema_defaults(v, e) || schema_args(&v, 1, ALL, argc, argv, words, &n, e) ||
        schema_env(v, e)) {
        return -1;
    }
    if (n > 1) {
        return err_reason(e, ERR_INVALID, "unknown_flag", "one server at a time, not '%.64s', too",
                          words[1]);
    }
    return http_target_parse(n ? words[0] : DEFAULT_URL, t, e);
}

int cmd_top(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct top_flags f = {0};
    unsigned char origin[N_OPTIONS] = {0};
    struct schema_values v = {.schema = &top_schema, .base = &f, .origin = origin};
    struct http_target t;
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("top");
    }
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("top", EXIT_FAILED, &e);
    }
    int rc = parse(&v, &t, argc - 1, argv + 1, words, &e) ? cmd_fail("top", cmd_exit_code(&e), &e)
                                                          : watch(&t, &f);
    mem_free(words);
    schema_clear(&v);
    return rc;
}
