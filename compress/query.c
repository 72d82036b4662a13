/* Rows chosen by the question: of the text before it only what its rows attend to goes on.
 *
 * The metric is the attention that the rows of the question pay to each row (FastV's idea,
 * arXiv 2403.06764), of the few heads that look things up (engine/heads.h) and with all of the
 * question asking instead of the last token. Single rows chosen so make broken sentences, so
 * a row's score is the mean over its neighbours (`unit: phrase`), or sentences go on or stay
 * behind as a whole (`unit: sentence`), the one on the edge of the budget by its phrases.
 * Sentences are marked when the prompt is tokenised (ROW_SENTENCE); a border or another kind
 * of row ends one, too.
 *
 * What stays behind leaves a trace: by default neighbours are gathered into a row that says
 * in one place what they were about. Merged into a kept neighbour they would outweigh it.
 * Kept rows keep their places, so distances are those of the text.
 *
 * Choosing needs all of the prompt, so nothing here is prefix-stable: the engine runs the
 * lower blocks on everything, then this once, then the upper blocks on what is left. */
#include "compress/compressor.h"
#include "compress/merge.h"
#include "compress/neighbours.h"
#include "compress/options.h"

#include <math.h>
#include <string.h>

enum { RATIO, UNIT, WINDOW, DROPPED, EXACT, HEADS, CUTOFF };
enum { UNIT_ROW, UNIT_PHRASE, UNIT_SENTENCE };
enum { DROPPED_MERGE, DROPPED_GATHER, DROPPED_DROP };

static const char *const units[] = {"row", "phrase", "sentence", NULL};
static const char *const fates[] = {"merge", "gather", "drop", NULL};
static const char *const exactness[] = {"keep", "choose", NULL};

/* Of dropped neighbours so many become one row. */
#define GATHER_ROWS 16

static const struct compressor_option options[] = {
    [RATIO] = {.name = "ratio",
               .type = OPTION_FLOAT,
               .min = 1,
               .max = 16,
               .def = 3,
               .unit = "",
               .help = "rows in for each row that goes on as it is beyond the cutoff"},
    [UNIT] = {.name = "unit",
              .type = OPTION_ENUM,
              .min = 0,
              .max = 2,
              .def = UNIT_SENTENCE,
              .choices = units,
              .unit = "",
              .help = "what stays whole: single rows, phrases of `window` rows, sentences"},
    [WINDOW] = {.name = "window",
                .type = OPTION_INT,
                .min = 1,
                .max = 63,
                .def = 7,
                .unit = "rows",
                .help = "a phrase: a row's score is the mean of so many neighbours'"},
    [DROPPED] = {.name = "dropped",
                 .type = OPTION_ENUM,
                 .min = 0,
                 .max = 2,
                 .def = DROPPED_GATHER,
                 .choices = fates,
                 .unit = "",
                 .help = "rows that do not go on: merged into the nearest that does, gathered "
                         "into a few rows of their own, or left out"},
    [EXACT] = {.name = "exact",
               .type = OPTION_ENUM,
               .min = 0,
               .max = 1,
               .def = 1,
               .choices = exactness,
               .unit = "",
               .help = "numbers, codes, names: always go on, or with their sentence"},
    [HEADS] = {.name = "heads",
               .type = OPTION_INT,
               .min = 1,
               .max = 16,
               .def = 4,
               .unit = "",
               .help = "how many heads say together what belongs to the question: the best of "
                       "the blocks up to the cutoff, found when the first such request comes"},
    [CUTOFF] = OPTION_CUTOFF(8, "choose"),
};

/* One call's work; arrays of n. */
struct choice {
    const struct rows *r;
    const double *options;
    double *score; /* spread over phrases */
    struct part {
        int begin, end;
        double score;
    } * parts; /* sentences */
    int n_parts;
    bool *keep;
    int budget;
};

/* Whether row i begins a message, a picture, a chunk of something else. */
static bool begins_part(const struct rows *r, int i)
{
    return i == 0 || (r->flags[i] & ROW_BREAK) || r->kind[i] != r->kind[i - 1];
}

/* ---- scores ------------------------------------------------------------------------- */

static double attention_at(const struct compress_call *call, int i)
{
    double sum = 0;
    for (int d = 0; d < call->n_metric; d++) {
        sum += (double)call->metric[(size_t)i * (size_t)call->n_metric + (size_t)d];
    }
    return sum;
}

