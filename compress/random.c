/* Rows kept by lot: the baseline that says what a method's choice is worth. Published
 * comparisons find it surprisingly strong (UniPruneBench, arXiv 2511.02650). */
#include "base/rng.h"
#include "compress/compressor.h"
#include "compress/options.h"
#include "compress/select.h"

enum { SEED = SELECT_N_OPTIONS };

static const struct compressor_option options[] = {
    [SELECT_RATIO] = OPTION_RATIO(64, "patches in for each row out"),
    [SELECT_ROWS] = OPTION_ROWS,
    [SEED] = {.name = "seed",
              .type = OPTION_INT,
              .min = 0,
              .max = 1e9,
              .def = 0,
              .unit = "",
              .help = "each seed is another choice; the same for every picture of a size"},
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
    struct rng g;
    rng_init(&g, (uint64_t)call->options[SEED]);
    for (int i = 0; i < s.k; i++) {
        int at = i + (int)(rng_double(&g) * (s.n - i));
        int32_t row = s.free_rows[at];
        s.free_rows[at] = s.free_rows[i];
        s.keep[row] = 1;
    }
    return select_apply(r, s.keep, false, NULL, 0, scratch, e);
}

const struct compressor compressor_random = {
    .info = {.name = "random",
             .stages = STAGE_BIT(STAGE_IMAGE_ROWS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "keep rows by lot, drop the others",
             .source = "a baseline",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .drops = true,
             .baseline = true},
    .ops = {.apply = apply, .predict = select_predict},
};
