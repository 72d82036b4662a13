/* Pairs of consecutive rows become one by spherical interpolation, as llm_slerp_generation
 * does it after a cutoff layer; written from its description, with what is broken repaired.
 *
 * Length rule, for a stretch of n rows that may merge with each other: the first stays, then
 * pairs (1,2), (3,4) ... merge, and what is left at the end stays: one row when n is even, two
 * when it is odd. So n = 4, 5, 6, 7, 8, 9 become 3, 4, 4, 5, 5, 6, and up to three rows stay
 * as they are. `start` and `end` rows of a stretch are kept besides. Because the pairs count
 * from the left, those of a prompt's beginning do not depend on its end (but for the last two).
 *
 * For a and b with the angle th between them: (sin((1-t) th) a + sin(t th) b) / sin th, with
 * t = 1/2 for equal masses, else b's share. Where sin th vanishes (equal or opposite
 * directions) and for a zero vector the straight mean takes its place.
 *
 * compat: the published code divides by the norm of the whole stretch instead of each row's,
 * so that its angle is always near a right one and a pair is about 0.707 (a + b), whatever
 * the real angle, and depends on the stretch. Kept for comparison only. */
#include "compress/compressor.h"
#include "compress/merge.h"
#include "compress/neighbours.h"
#include "compress/options.h"

#include <math.h>
#include <string.h>

#define SMALLEST_ANGLE 1e-3

enum { START, END, POSITIONS, COMPAT, CUTOFF };
enum { POSITIONS_ORIGINAL, POSITIONS_RENUMBERED };

static const char *const positions[] = {"original", "renumbered", NULL};

static const struct compressor_option options[] = {
    [START] = {.name = "start",
               .type = OPTION_INT,
               .min = 0,
               .max = 65536,
               .def = 0,
               .unit = "rows",
               .help = "rows kept at the start of each stretch of rows that may merge"},
    [END] = {.name = "end",
             .type = OPTION_INT,
             .min = 0,
             .max = 65536,
             .def = 0,
             .unit = "rows",
             .help = "rows kept at the end of each stretch"},
    [POSITIONS] = {.name = "positions",
                   .type = OPTION_ENUM,
                   .min = 0,
                   .max = 1,
                   .def = POSITIONS_ORIGINAL,
                   .choices = positions,
                   .unit = "",
                   .help = "where a pair stands: at the mean of its rows' places, or counted "
                           "anew from the start of its stretch"},
    [COMPAT] = {.name = "compat",
                .type = OPTION_BOOL,
                .min = 0,
                .max = 1,
                .def = 0,
                .unit = "",
                .help = "the arithmetic of the published code, for comparison: pairs are "
                        "0.707 (a + b)"},
    [CUTOFF] = OPTION_CUTOFF(19, "merge"),
};

/* Rows [begin, end) that may all merge with their neighbours. */
struct stretch {
    int begin, end;
};

static struct stretch next_stretch(const struct rows *r, int begin)
{
    struct stretch s = {begin, begin + 1};
    while (s.end < r->n && neighbours_may_join(r, s.end)) {
        s.end++;
    }
    return s;
}

/* First row of the first pair, and how many pairs. */
static int pairs_of(struct stretch s, const double *values, int *first)
{
    double n = (double)s.end - s.begin - values[START] - values[END];
    *first = s.begin + (int)values[START] + 1;
    return n <= 3 ? 0 : ((int)n - 2) / 2;
}

static int pair_up(const struct rows *r, const double *values, int32_t *map)
{
    int m = 0;
    for (struct stretch s = {0, 0}; s.end < r->n;) {
        s = next_stretch(r, s.end);
        int first;
        int n_pairs = pairs_of(s, values, &first);
        for (int i = s.begin; i < s.end; i++) {
            bool second = i > first && i < first + 2 * n_pairs && (i - first) % 2 == 1;
            map[i] = second ? m - 1 : m++;
        }
    }
    return m;
}

static double norm_of(const struct rows *r, int i)
{
    const float *x = r->x + (size_t)i * (size_t)r->n_embd;
    return sqrt((double)merge_dot(x, x, r->n_embd));
}

