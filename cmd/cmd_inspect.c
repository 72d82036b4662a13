/* `tamp inspect [--json] FILE`: what is in a GGUF file and what tamp would use of it.
 * Exit status 0 when the file could be read, also when tamp cannot use it: the answer to
 * that question is part of the output ("usable" in the JSON). */
#include "base/alloc.h"
#include "cmd/commands.h"
#include "cmd/inspect.h"

#include <stdio.h>
#include <string.h>

/* A file at the limit of the metadata budget would print more; nobody reads that. */
#define OUTPUT_MAX_BYTES ((size_t)256 << 20)

struct inspect_flags {
    bool json;
};

#define ALL 1u

static const struct schema_option options[] = {
    {.name = "json",
     .group = "Output",
     .type = SCHEMA_BOOL,
     .def = "false",
     .metavar = "",
     .unit = "",
     .help = "one JSON object in place of the text",
     .offset = offsetof(struct inspect_flags, json),
     .flags = SCHEMA_FLAG_ONLY,
     .commands = ALL},
};

#define N_OPTIONS ((int)(sizeof options / sizeof *options))

static const struct schema inspect_schema = {.options = options, .n = N_OPTIONS};

const struct schema *cmd_inspect_schema(void)
{
    return &inspect_schema;
}

static int usage(const char *problem, const char *word)
{
    fprintf(stderr, "tamp inspect: %s%s\nusage: tamp inspect [--json] FILE\n", problem, word);
    return EXIT_USAGE;
}

static int print(const struct inspection *in, bool json)
{
    struct buf out;
    buf_init(&out, OUTPUT_MAX_BYTES);
    int failed = 0;
    if (json) {
        failed = inspect_print_json(in, &out);
    } else {
        inspect_print_text(in, &out);
    }
    if (failed || buf_failed(&out)) {
        fprintf(stderr, "tamp inspect: not enough memory to print this file\n");
        buf_free(&out);
        return EXIT_FAILED;
    }
    fwrite(buf_str(&out), 1, out.len, stdout);
    buf_free(&out);
    return cmd_finish_output("inspect");
}

static int inspect_file(const char *path, bool json)
{
    struct err e = ERR_INIT;
    struct gguf *g = gguf_open(path, &e);
    if (!g) {
        return cmd_fail("inspect", EXIT_FAILED, &e);
    }
    struct inspection *in = mem_alloc(1, sizeof *in);
    if (!in) {
        gguf_close(g);
        err_no_memory(&e, sizeof *in);
        return cmd_fail("inspect", EXIT_FAILED, &e);
    }
    inspect_collect(g, in);
    int code = print(in, json);
    mem_free(in);
    gguf_close(g);
    return code;
}

static int inspect(const struct schema_values *v, const char **words, int n_words)
{
    const struct inspect_flags *f = v->base;
    if (n_words != 1) {
        return n_words ? usage("one file at a time, not also ", words[1])
                       : usage("which file?", "");
    }
    return inspect_file(words[0], f->json);
}

int cmd_inspect(int argc, char **argv)
{
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("inspect");
    }
    struct err e = ERR_INIT;
    const char **words = mem_zalloc((size_t)argc, sizeof *words);
    if (!words) {
        err_no_memory(&e, (size_t)argc * sizeof *words);
        return cmd_fail("inspect", EXIT_FAILED, &e);
    }
    struct inspect_flags flags = {0};
    unsigned char origin[N_OPTIONS] = {0};
    struct schema_values v = {.schema = &inspect_schema, .base = &flags, .origin = origin};
    struct schema_values *sets[] = {&v};
    int n_words;
    int code = schema_defaults(&v, &e) ||
                       schema_args(sets, 1, ALL, argc - 1, argv + 1, words, &n_words, &e)
                   ? cmd_fail("inspect", cmd_exit_code(&e), &e)
                   : inspect(&v, words, n_words);
    mem_free(words);
    return code;
}
