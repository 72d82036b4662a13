/* `tamp calibrate`: how strong may the compression be, on the operator's own requests? Plans
 * from the mildest to the strongest are replayed in the engine; the strongest of which it is
 * sure that it keeps to the target becomes a profile. Everything that was answered is kept
 * in a file, so that it can be stopped at any time. */
#include "base/alloc.h"
#include "base/binomial.h"
#include "cmd/calibrate_report.h"
#include "cmd/calibrate_run.h"
#include "cmd/commands.h"
#include "cmd/engine_setup.h"
#include "cmd/fixed_sequence.h"
#include "cmd/plan_text.h"
#include "server/limits.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#define REPORT_MAX (4 << 20)

struct calibrate_flags {
    char *data, *out, *name;
    struct schema_list step;
    double target;
    int64_t tokens;
    bool explore;
};

#define AT(member) offsetof(struct calibrate_flags, member)
#define CALIBRATE_OPTION(option_name, kind, where, value, default_text)                            \
    .name = option_name, .group = "Calibration", .type = kind, .def = default_text,                \
    .metavar = value, .unit = "", .offset = AT(where), .flags = SCHEMA_FLAG_ONLY,                  \
    .commands = CONFIG_RUN

static const struct schema_option options[] = {
    {CALIBRATE_OPTION("data", SCHEMA_STRING, data, "FILE", ""),
     .help = "requests as JSON lines: bodies of chat completions, pictures as data URLs or as "
             "paths beside the file; \"expected\" in a line says what a right answer holds"},
    {CALIBRATE_OPTION("target", SCHEMA_FLOAT, target, "SHARE", "0.983"), .min = 0.5, .max = 0.9999,
     .help = "least share of requests that must be answered as without compression"},
    {CALIBRATE_OPTION("step", SCHEMA_LIST, step, "PLAN", ""),
     .help = "a plan to try, as for --compression, on top of --profile if that is given; several "
             "times, the mildest first. Otherwise pictures from 1.3x to 16x if there are any, "
             "else text from 1.25x to 4x"},
    {CALIBRATE_OPTION("explore", SCHEMA_BOOL, explore, "", "false"),
     .help = "ask every plan of the ladder, for the report; what is kept is the same"},
    {CALIBRATE_OPTION("tokens", SCHEMA_INT, tokens, "N", "16"), .min = 1, .max = 4096,
     .help = "how much of an answer is compared"},
    {CALIBRATE_OPTION("name", SCHEMA_STRING, name, "NAME", "calibrated"),
     .help = "name of the profile"},
    {CALIBRATE_OPTION("out", SCHEMA_STRING, out, "DIR", "calibration"),
     .help = "folder for profile.yaml, report.html, report.md and the answers so far"},
};

#define N_OPTIONS ((int)(sizeof options / sizeof *options))

static const struct schema calibrate_schema = {.options = options, .n = N_OPTIONS};

const struct schema *cmd_calibrate_schema(void)
{
    return &calibrate_schema;
}

/* The ladders of those who bring none. */
static const char *const picture_ladder[] = {
    "image.method=tome,image.ratio=1.3", "image.method=tome,image.ratio=1.6",
    "image.method=tome,image.ratio=2",   "image.method=tome,image.ratio=3",
    "image.method=tome,image.ratio=4",   "image.method=tome,image.ratio=6",
    "image.method=tome,image.ratio=8",   "image.method=tome,image.ratio=12",
    "image.method=tome,image.ratio=16",
};
static const char *const text_ladder[] = {
    "lm.method=query,lm.ratio=1.25,protect_system=false",
    "lm.method=query,lm.ratio=1.5,protect_system=false",
    "lm.method=query,lm.ratio=2,protect_system=false",
    "lm.method=query,lm.ratio=2.5,protect_system=false",
    "lm.method=query,lm.ratio=3,protect_system=false",
    "lm.method=query,lm.ratio=4,protect_system=false",
};

/* ---- files ------------------------------------------------------------------------------------
 */

static int write_text(const struct calibrate_flags *f, const char *name,
                      void (*print)(const struct calibrate_summary *s, struct buf *out),
                      const struct calibrate_summary *s, struct err *e)
{
    char path[4096];
    struct buf text;
    int n = snprintf(path, sizeof path, "%s/%s", f->out, name);
    buf_init(&text, REPORT_MAX);
    print(s, &text);
    FILE *file = n > 0 && (size_t)n < sizeof path && !buf_failed(&text) ? fopen(path, "w") : NULL;
    bool ok = file && fwrite(buf_str(&text), 1, text.len, file) == text.len;
    ok = file && fclose(file) == 0 && ok;
    buf_free(&text);
    return ok ? 0 : err_set(e, ERR_IO, "cannot write %s: %s", path, strerror(errno));
}

