#include "cmd/scrape.h"

#include "base/alloc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SAMPLES 20000
#define MAX_BUCKETS 64

void scrape_clear(struct scrape *s)
{
    mem_free(s->text);
    mem_free(s->samples);
    *s = (struct scrape){0};
}

/* The brace that closes labels; one inside a quoted value is none. */
static char *labels_end(char *at)
{
    for (bool quoted = false; *at; at++) {
        if (quoted && *at == '\\' && at[1]) {
            at++;
        } else if (*at == '"') {
            quoted = !quoted;
        } else if (*at == '}' && !quoted) {
            return at;
        }
    }
    return NULL;
}

/* Cuts a line into its parts. False when it is no sample. */
static bool read_line(char *line, struct sample *out)
{
    size_t n = strcspn(line, "{ \t");
    char *value = line + n;
    *out = (struct sample){.name = line, .labels = ""};
    if (n == 0 || *line == '#' || !*value) {
        return false;
    }
    if (*value == '{') {
        char *end = labels_end(value);
        if (!end) {
            return false;
        }
        *end = '\0';
        *value = '\0';
        out->labels = value + 1;
        value = end + 1;
    } else {
        *value++ = '\0';
    }
    char *rest;
    out->value = strtod(value, &rest);
    return rest != value;
}

int scrape_parse(struct scrape *s, char *text, double at_ms, struct err *e)
{
    int n_lines = 1;
    *s = (struct scrape){.text = text, .at_ms = at_ms};
    for (const char *p = text; *p; p++) {
        n_lines += *p == '\n';
    }
    if (n_lines > MAX_SAMPLES) {
        return err_set(e, ERR_TOO_LARGE, "/metrics has more than %d lines", MAX_SAMPLES);
    }
    s->samples = mem_zalloc((size_t)n_lines, sizeof *s->samples);
    if (!s->samples) {
        return err_no_memory(e, (size_t)n_lines * sizeof *s->samples);
    }
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        if (read_line(line, &s->samples[s->n])) {
            s->n++;
        }
    }
    return 0;
}

double scrape_total(const struct scrape *s, const char *name, const char *label)
{
    double sum = 0;
    for (int i = 0; s && i < s->n; i++) {
        const struct sample *v = &s->samples[i];
        if (strcmp(v->name, name) == 0 && (!label || strstr(v->labels, label))) {
            sum += v->value;
        }
    }
    return sum;
}

double scrape_growth(const struct scrape *before, const struct scrape *after, const char *name,
                     const char *label)
{
    double then = scrape_total(before, name, label);
    double now = scrape_total(after, name, label);
    return now >= then ? now - then : now;
}

void sample_label(const struct sample *s, const char *label, char *out, size_t size)
{
    size_t n = strlen(label);
    *out = '\0';
    for (const char *at = s->labels; (at = strstr(at, label)); at += n) {
        bool whole = (at == s->labels || at[-1] == ',') && at[n] == '=' && at[n + 1] == '"';
        if (whole) {
            snprintf(out, size, "%.*s", (int)strcspn(at + n + 2, "\""), at + n + 2);
            return;
        }
    }
}

/* -- histograms ------------------------------------------------------------------------ */

struct bucket {
    double le, count; /* cumulative */
};

static void add_bucket(struct bucket *b, int *n, double le, double count)
{
    int at = 0;
    while (at < *n && b[at].le < le) {
        at++;
    }
    if (at < *n && b[at].le == le) {
        b[at].count += count;
    } else if (*n < MAX_BUCKETS) {
        memmove(b + at + 1, b + at, (size_t)(*n - at) * sizeof *b);
        b[at] = (struct bucket){le, count};
        ++*n;
    }
}

static int buckets_of(const struct scrape *s, const char *name, struct bucket *b)
{
    size_t n_name = strlen(name);
    int n = 0;
    for (int i = 0; s && i < s->n; i++) {
        const struct sample *v = &s->samples[i];
        char le[32];
        if (strncmp(v->name, name, n_name) == 0 && strcmp(v->name + n_name, "_bucket") == 0) {
            sample_label(v, "le", le, sizeof le);
            add_bucket(b, &n, strtod(le, NULL), v->value); /* strtod reads +Inf */
        }
    }
    return n;
}

double scrape_quantile(const struct scrape *before, const struct scrape *after, const char *name,
                       double q)
{
    struct bucket now[MAX_BUCKETS];
    struct bucket then[MAX_BUCKETS];
    int n = buckets_of(after, name, now);
    int n_then = buckets_of(before, name, then);
    bool restarted = n_then != n;
    for (int i = 0; i < n && !restarted; i++) {
        restarted = then[i].count > now[i].count;
    }
    for (int i = 0; i < n && !restarted; i++) {
        now[i].count -= then[i].count;
    }
    double all = n ? now[n - 1].count : 0;
    if (all <= 0) {
        return -1;
    }
    double low = 0;
    double below = 0;
    for (int i = 0; i < n; i++) {
        if (now[i].count >= q * all) {
            double inside = now[i].count - below;
            return isinf(now[i].le) || inside <= 0
                       ? low
                       : low + (now[i].le - low) * (q * all - below) / inside;
        }
        low = now[i].le;
        below = now[i].count;
    }
    return low;
}
