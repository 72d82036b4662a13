#include "cmd/command_table.h"

#include "cmd/commands.h"
#include "config/config.h"

#include <string.h>

static const struct command commands[] = {
    {"serve", cmd_serve, "answer chat requests over HTTP", "tamp serve [FLAGS]",
     "Answers OpenAI-compatible chat requests with text and pictures. Each flag is also a "
     "variable\n"
     "(TAMP_CTX_SIZE) and a key of the --config file (ctx-size).\n",
     NULL, CONFIG_SERVE, WORDS_NONE},
    {"run", cmd_run, "answer one prompt, with pictures, in the terminal",
     "tamp run [FLAGS] PROMPT\ntamp run --image photo.jpg \"What kind of product is it?\"",
     "Answers one prompt. Several words are one prompt; - reads it from stdin.\n"
     "The answer goes to stdout, what it cost to stderr.\n",
     cmd_run_schema, CONFIG_RUN, WORDS_TEXT},
    {"bench", cmd_bench, "measure how fast this machine runs a model", "tamp bench [FLAGS]",
     "Measures this machine with this model: prompts, answers and, with --image, a picture\n"
     "without and with compression. Median of the runs, least and most.\n",
     cmd_bench_schema, CONFIG_RUN, WORDS_NONE},
    {"calibrate", cmd_calibrate, "find how much compression your own requests bear",
     "tamp calibrate --data requests.jsonl [--target 0.983] [FLAGS]",
     "Finds the strongest plan that is sure to answer your own requests as without\n"
     "compression, and writes it as a profile for --config, with a report. Stopped, it\n"
     "goes on where it was when the same command is given again.\n",
     cmd_calibrate_schema, CONFIG_RUN, WORDS_NONE},
    {"top", cmd_top, "show what a running server does", "tamp top [FLAGS] [URL]",
     "Shows what a running server does: requests, tokens a second, times, rows saved, caches.\n"
     "URL is http://127.0.0.1:8080 if none is given. Ctrl-C ends it.\n",
     cmd_top_schema, 0, WORDS_TEXT},
    {"inspect", cmd_inspect, "show what is in a GGUF file and what tamp would use of it",
     "tamp inspect [--json] FILE",
     "Metadata, tensors and sizes of a GGUF file, the model family, what tamp would use of\n"
     "it and what it does not support.\n",
     cmd_inspect_schema, 0, WORDS_FILE},
    {"version", cmd_version, "show the version", "tamp version", "Prints the version.\n", NULL, 0,
     WORDS_NONE},
    {"help", cmd_help, "show this, or the flags of a command",
     "tamp help [COMMAND]\ntamp help --completion bash | zsh | fish\ntamp help --man [COMMAND]",
     "Lists the commands, or the flags of one. The other texts are written from the same tables\n"
     "for shells, man and the documentation.\n",
     cmd_help_schema, 0, WORDS_COMMAND},
};

#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

const struct command *command_table(int *n)
{
    *n = N_COMMANDS;
    return commands;
}

const struct command *command_find(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

const struct schema_option *command_option(const struct command *c, int i)
{
    const struct schema *own = c->flags ? c->flags() : NULL;
    int left = i;
    if (own) {
        if (i < own->n) {
            return &own->options[i];
        }
        left -= own->n;
    }
    const struct schema *s = config_schema();
    for (int k = 0; k < s->n; k++) {
        if ((s->options[k].commands & c->config) && left-- == 0) {
            return &s->options[k];
        }
    }
    return NULL;
}

const char *command_exit_status(int i, int *code)
{
    static const struct {
        int code;
        const char *meaning;
    } statuses[] = {{EXIT_OK, "done"},
                    {EXIT_FAILED, "it did not work"},
                    {EXIT_USAGE, "wrong flags or configuration"},
                    {EXIT_OUTPUT, "output not written"}};
    if (i >= (int)(sizeof statuses / sizeof *statuses)) {
        return NULL;
    }
    *code = statuses[i].code;
    return statuses[i].meaning;
}

void command_print_list(struct buf *out)
{
    buf_puts(out, "tamp packs prompts of text and pictures before they cost anything, and answers "
                  "them.\n\nusage: tamp COMMAND [FLAGS]\n\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        buf_printf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    buf_puts(out, "\n`tamp help COMMAND` lists its flags.\nExit status:");
    const char *meaning;
    int code;
    for (int i = 0; (meaning = command_exit_status(i, &code)); i++) {
        buf_printf(out, "%s %d %s", i ? "," : "", code, meaning);
    }
    buf_puts(out, ".\n");
}

void command_print_help(const struct command *c, struct buf *out)
{
    const char *lead = "usage: ";
    for (const char *line = c->usage; *line; line += strspn(line, "\n")) {
        size_t n = strcspn(line, "\n");
        buf_puts(out, lead);
        buf_append(out, line, n);
        buf_putc(out, '\n');
        lead = "       ";
        line += n;
    }
    buf_printf(out, "\n%s", c->about);
    if (c->flags) {
        schema_print_help(c->flags(), ~0u, out);
    }
    if (c->config) {
        schema_print_help(config_schema(), c->config, out);
    }
}
