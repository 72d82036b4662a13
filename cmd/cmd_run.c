/* `tamp run`: one prompt with its pictures through the engine, the answer streamed to
 * stdout, the bill on stderr. The same engine as the server's, without HTTP. */
#include "base/alloc.h"
#include "cmd/bill.h"
#include "cmd/commands.h"
#include "cmd/engine_setup.h"
#include "cmd/plan_text.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define PROMPT_MAX_BYTES  (1 << 20)
#define PICTURE_MAX_BYTES (64 << 20)

struct run_flags {
    struct schema_list image;
    char *system;
    int64_t max_tokens, top_k, seed;
    double temperature, top_p, min_p, repeat_penalty;
    bool quiet;
};

#define AT(member) offsetof(struct run_flags, member)
#define RUN_OPTION(option_name, kind, where, value, default_text)                                  \
    .name = option_name, .group = "Prompt and answer", .type = kind, .def = default_text,          \
    .metavar = value, .unit = "", .offset = AT(where), .flags = SCHEMA_FLAG_ONLY,                  \
    .commands = CONFIG_RUN

static const struct schema_option options[] = {
    {RUN_OPTION("image", SCHEMA_LIST, image, "FILE", ""),
     .help = "JPEG or PNG to ask about; may be given several times"},
    {RUN_OPTION("system", SCHEMA_STRING, system, "TEXT", ""), .help = "system prompt"},
    {RUN_OPTION("max-tokens", SCHEMA_INT, max_tokens, "N", "256"), .max = 1 << 20,
     .help = "longest answer; 0 goes on until the context is full"},
    {RUN_OPTION("temperature", SCHEMA_FLOAT, temperature, "T", "0"), .max = 2,
     .help = "0 always takes the likeliest token, higher values vary more"},
    {RUN_OPTION("top-k", SCHEMA_INT, top_k, "N", "40"), .max = 1 << 20,
     .help = "choose among the N likeliest tokens; 0 among all"},
    {RUN_OPTION("top-p", SCHEMA_FLOAT, top_p, "P", "0.95"), .max = 1,
     .help = "choose among the likeliest tokens that together have this probability"},
    {RUN_OPTION("min-p", SCHEMA_FLOAT, min_p, "P", "0.05"), .max = 1,
     .help = "leave out tokens less likely than this share of the likeliest"},
    {RUN_OPTION("repeat-penalty", SCHEMA_FLOAT, repeat_penalty, "X", "1"), .min = 0.1, .max = 10,
     .help = "above 1 makes tokens that came already less likely"},
    {RUN_OPTION("seed", SCHEMA_INT, seed, "N", "-1"), .min = -1, .max = 9007199254740992.0,
     .help = "the same seed gives the same answer; -1 draws one"},
    {RUN_OPTION("quiet", SCHEMA_BOOL, quiet, "", "false"), .help = "print the answer alone"},
};

#define N_OPTIONS ((int)(sizeof options / sizeof *options))

static const struct schema run_schema = {.options = options, .n = N_OPTIONS};

const struct schema *cmd_run_schema(void)
{
    return &run_schema;
}

/* -- input ---------------------------------------------------------------------------- */

static int read_stream(FILE *f, const char *name, struct buf *out, struct err *e)
{
    char chunk[65536];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, f)) > 0 && !buf_append(out, chunk, got)) {
    }
    if (ferror(f)) {
        return err_set(e, ERR_IO, "cannot read %s: %s", name, strerror(errno));
    }
    if (buf_failed(out)) {
        return err_set(e, ERR_TOO_LARGE, "%s is over %zu bytes, or memory is short", name,
                       out->max_bytes);
    }
    return 0;
}

