/* The table of sub-commands. --help, the man pages and the completions of the shells are
 * written from it and from the tables of options, so none of them can forget a flag. */
#ifndef TAMP_CMD_COMMAND_TABLE_H
#define TAMP_CMD_COMMAND_TABLE_H

#include "config/schema.h"

/* What a word that is no flag is. */
enum command_words { WORDS_NONE, WORDS_TEXT, WORDS_FILE, WORDS_COMMAND };

struct command {
    const char *name;
    int (*run)(int argc, char **argv);   /* argv[0] is the sub-command itself */
    const char *help;                    /* one line for the list of commands */
    const char *usage;                   /* what follows "usage: ", lines without indentation */
    const char *about;                   /* paragraphs under it, each ending with a newline */
    const struct schema *(*flags)(void); /* flags of its own; NULL = none */
    unsigned config;                     /* enum config_command of the options it takes; 0 = none */
    enum command_words words;
};

/* [*n], in the order in which they are listed. */
const struct command *command_table(int *n);
/* NULL if there is none. */
const struct command *command_find(const char *name);
/* Flag `i`, its own first; NULL after the last. */
const struct schema_option *command_option(const struct command *c, int i);

/* Exit status and what it means, for --help and the man pages: 0 after the last. */
const char *command_exit_status(int i, int *code);

void command_print_list(struct buf *out);
void command_print_help(const struct command *c, struct buf *out);
/* Script for "bash", "zsh" or "fish" (completion.c). */
void command_print_bash(struct buf *out);
void command_print_zsh(struct buf *out);
void command_print_fish(struct buf *out);
/* man page in roff; NULL is tamp(1) (man_page.c). */
void command_print_man(const struct command *c, struct buf *out);

#endif
