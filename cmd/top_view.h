/* What `tamp top` shows, as text: from readings of /metrics, without a terminal. */
#ifndef TAMP_CMD_TOP_VIEW_H
#define TAMP_CMD_TOP_VIEW_H

#include "base/buf.h"
#include "cmd/scrape.h"

#include <stdbool.h>
#include <time.h>

struct top_readings {
    const struct scrape *now;
    const struct scrape *last; /* the one before: rates are counted from it; NULL = none yet */
    const struct scrape *old;  /* a minute ago, or the first: for quantiles; NULL = none yet */
    const char *server;        /* where it was read */
    time_t wall;               /* when, in seconds since the epoch */
};

/* Lines of at most 78 columns. colour: with the escapes for bold and dim. */
void top_view_print(const struct top_readings *r, bool colour, struct buf *out);

#endif
