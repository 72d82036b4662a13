/* Every n-th row is kept: a baseline that knows nothing of the rows but their order. */
#include "compress/select.h"

static const struct compressor_option options[] = {BASELINE_OPTIONS};

static void choose(const struct compress_call *call, struct selection *s)
{
    (void)call;
    select_evenly(s->free_rows, s->n, s->k, s->keep);
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    return select_baseline(call, r, choose, scratch, out, e);
}

const struct compressor compressor_stride = {
    .info = {.name = "stride",
             .stages = SELECT_STAGES,
             .modalities = SELECT_MODALITIES,
             .summary = "keep every n-th row, drop the others",
             .source = "a baseline",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .drops = true,
             .baseline = true},
    .ops = {.apply = apply, .predict = select_predict},
};
