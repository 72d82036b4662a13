/* The sub-command table. Only what must come before everything else is done here. */
#include "base/edit_distance.h"
#include "cmd/commands.h"
#include "tensor/blas.h"
#include "vision/image.h"

#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"serve", cmd_serve, "answer chat requests over HTTP"},
    {"run", cmd_run, "answer one prompt, with pictures, in the terminal"},
    {"bench", cmd_bench, "measure how fast this machine runs a model"},
    {"calibrate", cmd_calibrate, "find how much compression your own requests bear"},
    {"top", cmd_top, "show what a running server does"},
    {"inspect", cmd_inspect, "show what is in a GGUF file and what tamp would use of it"},
    {"version", cmd_version, "show the version"},
    {"help", cmd_help, "show this, or the flags of a command"},
};

#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

static void usage(FILE *out)
{
    fprintf(out, "tamp packs prompts of text and pictures before they cost anything, and answers "
                 "them.\n\nusage: tamp COMMAND [FLAGS]\n\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    fprintf(out, "\n`tamp help COMMAND` lists its flags.\n"
                 "Exit status: 0 done, 1 it did not work, 2 wrong flags or configuration, "
                 "74 output not written.\n");
}

static const struct command *find(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int unknown(const char *name)
{
    const char *near = NULL;
    int best = 3;
    for (int i = 0; i < N_COMMANDS; i++) {
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
    const struct command *c = find(name);
    return c ? c->run(argc - 1, argv + 1) : unknown(name);
}
