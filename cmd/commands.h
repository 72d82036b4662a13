/* The sub-commands of the one binary. Each gets the words after its name: argv[0] is
 * the sub-command itself. Adding one: cmd/cmd_<name>.c and one row in
 * command_table.c. */
#ifndef TAMP_CMD_COMMANDS_H
#define TAMP_CMD_COMMANDS_H

#include "base/err.h"
#include "config/schema.h"

/* What the shell sees. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1, /* it was started rightly and did not work: a damaged file, no memory */
    EXIT_USAGE = 2,  /* flags, environment or configuration file are wrong */
    EXIT_OUTPUT = 74 /* the output could not be written: disk full, reader gone (EX_IOERR) */
};

int cmd_serve(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_calibrate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_help(int argc, char **argv);

/* "tamp serve: message" on stderr; returns `code` for `return cmd_fail(...)`. */
int cmd_fail(const char *command, int code, const struct err *e);
/* EXIT_USAGE for a mistake in what was typed, EXIT_FAILED otherwise. */
int cmd_exit_code(const struct err *e);
/* Print what `tamp help TOPIC` does; returns the exit code. */
int cmd_help_topic(const char *topic);
/* True when --help or -h is among the words before "--". */
bool cmd_wants_help(int argc, char **argv);
/* Flush stdout: EXIT_OK, or EXIT_OUTPUT with a line on stderr. */
int cmd_finish_output(const char *command);
/* May this stream show colours? A terminal, and NO_COLOR is not set. */
bool cmd_colour(int fd);

/* The flags that are no configuration, of those that have some. */
const struct schema *cmd_run_schema(void);
const struct schema *cmd_bench_schema(void);
const struct schema *cmd_calibrate_schema(void);
const struct schema *cmd_top_schema(void);
const struct schema *cmd_inspect_schema(void);
const struct schema *cmd_help_schema(void);

#endif
