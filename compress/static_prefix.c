/* The part of a prompt that all requests share, compressed with more effort than a request
 * could afford: a policy or a catalogue is merged once, deep in the decoder, stays in the
 * prefix cache before everything else, and no request pays for it again.
 *
 * Because the static part is one block that always comes whole, nothing has to be decided
 * from the left: the budget is met to the row, and groups grow from the most similar
 * neighbours outwards. In each step those two neighbouring groups become one whose means
 * have the highest cosine (centroid linkage; the left pair of equals), so a group's members
 * are alike as a whole, and not only each to the next. The engine protects what is not part
 * of the static prefix; what is protected in it (numbers, codes) stays exact. */
#include "compress/merge.h"
#include "compress/neighbours.h"
#include "compress/options.h"

#include <math.h>

enum { RATIO, MAX_GROUP, NORM, CUTOFF };

static const struct compressor_option options[] = {
    [RATIO] = {.name = "ratio",
               .type = OPTION_FLOAT,
               .min = 1,
               .max = 8,
               .def = 1.5,
               .unit = "",
               .help = "rows in for each row that is left of the static part"},
    [MAX_GROUP] = OPTION_MAX_GROUP(8, "at most so many rows become one"),
    [NORM] = OPTION_NORM(NORM_DIRECTION),
    [CUTOFF] = OPTION_CUTOFF(24, "merge"),
};

/* Groups of neighbours from left to right, as a list: a group is known by its first row. */
struct groups {
    const struct rows *r;
    int max_group;
    double *sum;   /* [n, n_embd] of the members, by mass */
    double *alike; /* [n] cosine with the next group; -2: they may not join */
    int *next;     /* [n] first row of the next group; n = none */
    int *previous; /* [n] the same backwards; -1 = none */
    int *length;   /* [n] */
};

static double cosine(const struct groups *g, int a, int b)
{
    const double *x = g->sum + (size_t)a * (size_t)g->r->n_embd;
    const double *y = g->sum + (size_t)b * (size_t)g->r->n_embd;
    double dot = 0;
    double xx = 0;
    double yy = 0;
    for (int d = 0; d < g->r->n_embd; d++) {
        dot += x[d] * y[d];
        xx += x[d] * x[d];
        yy += y[d] * y[d];
    }
    return xx > 0 && yy > 0 ? dot / sqrt(xx * yy) : 0;
}

static void compare(struct groups *g, int a)
{
    int b = a < 0 ? g->r->n : g->next[a];
    if (b < g->r->n) {
        bool fits = neighbours_may_join(g->r, b) && g->length[a] + g->length[b] <= g->max_group;
        g->alike[a] = fits ? cosine(g, a, b) : -2;
    } else if (a >= 0) {
        g->alike[a] = -2;
    }
}

static void join(struct groups *g, int a)
{
    int b = g->next[a];
    size_t width = (size_t)g->r->n_embd;
    for (size_t d = 0; d < width; d++) {
        g->sum[(size_t)a * width + d] += g->sum[(size_t)b * width + d];
    }
    g->length[a] += g->length[b];
    g->next[a] = g->next[b];
    if (g->next[b] < g->r->n) {
        g->previous[g->next[b]] = a;
    }
    compare(g, a);
    compare(g, g->previous[a]);
}

static int groups_init(struct groups *g, struct arena *scratch, struct err *e)
{
    size_t n = (size_t)g->r->n;
    size_t width = (size_t)g->r->n_embd;
    g->sum = arena_alloc(scratch, n * width, sizeof *g->sum);
    g->alike = arena_alloc(scratch, n, sizeof *g->alike);
    g->next = arena_alloc(scratch, n, sizeof *g->next);
    g->previous = arena_alloc(scratch, n, sizeof *g->previous);
    g->length = arena_alloc(scratch, n, sizeof *g->length);
    if (!g->sum || !g->alike || !g->next || !g->previous || !g->length) {
        return err_no_memory(e, n * width * sizeof *g->sum);
    }
    for (int i = 0; i < g->r->n; i++) {
        for (size_t d = 0; d < width; d++) {
            size_t at = (size_t)i * width + d;
            g->sum[at] = (double)g->r->mass[i] * (double)g->r->x[at];
        }
        g->next[i] = i + 1;
        g->previous[i] = i - 1;
        g->length[i] = 1;
    }
    for (int i = 0; i < g->r->n; i++) {
        compare(g, i);
    }
    return 0;
}

/* Until `surplus` rows are gone or nothing may join any more. */
static void join_most_alike(struct groups *g, int surplus)
{
    for (; surplus > 0; surplus--) {
        int best = -1;
        for (int a = 0; a < g->r->n; a = g->next[a]) {
            if (g->alike[a] > -2 && (best < 0 || g->alike[a] > g->alike[best])) {
                best = a;
            }
        }
        if (best < 0) {
            return;
        }
        join(g, best);
    }
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    struct groups g = {.r = r, .max_group = (int)call->options[MAX_GROUP]};
    int n_free = 0;
    for (int i = 0; i < r->n; i++) {
        n_free += rows_is_free(r, i);
    }
    int surplus = n_free - (int)lround(n_free / call->options[RATIO]);
    out->skipped = n_free < 2 && r->n > 0 ? "all_protected" : NULL;
    if (surplus == 0 || n_free < 2) {
        return 0;
    }
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (size_t)r->n * sizeof *map);
    }
    if (groups_init(&g, scratch, e)) {
        return -1;
    }
    join_most_alike(&g, surplus);
    int m = 0;
    for (int a = 0; a < r->n; a = g.next[a], m++) {
        for (int i = a; i < g.next[a]; i++) {
            map[i] = m;
        }
    }
    out->skipped = m == r->n ? "nothing_similar" : NULL;
    return m == r->n
               ? 0
               : neighbours_merge(r, map, m, (enum merge_norm)call->options[NORM], scratch, e);
}

static int predict(const double *values, int n)
{
    return values[RATIO] <= 1 ? n : -1;
}

const struct compressor compressor_static_prefix = {
    .info = {.name = "static_prefix",
             .stages = STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_LM,
             .summary = "merge the system prompt once, with more effort, and keep it ready for all "
                        "requests",
             .source = "agglomerative grouping of neighbours; see docs/compression.md",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .static_part = true},
    .ops = {.apply = apply, .predict = predict},
};
