/* `tamp inspect FILE [--json]`: what is in a GGUF file and what tamp would use of it.
 * Exit status 0 when the file could be read, also when tamp cannot use it: the answer to
 * that question is part of the output ("usable" in the JSON). */
#include "base/alloc.h"
#include "cmd/commands.h"
#include "cmd/inspect.h"

#include <stdio.h>
#include <string.h>

/* A file at the limit of the metadata budget would print more; nobody reads that. */
#define OUTPUT_MAX_BYTES ((size_t)256 << 20)

static int usage(const char *problem, const char *word)
{
    fprintf(stderr, "tamp inspect: %s%s\nusage: tamp inspect FILE [--json]\n", problem, word);
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

int cmd_inspect(int argc, char **argv)
{
    const char *path = NULL;
    bool json = false;
    if (cmd_wants_help(argc, argv)) {
        return cmd_help_topic("inspect");
    }
    bool flags = true; /* until "--" */
    for (int i = 1; i < argc; i++) {
        if (flags && !strcmp(argv[i], "--")) {
            flags = false;
        } else if (flags && !strcmp(argv[i], "--json")) {
            json = true;
        } else if (flags && argv[i][0] == '-' && argv[i][1]) {
            return usage("unknown flag ", argv[i]);
        } else if (path) {
            return usage("one file at a time, not also ", argv[i]);
        } else {
            path = argv[i];
        }
    }
    return path ? inspect_file(path, json) : usage("which file?", "");
}
