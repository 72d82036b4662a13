/* Keep the rows that say most, and drop the others or merge them into these.
 *
 *   importance  VisionZip (arXiv 2412.04467): the rows that the tower looks at most. A few
 *               of the kept ones are taken evenly from the rest, so that what nobody looked
 *               at is not gone altogether
 *   diversity   DivPrune (arXiv 2503.02175): greedy max-min. The first row is the one whose
 *               nearest neighbour is farthest; then always the row that is farthest from
 *               all that were taken, by 1 - cosine. Protected rows count as taken
 * Differences to the papers: kept rows stay in raster order with their positions; a merged
 * row is a mean weighted by mass and not a sum; each dropped row may join any kept one, not
 * only the evenly taken. */
#include "compress/compressor.h"
#include "compress/merge.h"
#include "compress/options.h"
#include "compress/select.h"

#include <math.h>
#include <string.h>

enum { SCORE = SELECT_N_OPTIONS, DROPPED, SPREAD };
enum { IMPORTANCE, DIVERSITY };
enum { MERGE, DISCARD };

static const char *const scores[] = {"importance", "diversity", NULL};
static const char *const fates[] = {"merge", "discard", NULL};

static const struct compressor_option options[] = {
    [SELECT_RATIO] = OPTION_RATIO_AUTO(64, "patches in for each row out"),
    [SELECT_ROWS] = OPTION_ROWS,
    [SCORE] = {.name = "score",
               .type = OPTION_ENUM,
               .min = 0,
               .max = 1,
               .def = IMPORTANCE,
               .choices = scores,
               .unit = "",
               .help = "keep what the tower looks at most, or what differs most from what is kept"},
    [DROPPED] = {.name = "dropped",
                 .type = OPTION_ENUM,
                 .min = 0,
                 .max = 1,
                 .def = MERGE,
                 .choices = fates,
                 .unit = "",
                 .help = "the other rows join the kept one they are most similar to, or are gone"},
    [SPREAD] = {.name = "spread",
                .type = OPTION_FLOAT,
                .min = 0,
                .max = 1,
                .def = 0.15,
                .unit = "",
                .help = "share of the kept rows that is taken evenly from the less important "
                        "ones; of no effect on diversity"},
};

/* Attention of a row: of all its sources. */
static int attention_order(const struct rows *r, const int32_t *free_rows, int n, int32_t *order,
                           struct arena *scratch, struct err *e)
{
    float *sum = arena_zalloc(scratch, (size_t)r->n, sizeof *sum);
    struct merge_match *match = arena_alloc(scratch, (size_t)n, sizeof *match);
    if (!sum || !match) {
        return err_no_memory(e, (size_t)r->n * sizeof *match);
    }
    for (int s = 0; s < r->n_source; s++) {
        if (r->owner[s] >= 0) {
            sum[r->owner[s]] += r->attention[s];
        }
    }
    for (int i = 0; i < n; i++) {
        match[i] = (struct merge_match){.score = sum[free_rows[i]], .to = 0};
    }
    return merge_order(match, n, order, scratch, e);
}

static int keep_important(const double *values, const struct rows *r, const int32_t *free_rows,
                          int n, int k, uint8_t *keep, struct arena *scratch, struct err *e)
{
    int32_t *order = arena_alloc(scratch, (size_t)n, sizeof *order);
    int32_t *rest = arena_alloc(scratch, (size_t)n, sizeof *rest);
    if (!order || !rest || attention_order(r, free_rows, n, order, scratch, e)) {
        return err_no_memory(e, (size_t)n * sizeof *order);
    }
    int n_spread = (int)floor(values[SPREAD] * k + 0.5);
    int n_rest = 0;
    for (int i = 0; i < k - n_spread; i++) {
        keep[free_rows[order[i]]] = 1;
    }
    for (int i = 0; i < n; i++) {
        if (!keep[free_rows[i]]) {
            rest[n_rest++] = free_rows[i];
        }
    }
    select_evenly(rest, n_rest, n_spread, keep);
    return 0;
}

/* ---- diversity ------------------------------------------------------------------------ */

struct spread {
    const float *unit; /* [n, width] */
    int width;
    const int32_t *row; /* [n] free rows */
    int n;
    float *near; /* [n] cosine to the most similar row that was taken; 2 = taken itself */
};

static float cosine(const struct spread *s, int a, int b)
{
    size_t width = (size_t)s->width;
    return merge_dot(s->unit + (size_t)a * width, s->unit + (size_t)b * width, s->width);
}

