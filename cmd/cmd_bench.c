/* `tamp bench`: how fast this machine runs this model, in a minute. Prompts, answers and, if
 * there is a projector, a picture without and with the compression plan, one request at a
 * time through the same engine as the server's. The median of some runs and their spread:
 * other programs on the machine make single runs slower, never faster. */
#include "base/alloc.h"
#include "cmd/bench_job.h"
#include "cmd/commands.h"
#include "cmd/engine_setup.h"
#include "cmd/plan_text.h"

#include <stdlib.h>
#include <string.h>

#define PICTURE_MAX_BYTES (64 << 20)
#define MOST_RUNS         100

struct bench_flags {
    struct schema_list rows, context;
    char *image;
    int64_t tokens, runs;
    bool json;
};

#define AT(member) offsetof(struct bench_flags, member)
#define BENCH_OPTION(option_name, kind, where, value, default_text)                                \
    .name = option_name, .group = "Measurement", .type = kind, .def = default_text,                \
    .metavar = value, .unit = "", .offset = AT(where), .flags = SCHEMA_FLAG_ONLY,                  \
    .commands = CONFIG_RUN

static const struct schema_option options[] = {
    {BENCH_OPTION("rows", SCHEMA_LIST, rows, "N", ""),
     .help = "prompt length to measure; may be given several times (64, 512 and 2048 otherwise)"},
    {BENCH_OPTION("context", SCHEMA_LIST, context, "N", ""),
     .help = "rows before an answer; may be given several times (64 and 512 otherwise)"},
    {BENCH_OPTION("tokens", SCHEMA_INT, tokens, "N", "64"), .min = 1, .max = 1 << 16,
     .help = "length of an answer"},
    {BENCH_OPTION("image", SCHEMA_STRING, image, "FILE", ""),
     .help = "JPEG or PNG to measure the vision tower with"},
    {BENCH_OPTION("runs", SCHEMA_INT, runs, "N", "5"), .min = 1, .max = MOST_RUNS,
     .help = "how often each case is run; one more before them is not counted"},
    {BENCH_OPTION("json", SCHEMA_BOOL, json, "", "false"), .help = "one JSON object a case"},
};

#define N_OPTIONS ((int)(sizeof options / sizeof *options))

static const struct schema bench_schema = {.options = options, .n = N_OPTIONS};

const struct schema *cmd_bench_schema(void)
{
    return &bench_schema;
}

/* ---- one case ------------------------------------------------------------------------- */

enum what { WHAT_PROMPT, WHAT_ANSWER, WHAT_PICTURE };

struct bench_case {
    enum what what;
    const char *name; /* of the plan, for a picture */
    int rows;         /* of the prompt: to measure, or before the answer */
    const struct plan *plan;
};

struct measured {
    double value[MOST_RUNS]; /* rows or tokens a second, or milliseconds to the first token */
    int n;
    int rows; /* of the prompt that ran */
};

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_case(const struct bench_case *c, const struct measured *m, int n_tokens,
                       bool json)
{
    static const char *const units[] = {"rows/s", "tokens/s", "ms"};
    static const char *const names[] = {"prompt", "answer", "picture"};
    double middle =
        m->n % 2 ? m->value[m->n / 2] : (m->value[m->n / 2 - 1] + m->value[m->n / 2]) / 2;
    char what[96];
    if (json) {
        printf("{\"case\":\"%s\",\"rows\":%d,\"tokens\":%d,\"plan\":\"%s\",\"unit\":\"%s\","
               "\"median\":%.3f,\"least\":%.3f,\"most\":%.3f,\"runs\":%d}\n",
               names[c->what], m->rows, c->what == WHAT_ANSWER ? n_tokens : 1, c->name,
               units[c->what], middle, m->value[0], m->value[m->n - 1], m->n);
    } else {
        if (c->what == WHAT_PROMPT) {
            snprintf(what, sizeof what, "prompt of %d rows", m->rows);
        } else if (c->what == WHAT_ANSWER) {
            snprintf(what, sizeof what, "answer of %d tokens after %d rows", n_tokens, m->rows);
        } else {
            snprintf(what, sizeof what, "picture and question, %s: %d rows", c->name, m->rows);
        }
        printf("%-48s %9.1f %-8s (%.1f-%.1f)\n", what, middle, units[c->what], m->value[0],
               m->value[m->n - 1]);
    }
    fflush(stdout);
}

static double value_of(const struct bench_case *c, const struct job_result *r)
{
    switch (c->what) {
    case WHAT_PROMPT:
        return (r->prompt_rows - r->cached_rows) * 1e3 / r->prompt_ms;
    case WHAT_ANSWER:
        return (r->completion_tokens - 1) * 1e3 / r->predicted_ms;
    default:
        return r->first_token_ms;
    }
}

/* One more run than counted comes first: it finds caches and pages cold. */
static bool run_case(struct engine *en, const struct bench_case *c, const struct bench_flags *f,
                     const struct image_bytes *picture, struct buf *prompt)
{
    struct measured m = {.n = 0};
    int words = c->what == WHAT_PICTURE ? 0 : bench_prompt_words(en, c->plan, c->rows);
    if (words < 0) {
        return false;
    }
    for (int run = -1; run < (int)f->runs; run++) {
        struct job_result r = {0};
        int tokens = c->what == WHAT_ANSWER ? (int)f->tokens + 1 : 1;
        buf_clear(prompt);
        if (c->what == WHAT_PICTURE) {
            buf_printf(prompt, "What kind of product is it? %d", run);
        } else {
            bench_words(prompt, words, run + 1);
        }
        if (!bench_job(en, c->plan, buf_str(prompt), c->what == WHAT_PICTURE ? picture : NULL,
                       tokens, &r)) {
            return false;
        }
        m.rows = r.prompt_rows;
        if (run >= 0) {
            m.value[m.n++] = value_of(c, &r);
        }
    }
    qsort(m.value, (size_t)m.n, sizeof *m.value, compare_numbers);
    print_case(c, &m, (int)f->tokens, f->json);
    return true;
}

