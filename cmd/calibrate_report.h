/* What a calibration found, for people: Markdown, and one HTML page with the chart in it. */
#ifndef TAMP_CMD_CALIBRATE_REPORT_H
#define TAMP_CMD_CALIBRATE_REPORT_H

#include "base/buf.h"
#include "cmd/fixed_sequence.h"

/* One answer that is not as it was without compression. */
struct calibrate_difference {
    int step, line;
    const char *without, *with;
};

struct calibrate_summary {
    const struct sequence *sequence;
    const char *const *steps; /* [n_steps] settings, as typed */
    const double *rows; /* [n_steps] mean rows per layer, against no compression; NaN = not asked */
    const double *prompt; /* [n_steps] time to compute the prompt, likewise */
    const struct calibrate_difference *differences; /* [n_differences] */
    int n_differences;
    int n_requests, n_judged; /* in the file; right without compression, or to be answered alike */
    int n_expected;           /* lines that say what a right answer holds */
    int max_tokens;
    const char *data, *model, *name, *set; /* set: of the profile; "" = it merges nothing */
};

void calibrate_print_markdown(const struct calibrate_summary *s, struct buf *out);
void calibrate_print_html(const struct calibrate_summary *s, struct buf *out);
/* The chart alone: agreement and its bound over rows. */
void calibrate_print_svg(const struct calibrate_summary *s, struct buf *out);
/* The YAML file that --config takes. */
void calibrate_print_profile(const struct calibrate_summary *s, struct buf *out);
/* One sentence: what is promised, or that nothing is. */
void calibrate_print_promise(const struct calibrate_summary *s, struct buf *out);

#endif
