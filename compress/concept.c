/* Rows between two turns of thought become one row: the training-free form of the
 * boundaries of Dynamic Large Concept Models (arXiv 2512.24617, eq. 5-7) and H-Net (arXiv
 * 2507.07955).
 *
 * There a boundary stands before row t when p_t = (1 - cos(W_q h_{t-1}, W_k h_t)) / 2 >= 1/2,
 * with trained W. A frozen model has none, so W is the identity and 1/2 becomes a threshold
 * on the cosine: p_t >= p is cos <= 1 - 2 p. `ratio` is the mean number of rows of a concept
 * over all text, not of the request at hand: one threshold for the model and layer, from
 * its calibration. So a dense text keeps more rows than a wordy one, and the groups of a
 * prompt's beginning do not depend on its end.
 *
 * A concept's vector is the mean of its rows (DLCM), or the row at its beginning, where the
 * turn is, or at its end, which has seen all of it (H-Net takes the boundary's own). */
#include "compress/compressor.h"
#include "compress/neighbours.h"
#include "compress/options.h"

#include <string.h>

enum { VECTOR = NEIGHBOURS_N_OPTIONS, NORM, CUTOFF };
enum { VECTOR_MEAN, VECTOR_FIRST, VECTOR_LAST };

static const char *const vectors[] = {"mean", "first", "last", NULL};

static const struct compressor_option options[] = {
    [NEIGHBOURS_THRESHOLD] =
        OPTION_THRESHOLD(0.7, "a concept ends where neighbours are not more similar than this"),
    [NEIGHBOURS_RATIO] = OPTION_TEXT_RATIO("rows of a concept on average over all text"),
    [NEIGHBOURS_MAX_GROUP] = OPTION_MAX_GROUP(16, "at most so many rows are one concept"),
    [VECTOR] = {.name = "vector",
                .type = OPTION_ENUM,
                .min = 0,
                .max = 2,
                .def = VECTOR_MEAN,
                .choices = vectors,
                .unit = "",
                .help = "what stands for a concept: the mean of its rows, its first or its last"},
    [NORM] = OPTION_NORM(NORM_DIRECTION),
    [CUTOFF] = OPTION_CUTOFF(19, "merge"),
};

/* The groups whose row is one of its members, not their mean: out gets a copy of it. */
static float *member_vectors(const struct rows *r, const int32_t *map, int m, bool last,
                             struct arena *scratch)
{
    size_t width = (size_t)r->n_embd;
    float *out = arena_alloc(scratch, (size_t)m, width * sizeof *out);
    for (int i = 0; out && i < r->n; i++) {
        bool ends = i + 1 == r->n || map[i + 1] != map[i];
        bool begins = i == 0 || map[i - 1] != map[i];
        if (last ? ends : begins) {
            memcpy(out + (size_t)map[i] * width, r->x + (size_t)i * width, width * sizeof *out);
        }
    }
    return out;
}

static int merge(const struct compress_call *call, struct rows *r, const int32_t *map, int m,
                 struct arena *scratch, struct err *e)
{
    int vector = (int)call->options[VECTOR];
    enum merge_norm norm = (enum merge_norm)call->options[NORM];
    if (vector == VECTOR_MEAN) {
        return neighbours_merge(r, map, m, norm, scratch, e);
    }
    size_t bytes = (size_t)m * (size_t)r->n_embd * sizeof(float);
    const float *x = member_vectors(r, map, m, vector == VECTOR_LAST, scratch);
    if (!x) {
        return err_no_memory(e, bytes);
    }
    if (neighbours_merge(r, map, m, norm, scratch, e)) {
        return -1;
    }
    memcpy(r->x, x, bytes);
    return 0;
}

static int apply(const struct compress_call *call, struct rows *r, struct arena *scratch,
                 struct compress_outcome *out, struct err *e)
{
    int32_t *map;
    int m = neighbours_groups(call, r, r->x, r->n_embd, &map, scratch, out, e);
    if (m < 0 || m == r->n) {
        return m < 0 ? -1 : 0;
    }
    return merge(call, r, map, m, scratch, e);
}

const struct compressor compressor_concept = {
    .info = {.name = "concept",
             .stages = STAGE_BIT(STAGE_TEXT_ROWS) | STAGE_BIT(STAGE_LM_LAYER),
             .modalities = 1u << MODALITY_TEXT | 1u << MODALITY_LM,
             .summary = "merge the rows between two places where neighbours turn away from each "
                        "other",
             .source = "boundaries of DLCM, arXiv 2512.24617, without training",
             .options = options,
             .n_options = sizeof options / sizeof *options},
    .ops = {.apply = apply, .predict = neighbours_predict},
};