/* The mean over the window, within the part of the text. */
static void spread(const struct compress_call *call, const struct rows *r, int window,
                   double *score)
{
    for (int i = 0; i < r->n; i++) {
        double sum = 0;
        int n = 0;
        int begin = i;
        while (begin > 0 && begin > i - window / 2 && !begins_part(r, begin)) {
            begin--;
        }
        for (int k = begin; k < r->n && k <= i + window / 2; k++) {
            if (k > i && begins_part(r, k)) {
                break;
            }
            if (rows_is_text(r, k)) {
                sum += attention_at(call, k);
                n++;
            }
        }
        score[i] = n > 0 ? sum / n : 0;
    }
}

static void find_sentences(struct choice *c, const struct compress_call *call)
{
    const struct rows *r = c->r;
    int n_text = 0;
    for (int i = 0; i < r->n; i++) {
        if (begins_part(r, i) || (r->flags[i] & ROW_SENTENCE)) {
            c->parts[c->n_parts++] = (struct part){.begin = i};
            n_text = 0;
        }
        struct part *p = &c->parts[c->n_parts - 1];
        p->end = i + 1;
        if (rows_is_text(r, i)) {
            p->score += (attention_at(call, i) - p->score) / ++n_text;
        }
    }
}

/* ---- choosing ----------------------------------------------------------------------- */

/* The best rows of [begin, end) until the budget is spent. */
static void keep_rows(struct choice *c, int begin, int end, struct merge_ranked *ranked)
{
    int n = 0;
    for (int i = begin; i < end; i++) {
        if (rows_is_free(c->r, i) && !c->keep[i]) {
            ranked[n++] = (struct merge_ranked){c->score[i], i};
        }
    }
    merge_rank(ranked, n);
    for (int k = 0; k < n && c->budget > 0; k++, c->budget--) {
        c->keep[ranked[k].index] = true;
    }
}

static int n_free(const struct rows *r, int begin, int end)
{
    int n = 0;
    for (int i = begin; i < end; i++) {
        n += rows_is_free(r, i);
    }
    return n;
}

static void keep_sentences(struct choice *c, struct merge_ranked *ranked, struct merge_ranked *rows)
{
    for (int i = 0; i < c->n_parts; i++) {
        ranked[i] = (struct merge_ranked){c->parts[i].score, i};
    }
    merge_rank(ranked, c->n_parts);
    for (int k = 0; k < c->n_parts && c->budget > 0; k++) {
        const struct part *p = &c->parts[ranked[k].index];
        keep_rows(c, p->begin, p->end, rows);
    }
}

/* Every part of the text keeps a free row, so that the others have one to merge into. */
static void keep_one_of_each(struct choice *c)
{
    for (int begin = 0, end; begin < c->r->n; begin = end) {
        int best = -1;
        bool any = false;
        for (end = begin; end == begin || (end < c->r->n && !begins_part(c->r, end)); end++) {
            any |= c->keep[end];
            if (rows_is_free(c->r, end) && (best < 0 || c->score[end] > c->score[best])) {
                best = end;
            }
        }
        if (best >= 0 && !any) {
            c->keep[best] = true;
        }
    }
}

/* ---- what becomes of the others ------------------------------------------------------- */

/* map: kept and protected rows are numbered in order, the others get the number of the
 * nearest kept one in their part of the text, the left one of two equally near. */
static int map_to_nearest(const struct choice *c, int32_t *map)
{
    const struct rows *r = c->r;
    int m = 0;
    for (int i = 0; i < r->n; i++) {
        map[i] = c->keep[i] || !rows_is_free(r, i) ? m++ : -1;
    }
    for (int i = 0; i < r->n; i++) {
        if (map[i] >= 0) {
            continue;
        }
        int left = i;
        int right = i;
        while (left >= 0 && !c->keep[left]) {
            left = begins_part(r, left) ? -1 : left - 1;
        }
        while (right < r->n && !c->keep[right]) {
            right = right + 1 < r->n && !begins_part(r, right + 1) ? right + 1 : r->n;
        }
        map[i] = left >= 0 && (right == r->n || i - left <= right - i) ? map[left] : map[right];
    }
    return m;
}

