/* One table of options gives everything that people see of them: flags
 * (--ctx-size 4096, --ctx-size=4096), environment (TAMP_CTX_SIZE), keys of the YAML
 * file (ctx-size), range checks, --help, docs/configuration.md and the commented
 * default file. The name is the same everywhere.
 *
 *   struct schema         the table: what there is
 *   struct schema_values  the struct that is filled, and where each value came from
 *
 * A value is set only when nothing stronger has set it already (flag > environment >
 * file > default), so the sources may be read in any order. */
#ifndef TAMP_CONFIG_SCHEMA_H
#define TAMP_CONFIG_SCHEMA_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The field that `offset` names has this C type. */
enum schema_type {
    SCHEMA_STRING, /* char *, owned; "" when not given, never NULL after schema_defaults */
    SCHEMA_INT,    /* int64_t */
    SCHEMA_FLOAT,  /* double */
    SCHEMA_BOOL,   /* bool */
    SCHEMA_ENUM,   /* int: index into choices */
    SCHEMA_LIST    /* struct schema_list: a flag that may be repeated */
};

struct schema_list {
    char **items; /* [n], owned */
    int n;
};

enum schema_flag {
    SCHEMA_NOT_IN_FILE = 1,
    SCHEMA_NOT_IN_ENV = 2,
    SCHEMA_FLAG_ONLY = 3,
    SCHEMA_SECRET = 4 /* wiped when it is given back; never printed */
};

struct schema_option {
    const char *name;  /* "ctx-size" */
    const char *group; /* heading in --help and in the docs; options of a group stand together */
    enum schema_type type;
    const char *def;            /* as text: it goes through the same check as any other value */
    double min, max;            /* numbers: inclusive */
    const char *const *choices; /* SCHEMA_ENUM: NULL-terminated */
    const char *metavar;        /* what --help shows for the value: "N", "FILE" */
    const char *unit;           /* "" if it has none */
    const char *help;           /* one sentence without a full stop */
    size_t offset;
    unsigned flags;    /* enum schema_flag */
    unsigned commands; /* bit mask of the sub-commands that take it; see config.h */
};

struct schema {
    const struct schema_option *options; /* [n] */
    int n;
};

enum schema_origin { SCHEMA_DEFAULT, SCHEMA_FILE, SCHEMA_ENV, SCHEMA_FLAG };

struct schema_values {
    const struct schema *schema;
    void *base;            /* the struct that offsets point into, zeroed at first */
    unsigned char *origin; /* [schema->n] enum schema_origin, zeroed at first */
};

/* Index by name, -1 if there is none. */
int schema_find(const struct schema *s, const char *name, size_t len);
/* The option whose name differs least from what was typed; NULL if none is near. */
const char *schema_nearest(const struct schema *s, const char *typed, size_t len);

/* Check `text` and store it. `where` begins the message: "--port", "tamp.yaml:3: port". */
int schema_set(struct schema_values *v, int option, const char *text, enum schema_origin origin,
               const char *where, struct err *e);
int schema_defaults(struct schema_values *v, struct err *e);
/* TAMP_<NAME> of every option that is not SCHEMA_NOT_IN_ENV. An empty variable counts
 * as not given. */
int schema_env(struct schema_values *v, struct err *e);
/* "ctx-size" -> "TAMP_CTX_SIZE"; buffer of at least 64 bytes. */
void schema_env_name(const char *name, char *out, size_t size);
/* A TAMP_... variable that is no option but looks like one, with the option that was
 * probably meant; NULL if there is none. */
const char *schema_env_typo(const struct schema *s, const char **meant);
/* Give strings and lists back. */
void schema_clear(struct schema_values *v);

/* Flags of one sub-command, looked up in n_sets tables one after the other. What is not
 * a flag is left in positional[0..*n_positional) (room for argc); "--" ends the flags
 * and "-" is no flag. argv is not changed; positional points into it. */
int schema_args(struct schema_values *const *sets, int n_sets, unsigned command, int argc,
                char **argv, const char **positional, int *n_positional, struct err *e);

/* What people read (schema_print.c). */
/* "what it does (0 to 65535 bytes; default 8080)" */
void schema_describe(const struct schema_option *o, struct buf *out);
void schema_print_help(const struct schema *s, unsigned command, struct buf *out);
void schema_print_markdown(const struct schema *s, struct buf *out);
void schema_print_yaml(const struct schema *s, struct buf *out);

#endif
