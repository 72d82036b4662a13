/* Keeping some rows and doing without the others: what pruning methods share. */
#ifndef TAMP_COMPRESS_SELECT_H
#define TAMP_COMPRESS_SELECT_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/compressor.h"
#include "compress/options.h"
#include "compress/rows.h"

#include <stdbool.h>

/* The first options of a method that keeps some rows, in this order: how many. */
enum { SELECT_RATIO, SELECT_ROWS, SELECT_N_OPTIONS };

/* What such a method begins with. */
struct selection {
    int32_t *free_rows; /* [n] rows that are not protected, in order */
    int n;
    int k;         /* so many of them shall be kept */
    uint8_t *keep; /* [rows->n] zeros */
};

/* -1: no memory. Otherwise out->skipped is set if there is nothing to choose from; nothing is
 * to be done then, nor when k == n. */
int select_begin(struct selection *s, const struct compress_call *call, const struct rows *rows,
                 struct arena *scratch, struct compress_outcome *out, struct err *e);

/* For compressor_ops.predict. */
int select_predict(const double *values, int n);

/* The options of a baseline, [SELECT_RATIO] to [SELECT_CUTOFF], and all that it does but the
 * choice: `choose` marks the s->k rows of s->free_rows that stay. */
enum { SELECT_CUTOFF = SELECT_N_OPTIONS, BASELINE_N_OPTIONS };
#define SELECT_STAGES                                                                              \
    (STAGE_BIT(STAGE_IMAGE_ROWS) | STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER))
#define SELECT_MODALITIES (1u << MODALITY_IMAGE | 1u << MODALITY_TEXT | 1u << MODALITY_LM)
#define BASELINE_OPTIONS                                                                           \
    [SELECT_RATIO] = OPTION_RATIO(64, "rows in for each row out"),                                 \
    [SELECT_ROWS] = OPTION_ROWS_IN(1u << MODALITY_IMAGE),                                          \
    [SELECT_CUTOFF] = OPTION_CUTOFF(8, "drop")
int select_baseline(const struct compress_call *call, struct rows *rows,
                    void (*choose)(const struct compress_call *call, struct selection *s),
                    struct arena *scratch, struct compress_outcome *out, struct err *e);

/* keep[index[i]] = 1 for k of the n rows in index, evenly spaced. */
void select_evenly(const int32_t *index, int n, int k, uint8_t *keep);

/* Only rows with keep[i] and protected ones stay, in their order. The others are dropped, or
 * with `merge` each joins the free kept row it is most similar to, in a mean weighted by mass.
 * metric [n, n_metric], NULL = the rows themselves. At least one free row must be kept for
 * merging. -1 out of memory, with the rows as they were. */
int select_apply(struct rows *rows, const uint8_t *keep, bool merge, const float *metric,
                 int n_metric, struct arena *scratch, struct err *e);

#endif
