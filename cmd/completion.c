/* Completions of three shells. Each completes commands, flags, the values of flags that
 * have a fixed list of them, and names of files where a flag or a command takes one. */
#include "cmd/command_table.h"

#include <string.h>

/* What may follow a flag. */
enum value_kind { VALUE_NONE, VALUE_CHOICE, VALUE_FILE, VALUE_FOLDER, VALUE_OTHER };

static enum value_kind value_of(const struct schema_option *o)
{
    if (o->type == SCHEMA_BOOL) {
        return VALUE_NONE;
    }
    if (o->type == SCHEMA_ENUM) {
        return VALUE_CHOICE;
    }
    if (strcmp(o->metavar, "FILE") == 0 || strcmp(o->metavar, "FILES") == 0) {
        return VALUE_FILE;
    }
    return strcmp(o->metavar, "DIR") == 0 ? VALUE_FOLDER : VALUE_OTHER;
}

/* The form of the flag that changes something: --no-web of what is on. */
static const char *prefix_of(const struct schema_option *o)
{
    return o->type == SCHEMA_BOOL && strcmp(o->def, "true") == 0 ? "no-" : "";
}

static void put_choices(const struct schema_option *o, struct buf *out)
{
    for (int i = 0; o->choices[i]; i++) {
        buf_printf(out, "%s%s", i ? " " : "", o->choices[i]);
    }
}

static void put_commands(struct buf *out)
{
    int n;
    const struct command *table = command_table(&n);
    for (int i = 0; i < n; i++) {
        buf_printf(out, "%s%s", i ? " " : "", table[i].name);
    }
}

/* Text inside single quotes, with a backslash before each of `special`, and a single
 * quote as `quote`. */
static void put_quoted(const char *text, const char *special, const char *quote, struct buf *out)
{
    for (; *text; text++) {
        if (*text == '\'') {
            buf_puts(out, quote);
        } else {
            if (strchr(special, *text)) {
                buf_putc(out, '\\');
            }
            buf_putc(out, *text);
        }
    }
}

/* -- bash ------------------------------------------------------------------------------ */

static void bash_values(const struct command *c, struct buf *out)
{
    static const struct {
        enum value_kind kind;
        const char *action;
    } actions[] = {
        {VALUE_FILE, "_tamp_files -f"}, {VALUE_FOLDER, "_tamp_files -d"}, {VALUE_OTHER, "return"}};
    const struct schema_option *o;
    buf_puts(out, "        case $before in\n");
    for (int i = 0; (o = command_option(c, i)); i++) {
        if (value_of(o) == VALUE_CHOICE) {
            buf_printf(out, "        --%s) _tamp_words '", o->name);
            put_choices(o, out);
            buf_puts(out, "'; return ;;\n");
        }
    }
    for (size_t k = 0; k < sizeof actions / sizeof *actions; k++) {
        int n = 0;
        for (int i = 0; (o = command_option(c, i)); i++) {
            if (value_of(o) == actions[k].kind) {
                buf_printf(out, "%s--%s", n++ ? " | " : "        ", o->name);
            }
        }
        if (n) {
            buf_printf(out, ") %s%s ;;\n", actions[k].action,
                       actions[k].kind == VALUE_OTHER ? "" : "; return");
        }
    }
    buf_puts(out, "        esac\n");
}

static void bash_command(const struct command *c, struct buf *out)
{
    const struct schema_option *o;
    buf_printf(out, "    %s)\n", c->name);
    if (command_option(c, 0)) {
        bash_values(c, out);
    }
    buf_puts(out, "        flags='--help");
    for (int i = 0; (o = command_option(c, i)); i++) {
        buf_printf(out, " --%s%s", prefix_of(o), o->name);
    }
    buf_puts(out, "'\n");
    if (c->words == WORDS_FILE) {
        buf_puts(out, "        [[ $word == -* ]] || { _tamp_files -f; return; }\n");
    } else if (c->words == WORDS_COMMAND) {
        buf_puts(out, "        [[ $word == -* ]] || { _tamp_words '");
        put_commands(out);
        buf_puts(out, "'; return; }\n");
    }
    buf_puts(out, "        ;;\n");
}

void command_print_bash(struct buf *out)
{
    int n;
    const struct command *table = command_table(&n);
    buf_puts(out, "# bash completion of tamp, written by `tamp help --completion bash`\n\n"
                  "_tamp_words()\n{\n"
                  "    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$word\")\n}\n\n"
                  "_tamp_files()\n{\n"
                  "    compopt -o filenames 2>/dev/null\n"
                  "    mapfile -t COMPREPLY < <(compgen \"$1\" -- \"$word\")\n}\n\n"
                  "_tamp()\n{\n"
                  "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
                  "    local flags=\n"
                  "    COMPREPLY=()\n"
                  "    # --flag=value comes as three words.\n"
                  "    if [[ $word == = ]]; then\n"
                  "        word=\n"
                  "    elif [[ $before == = && COMP_CWORD -gt 2 ]]; then\n"
                  "        before=${COMP_WORDS[COMP_CWORD - 2]}\n"
                  "    fi\n"
                  "    if ((COMP_CWORD == 1)); then\n"
                  "        _tamp_words '");
    put_commands(out);
    buf_puts(out, " --help --version'\n        return\n    fi\n"
                  "    case ${COMP_WORDS[1]} in\n");
    for (int i = 0; i < n; i++) {
        bash_command(&table[i], out);
    }
    buf_puts(out, "    esac\n"
                  "    [[ $word != -* ]] || _tamp_words \"$flags\"\n"
                  "}\n\ncomplete -F _tamp tamp\n");
}

