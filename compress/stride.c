/* Every n-th row is kept: a baseline that knows nothing of the picture but its order. */
#include "compress/compressor.h"
#include "compress/options.h"
#include "compress/select.h"

static const struct compressor_option options[] = {
    [SELECT_RATIO] = OPTION_RATIO(64, "patches in for each row out"),
    [SELECT_ROWS] = OPTION_ROWS,
};

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    struct selection s;
    if (select_begin(&s, call, r, scratch, out, e)) {
        return -1;
    }
    if (out->skipped || s.k == s.n) {
        return 0;
    }
    select_evenly(s.free_rows, s.n, s.k, s.keep);
    return select_apply(r, s.keep, false, NULL, 0, scratch, e);
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
    .ops = {.apply = apply, .predict = select_predict},
};
