#include "config/schema.h"

#include "base/alloc.h"
#include "base/edit_distance.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LEN 64

extern char **environ;

/* -- looking up --------------------------------------------------------------- */

int schema_find(const struct schema *s, const char *name, size_t len)
{
    for (int i = 0; i < s->n; i++) {
        if (strlen(s->options[i].name) == len && memcmp(s->options[i].name, name, len) == 0) {
            return i;
        }
    }
    return -1;
}

const char *schema_nearest(const struct schema *s, const char *typed, size_t len)
{
    int best = (int)(len / 3 > 2 ? len / 3 : 2) + 1;
    const char *name = NULL;
    for (int i = 0; i < s->n; i++) {
        int d = edit_distance(typed, len, s->options[i].name, strlen(s->options[i].name));
        if (d < best) {
            best = d;
            name = s->options[i].name;
        }
    }
    return name;
}

/* -- one value ------------------------------------------------------------------ */

static void *field(const struct schema_values *v, const struct schema_option *o)
{
    return (char *)v->base + o->offset;
}

static int set_string(char **at, const char *text, struct err *e)
{
    char *copy = mem_strdup(text);
    if (!copy) {
        return err_no_memory(e, strlen(text) + 1);
    }
    mem_free(*at);
    *at = copy;
    return 0;
}

static int add_to_list(struct schema_list *list, const char *text, struct err *e)
{
    size_t n = (size_t)list->n + 1;
    char **items = mem_realloc(list->items, n, sizeof *items);
    if (!items) {
        return err_no_memory(e, n * sizeof *items);
    }
    list->items = items;
    items[list->n] = NULL;
    if (set_string(&items[list->n], text, e)) {
        return -1;
    }
    list->n++;
    return 0;
}

static int set_int(int64_t *at, const struct schema_option *o, const char *text, const char *where,
                   struct err *e)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end) {
        return err_reason(e, ERR_TYPE, "invalid_config",
                          "%s: '%s' is not a whole number; give %.0f to %.0f", where, text, o->min,
                          o->max);
    }
    if (errno == ERANGE || (double)value < o->min || (double)value > o->max) {
        return err_reason(e, ERR_RANGE, "invalid_config",
                          "%s: %s is out of range; give %.0f to %.0f", where, text, o->min, o->max);
    }
    *at = value;
    return 0;
}

static int set_float(double *at, const struct schema_option *o, const char *text, const char *where,
                     struct err *e)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value)) {
        return err_reason(e, ERR_TYPE, "invalid_config", "%s: '%s' is not a number; give %g to %g",
                          where, text, o->min, o->max);
    }
    if (value < o->min || value > o->max) {
        return err_reason(e, ERR_RANGE, "invalid_config", "%s: %s is out of range; give %g to %g",
                          where, text, o->min, o->max);
    }
    *at = value;
    return 0;
}

static int set_bool(bool *at, const char *text, const char *where, struct err *e)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *at = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return err_reason(e, ERR_TYPE, "invalid_config", "%s: '%s' is neither true nor false", where,
                      text);
}

static int set_enum(int *at, const struct schema_option *o, const char *text, const char *where,
                    struct err *e)
{
    char list[256] = "";
    size_t used = 0;
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            *at = i;
            return 0;
        }
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", o->choices[i]);
        used = used < sizeof list ? used : sizeof list - 1;
    }
    return err_reason(e, ERR_INVALID, "invalid_config", "%s: '%s' is not known; choose one of: %s",
                      where, text, list);
}

static int store(struct schema_values *v, const struct schema_option *o, const char *text,
                 const char *where, struct err *e)
{
    switch (o->type) {
    case SCHEMA_STRING:
        return set_string(field(v, o), text, e);
    case SCHEMA_INT:
        return set_int(field(v, o), o, text, where, e);
    case SCHEMA_FLOAT:
        return set_float(field(v, o), o, text, where, e);
    case SCHEMA_BOOL:
        return set_bool(field(v, o), text, where, e);
    case SCHEMA_ENUM:
        return set_enum(field(v, o), o, text, where, e);
    case SCHEMA_LIST:
        return add_to_list(field(v, o), text, e);
    }
    return err_set(e, ERR_INTERNAL, "%s: option without a type", where);
}

int schema_set(struct schema_values *v, int option, const char *text, enum schema_origin origin,
               const char *where, struct err *e)
{
    if (v->origin[option] > origin) {
        return 0;
    }
    if (store(v, &v->schema->options[option], text, where, e)) {
        return -1;
    }
    v->origin[option] = (unsigned char)origin;
    return 0;
}

int schema_defaults(struct schema_values *v, struct err *e)
{
    for (int i = 0; i < v->schema->n; i++) {
        const struct schema_option *o = &v->schema->options[i];
        if (o->type != SCHEMA_LIST && schema_set(v, i, o->def, SCHEMA_DEFAULT, o->name, e)) {
            return -1;
        }
    }
    return 0;
}

void schema_clear(struct schema_values *v)
{
    for (int i = 0; i < v->schema->n; i++) {
        const struct schema_option *o = &v->schema->options[i];
        if (o->type == SCHEMA_STRING) {
            char **at = field(v, o);
            if (*at && (o->flags & SCHEMA_SECRET)) {
                explicit_bzero(*at, strlen(*at));
            }
            mem_free(*at);
            *at = NULL;
        } else if (o->type == SCHEMA_LIST) {
            struct schema_list *list = field(v, o);
            for (int k = 0; k < list->n; k++) {
                mem_free(list->items[k]);
            }
            mem_free(list->items);
            *list = (struct schema_list){0};
        }
    }
}

/* -- environment ------------------------------------------------------------------ */

void schema_env_name(const char *name, char *out, size_t size)
{
    int n = snprintf(out, size, "TAMP_%s", name);
    for (int i = 0; i < n && (size_t)i < size; i++) {
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
    }
}

int schema_env(struct schema_values *v, struct err *e)
{
    for (int i = 0; i < v->schema->n; i++) {
        char name[NAME_MAX_LEN + 8];
        schema_env_name(v->schema->options[i].name, name, sizeof name);
        const char *text = getenv(name);
        if (!text || !*text || (v->schema->options[i].flags & SCHEMA_NOT_IN_ENV)) {
            continue;
        }
        if (schema_set(v, i, text, SCHEMA_ENV, name, e)) {
            return -1;
        }
    }
    return 0;
}

/* The option whose variable differs by one or two letters from the one of `len` letters;
 * NULL when none does, or when it is the variable of an option itself. */
static const char *typo_of(const struct schema *s, const char *variable, size_t len)
{
    const char *near = NULL;
    for (int i = 0; i < s->n; i++) {
        char name[NAME_MAX_LEN + 8];
        schema_env_name(s->options[i].name, name, sizeof name);
        int d = edit_distance(variable, len, name, strlen(name));
        if (d == 0) {
            return NULL;
        }
        if (d <= 2) {
            near = s->options[i].name;
        }
    }
    return near;
}

const char *schema_env_typo(const struct schema *s, const char **meant)
{
    for (char **p = environ; p && *p; p++) {
        size_t len = strcspn(*p, "=");
        if (strncmp(*p, "TAMP_", 5) == 0 && (*meant = typo_of(s, *p, len)) != NULL) {
            return *p;
        }
    }
    return NULL;
}
