/* Calls the sub-command. Only what must come before everything else is done here. */
#include "base/edit_distance.h"
#include "cmd/command_table.h"
#include "cmd/commands.h"
#include "tensor/blas.h"
#include "vision/image.h"

#include <stdio.h>
#include <string.h>

static void usage(FILE *out)
{
    struct buf text;
    buf_init(&text, 8192);
    command_print_list(&text);
    fputs(buf_str(&text), out);
    buf_free(&text);
}

static int unknown(const char *name)
{
    const char *near = NULL;
    int best = 3;
    int n;
    const struct command *commands = command_table(&n);
    for (int i = 0; i < n; i++) {
        int d = edit_distance(name, strlen(name), commands[i].name, strlen(commands[i].name));
        if (d < best) {
            best = d;
            near = commands[i].name;
        }
    }
    fprintf(stderr, "tamp: no such command '%s'; ", name);
    if (near) {
        fprintf(stderr, "did you mean '%s'?\n", near);
    } else {
        fprintf(stderr, "`tamp help` lists them\n");
    }
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    image_worker_maybe_run(argc, argv);
    blas_init(argv);
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    bool help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
                (strcmp(name, "help") == 0 && argc == 2);
    if (help) {
        usage(stdout);
        return cmd_finish_output("help");
    }
    if (strcmp(name, "--version") == 0) {
        name = "version";
    }
    const struct command *c = command_find(name);
    return c ? c->run(argc - 1, argv + 1) : unknown(name);
}