static int read_prompt(const char **words, int n_words, struct buf *out, struct err *e)
{
    buf_init(out, PROMPT_MAX_BYTES);
    if (n_words == 1 && strcmp(words[0], "-") == 0) {
        return read_stream(stdin, "stdin", out, e);
    }
    for (int i = 0; i < n_words; i++) {
        buf_printf(out, "%s%s", i ? " " : "", words[i]);
    }
    if (buf_failed(out)) {
        return err_set(e, ERR_TOO_LARGE, "the prompt is over %d bytes", PROMPT_MAX_BYTES);
    }
    return 0;
}

static int read_picture(const char *path, struct image_bytes *out, struct err *e)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        return err_set(e, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    }
    struct buf b;
    buf_init(&b, PICTURE_MAX_BYTES);
    int rc = read_stream(f, path, &b, e);
    fclose(f);
    if (!rc) {
        out->data = (uint8_t *)buf_take(&b, &out->n);
    }
    buf_free(&b);
    return rc;
}

static struct image_bytes *read_pictures(const struct schema_list *paths, struct err *e)
{
    struct image_bytes *list = mem_zalloc((size_t)paths->n + 1, sizeof *list);
    if (!list) {
        err_no_memory(e, ((size_t)paths->n + 1) * sizeof *list);
        return NULL;
    }
    for (int i = 0; i < paths->n; i++) {
        if (read_picture(paths->items[i], &list[i], e)) {
            for (int k = 0; k < i; k++) {
                mem_free((void *)(uintptr_t)list[k].data);
            }
            mem_free(list);
            return NULL;
        }
    }
    return list;
}

static void free_pictures(struct image_bytes *list, int n)
{
    for (int i = 0; list && i < n; i++) {
        mem_free((void *)(uintptr_t)list[i].data);
    }
    mem_free(list);
}

/* -- the request ------------------------------------------------------------------------ */

static struct generation_params generation(const struct run_flags *f)
{
    struct generation_params g = generation_params_default;
    g.max_tokens = (int)f->max_tokens;
    g.temperature = (float)f->temperature;
    g.top_k = (int)f->top_k;
    g.top_p = (float)f->top_p;
    g.min_p = (float)f->min_p;
    g.repeat_penalty = (float)f->repeat_penalty;
    g.seed = (uint64_t)f->seed;
    if (f->seed < 0 && getrandom(&g.seed, sizeof g.seed, 0) != (ssize_t)sizeof g.seed) {
        g.seed = (uint64_t)getpid();
    }
    return g;
}

/* One optional system message, then one of the user: the pictures, then the text. */
static struct job *prepare(struct engine *en, const struct run_flags *f, const struct plan *plan,
                           const struct image_bytes *pictures, const char *prompt, struct err *e)
{
    int n = f->image.n;
    struct chat_part *parts = mem_zalloc((size_t)n + 1, sizeof *parts);
    if (!parts) {
        err_no_memory(e, ((size_t)n + 1) * sizeof *parts);
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        parts[i] = (struct chat_part){.type = CHAT_PART_IMAGE, .image = i};
    }
    parts[n] =
        (struct chat_part){.type = CHAT_PART_TEXT, .text = prompt, .text_len = strlen(prompt)};
    const struct chat_part system = {
        .type = CHAT_PART_TEXT, .text = f->system, .text_len = strlen(f->system)};
    const struct chat_message messages[] = {
        {.role = CHAT_SYSTEM, .parts = &system, .n_parts = 1},
        {.role = CHAT_USER, .parts = parts, .n_parts = n + 1},
    };
    bool has_system = *f->system != '\0';
    const struct engine_request request = {
        .id = "run",
        .chat = {.messages = has_system ? messages : messages + 1,
                 .n_messages = has_system ? 2 : 1,
                 .n_images = n},
        .images = pictures,
        .plan = *plan,
        .gen = generation(f),
        .add_generation_prompt = true,
    };
    struct job *job = job_prepare(en, &request, e);
    mem_free(parts);
    return job;
}

