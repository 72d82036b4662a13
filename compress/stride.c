/* Every n-th row is kept: a baseline that knows nothing of the picture but its order. */
#include "compress/compressor.h"
#include "compress/merge.h"
#include "compress/select.h"

enum { RATIO, ROWS };

static const struct compressor_option options[] = {
    [RATIO] = {.name = "ratio",
               .type = OPTION_FLOAT,
               .min = 1,
               .max = 64,
               .def = 4,
               .unit = "",
               .help = "patches in for each row out"},
    [ROWS] = {.name = "rows",
              .type = OPTION_INT,
              .min = 1,
              .max = 65536,
              .def = 0,
              .unit = "rows",
              .help = "rows to leave for one picture, instead of a ratio",
              .replaces = "ratio"},
};

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    int32_t *free_rows = arena_alloc(scratch, (size_t)r->n, sizeof *free_rows);
    uint8_t *keep = arena_zalloc(scratch, (size_t)r->n, sizeof *keep);
    if (!free_rows || !keep) {
        return err_no_memory(e, (size_t)r->n * sizeof *free_rows);
    }
    int n = select_free(r, free_rows);
    int k = merge_target(call->options[RATIO], call->options[ROWS], n);
    out->skipped = n < 2 ? (n == 0 && r->n > 0 ? "all_protected" : "too_few_rows") : NULL;
    if (out->skipped || k == n) {
        return 0;
    }
    select_evenly(free_rows, n, k, keep);
    return select_apply(r, keep, false, NULL, 0, scratch, e);
}

static int predict(const double *values, int n)
{
    return merge_target(values[RATIO], values[ROWS], n);
}

const struct compressor compressor_stride = {
    .info = {.name = "stride",
             .stages = STAGE_BIT(STAGE_IMAGE_ROWS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "keep every n-th row, drop the others",
             .source = "a baseline",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .drops = true,
             .baseline = true},
    .ops = {.apply = apply, .predict = predict},
};