/* -- zsh ------------------------------------------------------------------------------- */

static void zsh_option(const struct schema_option *o, struct buf *out)
{
    enum value_kind kind = value_of(o);
    buf_printf(out, "      '%s--%s%s%s[", o->type == SCHEMA_LIST ? "*" : "", prefix_of(o), o->name,
               kind == VALUE_NONE ? "" : "=");
    put_quoted(o->help, "[]:\\", "'\\''", out);
    buf_putc(out, ']');
    if (kind != VALUE_NONE) {
        buf_printf(out, ":%s:", *o->metavar ? o->metavar : "value");
    }
    if (kind == VALUE_CHOICE) {
        buf_putc(out, '(');
        put_choices(o, out);
        buf_putc(out, ')');
    }
    buf_puts(out, kind == VALUE_FILE ? "_files" : kind == VALUE_FOLDER ? "_files -/" : "");
    buf_puts(out, kind == VALUE_OTHER ? " ' \\\n" : "' \\\n");
}

static void zsh_command(const struct command *c, struct buf *out)
{
    const struct schema_option *o;
    buf_printf(out, "  %s)\n    _arguments \\\n", c->name);
    for (int i = 0; (o = command_option(c, i)); i++) {
        zsh_option(o, out);
    }
    if (c->words == WORDS_FILE) {
        buf_puts(out, "      '*:file:_files' \\\n");
    } else if (c->words == WORDS_COMMAND) {
        buf_puts(out, "      '*:command:(");
        put_commands(out);
        buf_puts(out, ")' \\\n");
    }
    buf_puts(out, "      '--help[list the flags]'\n    ;;\n");
}

void command_print_zsh(struct buf *out)
{
    int n;
    const struct command *table = command_table(&n);
    buf_puts(out, "#compdef tamp\n# written by `tamp help --completion zsh`\n\n_tamp() {\n"
                  "  if (( CURRENT == 2 )); then\n    local -a commands=(\n");
    for (int i = 0; i < n; i++) {
        buf_printf(out, "      '%s:", table[i].name);
        put_quoted(table[i].help, ":\\", "'\\''", out);
        buf_puts(out, "'\n");
    }
    buf_puts(out, "    )\n    _describe command commands\n    return\n  fi\n"
                  "  local command=$words[2]\n"
                  "  shift words\n  (( CURRENT-- ))\n  case $command in\n");
    for (int i = 0; i < n; i++) {
        zsh_command(&table[i], out);
    }
    buf_puts(out, "  esac\n}\n\n"
                  "# Loaded by its name, or read from a start-up file.\n"
                  "if [[ ${funcstack[1]} == _tamp ]]; then\n  _tamp \"$@\"\nelse\n"
                  "  compdef _tamp tamp\nfi\n");
}

/* -- fish ------------------------------------------------------------------------------ */

static void fish_option(const struct command *c, const struct schema_option *o, struct buf *out)
{
    static const char *const values[] = {[VALUE_NONE] = "",
                                         [VALUE_CHOICE] = " -x -a '",
                                         [VALUE_FILE] = " -r -F",
                                         [VALUE_FOLDER] = " -x -a '(__fish_complete_directories)'",
                                         [VALUE_OTHER] = " -x"};
    enum value_kind kind = value_of(o);
    buf_printf(out, "complete -c tamp -n '__tamp_is %s' -l %s%s%s", c->name, prefix_of(o), o->name,
               values[kind]);
    if (kind == VALUE_CHOICE) {
        put_choices(o, out);
        buf_putc(out, '\'');
    }
    buf_puts(out, " -d '");
    put_quoted(o->help, "\\", "\\'", out);
    buf_puts(out, "'\n");
}

void command_print_fish(struct buf *out)
{
    int n;
    const struct command *table = command_table(&n);
    buf_puts(out, "# fish completion of tamp, written by `tamp help --completion fish`\n\n"
                  "function __tamp_is\n"
                  "    set -l words (commandline -opc)\n"
                  "    test (count $words) -ge 2; and test $words[2] = $argv[1]\nend\n\n"
                  "complete -c tamp -f\n");
    for (int i = 0; i < n; i++) {
        const struct command *c = &table[i];
        buf_printf(out, "complete -c tamp -n 'test (count (commandline -opc)) -eq 1' -a %s -d '",
                   c->name);
        put_quoted(c->help, "\\", "\\'", out);
        buf_puts(out, "'\n");
        const struct schema_option *o;
        for (int k = 0; (o = command_option(c, k)); k++) {
            fish_option(c, o, out);
        }
        if (c->words == WORDS_FILE) {
            buf_printf(out, "complete -c tamp -n '__tamp_is %s' -F\n", c->name);
        } else if (c->words == WORDS_COMMAND) {
            buf_printf(out, "complete -c tamp -n '__tamp_is %s' -a '", c->name);
            put_commands(out);
            buf_puts(out, "'\n");
        }
        buf_printf(out, "complete -c tamp -n '__tamp_is %s' -l help -d 'list the flags'\n",
                   c->name);
    }
}
