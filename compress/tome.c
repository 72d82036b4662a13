/* Token merging (ToMe) inside the vision tower: Bolya et al., arXiv 2210.09461.
 *
 * Between attention and MLP of each block the free rows (protected ones, the class
 * token among them, stand apart) are split by their place in the current order: even
 * ones form set A, odd ones set B. Every A row finds its most similar B row by the
 * cosine of the metric (keys averaged over heads), and the r best pairs merge, weighted
 * by mass. Attention adds log mass to its logits; that is the tower's part.
 *
 * Differences to the paper:
 *   - a target count instead of r: rounding errors of the schedule are carried on, so
 *     the count after the last block is exact; early blocks take more where the rule
 *     "at most half a block" would leave too much for the last ones
 *   - protected rows are taken out before the split instead of scoring -infinity in it:
 *     the rest still alternates between A and B, and the budget stays exact
 *   - counts=adaptive merges every pair above a threshold of the block instead of r pairs
 *     (DyMU, arXiv 2504.17040; merge_rates.h), down to a quarter of the fixed count
 *   - ties go to the lowest index, and the order of merging is a total one */
#include "compress/compressor.h"
#include "compress/merge.h"
#include "compress/options.h"

#include <math.h>
#include <string.h>

enum { RATIO, ROWS, SCHEDULE, COUNTS };
enum { CONSTANT, INCREASING, DECREASING };
enum { FIXED, ADAPTIVE };

/* However plain a picture is, adaptive counts leave this share of what fixed ones would. */
#define LEAST_SHARE 0.25

static const char *const schedules[] = {"constant", "increasing", "decreasing", NULL};

static const char *const counts[] = {"fixed", "adaptive", NULL};

static const struct compressor_option options[] = {
    [RATIO] = OPTION_RATIO_AUTO(16, "patches in for each row out"),
    [ROWS] = OPTION_ROWS,
    [SCHEDULE] = {.name = "schedule",
                  .type = OPTION_ENUM,
                  .min = 0,
                  .max = 2,
                  .def = CONSTANT,
                  .choices = schedules,
                  .unit = "",
                  .help = "merge as many rows in each block, more and more, or fewer and fewer"},
    [COUNTS] = {.name = "counts",
                .type = OPTION_ENUM,
                .min = 0,
                .max = 1,
                .def = FIXED,
                .choices = counts,
                .unit = "",
                .help =
                    "leave as many rows of every picture, or by thresholds of the model more of "
                    "a busy one and fewer of a plain one; photos then keep two to three times "
                    "the rows that the ratio asks for"},
};

/* Free rows that should be left in the end. */
static int target_rows(const double *values, int n)
{
    return merge_target(values[RATIO], values[ROWS], n);
}

/* Free rows after block `layer`: n minus the share of (n - target) that the schedule gives
 * to blocks 0 .. layer, rounded half up. Weights of the blocks: 1, or from 0 to 2, or from
 * 2 to 0, linear; their sums are fractions of integers, so no rounding error builds up. */
static int scheduled_rows(int schedule, int n, int target, int layer, int n_layer)
{
    int64_t l = layer + 1;
    int64_t all = n_layer;
    int64_t num = l;
    int64_t den = all;
    if (schedule != CONSTANT && all > 1) {
        num = schedule == INCREASING ? l * (l - 1) : l * (2 * all - l - 1);
        den = all * (all - 1);
    }
    int64_t removed = (2 * num * (n - target) + den) / (2 * den);
    return n - (int)removed;
}

/* The same, but never more than the later blocks can still halve down to the target. */
static int goal_rows(const double *values, int n, int layer, int n_layer)
{
    int target = target_rows(values, n);
    int goal = scheduled_rows((int)values[SCHEDULE], n, target, layer, n_layer);
    int64_t reachable = target;
    for (int l = n_layer - 2; l >= layer && reachable < n; l--) {
        reachable *= 2;
        int here = scheduled_rows((int)values[SCHEDULE], n, target, l, n_layer);
        reachable = here < reachable ? here : reachable;
    }
    return goal < reachable ? goal : (int)reachable;
}

static int predict(const double *values, int n)
{
    if ((int)values[COUNTS] == ADAPTIVE && n > 1) {
        return -1;
    }
    return target_rows(values, n);
}

/* Where everything goes: protected rows, then what is left of A, then B. */
struct split {
    int32_t *a, *b; /* row indices, ascending */
    int32_t *fixed;
    int n_a, n_b, n_fixed;
};