/* out = slerp(rows i and i + 1), their cosine measured with these norms. */
static void blend(const struct rows *r, int i, double norm_a, double norm_b, float *out)
{
    size_t width = (size_t)r->n_embd;
    const float *a = r->x + (size_t)i * width;
    const float *b = a + width;
    double t = (double)r->mass[i + 1] / (double)(r->mass[i] + r->mass[i + 1]);
    double weight_a = 1 - t;
    double weight_b = t;
    if (norm_a > 0 && norm_b > 0) {
        double cosine = (double)merge_dot(a, b, r->n_embd) / (norm_a * norm_b);
        double angle = acos(cosine > 1 ? 1 : cosine < -1 ? -1 : cosine);
        if (angle >= SMALLEST_ANGLE && angle <= M_PI - SMALLEST_ANGLE) {
            weight_a = sin((1 - t) * angle) / sin(angle);
            weight_b = sin(t * angle) / sin(angle);
        }
    }
    for (size_t d = 0; d < width; d++) {
        out[d] = (float)(weight_a * (double)a[d] + weight_b * (double)b[d]);
    }
}

/* compat: norms of all first and of all second partners of rows [first - 1, end). The rows
 * that stay are there, too, with nothing as their partner: the first one as a second. */
static void stretch_norms(const struct rows *r, int first, int end, int n_pairs, double *norm_a,
                          double *norm_b)
{
    double squares[2] = {0, 0};
    for (int i = first - 1; i < end; i++) {
        bool second = i < first || (i < first + 2 * n_pairs && (i - first) % 2 == 1);
        squares[second] += norm_of(r, i) * norm_of(r, i);
    }
    *norm_a = sqrt(squares[0]);
    *norm_b = sqrt(squares[1]);
}

/* What each pair becomes: x and position [m], by the numbers in map. */
static void blend_pairs(const struct rows *r, const int32_t *map, const double *values, float *x,
                        float *position)
{
    for (struct stretch s = {0, 0}; s.end < r->n;) {
        s = next_stretch(r, s.end);
        int first;
        int n_pairs = pairs_of(s, values, &first);
        double norm_a = 0;
        double norm_b = 0;
        if (n_pairs > 0 && values[COMPAT] != 0) {
            stretch_norms(r, first, s.end - (int)values[END], n_pairs, &norm_a, &norm_b);
        }
        for (int k = 0; k < n_pairs; k++) {
            int i = first + 2 * k;
            float mass = r->mass[i] + r->mass[i + 1];
            position[map[i]] =
                (r->mass[i] * r->position[i] + r->mass[i + 1] * r->position[i + 1]) / mass;
            blend(r, i, values[COMPAT] != 0 ? norm_a : norm_of(r, i),
                  values[COMPAT] != 0 ? norm_b : norm_of(r, i + 1),
                  x + (size_t)map[i] * (size_t)r->n_embd);
        }
        if (n_pairs > 0 && (int)values[POSITIONS] == POSITIONS_RENUMBERED) {
            for (int i = s.begin; i < s.end; i++) {
                position[map[i]] = r->position[s.begin] + (float)(map[i] - map[s.begin]);
            }
        }
    }
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    size_t row_bytes = (size_t)r->n_embd * sizeof(float);
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (unsigned long long)r->n * sizeof *map);
    }
    int m = pair_up(r, call->options, map);
    if (m == r->n) {
        out->skipped = "too_few_rows";
        return 0;
    }
    float *x = arena_alloc(scratch, (size_t)m, row_bytes);
    float *position = arena_alloc(scratch, (size_t)m, sizeof *position);
    if (!x || !position) {
        return err_no_memory(e, (unsigned long long)m * row_bytes);
    }
    for (int i = 0; i < r->n; i++) {
        memcpy(x + (size_t)map[i] * (size_t)r->n_embd, r->x + (size_t)i * (size_t)r->n_embd,
               row_bytes);
        position[map[i]] = r->position[i];
    }
    blend_pairs(r, map, call->options, x, position);
    if (rows_merge(r, map, m, scratch, e)) {
        return -1;
    }
    memcpy(r->x, x, (size_t)m * row_bytes);
    memcpy(r->position, position, (size_t)m * sizeof *position);
    return 0;
}

static int predict(const double *values, int n)
{
    return n <= 3 || values[START] + values[END] >= n ? n : -1;
}

const struct compressor compressor_slerp = {
    .info = {.name = "slerp",
             .stages = STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_TEXT | 1u << MODALITY_LM,
             .summary = "merge consecutive rows in pairs by spherical interpolation",
             .source = "llm_slerp_generation, repaired; Shoemake 1985 for the interpolation",
             .options = options,
             .n_options = sizeof options / sizeof *options},
    .ops = {.apply = apply, .predict = predict},
};
