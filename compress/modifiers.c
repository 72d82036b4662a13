#include "compress/modifiers.h"

#include "compress/merge.h"
#include "compress/options.h"
#include "compress/plan.h"

#include <math.h>
#include <string.h>

/* Compensation begins where a row stands for so many sources on average. */
#define STRONG_RATIO 8.0
#define LEAST_WEIGHT 0.5
#define MOST_WEIGHT  2.0

static const char *const protect_choices[] = {"none", "text", NULL};

const struct compressor_option modifier_options[N_MODIFIERS] = {
    [MODIFIER_NORM] = OPTION_NORM_IN(NORM_MEAN, 1u << MODALITY_IMAGE),
    [MODIFIER_REWEIGHT] = {.name = "reweight",
                           .type = OPTION_BOOL,
                           .min = 0,
                           .max = 1,
                           .def = 0,
                           .unit = "",
                           .help = "from 8x: rows that were looked at more become longer, others "
                                   "shorter"},
    [MODIFIER_RESIDUAL] = {.name = "residual",
                           .type = OPTION_FLOAT,
                           .min = 0.01,
                           .max = 1,
                           .def = 0,
                           .unit = "",
                           .help = "from 8x: each row moves so far towards the mean of its "
                                   "picture or message; 0.1 is usual"},
    [MODIFIER_PROTECT] = {.name = "protect",
                          .type = OPTION_ENUM,
                          .min = 0,
                          .max = 1,
                          .def = PROTECT_NONE,
                          .choices = protect_choices,
                          .unit = "",
                          .help = "text: patches that look like print stay as they are; a picture "
                                  "that is print by more than half is left alone",
                          .modalities = 1u << MODALITY_IMAGE},
    [MODIFIER_LOG_MASS] = {.name = "log_mass",
                           .type = OPTION_BOOL,
                           .min = 0,
                           .max = 1,
                           .def = 0,
                           .unit = "",
                           .help = "from there on the decoder's attention counts a row for as many "
                                   "as it stands for"},
    [MODIFIER_STEPS] = {.name = "steps",
                        .type = OPTION_INT,
                        .min = 1,
                        .max = PLAN_MAX_LM_STEPS,
                        .def = 1,
                        .unit = "",
                        .help = "progressive: act so often, at the cutoff and at even distances "
                                "behind it, each time by an equal share of the ratio",
                        .modalities = 1u << MODALITY_LM},
};

double modifier_value(const struct plan_step *step, enum modifier m)
{
    int i = step->method->info.n_options + (int)m;
    return i < compressor_n_options(step->method) ? step->options[i] : 0;
}

/* ---- norm --------------------------------------------------------------------------- */

struct norm_group {
    float mass, norm; /* sums over the members */
    int n;
};

int norms_before(struct norms *b, const struct plan_step *step, const struct rows *rows,
                 struct arena *scratch, struct err *e)
{
    size_t n = (size_t)rows->n;
    *b = (struct norms){.n = 0};
    if ((int)modifier_value(step, MODIFIER_NORM) != NORM_DIRECTION) {
        return 0;
    }
    b->norm = arena_alloc(scratch, n, sizeof *b->norm);
    b->mass = arena_alloc(scratch, n, sizeof *b->mass);
    b->source = arena_alloc(scratch, n, sizeof *b->source);
    b->groups = arena_alloc(scratch, n, sizeof *b->groups);
    if (!b->norm || !b->mass || !b->source || !b->groups) {
        return err_no_memory(e, n * sizeof *b->groups);
    }
    rows_first_source(rows, b->source);
    for (int i = 0; i < rows->n; i++) {
        const float *x = rows->x + (size_t)i * (size_t)rows->n_embd;
        b->norm[i] = sqrtf(merge_dot(x, x, rows->n_embd));
        b->mass[i] = rows->mass[i];
    }
    b->n = rows->n;
    return 0;
}

void norms_after(const struct norms *b, struct rows *rows)
{
    if (rows->n == b->n || b->n == 0) {
        return;
    }
    memset(b->groups, 0, (size_t)rows->n * sizeof *b->groups);
    for (int i = 0; i < b->n; i++) {
        int to = rows->owner[b->source[i]];
        if (to >= 0) {
            struct norm_group *g = &b->groups[to];
            g->mass += b->mass[i];
            g->norm += b->mass[i] * b->norm[i];
            g->n++;
        }
    }
    for (int i = 0; i < rows->n; i++) {
        const struct norm_group *g = &b->groups[i];
        if (g->n > 1) {
            merge_stretch(rows->x + (size_t)i * (size_t)rows->n_embd, rows->n_embd,
                          g->norm / g->mass);
        }
    }
}

