/* Encode a smaller picture: fewer pixels, hence fewer patches, and the tower gets cheaper
 * with the language model. What is decided here is the grid: the rows that come in stand
 * for the cells of the full grid, and those that leave for the patches of the small one;
 * the pixels are the engine's. */
#include "compress/compressor.h"
#include "compress/grid.h"
#include "compress/options.h"

#include <math.h>

enum { RATIO, SIDE };

static const struct compressor_option options[] = {
    [RATIO] = OPTION_RATIO_AUTO(
        64,
        "patches of the full picture for each of the small one, as near as a square comes to it"),
    [SIDE] = {.name = "side",
              .type = OPTION_INT,
              .min = 1,
              .max = 256,
              .def = 0,
              .unit = "rows",
              .help = "rows along a side of the small picture, instead of a ratio",
              .replaces = "ratio"},
};

static int target_side(const double *values, int side)
{
    double wanted = values[SIDE] >= 1 ? values[SIDE] : floor(side / sqrt(values[RATIO]) + 0.5);
    return wanted < 1 ? 1 : wanted > side ? side : (int)wanted;
}

/* A protected cell would have to be encoded at two resolutions. */
static const char *refusal(const struct compress_call *call, const struct rows *r)
{
    for (int i = 0; i < r->n; i++) {
        if (r->flags[i] & ROW_PROTECTED) {
            return "protected_area";
        }
    }
    const char *missing = grid_missing(call, r);
    return missing ? missing : call->picture->width != call->picture->height ? "no_grid" : NULL;
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    out->skipped = r->n < 2 ? "too_few_rows" : refusal(call, r);
    if (out->skipped) {
        return 0;
    }
    int side = target_side(call->options, call->picture->width);
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (size_t)r->n * sizeof *map);
    }
    int m = grid_partition(call->picture, r, side, side, map, scratch, e);
    return m < 0 ? -1 : m < r->n ? rows_merge(r, map, m, scratch, e) : 0;
}

static int predict(const double *values, int n)
{
    int side = (int)floor(sqrt((double)n) + 0.5);
    if (n < 1 || side * side != n) {
        return n < 1 ? 0 : -1;
    }
    return target_side(values, side) * target_side(values, side);
}

const struct compressor compressor_downscale = {
    .info = {.name = "downscale",
             .stages = STAGE_BIT(STAGE_PIXELS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "encode the picture at a smaller size",
             .source = "the baseline of VTC-Bench, arXiv 2510.07143",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .grid = true},
    .ops = {.apply = apply, .predict = predict},
};
