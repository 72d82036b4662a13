/* A cascade over the rows of one picture: few rows first, more when the answer is in doubt.
 *
 * DVT (arXiv 2105.15075) lets a classifier leave after 7 x 7, 10 x 10 or 14 x 14 tokens, with
 * three trained transformers. Frozen models have one tower and one decoder; what transfers is
 * the idea that most pictures are easy. The tower runs once, at full size. Its rows, reduced
 * to rung 0, go through the decoder; when one of the answer's first tokens leads the second by less
 * than `margin`, the same rows reduced to the next rung go through it again (engine/guard.h).
 * Nothing is encoded twice. Rung k of n leaves ratio_k rows in for each row out,
 *
 *   ratio_k = ratio (last / ratio)^(k / (n - 1))
 *
 * which is all that is decided here: climbing is plan_step_set_rung, reducing another
 * method's work. With c_k the cost of rung k and P_k the share of requests that reach it, a
 * request costs sum_k P_k c_k: two rungs pay while P_1 < 1 - c_0 / c_1. */
#include "compress/compressor.h"
#include "compress/options.h"

enum { RATIO, RUNGS, LAST, MARGIN, TOKENS, BY };

static const char *const methods[] = {"pool", "prune", NULL};

static const struct compressor_option options[] = {
    [RATIO] = {.name = "ratio",
               .type = OPTION_FLOAT,
               .min = 1,
               .max = 64,
               .def = 16,
               .unit = "",
               .help = "patches in for each row out at the first rung"},
    [RUNGS] = {.name = "rungs",
               .type = OPTION_INT,
               .min = 1,
               .max = COMPRESSOR_MAX_RUNGS,
               .def = 3,
               .unit = "",
               .help = "from the first to the last, each by the same factor more rows"},
    [LAST] = {.name = "last",
              .type = OPTION_FLOAT,
              .min = 1,
              .max = 64,
              .def = 1,
              .unit = "",
              .help = "patches in for each row out at the last rung; 1: all rows"},
    [MARGIN] = {.name = "margin",
                .type = OPTION_FLOAT,
                .min = 0,
                .max = 1,
                .def = 0.05,
                .unit = "",
                .help = "the next rung is taken when one of the answer's first tokens leads the "
                        "second most likely by less, as probabilities"},
    [TOKENS] = OPTION_FIRST_TOKENS,
    [BY] = {.name = "by",
            .type = OPTION_ENUM,
            .min = 0,
            .max = 1,
            .def = 0,
            .choices = methods,
            .unit = "",
            .help = "how rows are reduced"},
};

/* The other method and its options, at this ratio. */
static const struct compressor *reducer(const double *values, double other[COMPRESSOR_MAX_OPTIONS])
{
    const struct compressor *c = compressor_find(methods[(int)values[BY]]);
    compressor_defaults(c, other);
    other[compressor_option_index(c, "ratio")] = values[RATIO];
    return c;
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    double other[COMPRESSOR_MAX_OPTIONS];
    const struct compressor *c = reducer(call->options, other);
    struct compress_call inner = *call;
    inner.options = other;
    return c->ops.apply(&inner, r, scratch, out, e);
}

static int predict(const double *values, int n)
{
    double other[COMPRESSOR_MAX_OPTIONS];
    return reducer(values, other)->ops.predict(other, n);
}

const struct compressor compressor_cascade = {
    .info = {.name = "cascade",
             .stages = STAGE_BIT(STAGE_IMAGE_ROWS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "few rows first, more of the same picture when the answer is in doubt",
             .source = "the early exits of DVT, arXiv 2105.15075, for a frozen tower",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .grid = true},
    .ops = {.apply = apply, .predict = predict},
};