/* Events until the last one; 0, -1 with *e set, or EXIT_OUTPUT when stdout is gone. */
static int stream(struct job *job, struct err *e)
{
    struct job_event event;
    for (;;) {
        job_next(job, &event);
        switch (event.type) {
        case JOB_EVENT_NONE:
            job_wait(job, -1);
            break;
        case JOB_EVENT_TEXT:
            if (fwrite(event.text, 1, event.text_len, stdout) != event.text_len || fflush(stdout)) {
                return EXIT_OUTPUT;
            }
            break;
        case JOB_EVENT_ERROR:
            *e = *job_error(job);
            return -1;
        case JOB_EVENT_END:
            return putchar('\n') == EOF || fflush(stdout) ? EXIT_OUTPUT : 0;
        case JOB_EVENT_STARTED:
        case JOB_EVENT_PROGRESS:
        case JOB_EVENT_DONE:
            break;
        }
    }
}

static void print_bill(const struct job *job)
{
    bool colour = cmd_colour(STDERR_FILENO);
    struct buf text;
    buf_init(&text, 8192);
    bill_print(job_result(job), &text);
    fprintf(stderr, "\n%s%s%s", colour ? "\033[2m" : "", buf_str(&text), colour ? "\033[0m" : "");
    buf_free(&text);
}

static int answer(const struct config *c, const struct run_flags *f, const struct plan *plan,
                  const char *prompt)
{
    struct err e = ERR_INIT;
    int rc = -1;
    struct engine *en = NULL;
    struct job *job = NULL;
    struct image_bytes *pictures = read_pictures(&f->image, &e);
    if (pictures) {
        en = engine_setup(c, &e);
    }
    if (en) {
        job = prepare(en, f, plan, pictures, prompt, &e);
    }
    if (job && !job_submit(job, &e)) {
        rc = stream(job, &e);
    }
    if (rc == 0 && !f->quiet) {
        print_bill(job);
    }
    job_free(job);
    engine_close(en);
    free_pictures(pictures, f->image.n);
    if (rc == EXIT_OUTPUT) {
        fprintf(stderr, "tamp run: the answer could not be written\n");
        return EXIT_OUTPUT;
    }
    return rc ? cmd_fail("run", EXIT_FAILED, &e) : EXIT_OK;
}

static int run(const struct config *c, const struct run_flags *f, const char **words, int n_words)
{
    struct err e = ERR_INIT;
    struct plan plan;
    struct buf prompt;
    log_init((enum log_format)c->log_format, (enum log_level)c->log_level);
    config_log_warnings(c, CONFIG_RUN);
    if (plan_text_from_config(&plan, c, &e)) {
        return cmd_fail("run", EXIT_USAGE, &e);
    }
    if (n_words == 0) {
        fprintf(stderr, "tamp run: give a prompt, or - to read it from stdin; --help shows how\n");
        return EXIT_USAGE;
    }
    int rc = read_prompt(words, n_words, &prompt, &e) ? cmd_fail("run", EXIT_FAILED, &e)
                                                      : answer(c, f, &plan, buf_str(&prompt));
    buf_free(&prompt);
    return rc;
}

int cmd_run(int argc, char **argv)
{
    struct err e = ERR_INIT;
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("run");
    }
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("run", EXIT_FAILED, &e);
    }
    struct run_flags flags = {0};
    unsigned char origin[N_OPTIONS] = {0};
    struct schema_values extra = {.schema = &run_schema, .base = &flags, .origin = origin};
    struct config c;
    int n_words;
    int rc;
    if (config_load(&c, CONFIG_RUN, &extra, argc - 1, argv + 1, words, &n_words, &e)) {
        rc = cmd_fail("run", cmd_exit_code(&e), &e);
    } else {
        /* One prompt needs one sequence, whatever the file says for the server. */
        c.parallel = 1;
        c.max_images = flags.image.n > c.max_images ? flags.image.n : c.max_images;
        rc = run(&c, &flags, words, n_words);
        config_clear(&c);
        schema_clear(&extra);
    }
    mem_free(words);
    return rc;
}
