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
#include "compress/options.h"

enum { NORM = NEIGHBOURS_N_OPTIONS, CUTOFF };

static const struct compressor_option options[] = {
    [NEIGHBOURS_THRESHOLD] = OPTION_THRESHOLD(
        0.85, "neighbours more similar than this become one row; 1 merges nothing"),
    [NEIGHBOURS_RATIO] = OPTION_TEXT_RATIO("rows in for each row out on average"),
    [NEIGHBOURS_MAX_GROUP] = OPTION_MAX_GROUP(4, "at most so many rows become one"),
    [NORM] = OPTION_NORM(NORM_DIRECTION),
    [CUTOFF] = OPTION_CUTOFF(19, "merge"),
};

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    int32_t *map;
    int m = neighbours_groups(call, r, call->metric ? call->metric : r->x,
                              call->metric ? call->n_metric : r->n_embd, &map, scratch, out, e);
    if (m < 0 || m == r->n) {
        return m < 0 ? -1 : 0;
    }
    return neighbours_merge(r, map, m, (enum merge_norm)call->options[NORM], scratch, e);
}

const struct compressor compressor_cosine = {
    .info = {.name = "cosine",
             .stages = STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_TEXT | 1u << MODALITY_LM,
             .summary = "merge neighbouring rows that are more similar than a threshold",
             .source = "thresholded grouping of consecutive tokens; see docs/compression.md",
             .options = options,
             .n_options = sizeof options / sizeof *options},
    .ops = {.apply = apply, .predict = neighbours_predict},
};