/* ---- reweight and residual ------------------------------------------------------------- */

/* z[i] of each free row; 1 for the attention that an even look would give. */
static void importance(const struct rows *r, double *z)
{
    memset(z, 0, (size_t)r->n * sizeof *z);
    for (int s = 0; s < r->n_source; s++) {
        if (r->owner[s] >= 0) {
            z[r->owner[s]] += r->attention ? (double)r->attention[s] * r->n_source : 1;
        }
    }
    for (int i = 0; i < r->n; i++) {
        z[i] = z[i] / (double)r->mass[i] * sqrt((double)r->mass[i]);
    }
}

/* Standardise, or the softmax of numbers that are nearly equal would do nothing. */
static void reweight(struct rows *r, double *z)
{
    double n = 0;
    double sum = 0;
    double squares = 0;
    importance(r, z);
    for (int i = 0; i < r->n; i++) {
        n += rows_is_free(r, i);
        sum += rows_is_free(r, i) ? z[i] : 0;
    }
    for (int i = 0; i < r->n && n > 0; i++) {
        double off = z[i] - sum / n;
        squares += rows_is_free(r, i) ? off * off : 0;
    }
    double deviation = n > 0 ? sqrt(squares / n) : 0;
    if (!(deviation > 0)) {
        return;
    }
    double total = 0;
    for (int i = 0; i < r->n; i++) {
        z[i] = exp((z[i] - sum / n) / deviation);
        total += rows_is_free(r, i) ? z[i] : 0;
    }
    for (int i = 0; i < r->n; i++) {
        double w = n * z[i] / total;
        float scale = (float)(w < LEAST_WEIGHT ? LEAST_WEIGHT : w > MOST_WEIGHT ? MOST_WEIGHT : w);
        for (int d = 0; d < r->n_embd && rows_is_free(r, i); d++) {
            r->x[(size_t)i * (size_t)r->n_embd + (size_t)d] *= scale;
        }
    }
}

/* Where the picture or message ends that begins at row `begin`. */
static int part_end(const struct rows *r, int begin)
{
    int end = begin + 1;
    while (end < r->n && !(r->flags[end] & ROW_BREAK) && r->kind[end] == r->kind[begin]) {
        end++;
    }
    return end;
}

/* The mean is of all of a picture. Of a text only rows that may merge count: the first rows
 * of a sequence and the template's are far longer than others. */
static void residual(struct rows *r, float alpha, float *mean, int32_t *members)
{
    for (int begin = 0, end; begin < r->n; begin = end) {
        int n = 0;
        end = part_end(r, begin);
        for (int i = begin; i < end; i++) {
            if (r->kind[i] == ROW_IMAGE || rows_is_free(r, i)) {
                members[n++] = i;
            }
        }
        if (n > 0) {
            merge_weighted_mean(mean, r->x, r->mass, members, n, r->n_embd);
        }
        for (int i = begin; i < end; i++) {
            float *x = r->x + (size_t)i * (size_t)r->n_embd;
            for (int d = 0; d < r->n_embd && rows_is_free(r, i); d++) {
                x[d] += alpha * (mean[d] - x[d]);
            }
        }
    }
}

/* Sources for each row, of what may merge. */
static double ratio_of(const struct rows *r)
{
    double sources = r->n_source;
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        sources -= rows_is_free(r, i) ? 0 : (double)r->mass[i];
        n += rows_is_free(r, i);
    }
    return n > 0 ? sources / n : 1;
}

int modifiers_finish(const struct plan_step *step, struct rows *rows, struct arena *scratch,
                     struct err *e)
{
    bool weigh = modifier_value(step, MODIFIER_REWEIGHT) != 0;
    float alpha = (float)modifier_value(step, MODIFIER_RESIDUAL);
    if ((!weigh && alpha <= 0) || ratio_of(rows) < STRONG_RATIO) {
        return 0;
    }
    struct arena_mark mark = arena_mark(scratch);
    double *z = arena_alloc(scratch, (size_t)rows->n, sizeof *z);
    float *mean = arena_alloc(scratch, (size_t)rows->n_embd, sizeof *mean);
    int32_t *members = arena_alloc(scratch, (size_t)rows->n, sizeof *members);
    int failed = !z || !mean || !members;
    if (!failed && weigh) {
        reweight(rows, z);
    }
    if (!failed && alpha > 0) {
        residual(rows, alpha, mean, members);
    }
    arena_rewind(scratch, mark);
    return failed ? err_no_memory(e, (size_t)rows->n * sizeof *z) : 0;
}
