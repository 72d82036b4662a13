/* One reading of /metrics in Prometheus' text format, and what two of them say together. */
#ifndef TAMP_CMD_SCRAPE_H
#define TAMP_CMD_SCRAPE_H

#include "base/err.h"

#include <stddef.h>

struct sample {
    const char *name;   /* into text */
    const char *labels; /* "a=\"b\",c=\"d\"" as they stand there; "" when there are none */
    double value;
};

struct scrape {
    char *text; /* owned; the samples point into it */
    struct sample *samples;
    int n;
    double at_ms; /* clock_ms when it was read */
};

/* Takes text, also when it fails (mem_free'd by scrape_clear). Comments and lines that are
 * no samples are passed over; *e when there are too many samples or no memory. */
int scrape_parse(struct scrape *s, char *text, double at_ms, struct err *e);
void scrape_clear(struct scrape *s); /* a zeroed one is fine */

/* The sum over the series of a metric whose labels hold `label` ("modality=\"image\""; NULL =
 * all). 0 when there is none. s may be NULL: 0. */
double scrape_total(const struct scrape *s, const char *name, const char *label);

/* What a counter grew by. It begins again at 0 with the server: then the later value. */
double scrape_growth(const struct scrape *before, const struct scrape *after, const char *name,
                     const char *label);

/* The q-quantile of what a histogram (its name without _bucket) saw between two readings, as
 * Prometheus' histogram_quantile: linear inside a bucket. -1 without events. before NULL:
 * since the server's start. */
double scrape_quantile(const struct scrape *before, const struct scrape *after, const char *name,
                       double q);

/* The value of a label of a sample into out, "" when it has none. */
void sample_label(const struct sample *s, const char *label, char *out, size_t size);

#endif
