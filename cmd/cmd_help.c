/* `tamp help`, `tamp version`, and what all sub-commands share when they talk to the
 * shell. Its flags write the texts that are generated from tables: make docs, make install. */
#include "base/alloc.h"
#include "cmd/command_table.h"
#include "cmd/commands.h"
#include "compress/compressor.h"
#include "config/config.h"
#include "config/version.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX_BYTES (1 << 20)

int cmd_exit_code(const struct err *e)
{
    static const char *const usage[] = {"invalid_config", "unknown_flag", "missing_value"};
    for (size_t i = 0; e->reason && i < sizeof usage / sizeof *usage; i++) {
        if (strcmp(e->reason, usage[i]) == 0) {
            return EXIT_USAGE;
        }
    }
    return EXIT_FAILED;
}

int cmd_fail(const char *command, int code, const struct err *e)
{
    fprintf(stderr, "tamp %s: %s\n", command, e->msg);
    return code;
}

bool cmd_wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

int cmd_finish_output(const char *command)
{
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "tamp %s: the output could not be written\n", command);
        return EXIT_OUTPUT;
    }
    return EXIT_OK;
}

bool cmd_colour(int fd)
{
    const char *no = getenv("NO_COLOR");
    return isatty(fd) && !(no && *no);
}

int cmd_version(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "tamp version: takes no flags\n");
        return EXIT_USAGE;
    }
    printf("tamp %s\n", TAMP_VERSION);
    return cmd_finish_output("version");
}

static void methods(struct buf *out)
{
    if (compressors_print_docs(out)) {
        out->failed = true;
    }
}

static void markdown(struct buf *out)
{
    config_print_markdown(cmd_run_schema(), out);
    buf_puts(out, "\n# Flags of `tamp calibrate`\n");
    schema_print_markdown(cmd_calibrate_schema(), out);
}

/* -- flags ------------------------------------------------------------------------------ */

enum shell { SHELL_BASH, SHELL_ZSH, SHELL_FISH };

static const char *const shells[] = {"bash", "zsh", "fish", NULL};

struct help_flags {
    int completion; /* enum shell */
    bool man, yaml, markdown, methods;
};

#define ALL 1u
#define HELP_OPTION(option_name, kind, where, value, default_text)                                 \
    .name = option_name, .group = "Texts", .type = kind, .def = default_text, .metavar = value,    \
    .unit = "", .offset = offsetof(struct help_flags, where), .flags = SCHEMA_FLAG_ONLY,           \
    .commands = ALL

enum { OPTION_COMPLETION, OPTION_MAN, OPTION_YAML, OPTION_MARKDOWN, OPTION_METHODS, N_OPTIONS };

static const struct schema_option options[N_OPTIONS] = {
    [OPTION_COMPLETION] = {HELP_OPTION("completion", SCHEMA_ENUM, completion, "SHELL", "bash"),
                           .choices = shells,
                           .help = "script that completes commands, flags and values"},
    [OPTION_MAN] = {HELP_OPTION("man", SCHEMA_BOOL, man, "", "false"),
                    .help = "man page of the command, of tamp itself without one"},
    [OPTION_YAML] = {HELP_OPTION("yaml", SCHEMA_BOOL, yaml, "", "false"),
                     .help = "configuration file with every key and its default"},
    [OPTION_MARKDOWN] = {HELP_OPTION("markdown", SCHEMA_BOOL, markdown, "", "false"),
                         .help = "all options, for the documentation"},
    [OPTION_METHODS] = {HELP_OPTION("methods", SCHEMA_BOOL, methods, "", "false"),
                        .help = "methods of compression, for the documentation"},
};

static const struct schema help_schema = {.options = options, .n = N_OPTIONS};

const struct schema *cmd_help_schema(void)
{
    return &help_schema;
}

static int usage(const char *problem, const char *word)
{
    fprintf(stderr,
            "tamp help: %s%s; `tamp help` lists the commands, `tamp help help` the other "
            "texts\n",
            problem, word);
    return EXIT_USAGE;
}

static int print(const struct help_flags *f, int chosen, const struct command *c)
{
    static void (*const scripts[])(struct buf *) = {[SHELL_BASH] = command_print_bash,
                                                    [SHELL_ZSH] = command_print_zsh,
                                                    [SHELL_FISH] = command_print_fish};
    static void (*const texts[N_OPTIONS])(struct buf *) = {[OPTION_YAML] = config_print_yaml,
                                                           [OPTION_MARKDOWN] = markdown,
                                                           [OPTION_METHODS] = methods};
    struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    if (chosen == OPTION_COMPLETION) {
        scripts[f->completion](&text);
    } else if (chosen == OPTION_MAN) {
        command_print_man(c, &text);
    } else if (chosen >= 0) {
        texts[chosen](&text);
    } else if (c) {
        command_print_help(c, &text);
    } else {
        command_print_list(&text);
    }
    bool failed = buf_failed(&text);
    fputs(buf_str(&text), stdout);
    buf_free(&text);
    return failed ? EXIT_FAILED : cmd_finish_output("help");
}

int cmd_help_topic(const char *topic)
{
    const struct command *c = command_find(topic);
    return c ? print(NULL, -1, c) : usage("no such command: ", topic);
}

/* One text at a time: the flag that names it, a command, or a man page of a command. */
static int help(const struct schema_values *v, const char **words, int n_words)
{
    const struct command *c = n_words ? command_find(words[0]) : NULL;
    int chosen = -1;
    for (int i = 0; i < N_OPTIONS; i++) {
        if (v->origin[i] == SCHEMA_FLAG) {
            if (chosen >= 0) {
                return usage("one text at a time, not also --", options[i].name);
            }
            chosen = i;
        }
    }
    if (n_words && !c) {
        return usage("no such command: ", words[0]);
    }
    if (n_words > 1 || (c && chosen >= 0 && chosen != OPTION_MAN)) {
        return usage("not also ", words[n_words - 1]);
    }
    return print(v->base, chosen, c);
}

int cmd_help(int argc, char **argv)
{
    struct err e = ERR_INIT;
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("help", EXIT_FAILED, &e);
    }
    struct help_flags flags = {0};
    unsigned char origin[N_OPTIONS] = {0};
    struct schema_values v = {.schema = &help_schema, .base = &flags, .origin = origin};
    struct schema_values *sets[] = {&v};
    int n_words;
    int code;
    if (cmd_wants_help(argc, argv)) {
        code = cmd_help_topic("help");
    } else if (schema_defaults(&v, &e) ||
               schema_args(sets, 1, ALL, argc - 1, argv + 1, words, &n_words, &e)) {
        code = cmd_fail("help", cmd_exit_code(&e), &e);
    } else {
        code = help(&v, words, n_words);
    }
    mem_free(words);
    return code;
}