/* ---- all cases ------------------------------------------------------------------------ */

/* The lengths that a flag gives, or the usual ones that the context holds. -1: one is no
 * length. */
static int lengths(const struct schema_list *given, const int *usual, int n_usual, int n_ctx,
                   int n_more, int *out, int most, struct err *e)
{
    int n = 0;
    for (int i = 0; i < given->n; i++) {
        char *end;
        long v = strtol(given->items[i], &end, 10);
        if (*end || end == given->items[i] || v < 1 || v > n_ctx - n_more || n == most) {
            return err_reason(e, ERR_INVALID, "invalid_config",
                              "'%s' is not a length from 1 to %d (at most %d of them)",
                              given->items[i], n_ctx - n_more, most);
        }
        out[n++] = (int)v;
    }
    for (int i = 0; given->n == 0 && i < n_usual; i++) {
        if (usual[i] <= n_ctx - n_more) {
            out[n++] = usual[i];
        }
    }
    return n;
}

#define MOST_LENGTHS 16

static int run_cases(struct engine *en, const struct bench_flags *f, const struct plan *plan,
                     const char *plan_name, struct err *e)
{
    static const int usual[] = {64, 512, 2048};
    int prompts[MOST_LENGTHS];
    int contexts[MOST_LENGTHS];
    int n_ctx = engine_info(en)->n_ctx;
    int n_prompts = lengths(&f->rows, usual, 3, n_ctx, 1, prompts, MOST_LENGTHS, e);
    int n_contexts =
        lengths(&f->context, usual, 2, n_ctx, (int)f->tokens + 1, contexts, MOST_LENGTHS, e);
    if (n_prompts < 0 || n_contexts < 0) {
        return -1;
    }
    struct plan off;
    if (plan_from_profile(&off, "off", e)) {
        return -1;
    }
    struct buf prompt;
    struct buf bytes;
    struct image_bytes picture = {0};
    buf_init(&prompt, BENCH_PROMPT_BYTES);
    buf_init(&bytes, PICTURE_MAX_BYTES);
    bool ok = true;
    for (int i = 0; ok && i < n_prompts; i++) {
        struct bench_case c = {WHAT_PROMPT, "off", prompts[i], &off};
        ok = run_case(en, &c, f, NULL, &prompt);
    }
    for (int i = 0; ok && i < n_contexts; i++) {
        struct bench_case c = {WHAT_ANSWER, "off", contexts[i], &off};
        ok = run_case(en, &c, f, NULL, &prompt);
    }
    if (ok && f->image && *f->image) {
        struct bench_case without = {WHAT_PICTURE, "off", 0, &off};
        struct bench_case with = {WHAT_PICTURE, plan_name, 0, plan};
        ok = bench_picture(f->image, &picture, &bytes) &&
             run_case(en, &without, f, &picture, &prompt) &&
             run_case(en, &with, f, &picture, &prompt);
    }
    buf_free(&prompt);
    buf_free(&bytes);
    return ok ? 0 : err_set(e, ERR_INTERNAL, "a request did not work (above)");
}

static int bench(const struct config *c, const struct bench_flags *f)
{
    struct err e = ERR_INIT;
    struct plan plan;
    log_init((enum log_format)c->log_format, (enum log_level)c->log_level);
    config_log_warnings(c, CONFIG_RUN);
    if (plan_text_from_config(&plan, c, &e)) {
        return cmd_fail("bench", EXIT_USAGE, &e);
    }
    struct engine *en = engine_setup(c, &e);
    if (!en) {
        return cmd_fail("bench", EXIT_FAILED, &e);
    }
    const struct engine_info *info = engine_info(en);
    if (!f->json) {
        printf("%s, %.0f MB of weights, %s in %s, %d threads\n", info->model_name,
               (double)info->weight_bytes * 1e-6, info->kernel, info->precision, info->n_threads);
    }
    int rc = run_cases(en, f, &plan, c->profile, &e);
    engine_close(en);
    return rc ? cmd_fail("bench", cmd_exit_code(&e), &e) : cmd_finish_output("bench");
}

int cmd_bench(int argc, char **argv)
{
    struct err e = ERR_INIT;
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("bench");
    }
    struct bench_flags flags = {0};
    unsigned char origin[N_OPTIONS] = {0};
    struct schema_values extra = {.schema = &bench_schema, .base = &flags, .origin = origin};
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("bench", EXIT_FAILED, &e);
    }
    struct config c;
    int n_words = 0;
    int rc;
    if (config_load(&c, CONFIG_RUN, &extra, argc - 1, argv + 1, words, &n_words, &e)) {
        rc = cmd_fail("bench", cmd_exit_code(&e), &e);
    } else {
        c.parallel = 1;
        if (n_words > 0) {
            fprintf(stderr, "tamp bench: '%s' is no flag; --help lists them\n", words[0]);
            rc = EXIT_USAGE;
        } else {
            rc = bench(&c, &flags);
        }
        config_clear(&c);
        schema_clear(&extra);
    }
    mem_free(words);
    return rc;
}
