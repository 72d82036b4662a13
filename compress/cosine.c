/* Neighbouring rows whose cosine is above a threshold become one row.
 *
 * Read from left to right: row i joins the group of row i - 1 when both are free and of
 * one kind, no ROW_BREAK lies between them, the group is not full, and
 * cos(row i - 1, row i) > threshold. Nothing to the right of a row is looked at, so the
 * groups of a prompt's beginning do not depend on its end (all but the last, open one),
 * and cached prefixes stay usable. A quantile of the request itself would break that:
 * a target ratio is turned into a threshold beforehand, with the model's calibration.
 * The length of a group is bounded because chains of similar neighbours would otherwise
 * drift: the first and the last of a long one need not be alike.
 * What a group becomes: neighbours.h. */
#include "compress/compressor.h"
#include "compress/neighbours.h"

enum { THRESHOLD, RATIO, MAX_GROUP, NORM, CUTOFF };

static const struct compressor_option options[] = {
    [THRESHOLD] = {.name = "threshold",
                   .type = OPTION_FLOAT,
                   .min = -1,
                   .max = 1,
                   .def = 0.85,
                   .unit = "cosine",
                   .help = "neighbours more similar than this become one row; 1 merges nothing"},
    [RATIO] = {.name = "ratio",
               .type = OPTION_FLOAT,
               .min = 1,
               .max = 8,
               .def = 0,
               .auto_ok = true,
               .unit = "",
               .help = "rows in for each row out on average, through the model's calibration, "
                       "instead of a threshold; auto: rows/512, between 1 and 2",
               .replaces = "threshold"},
    [MAX_GROUP] = {.name = "max_group",
                   .type = OPTION_INT,
                   .min = 2,
                   .max = 64,
                   .def = 4,
                   .unit = "rows",
                   .help = "at most so many rows become one"},
    [NORM] = {.name = "norm",
              .type = OPTION_ENUM,
              .min = 0,
              .max = 1,
              .def = NORM_DIRECTION,
              .choices = merge_norm_names,
              .unit = "",
              .help = "length of a merged row: of the mean, or the mean length of its members"},
    [CUTOFF] = {.name = "cutoff",
                .type = OPTION_INT,
                .min = 0,
                .max = 1023,
                .def = 19,
                .unit = "block",
                .help = "merge after this block of the decoder, counted from 0",
                .modalities = 1u << MODALITY_LM},
};

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (unsigned long long)r->n * sizeof *map);
    }
    int m = neighbours_segment(r, call->metric ? call->metric : r->x,
                               call->metric ? call->n_metric : r->n_embd, call->options[THRESHOLD],
                               (int)call->options[MAX_GROUP], map);
    out->skipped = r->n < 2 ? "too_few_rows" : m == r->n ? "nothing_similar" : NULL;
    return m == r->n
               ? 0
               : neighbours_merge(r, map, m, (enum merge_norm)call->options[NORM], scratch, e);
}

static int predict(const double *values, int n)
{
    return values[RATIO] < 1 && values[THRESHOLD] >= 1 ? n : -1;
}

const struct compressor compressor_cosine = {
    .info = {.name = "cosine",
             .stages = STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_TEXT | 1u << MODALITY_LM,
             .summary = "merge neighbouring rows that are more similar than a threshold",
             .source = "thresholded grouping of consecutive tokens; see docs/compression.md",
             .options = options,
             .n_options = sizeof options / sizeof *options},
    .ops = {.apply = apply, .predict = predict},
};
