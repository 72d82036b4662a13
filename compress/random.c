/* Rows kept by lot: the baseline that says what a method's choice is worth. Published
 * comparisons find it surprisingly strong (UniPruneBench, arXiv 2511.02650). */
#include "base/rng.h"
#include "compress/select.h"

enum { SEED = BASELINE_N_OPTIONS };

static const struct compressor_option options[] = {
    BASELINE_OPTIONS,
    [SEED] = {.name = "seed",
              .type = OPTION_INT,
              .min = 0,
              .max = 1e9,
              .def = 0,
              .unit = "",
              .help = "each seed is another choice; the same for as many rows"},
};

static void choose(const struct compress_call *call, struct selection *s)
{
    struct rng g;
    rng_init(&g, (uint64_t)call->options[SEED]);
    for (int i = 0; i < s->k; i++) {
        int at = i + (int)(rng_double(&g) * (s->n - i));
        int32_t row = s->free_rows[at];
        s->free_rows[at] = s->free_rows[i];
        s->keep[row] = 1;
    }
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    return select_baseline(call, r, choose, scratch, out, e);
}

const struct compressor compressor_random = {
    .info = {.name = "random",
             .stages = SELECT_STAGES,
             .modalities = SELECT_MODALITIES,
             .summary = "keep rows by lot, drop the others",
             .source = "a baseline",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .drops = true,
             .baseline = true},
    .ops = {.apply = apply, .predict = select_predict},
};