/* The kept plan as `set:` of a profile on top of off. */
static int profile_settings(const struct calibrate_run *c, int kept, struct buf *set, struct err *e)
{
    struct plan again;
    if (kept < 0) {
        return 0;
    }
    plan_text_print(&c->plans[kept], set);
    if (buf_failed(set)) {
        return err_no_memory(e, set->max_bytes);
    }
    if (plan_from_profile(&again, "off", e) || plan_text_apply(&again, buf_str(set), e)) {
        return -1;
    }
    return plan_id(&again) == plan_id(&c->plans[kept])
               ? 0
               : err_set(e, ERR_INTERNAL, "the profile \"%s\" is not the plan \"%s\"", buf_str(set),
                         c->printed[kept]);
}

static int write_files(struct calibrate_run *c, const struct calibrate_flags *f,
                       const struct sequence *q, struct err *e)
{
    double rows[CALIBRATE_MAX_STEPS];
    double prompt[CALIBRATE_MAX_STEPS];
    struct buf set;
    struct buf promise;
    buf_init(&set, 1 << 16);
    buf_init(&promise, 1 << 12);
    for (int i = 0; i < c->n_steps; i++) {
        rows[i] = c->cost[i].rows_off > 0 ? c->cost[i].rows / c->cost[i].rows_off : (double)NAN;
        prompt[i] =
            c->cost[i].prompt_off > 0 ? c->cost[i].prompt / c->cost[i].prompt_off : (double)NAN;
    }
    const struct engine_info *info = engine_info(c->engine);
    int rc = profile_settings(c, q->kept, &set, e);
    const struct calibrate_summary s = {
        .sequence = q,
        .steps = c->steps,
        .rows = rows,
        .prompt = prompt,
        .differences = c->differences,
        .n_differences = c->n_differences,
        .n_requests = c->data.n,
        .n_judged = c->n_items[0] + c->n_items[1],
        .n_expected = c->data.n_with_expected,
        .max_tokens = (int)f->tokens,
        .data = f->data,
        .model = info->model_file,
        .name = f->name,
        .set = buf_str(&set),
    };
    rc = rc || write_text(f, "report.md", calibrate_print_markdown, &s, e) ||
         write_text(f, "report.html", calibrate_print_html, &s, e) ||
         write_text(f, "report.svg", calibrate_print_svg, &s, e) ||
         write_text(f, "profile.yaml", calibrate_print_profile, &s, e);
    if (!rc) {
        calibrate_print_promise(&s, &promise);
        printf("%s\nprofile: %s/profile.yaml\nreport:  %s/report.html\n", buf_str(&promise), f->out,
               f->out);
        if (q->kept < 0 && !f->explore) {
            printf("--explore asks every plan, to see how far each is from the target\n");
        }
    }
    buf_free(&set);
    buf_free(&promise);
    return rc ? -1 : 0;
}

/* ---- getting ready ------------------------------------------------------------------------------
 */

/* The ladder over the profile that was asked for, or over none. */
static int make_plans(struct calibrate_run *c, const struct config *config,
                      const struct calibrate_flags *f, struct err *e)
{
    const struct schema_list *given = &f->step;
    bool pictures = c->data.n_with_images > 0;
    const char *const *ladder = pictures ? picture_ladder : text_ladder;
    size_t n = pictures ? sizeof picture_ladder / sizeof *picture_ladder
                        : sizeof text_ladder / sizeof *text_ladder;
    if (given->n > CALIBRATE_MAX_STEPS) {
        return err_reason(e, ERR_TOO_LARGE, "invalid_config", "--step: at most %d",
                          CALIBRATE_MAX_STEPS);
    }
    c->n_steps = given->n ? given->n : (int)n;
    const char *base = config_given(config, "profile") ? config->profile : "off";
    for (int i = 0; i <= c->n_steps; i++) {
        struct buf text;
        bool off = i == c->n_steps;
        if (plan_from_profile(&c->plans[i], off ? "off" : base, e)) {
            return -1;
        }
        if (!off) {
            c->steps[i] = given->n ? given->items[i] : ladder[i];
            if (plan_text_apply(&c->plans[i], c->steps[i], e)) {
                return err_prefix(e, "--step %s", c->steps[i]);
            }
        }
        buf_init(&text, 1 << 16);
        if (plan_print(&c->plans[i], &text) || !(c->printed[i] = buf_take(&text, NULL))) {
            buf_free(&text);
            return err_no_memory(e, 1 << 16);
        }
    }
    return 0;
}

/* Fewer requests than that cannot promise so much, however well they are answered. */
static int check_enough(int n, double target, const char *what, struct err *e)
{
    int least = HALF_COUNT * binomial_least_trials(target, CALIBRATE_ALPHA);
    if (n >= least) {
        return 0;
    }
    int half = n / HALF_COUNT;
    double can = half > 0 ? pow(CALIBRATE_ALPHA, 1.0 / half) : 0;
    return err_set(
        e, ERR_INVALID,
        "%d %s can promise %.3f at most, and only if all are answered alike; a target of "
        "%.4g takes %d or more, better three times as many",
        n, what, floor(can * 1000) / 1000, target, least);
}

static int make_folder(const char *path, struct err *e)
{
    return mkdir(path, 0777) && errno != EEXIST
               ? err_set(e, ERR_IO, "--out: cannot make the folder %s: %s", path, strerror(errno))
               : 0;
}