/* The kept rows with their places; with their vectors too when the others are left out. */
static int merge_into_kept(const struct choice *c, struct rows *r, const int32_t *map, int m,
                           struct arena *scratch, struct err *e)
{
    size_t row_bytes = (size_t)r->n_embd * sizeof(float);
    bool drop = (int)c->options[DROPPED] == DROPPED_DROP;
    float *position = arena_alloc(scratch, (size_t)m, sizeof *position);
    float *x = arena_alloc(scratch, drop ? (size_t)m : 0, row_bytes);
    if (!position || !x) {
        return err_no_memory(e, (size_t)m * row_bytes);
    }
    for (int i = 0; i < r->n; i++) {
        if (c->keep[i] || !rows_is_free(r, i)) {
            position[map[i]] = r->position[i];
            if (drop) {
                memcpy(x + (size_t)map[i] * (size_t)r->n_embd, r->x + (size_t)i * (size_t)r->n_embd,
                       row_bytes);
            }
        }
    }
    if (rows_merge(r, map, m, scratch, e)) {
        return -1;
    }
    memcpy(r->position, position, (size_t)m * sizeof *position);
    if (drop) {
        memcpy(r->x, x, (size_t)m * row_bytes);
    }
    return 0;
}

/* map: dropped neighbours become one row, GATHER_ROWS of them at most. */
static int map_gathered(const struct choice *c, int32_t *map)
{
    int m = 0;
    int length = 0;
    for (int i = 0; i < c->r->n; i++) {
        bool joins = i > 0 && !c->keep[i] && !c->keep[i - 1] && length < GATHER_ROWS &&
                     neighbours_may_join(c->r, i);
        length = joins ? length + 1 : 1;
        map[i] = joins ? m - 1 : m++;
    }
    return m;
}

static int choose(struct choice *c, const struct compress_call *call, struct arena *scratch,
                  struct err *e)
{
    size_t n = (size_t)c->r->n;
    struct merge_ranked *ranked = arena_alloc(scratch, n, sizeof *ranked);
    struct merge_ranked *rows = arena_alloc(scratch, n, sizeof *rows);
    c->score = arena_alloc(scratch, n, sizeof *c->score);
    c->parts = arena_alloc(scratch, n, sizeof *c->parts);
    c->keep = arena_zalloc(scratch, n, sizeof *c->keep);
    if (!ranked || !rows || !c->score || !c->parts || !c->keep) {
        return err_no_memory(e, n * (sizeof *c->parts + 2 * sizeof *ranked));
    }
    c->budget = (int)lround(n_free(c->r, 0, c->r->n) / c->options[RATIO]);
    spread(call, c->r, (int)c->options[UNIT] == UNIT_ROW ? 1 : (int)c->options[WINDOW], c->score);
    if ((int)c->options[UNIT] == UNIT_SENTENCE) {
        find_sentences(c, call);
        keep_sentences(c, ranked, rows);
    } else {
        keep_rows(c, 0, c->r->n, ranked);
    }
    keep_one_of_each(c);
    return 0;
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    struct choice c = {.r = r, .options = call->options};
    int free_rows = n_free(r, 0, r->n);
    out->skipped = !call->metric ? "no_question" : free_rows < 2 ? "too_few_rows" : NULL;
    if (out->skipped || call->options[RATIO] <= 1) {
        return 0;
    }
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (size_t)r->n * sizeof *map);
    }
    if (choose(&c, call, scratch, e)) {
        return -1;
    }
    if ((int)call->options[DROPPED] == DROPPED_GATHER) {
        int m = map_gathered(&c, map);
        return m == r->n ? 0 : neighbours_merge(r, map, m, NORM_DIRECTION, scratch, e);
    }
    int m = map_to_nearest(&c, map);
    return m == r->n ? 0 : merge_into_kept(&c, r, map, m, scratch, e);
}

static int predict(const double *values, int n)
{
    return values[RATIO] <= 1 || n < 2 ? n : -1;
}

const struct compressor compressor_query = {
    .info = {.name = "query",
             .stages = STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_LM,
             .summary = "of the text before the question, keep what the question attends to",
             .source = "attention of the question's rows at a cutoff, after FastV, arXiv "
                       "2403.06764",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .whole_prompt = true},
    .ops = {.apply = apply, .predict = predict},
};
