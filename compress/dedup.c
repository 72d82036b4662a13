/* Patches that are alike, within a picture and across the pictures of one request.
 *
 * From the first patch to the last, a row looks for the first one that it repeats:
 *   1. a cell with the same pixels: white background, a border, the same photo again
 *   2. a row whose cosine is above the threshold
 * first in the pictures before, then among the rows of its own picture that repeat nothing
 * (leaders; comparing with the leader and not with the last member keeps groups from
 * drifting). In its own picture it merges into that row, a mean weighted by mass. What an
 * earlier picture has already said is dropped: a language model looks back, and giving the
 * mass to a row of another picture would change rows that came before. One row of a picture
 * always stays. */
#include "compress/compressor.h"
#include "compress/merge.h"

#include <math.h>

enum { THRESHOLD, ACROSS };

static const struct compressor_option options[] = {
    [THRESHOLD] = {.name = "threshold",
                   .type = OPTION_FLOAT,
                   .min = -1,
                   .max = 1,
                   .def = 0.998,
                   .unit = "cosine",
                   .help =
                       "rows more similar than this repeat each other; 1: only equal pixels do"},
    [ACROSS] = {.name = "across",
                .type = OPTION_BOOL,
                .min = 0,
                .max = 1,
                .def = 1,
                .unit = "",
                .help = "drop what an earlier picture of the request has shown already"},
};

/* Everything that a row may repeat, the first to come first. */
struct seen {
    const float **row; /* [n] */
    float *length;     /* [n] */
    int32_t *at;       /* [n] row of this picture, or ROW_DROPPED: of an earlier one */
    int n;
};

static void see(struct seen *s, const float *row, int n_embd, int32_t at)
{
    s->row[s->n] = row;
    s->length[s->n] = sqrtf(merge_dot(row, row, n_embd));
    s->at[s->n++] = at;
}

/* Oldest picture first. */
static void see_previous(struct seen *s, const struct picture_facts *p, int n_embd)
{
    if (!p) {
        return;
    }
    see_previous(s, p->previous, n_embd);
    for (int i = 0; p->rows && i < p->rows->n; i++) {
        see(s, p->rows->x + (size_t)i * (size_t)n_embd, n_embd, ROW_DROPPED);
    }
}

static bool shown_before(const struct picture_facts *p, uint64_t digest)
{
    for (; p; p = p->previous) {
        for (int i = 0; p->digest && i < p->width * p->height; i++) {
            if (p->digest[i] == digest) {
                return true;
            }
        }
    }
    return false;
}

/* Digest of a row that is one cell of the grid, as it came. */
static const uint64_t *digest_of(const struct compress_call *call, const struct rows *r, int i)
{
    const struct picture_facts *p = call->picture;
    bool whole = p && p->digest && r->n == r->n_source && p->width * p->height == r->n;
    return whole && r->owner[i] == i ? &p->digest[i] : NULL;
}

/* The row that row i repeats, ROW_DROPPED for one of an earlier picture, i for none. */
static int32_t repeats(const struct compress_call *call, const struct rows *r, int i,
                       const struct seen *s, const int32_t *map)
{
    const uint64_t *digest = digest_of(call, r, i);
    double threshold = call->options[THRESHOLD];
    if (digest && call->options[ACROSS] != 0 && shown_before(call->picture->previous, *digest)) {
        return ROW_DROPPED;
    }
    for (int k = 0; digest && k < i; k++) {
        if (!(r->flags[k] & ROW_PROTECTED) && call->picture->digest[k] == *digest) {
            return map[k];
        }
    }
    const float *row = r->x + (size_t)i * (size_t)r->n_embd;
    double length = sqrt((double)merge_dot(row, row, r->n_embd));
    for (int k = 0; threshold < 1 && k < s->n; k++) {
        double lengths = length * (double)s->length[k];
        double dot = (double)merge_dot(row, s->row[k], r->n_embd);
        if (lengths > 0 && dot > threshold * lengths) {
            return s->at[k];
        }
    }
    return i;
}

static int rows_before(const struct picture_facts *p)
{
    int n = 0;
    for (; p; p = p->previous) {
        n += p->rows ? p->rows->n : 0;
    }
    return n;
}

static int group(const struct compress_call *call, const struct rows *r, struct seen *s,
                 int32_t *map)
{
    int n_free = 0;
    int n_left = 0;
    for (int i = 0; i < r->n; i++) {
        bool fixed = r->flags[i] & ROW_PROTECTED;
        map[i] = fixed ? i : repeats(call, r, i, s, map);
        if (!fixed && map[i] == i) {
            see(s, r->x + (size_t)i * (size_t)r->n_embd, r->n_embd, i);
        }
        n_free += !fixed;
        n_left += map[i] == i;
    }
    for (int i = 0; n_left == 0 && i < r->n; i++) {
        map[i] = i == 0 ? 0 : map[i];
    }
    return n_free;
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    const struct picture_facts *before =
        call->picture && call->options[ACROSS] != 0 ? call->picture->previous : NULL;
    size_t most = (size_t)r->n + (size_t)rows_before(before);
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    int32_t *first = arena_alloc(scratch, (size_t)r->n, sizeof *first);
    struct seen s = {.row = arena_alloc(scratch, most, sizeof *s.row),
                     .length = arena_alloc(scratch, most, sizeof *s.length),
                     .at = arena_alloc(scratch, most, sizeof *s.at)};
    if (!map || !first || !s.row || !s.length || !s.at) {
        return err_no_memory(e, most * sizeof *s.row);
    }
    see_previous(&s, before, r->n_embd);
    int n_free = group(call, r, &s, map);
    int m = rows_number_groups(r, map, first);
    out->skipped = n_free == 0 && r->n > 0 ? "all_protected"
                   : r->n < 2              ? "too_few_rows"
                   : m == r->n             ? "nothing_similar"
                                           : NULL;
    return out->skipped ? 0 : rows_merge(r, map, m, scratch, e);
}

static int predict(const double *values, int n)
{
    (void)values;
    return n == 0 ? 0 : -1;
}

const struct compressor compressor_dedup = {
    .info = {.name = "dedup",
             .stages = STAGE_BIT(STAGE_IMAGE_ROWS),
             .modalities = 1u << MODALITY_IMAGE,
             .summary = "say once what patches repeat, within a picture and across those of one "
                        "request",
             .source = "leader clustering; see docs/compression.md",
             .options = options,
             .n_options = sizeof options / sizeof *options,
             .drops = true,
             .looks_back = 1 + ACROSS},
    .ops = {.apply = apply, .predict = predict},
};
