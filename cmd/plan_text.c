#include "cmd/plan_text.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SETTING 128

/* "image.ratio=2" in three pieces, NUL-terminated in `copy`. slot is "" when there is no
 * dot before the '='. */
struct setting {
    char copy[MAX_SETTING];
    const char *slot, *name, *value;
};

static int split(const char *text, size_t len, struct setting *s, struct err *e)
{
    if (len >= sizeof s->copy) {
        return err_reason(e, ERR_TOO_LARGE, "invalid_config", "the setting '%.32s...' is too long",
                          text);
    }
    memcpy(s->copy, text, len);
    s->copy[len] = '\0';
    char *equals = strchr(s->copy, '=');
    if (!equals || equals == s->copy || !equals[1]) {
        return err_reason(e, ERR_INVALID, "invalid_config",
                          "'%s' is no setting; write one as image.ratio=2", s->copy);
    }
    *equals = '\0';
    s->value = equals + 1;
    char *dot = strchr(s->copy, '.');
    if (dot) {
        *dot = '\0';
    }
    s->slot = dot ? s->copy : "";
    s->name = dot ? dot + 1 : s->copy;
    return 0;
}

static bool as_number(const char *text, double *value)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        *value = strcmp(text, "true") == 0;
        return true;
    }
    char *end;
    *value = strtod(text, &end);
    return end != text && !*end && isfinite(*value);
}

static int set_common(struct plan *p, const struct setting *s, struct err *e)
{
    double v;
    if (!as_number(s->value, &v) || v < 0 || v > INT_MAX) {
        return err_reason(e, ERR_TYPE, "invalid_config", "%s: '%s' is not a number that it takes",
                          s->name, s->value);
    }
    if (strcmp(s->name, "protect_system") == 0) {
        p->protect_system = v != 0;
    } else if (strcmp(s->name, "protect_tail") == 0) {
        p->protect_tail = (int)v;
    } else if (strcmp(s->name, "budget_ms") == 0) {
        return plan_set_budget(p, v, e);
    } else if (strcmp(s->name, "min_text_rows") == 0) {
        p->min_text_rows = (int)v;
    } else {
        return err_reason(e, ERR_INVALID, "invalid_config",
                          "no setting is called '%s'; there are image.*, text.*, lm.*, guard.*, "
                          "protect_system, protect_tail, min_text_rows and budget_ms",
                          s->name);
    }
    return 0;
}

/* The index of a slot, -1 with *e set if there is none of that name. */
static int find_modality(const char *slot, struct err *e)
{
    for (int i = 0; i < MODALITY_COUNT; i++) {
        if (strcmp(modality_name((enum modality)i), slot) == 0) {
            return i;
        }
    }
    return err_reason(e, ERR_INVALID, "invalid_config",
                      "'%s' is no part of a plan; there are image, text, lm and guard", slot);
}

/* Two passes over the settings: `methods` first, because a method resets its options. */
static int set_one(struct plan *p, const struct setting *s, bool methods, struct err *e)
{
    double number;
    bool is_method = *s->slot && strcmp(s->name, "method") == 0;
    if (is_method != methods) {
        return 0;
    }
    if (!*s->slot) {
        return set_common(p, s, e);
    }
    if (strcmp(s->slot, "guard") == 0) {
        return as_number(s->value, &number)
                   ? plan_set_guard(p, s->name, number, e)
                   : err_reason(e, ERR_TYPE, "invalid_config", "guard.%s: '%s' is no number",
                                s->name, s->value);
    }
    int slot = find_modality(s->slot, e);
    if (slot < 0) {
        return -1;
    }
    enum modality m = (enum modality)slot;
    if (methods) {
        return plan_set_method(p, m, s->value, e);
    }
    if (as_number(s->value, &number)) {
        return plan_set_number(p, m, s->name, number, e);
    }
    return plan_set_text(p, m, s->name, s->value, e);
}

int plan_text_apply(struct plan *p, const char *settings, struct err *e)
{
    struct plan made = *p;
    struct setting s;
    for (int pass = 0; pass < 2; pass++) {
        for (const char *at = settings; *at;) {
            size_t len = strcspn(at, ", ");
            if (len && (split(at, len, &s, e) || set_one(&made, &s, pass == 0, e))) {
                return -1;
            }
            at += len + (at[len] != '\0');
        }
    }
    *p = made;
    return 0;
}

/* A slot, its method and options, or settings of the whole plan, each with a comma in front
 * unless it is the first. */
static void print_part(const char *part, size_t len, struct buf *out)
{
    const char *slot = part;
    size_t slot_len = 0;
    int word = 0;
    for (size_t at = 0; at < len; word++) {
        size_t n = strcspn(part + at, " ;");
        bool is_setting = memchr(part + at, '=', n) != NULL;
        if (word == 0 && !is_setting) {
            slot_len = n;
        } else {
            buf_printf(out, "%s%.*s%s%s%.*s", out->len ? "," : "", (int)slot_len, slot,
                       slot_len ? "." : "", is_setting ? "" : "method=", (int)n, part + at);
        }
        at += n + 1;
    }
}

void plan_text_print(const struct plan *p, struct buf *out)
{
    struct buf canonical;
    buf_init(&canonical, 1 << 16);
    if (plan_print(p, &canonical)) {
        out->failed = true;
    } else if (strcmp(buf_str(&canonical), "off") != 0) {
        /* "image tome ratio=4; ...; protect_system=true ..." */
        const char *part = buf_str(&canonical);
        while (*part) {
            size_t len = strcspn(part, ";");
            print_part(part, len, out);
            part += len + strspn(part + len, "; ");
        }
    }
    buf_free(&canonical);
}

static int add_profile(const struct config_profile *profile, struct err *e)
{
    struct plan p;
    if (plan_from_profile(&p, profile->from ? profile->from : "balanced", e) ||
        (profile->set && plan_text_apply(&p, profile->set, e))) {
        return err_prefix(e, "profile '%s'", profile->name);
    }
    p.static_prefix = profile->static_prefix ? profile->static_prefix : p.static_prefix;
    return plan_add_profile(profile->name, &p, e) ? err_prefix(e, "profile '%s'", profile->name)
                                                  : 0;
}

static int in_force(struct plan *p, const struct config *c, struct err *e)
{
    const char *text = c->compression;
    if (strcmp(text, "off") == 0) {
        return plan_from_profile(p, c->profile, e) || plan_turn_off(p, e) ? -1 : 0;
    }
    if (!*text || strcmp(text, "on") == 0) {
        return plan_from_profile(p, c->profile, e);
    }
    if (!strchr(text, '=')) {
        return plan_from_profile(p, text, e);
    }
    return plan_from_profile(p, c->profile, e) || plan_text_apply(p, text, e) ? -1 : 0;
}

int plan_text_from_config(struct plan *p, const struct config *c, struct err *e)
{
    plan_allow_baselines(c->baselines);
    for (int i = 0; i < c->n_profiles; i++) {
        if (add_profile(&c->profiles[i], e)) {
            return -1;
        }
    }
    if (in_force(p, c, e)) {
        return err_prefix(e, config_given(c, "compression") ? "--compression" : "--profile");
    }
    return 0;
}
