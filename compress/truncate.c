/* A text cut short: what most callers do by themselves when a prompt is too long for them, and
 * hence the baseline for text. Inside the decoder it acts once on the whole prompt, since each
 * chunk cut short by itself would be a kind of stride. */
#include "compress/select.h"

enum { CUT = BASELINE_N_OPTIONS };
enum { CUT_MIDDLE, CUT_START, CUT_END };

static const char *const places[] = {"middle", "start", "end", NULL};

static const struct compressor_option options[] = {
    BASELINE_OPTIONS,
    [CUT] = {.name = "cut",
             .type = OPTION_ENUM,
             .min = 0,
             .max = 2,
             .def = CUT_MIDDLE,
             .choices = places,
             .unit = "",
             .help = "where rows are missing then"},
};

static void choose(const struct compress_call *call, struct selection *s)
{
    static const double first_share[] = {[CUT_MIDDLE] = 0.5, [CUT_START] = 0, [CUT_END] = 1};
    int first = (int)(first_share[(int)call->options[CUT]] * s->k);
    for (int i = 0; i < s->k; i++) {
        s->keep[s->free_rows[i < first ? i : s->n - s->k + i]] = 1;
    }
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    return select_baseline(call, r, choose, scratch, out, e);
}

const struct compressor compressor_truncate = {
    .info = {.name = "truncate",
             .stages = STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_TEXT | 1u << MODALITY_LM,
             .summary = "cut the text short",
             .source = "a baseline",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .whole_prompt = true,
             .drops = true,
             .baseline = true},
    .ops = {.apply = apply, .predict = select_predict},
};
