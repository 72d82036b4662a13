/* What the plan did to one request. Travels from plan to response; metrics add it
 * up once, at the end. Plain data, copied by value. */
#ifndef TAMP_COMPRESS_REPORT_H
#define TAMP_COMPRESS_REPORT_H

#include "compress/plan.h"

#define REPORT_MAX_SKIPPED 8

struct report_stage {
    const char *method; /* static name; NULL = the modality does not occur in the request */
    enum stage stage;
    int rows_in;
    int rows_out;
    int dropped;       /* original rows that no row stands for any more */
    double ms;         /* time spent compressing, not computing */
    int rung, n_rungs; /* of a cascade, from 0; n_rungs is 0 without one */
};

struct report {
    char profile[32];
    struct report_stage modality[MODALITY_COUNT];
    struct {
        enum stage stage;
        const char *reason; /* static word: "too_short", "detail_high", "nothing_similar", ... */
    } skipped[REPORT_MAX_SKIPPED];
    int n_skipped;
    int original_rows;   /* prompt rows before any merge */
    int compressed_rows; /* prompt rows in the first decoder block */
    const char *rollout; /* static: the plan's level (engine/rollout.h); NULL = not followed */
    double mean_rows_per_layer; /* over the decoder's blocks: the honest cost figure */
};

void report_init(struct report *r, const struct plan *p);
/* Each (stage, reason) is kept once; beyond REPORT_MAX_SKIPPED they are dropped. */
void report_skip(struct report *r, enum stage stage, const char *reason);
/* Adds one picture, one run of text or one chunk to a modality's rows and time. Parts that
 * were left alone count too; the method named is the last one that is not `off`. */
void report_add(struct report *r, enum modality m, const struct plan_step *step, int rows_in,
                int rows_out, double ms);
double report_ratio(const struct report *r); /* original / compressed; 1 when empty */

/* Run one step on rows, timed and reported; the one caller of ops.apply. Fails open: out of
 * memory leaves the rows alone and is a skip, not an error; -1 only for a step that cannot
 * act at all (a bug of the caller). Rows are counted with the class token if it is there;
 * at the vit-layer stage blocks after 0 add only what they removed. Scratch is rewound. */
int compress_apply(const struct plan_step *step, enum modality m, int layer, int n_layer,
                   struct rows *rows, const float *metric, int n_metric, struct arena *scratch,
                   struct report *report, struct err *e);
/* The same for a picture as a whole, at the pixels and image-rows stages. */
int compress_apply_picture(const struct plan_step *step, const struct picture_facts *picture,
                           struct rows *rows, struct arena *scratch, struct report *report,
                           struct err *e);

#endif