static int get_ready(struct calibrate_run *c, const struct config *config,
                     const struct calibrate_flags *f, struct err *e)
{
    char path[4096];
    struct plan in_force;
    int n = snprintf(path, sizeof path, "%s/answers.jsonl", f->out);
    if (n < 0 || (size_t)n >= sizeof path) {
        return err_reason(e, ERR_TOO_LARGE, "invalid_config", "--out: the path is too long");
    }
    if (plan_text_from_config(&in_force, config, e)) {
        return -1;
    }
    c->engine = engine_setup(config, e);
    if (!c->engine) {
        return -1;
    }
    const struct engine_info *info = engine_info(c->engine);
    c->plans[0] = in_force; /* any valid plan does while the lines are checked */
    c->limits =
        (struct chat_request_limits){.n_vocab = info->n_vocab,
                                     .max_images = info->projector ? (int)config->max_images : 0,
                                     .max_image_bytes = LIMIT_IMAGE_BYTES,
                                     .default_plan = &c->plans[0]};
    if (calibrate_run_init(c, config, e) || calibrate_data_open(&c->data, f->data, &c->limits, e) ||
        check_enough(c->data.n, f->target, "requests", e) || make_plans(c, config, f, e) ||
        make_folder(f->out, e) || calibrate_pairs_open(&c->pairs, path, e)) {
        return -1;
    }
    fprintf(stderr, "%d requests, %d with pictures, %d with an expected answer; %d plans\n",
            c->data.n, c->data.n_with_images, c->data.n_with_expected, c->n_steps);
    if (c->pairs.n_found) {
        fprintf(stderr, "goes on with the %d answers in %s\n", c->pairs.n_found, path);
    }
    return 0;
}

static int calibrate(struct calibrate_run *c, const struct calibrate_flags *f, struct err *e)
{
    struct sequence q = {.n_steps = c->n_steps,
                         .target = f->target,
                         .alpha = CALIBRATE_ALPHA,
                         .explore = f->explore,
                         .agrees = calibrate_agrees,
                         .ctx = c};
    if (calibrate_deal(c, e)) {
        return -1;
    }
    q.n_items[0] = c->n_items[0];
    q.n_items[1] = c->n_items[1];
    if (check_enough(q.n_items[0] + q.n_items[1], q.target,
                     "requests that are answered right without compression", e)) {
        return -1;
    }
    q.tally = mem_zalloc((size_t)c->n_steps, sizeof *q.tally);
    if (!q.tally) {
        return err_no_memory(e, (size_t)c->n_steps * sizeof *q.tally);
    }
    int rc = sequence_run(&q);
    if (rc) {
        *e = c->e;
    } else {
        rc = write_files(c, f, &q, e);
    }
    mem_free(q.tally);
    return rc;
}

static int run(const struct config *config, const struct calibrate_flags *flags)
{
    struct err e = ERR_INIT;
    struct calibrate_run *c = mem_zalloc(1, sizeof *c);
    if (!c) {
        err_no_memory(&e, sizeof *c);
        return cmd_fail("calibrate", EXIT_FAILED, &e);
    }
    log_init((enum log_format)config->log_format, (enum log_level)config->log_level);
    config_log_warnings(config, CONFIG_RUN);
    calibrate_catch_signals();
    c->max_tokens = (int)flags->tokens;
    int rc = get_ready(c, config, flags, &e) || calibrate(c, flags, &e);
    bool stopped = rc && e.code == ERR_CANCELLED;
    if (stopped) {
        fprintf(stderr, "\nstopped after %d new answers; the same command goes on\n", c->n_asked);
    }
    engine_close(c->engine);
    calibrate_run_clear(c);
    mem_free(c);
    return stopped ? EXIT_FAILED
           : rc    ? cmd_fail("calibrate", cmd_exit_code(&e), &e)
                   : cmd_finish_output("calibrate");
}

int cmd_calibrate(int argc, char **argv)
{
    struct err e = ERR_INIT;
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("calibrate");
    }
    struct calibrate_flags flags = {0};
    unsigned char origin[N_OPTIONS] = {0};
    struct schema_values extra = {.schema = &calibrate_schema, .base = &flags, .origin = origin};
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("calibrate", EXIT_FAILED, &e);
    }
    struct config c;
    int n_words = 0;
    int rc;
    if (config_load(&c, CONFIG_RUN, &extra, argc - 1, argv + 1, words, &n_words, &e)) {
        rc = cmd_fail("calibrate", cmd_exit_code(&e), &e);
    } else {
        c.parallel = 1;
        if (n_words > 0 || !*flags.data) {
            fprintf(stderr,
                    n_words ? "tamp calibrate: '%s' is no flag; --help lists them\n"
                            : "tamp calibrate: --data FILE says which requests%s\n",
                    n_words ? words[0] : "");
            rc = EXIT_USAGE;
        } else {
            rc = run(&c, &flags);
        }
        config_clear(&c);
        schema_clear(&extra);
    }
    mem_free(words);
    return rc;
}
