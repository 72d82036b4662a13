/* Profiles by name: four that are built in and those that the operator's configuration
 * adds before the server starts. After that the table is only read, so it needs no lock. */
#include "compress/plan.h"
#include "compress/plan_impl.h"

#include <stdio.h>
#include <string.h>

struct setting {
    enum modality modality;
    const char *option; /* NULL = the method */
    const char *text;   /* method, enum choice, or NULL: then number */
    double number;
};

struct builtin {
    const char *name, *summary;
    bool protect_system;
    int protect_tail, min_text_rows;
    struct setting settings[6]; /* ends with text NULL and option NULL */
};

/* What was measured for these, and against what: docs/results.md. */
static const struct builtin builtins[] = {
    {.name = "off",
     .summary = "nothing is merged",
     .protect_system = true,
     .protect_tail = 32,
     .min_text_rows = 64},
    {.name = "balanced",
     .summary = "pictures to a quarter, text only where neighbours are nearly equal",
     .protect_system = true,
     .protect_tail = 32,
     .min_text_rows = 64,
     .settings = {{MODALITY_IMAGE, NULL, "tome", 0},
                  {MODALITY_IMAGE, "ratio", NULL, 4},
                  {MODALITY_TEXT, NULL, "cosine", 0},
                  {MODALITY_TEXT, "threshold", NULL, 0.85}}},
    {.name = "product_search",
     .summary = "keeps detail: pictures to a half, text untouched",
     .protect_system = true,
     .protect_tail = 32,
     .min_text_rows = 64,
     .settings = {{MODALITY_IMAGE, NULL, "tome", 0}, {MODALITY_IMAGE, "ratio", NULL, 2}}},
    {.name = "customer_service",
     .summary = "aggressive: pictures to an eighth, a sixth of the text in the upper half of the "
                "decoder, system prompt included",
     .protect_system = false,
     .protect_tail = 32,
     .min_text_rows = 64,
     .settings = {{MODALITY_IMAGE, NULL, "tome", 0},
                  {MODALITY_IMAGE, "ratio", NULL, 8},
                  {MODALITY_LM, NULL, "cosine", 0},
                  {MODALITY_LM, "ratio", NULL, 1.5},
                  {MODALITY_LM, "cutoff", NULL, 14}}},
};

#define N_BUILTINS ((int)(sizeof builtins / sizeof *builtins))

static struct plan added[PLAN_MAX_PROFILES - N_BUILTINS];
static int n_added;

static int find_added(const char *name)
{
    for (int i = 0; i < n_added; i++) {
        if (strcmp(added[i].profile, name) == 0) {
            return i;
        }
    }
    return -1;
}

static const struct builtin *find_builtin(const char *name)
{
    for (int i = 0; i < N_BUILTINS; i++) {
        if (strcmp(builtins[i].name, name) == 0) {
            return &builtins[i];
        }
    }
    return NULL;
}

/* The i-th of the added profiles that do not replace a built-in one. */
static const struct plan *nth_added(int i)
{
    for (int k = 0; k < n_added; k++) {
        if (!find_builtin(added[k].profile) && i-- == 0) {
            return &added[k];
        }
    }
    return NULL;
}

const char *plan_profile_name(int i)
{
    if (i >= 0 && i < N_BUILTINS) {
        return builtins[i].name;
    }
    const struct plan *p = i < 0 ? NULL : nth_added(i - N_BUILTINS);
    return p ? p->profile : NULL;
}

const char *plan_profile_summary(int i)
{
    const char *name = plan_profile_name(i);
    if (!name) {
        return NULL;
    }
    return find_added(name) >= 0 ? "from the configuration" : builtins[i].summary;
}

static int apply_settings(struct plan *p, const struct setting *s, struct err *e)
{
    for (; s->option || s->text; s++) {
        int rc = !s->option ? plan_set_method(p, s->modality, s->text, e)
                 : s->text  ? plan_set_text(p, s->modality, s->option, s->text, e)
                            : plan_set_number(p, s->modality, s->option, s->number, e);
        if (rc) {
            return -1;
        }
    }
    return 0;
}

static int from_builtin(struct plan *p, const struct builtin *b, struct err *e)
{
    struct plan made = {.protect_system = b->protect_system,
                        .protect_tail = b->protect_tail,
                        .min_text_rows = b->min_text_rows};
    snprintf(made.profile, sizeof made.profile, "%s", b->name);
    guard_init(&made.guard);
    for (int m = 0; m < MODALITY_COUNT; m++) {
        plan_step_init(&made.step[m], (enum modality)m, compressors[0]);
    }
    if (apply_settings(&made, b->settings, e)) {
        return -1;
    }
    *p = made;
    return 0;
}

int plan_from_profile(struct plan *p, const char *name, struct err *e)
{
    int i = find_added(name);
    if (i >= 0) {
        *p = added[i];
        return 0;
    }
    const struct builtin *b = find_builtin(name);
    if (b) {
        return from_builtin(p, b, e);
    }
    const char *names[PLAN_MAX_PROFILES + 1] = {NULL};
    for (int k = 0; plan_profile_name(k); k++) {
        names[k] = plan_profile_name(k);
    }
    plan_unknown_name(e, "compression", "profile", name, names);
    return -1;
}

int plan_turn_off(struct plan *p, struct err *e)
{
    const char *prefix = p->static_prefix;
    if (plan_from_profile(p, "off", e)) {
        return -1;
    }
    p->static_prefix = prefix;
    return 0;
}

static bool valid_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    return n > 0 && name[n] == '\0' && n < sizeof added->profile;
}

int plan_add_profile(const char *name, const struct plan *p, struct err *e)
{
    if (!valid_name(name)) {
        return err_reason(e, ERR_INVALID, "bad_profile_name",
                          "\"%.64s\" cannot be the name of a profile: use 1 to 31 of a-z 0-9 _ -",
                          name);
    }
    int i = find_added(name);
    if (i < 0 && n_added == (int)(sizeof added / sizeof *added)) {
        return err_reason(e, ERR_TOO_LARGE, "too_many_profiles",
                          "there are already %d profiles of the configuration", n_added);
    }
    if (i < 0) {
        i = n_added++;
    }
    added[i] = *p;
    snprintf(added[i].profile, sizeof added[i].profile, "%s", name);
    return 0;
}
