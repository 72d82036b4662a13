/* `tamp help`, `tamp version`, and what all sub-commands share when they talk to the
 * shell. `tamp help --yaml | --markdown | --methods` writes the generated texts: make docs. */
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

static void inspect_help(struct buf *out)
{
    buf_puts(out, "usage: tamp inspect FILE [--json]\n\n"
                  "Metadata, tensors and sizes of a GGUF file, the model family, what tamp would "
                  "use of\nit and what it does not support.\n");
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

int cmd_help_topic(const char *topic)
{
    static const struct {
        const char *word;
        void (*print)(struct buf *out);
    } topics[] = {
        {"serve", cmd_serve_help},         {"run", cmd_run_help},    {"bench", cmd_bench_help},
        {"calibrate", cmd_calibrate_help}, {"top", cmd_top_help},    {"inspect", inspect_help},
        {"--yaml", config_print_yaml},     {"--markdown", markdown}, {"--methods", methods},
    };
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        if (strcmp(topic, topics[i].word) == 0) {
            struct buf text;
            buf_init(&text, TEXT_MAX_BYTES);
            topics[i].print(&text);
            bool failed = buf_failed(&text);
            fputs(buf_str(&text), stdout);
            buf_free(&text);
            return failed ? EXIT_FAILED : cmd_finish_output("help");
        }
    }
    fprintf(stderr, "usage: tamp help [serve | run | bench | calibrate | top | inspect | --yaml | "
                    "--markdown | --methods]\n");
    return EXIT_USAGE;
}

int cmd_help(int argc, char **argv)
{
    return cmd_help_topic(argc == 2 ? argv[1] : "");
}