static void take(struct spread *s, int row)
{
    for (int i = 0; i < s->n; i++) {
        float c = s->row[i] == row ? 2.0f : cosine(s, s->row[i], row);
        s->near[i] = c > s->near[i] ? c : s->near[i];
    }
}

/* Index of the row that is farthest from all taken; -1 when none is left. */
static int farthest(const struct spread *s)
{
    int best = -1;
    for (int i = 0; i < s->n; i++) {
        if (s->near[i] < 2.0f && (best < 0 || s->near[i] < s->near[best])) {
            best = i;
        }
    }
    return best;
}

/* The row whose nearest neighbour is farthest. */
static int loneliest(struct spread *s)
{
    for (int i = 0; i < s->n; i++) {
        for (int j = i + 1; j < s->n; j++) {
            float c = cosine(s, s->row[i], s->row[j]);
            s->near[i] = c > s->near[i] ? c : s->near[i];
            s->near[j] = c > s->near[j] ? c : s->near[j];
        }
    }
    int best = farthest(s);
    for (int i = 0; i < s->n; i++) {
        s->near[i] = -2.0f;
    }
    return best;
}

static void unit_rows(const float *x, int n, int width, float *unit)
{
    for (int i = 0; i < n; i++) {
        const float *row = x + (size_t)i * (size_t)width;
        double square = (double)merge_dot(row, row, width);
        float scale = square > 0 && isfinite(square) ? (float)(1 / sqrt(square)) : 0.0f;
        for (int d = 0; d < width; d++) {
            unit[(size_t)i * (size_t)width + (size_t)d] = row[d] * scale;
        }
    }
}

static int keep_diverse(const float *x, int width, const struct rows *r, const int32_t *free_rows,
                        int n, int k, uint8_t *keep, struct arena *scratch, struct err *e)
{
    float *unit = arena_alloc(scratch, (size_t)r->n * (size_t)width, sizeof *unit);
    struct spread s = {.unit = unit,
                       .width = width,
                       .row = free_rows,
                       .n = n,
                       .near = arena_alloc(scratch, (size_t)n, sizeof *s.near)};
    if (!unit || !s.near) {
        return err_no_memory(e, (size_t)r->n * (size_t)width * sizeof *unit);
    }
    unit_rows(x, r->n, width, unit);
    for (int i = 0; i < n; i++) {
        s.near[i] = -2.0f;
    }
    for (int i = 0; i < r->n; i++) {
        if (r->flags[i] & ROW_PROTECTED) {
            take(&s, i);
        }
    }
    for (int taken = 0; taken < k; taken++) {
        int next = taken == 0 && n == r->n ? loneliest(&s) : farthest(&s);
        if (next < 0) {
            break;
        }
        keep[free_rows[next]] = 1;
        take(&s, free_rows[next]);
    }
    return 0;
}

/* ---- the method ----------------------------------------------------------------------- */

static int choose(const struct compress_call *call, const struct rows *r, const struct selection *s,
                  struct arena *scratch, struct err *e)
{
    if ((int)call->options[SCORE] == IMPORTANCE) {
        return keep_important(call->options, r, s->free_rows, s->n, s->k, s->keep, scratch, e);
    }
    return keep_diverse(call->metric ? call->metric : r->x,
                        call->metric ? call->n_metric : r->n_embd, r, s->free_rows, s->n, s->k,
                        s->keep, scratch, e);
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    struct selection s;
    if (select_begin(&s, call, r, scratch, out, e)) {
        return -1;
    }
    if (!out->skipped && (int)call->options[SCORE] == IMPORTANCE && !r->attention) {
        out->skipped = "no_attention";
    }
    if (out->skipped || s.k == s.n) {
        return 0;
    }
    if (choose(call, r, &s, scratch, e)) {
        return -1;
    }
    return select_apply(r, s.keep, (int)call->options[DROPPED] == MERGE, call->metric,
                        call->n_metric, scratch, e);
}

const struct compressor compressor_prune = {
    .info = {.name = "prune",
             .stages = STAGE_BIT(STAGE_IMAGE_ROWS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "keep the rows that matter or differ most; the others join them",
             .source = "VisionZip, arXiv 2412.04467; DivPrune, arXiv 2503.02175",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .drops = true},
    .ops = {.apply = apply, .predict = select_predict},
};
