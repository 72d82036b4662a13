/* Adaptive average pooling: the picture's rows on a coarser grid, each the mean of its part.
 *
 * It acts behind the projector, on purpose. A projector with two layers does not commute
 * with a mean, so the place matters; behind it, the full rows that the picture cache keeps
 * serve every grid without another pass, and a mean of projected rows stays among the
 * vectors that the language model knows, while the projector has never seen a mean of tower
 * rows. A mean is shorter than what it was made of: norm=direction undoes that. */
#include "compress/compressor.h"
#include "compress/grid.h"
#include "compress/options.h"

#include <math.h>

enum { RATIO, COLUMNS, LINES };

static const struct compressor_option options[] = {
    [RATIO] = OPTION_RATIO_AUTO(64, "patches in for each row out, as near as a grid comes to it"),
    [COLUMNS] = {.name = "columns",
                 .type = OPTION_INT,
                 .min = 1,
                 .max = 256,
                 .def = 0,
                 .unit = "",
                 .help = "rows to leave across the picture, instead of a ratio",
                 .replaces = "ratio"},
    [LINES] = {.name = "lines",
               .type = OPTION_INT,
               .min = 1,
               .max = 256,
               .def = 0,
               .unit = "",
               .help = "rows to leave down the picture; as many as across when not set, and of no "
                       "effect without `columns`"},
};

static int between(double v, int max)
{
    return v < 1 ? 1 : v > max ? max : (int)v;
}

static void target_grid(const double *values, int width, int height, int *columns, int *lines)
{
    if (values[COLUMNS] >= 1) {
        *columns = between(values[COLUMNS], width);
        *lines = between(values[LINES] >= 1 ? values[LINES] : values[COLUMNS], height);
        return;
    }
    *columns = between(floor(width / sqrt(values[RATIO]) + 0.5), width);
    *lines = between(floor((double)width * height / values[RATIO] / *columns + 0.5), height);
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    out->skipped = r->n < 2 ? "too_few_rows" : grid_missing(call, r);
    if (out->skipped) {
        return 0;
    }
    int columns;
    int lines;
    target_grid(call->options, call->picture->width, call->picture->height, &columns, &lines);
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (size_t)r->n * sizeof *map);
    }
    int m = grid_partition(call->picture, r, columns, lines, map, scratch, e);
    if (m < 0) {
        return -1;
    }
    out->skipped = m == r->n && columns * lines < r->n ? "all_protected" : NULL;
    return m < r->n ? rows_merge(r, map, m, scratch, e) : 0;
}

static int predict(const double *values, int n)
{
    int side = (int)floor(sqrt((double)n) + 0.5);
    int columns;
    int lines;
    if (n < 1 || side * side != n) {
        return n < 1 ? 0 : -1;
    }
    target_grid(values, side, side, &columns, &lines);
    return columns * lines;
}

const struct compressor compressor_pool = {
    .info = {.name = "pool",
             .stages = STAGE_BIT(STAGE_IMAGE_ROWS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "average neighbouring patches onto a coarser grid",
             .source =
                 "adaptive average pooling; bins that do not overlap, see docs/compression.md",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .grid = true},
    .ops = {.apply = apply, .predict = predict},
};
