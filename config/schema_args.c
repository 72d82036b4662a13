/* Flags of a command line. A flag is looked up in each table in turn; the value is
 * the rest after '=' or the next word, whatever it begins with ("--seed -1"). */
#include "config/schema.h"

#include "base/edit_distance.h"

#include <string.h>

struct flag {
    const char *name; /* without the dashes */
    size_t len;
    const char *value; /* after '=', NULL if there is none */
};

static struct flag split(const char *word)
{
    struct flag f = {.name = word + 2, .len = strcspn(word + 2, "=")};
    f.value = f.name[f.len] == '=' ? f.name + f.len + 1 : NULL;
    return f;
}

/* The set that has this flag for this sub-command; *option is its index. */
static struct schema_values *lookup(struct schema_values *const *sets, int n_sets, unsigned command,
                                    const char *name, size_t len, int *option)
{
    for (int i = 0; i < n_sets; i++) {
        *option = schema_find(sets[i]->schema, name, len);
        if (*option >= 0 && (sets[i]->schema->options[*option].commands & command)) {
            return sets[i];
        }
    }
    return NULL;
}

static int unknown(struct schema_values *const *sets, int n_sets, unsigned command,
                   const struct flag *f, struct err *e)
{
    const char *near = NULL;
    for (int i = 0; i < n_sets; i++) {
        const char *name = schema_nearest(sets[i]->schema, f->name, f->len);
        int option;
        if (name && lookup(sets, n_sets, command, name, strlen(name), &option)) {
            near = name;
            if (edit_distance(name, strlen(name), f->name, f->len) <= 1) {
                break;
            }
        }
    }
    if (near) {
        return err_reason(e, ERR_INVALID, "unknown_flag",
                          "--%.*s: no such flag; did you mean --%s?", (int)f->len, f->name, near);
    }
    return err_reason(e, ERR_INVALID, "unknown_flag", "--%.*s: no such flag; --help lists them",
                      (int)f->len, f->name);
}

/* One flag at argv[i]; returns how many words it took, -1 on an error. */
static int take(struct schema_values *const *sets, int n_sets, unsigned command, int argc,
                char **argv, int i, struct err *e)
{
    struct flag f = split(argv[i]);
    int option;
    char where[80];
    snprintf(where, sizeof where, "--%.*s", (int)f.len, f.name);
    struct schema_values *set = lookup(sets, n_sets, command, f.name, f.len, &option);
    if (!set && f.len > 3 && strncmp(f.name, "no-", 3) == 0 && !f.value) {
        set = lookup(sets, n_sets, command, f.name + 3, f.len - 3, &option);
        if (set && set->schema->options[option].type == SCHEMA_BOOL) {
            return schema_set(set, option, "false", SCHEMA_FLAG, where, e) ? -1 : 1;
        }
        set = NULL;
    }
    if (!set) {
        return unknown(sets, n_sets, command, &f, e);
    }
    if (!f.value && set->schema->options[option].type == SCHEMA_BOOL) {
        return schema_set(set, option, "true", SCHEMA_FLAG, where, e) ? -1 : 1;
    }
    if (!f.value && i + 1 >= argc) {
        return err_reason(e, ERR_INVALID, "missing_value", "%s: needs a value (%s)", where,
                          set->schema->options[option].metavar);
    }
    const char *value = f.value ? f.value : argv[i + 1];
    return schema_set(set, option, value, SCHEMA_FLAG, where, e) ? -1 : f.value ? 1 : 2;
}

int schema_args(struct schema_values *const *sets, int n_sets, unsigned command, int argc,
                char **argv, const char **positional, int *n_positional, struct err *e)
{
    bool flags = true;
    *n_positional = 0;
    for (int i = 0; i < argc;) {
        const char *word = argv[i];
        if (flags && strcmp(word, "--") == 0) {
            flags = false;
            i++;
        } else if (flags && strncmp(word, "--", 2) == 0) {
            int n = take(sets, n_sets, command, argc, argv, i, e);
            if (n < 0) {
                return -1;
            }
            i += n;
        } else if (flags && word[0] == '-' && word[1]) {
            return err_reason(e, ERR_INVALID, "unknown_flag",
                              "%s: flags begin with two dashes; --help lists them", word);
        } else {
            positional[(*n_positional)++] = word;
            i++;
        }
    }
    return 0;
}
