/* Neighbouring rows whose cosine is above a threshold become one row.
 *
 * Read from left to right: row i joins the group of row i - 1 when both are free and of
 * one kind, no ROW_BREAK lies between them, the group is not full, and
 * cos(row i - 1, row i) > threshold. Nothing to the right of a row is looked at, so the
 * groups of a prompt's beginning do not depend on its end (all but the last, open one),
 * and cached prefixes stay usable. A quantile of the request itself would break that:
 * a target ratio is turned into a threshold beforehand, with the model's calibration.
 * The length of a group is bounded because chains of similar neighbours would otherwise
 * drift: the first and the last of a long one need not be alike.
 *
 * A merged row stands at the mean original position of its members. Its vector is their
 * mean or, since a mean of different directions is shorter than its members, that mean
 * stretched to the members' mean norm. */
#include "compress/compressor.h"
#include "compress/merge.h"

#include <math.h>

enum { THRESHOLD, RATIO, MAX_GROUP, NORM, CUTOFF };
enum { NORM_MEAN, NORM_DIRECTION };

static const char *const norms[] = {"mean", "direction", NULL};

static const struct compressor_option options[] = {
    [THRESHOLD] = {.name = "threshold",
                   .type = OPTION_FLOAT,
                   .min = -1,
                   .max = 1,
                   .def = 0.85,
                   .unit = "cosine",
                   .help = "neighbours more similar than this become one row; 1 merges nothing"},
    [RATIO] = {.name = "ratio",
               .type = OPTION_FLOAT,
               .min = 1,
               .max = 8,
               .def = 0,
               .auto_ok = true,
               .unit = "",
               .help = "rows in for each row out on average, through the model's calibration, "
                       "instead of a threshold; auto: rows/512, between 1 and 2",
               .replaces = "threshold"},
    [MAX_GROUP] = {.name = "max_group",
                   .type = OPTION_INT,
                   .min = 2,
                   .max = 64,
                   .def = 4,
                   .unit = "rows",
                   .help = "at most so many rows become one"},
    [NORM] = {.name = "norm",
              .type = OPTION_ENUM,
              .min = 0,
              .max = 1,
              .def = NORM_DIRECTION,
              .choices = norms,
              .unit = "",
              .help = "length of a merged row: of the mean, or the mean length of its members"},
    [CUTOFF] = {.name = "cutoff",
                .type = OPTION_INT,
                .min = 0,
                .max = 1023,
                .def = 19,
                .unit = "block",
                .help = "merge after this block of the decoder, counted from 0",
                .modalities = 1u << MODALITY_LM},
};

/* Whether rows i - 1 and i may share a group at all. */
static bool may_join(const struct rows *r, int i)
{
    return !((r->flags[i] | r->flags[i - 1]) & ROW_PROTECTED) && !(r->flags[i] & ROW_BREAK) &&
           r->kind[i] == r->kind[i - 1];
}

/* map[n]: group of each row, numbered from the left; returns how many groups. */
static int segment(const struct compress_call *call, const struct rows *r, int32_t *map)
{
    const float *x = call->metric ? call->metric : r->x;
    int width = call->metric ? call->n_metric : r->n_embd;
    double threshold = call->options[THRESHOLD];
    int max_group = (int)call->options[MAX_GROUP];
    int n_groups = 0;
    int length = 0;
    for (int i = 0; i < r->n; i++) {
        const float *row = x + (size_t)i * (size_t)width;
        bool joins = i > 0 && length < max_group && may_join(r, i) &&
                     (double)merge_cosine(row - width, row, width) > threshold;
        length = joins ? length + 1 : 1;
        n_groups += !joins;
        map[i] = n_groups - 1;
    }
    return n_groups;
}

/* What rows_merge does not keep, for each group: weighted by mass, as the vectors are. */
struct group {
    float mass, position, norm; /* the last two are sums until the merge is done */
    int n;
};

static void sum_groups(const struct rows *r, const int32_t *map, struct group *groups)
{
    for (int i = 0; i < r->n; i++) {
        const float *row = r->x + (size_t)i * (size_t)r->n_embd;
        struct group *g = &groups[map[i]];
        float mass = r->mass[i];
        g->mass += mass;
        g->position += mass * r->position[i];
        g->norm += mass * sqrtf(merge_dot(row, row, r->n_embd));
        g->n++;
    }
}

static void finish_group(struct rows *r, int i, const struct group *g, bool stretch)
{
    float *row = r->x + (size_t)i * (size_t)r->n_embd;
    r->position[i] = g->position / g->mass;
    float norm = stretch ? sqrtf(merge_dot(row, row, r->n_embd)) : 0;
    if (norm > 0) {
        float scale = g->norm / g->mass / norm;
        for (int d = 0; d < r->n_embd; d++) {
            row[d] *= scale;
        }
    }
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (unsigned long long)r->n * sizeof *map);
    }
    int m = segment(call, r, map);
    out->skipped = r->n < 2 ? "too_few_rows" : m == r->n ? "nothing_similar" : NULL;
    if (m == r->n) {
        return 0;
    }
    struct group *groups = arena_zalloc(scratch, (size_t)m, sizeof *groups);
    if (!groups) {
        return err_no_memory(e, (unsigned long long)m * sizeof *groups);
    }
    sum_groups(r, map, groups);
    if (rows_merge(r, map, m, scratch, e)) {
        return -1;
    }
    for (int i = 0; i < m; i++) {
        if (groups[i].n > 1) {
            finish_group(r, i, &groups[i], (int)call->options[NORM] == NORM_DIRECTION);
        }
    }
    return 0;
}

static int predict(const double *values, int n)
{
    return values[RATIO] < 1 && values[THRESHOLD] >= 1 ? n : -1;
}

const struct compressor compressor_cosine = {
    .info = {.name = "cosine",
             .stages = STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_TEXT | 1u << MODALITY_LM,
             .summary = "merge neighbouring rows that are more similar than a threshold",
             .source = "thresholded grouping of consecutive tokens; see docs/compression.md",
             .options = options,
             .n_options = sizeof options / sizeof *options},
    .ops = {.apply = apply, .predict = predict},
};