static int split_rows(const struct rows *r, struct split *s, struct arena *scratch, struct err *e)
{
    size_t n = (size_t)r->n;
    *s = (struct split){
        .a = arena_alloc(scratch, n, sizeof *s->a),
        .b = arena_alloc(scratch, n, sizeof *s->b),
        .fixed = arena_alloc(scratch, n, sizeof *s->fixed),
    };
    if (!s->a || !s->b || !s->fixed) {
        return err_no_memory(e, n * sizeof *s->a);
    }
    for (int i = 0; i < r->n; i++) {
        if (r->flags[i] & ROW_PROTECTED) {
            s->fixed[s->n_fixed++] = i;
        } else if (s->n_a == s->n_b) {
            s->a[s->n_a++] = i;
        } else {
            s->b[s->n_b++] = i;
        }
    }
    return 0;
}

/* New place of each old row; returns how many there will be. order: A by score. */
static int place_rows(const struct split *s, const struct merge_match *match, const int32_t *order,
                      int n_merge, int32_t *map, uint8_t *merged)
{
    int next = 0;
    for (int i = 0; i < s->n_fixed; i++) {
        map[s->fixed[i]] = next++;
    }
    memset(merged, 0, (size_t)s->n_a);
    for (int i = 0; i < n_merge; i++) {
        merged[order[i]] = 1;
    }
    for (int i = 0; i < s->n_a; i++) {
        if (!merged[i]) {
            map[s->a[i]] = next++;
        }
    }
    for (int i = 0; i < s->n_b; i++) {
        map[s->b[i]] = next++;
    }
    for (int i = 0; i < n_merge; i++) {
        map[s->a[order[i]]] = map[s->b[match[order[i]].to]];
    }
    return next;
}

/* Pairs to merge: those of finite score and, if there is a threshold, above it. */
static int count_pairs(const struct compress_call *call, const struct merge_match *match,
                       const int32_t *order, int most)
{
    float above =
        (int)call->options[COUNTS] == ADAPTIVE ? call->thresholds[call->layer] : -INFINITY;
    int n = 0;
    while (n < most && isfinite(match[order[n]].score) && match[order[n]].score > above) {
        n++;
    }
    return n;
}

static int merge_pairs(const struct compress_call *call, struct rows *r, const struct split *s,
                       int n_merge, struct arena *scratch, struct compress_outcome *out,
                       struct err *e)
{
    struct merge_match *match = arena_alloc(scratch, (size_t)s->n_a, sizeof *match);
    int32_t *order = arena_alloc(scratch, (size_t)s->n_a, sizeof *order);
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    uint8_t *merged = arena_alloc(scratch, (size_t)s->n_a, sizeof *merged);
    if (!match || !order || !map || !merged) {
        return err_no_memory(e, (unsigned long long)r->n * sizeof *match);
    }
    const float *metric = call->metric ? call->metric : r->x;
    int width = call->metric ? call->n_metric : r->n_embd;
    if (merge_bipartite(metric, width, s->a, s->n_a, s->b, s->n_b, match, scratch, e) ||
        merge_order(match, s->n_a, order, scratch, e)) {
        return -1;
    }
    n_merge = count_pairs(call, match, order, n_merge);
    if (n_merge == 0) {
        return 0;
    }
    out->weakest = match[order[n_merge - 1]].score;
    int m = place_rows(s, match, order, n_merge, map, merged);
    return rows_merge(r, map, m, scratch, e);
}

/* Rows before any merge that were free: protected ones never change their mass. */
static int free_sources(const struct rows *r)
{
    double fixed = 0;
    for (int i = 0; i < r->n; i++) {
        fixed += r->flags[i] & ROW_PROTECTED ? (double)r->mass[i] : 0;
    }
    return r->n_source - (int)fixed;
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    struct split s;
    int n_source = free_sources(r);
    out->skipped = NULL;
    if (n_source < 2) {
        out->skipped = n_source == 0 && r->n > 0 ? "all_protected" : "too_few_rows";
        return 0;
    }
    bool adaptive = (int)call->options[COUNTS] == ADAPTIVE;
    if (adaptive && !call->thresholds) {
        out->skipped = "not_calibrated";
        return 0;
    }
    if (split_rows(r, &s, scratch, e)) {
        return -1;
    }
    int n_free = s.n_a + s.n_b;
    int goal = adaptive ? (int)ceil(LEAST_SHARE * target_rows(call->options, n_source))
                        : goal_rows(call->options, n_source, call->layer, call->n_layer);
    int n_merge = n_free - goal < n_free / 2 ? n_free - goal : n_free / 2;
    return n_merge > 0 ? merge_pairs(call, r, &s, n_merge, scratch, out, e) : 0;
}

const struct compressor compressor_tome = {
    .info = {.name = "tome",
             .stages = STAGE_BIT(STAGE_VIT_LAYER),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "merge the most similar patches, a few in each block of the vision tower",
             .source = "Bolya et al., Token Merging, arXiv 2210.09461",
             .options = options,
             .n_options = sizeof options / sizeof *options},
    .ops = {.apply = apply, .predict = predict},
};
