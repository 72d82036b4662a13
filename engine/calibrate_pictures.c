/* Thresholds for token merging with counts that follow the content (DyMU, arXiv 2504.17040):
 * how alike the last pair is that a fixed count merges in each block, on average over a few
 * pictures. The pictures are drawn here, so that the same model has the same thresholds on
 * every machine: things with a texture before a plain, shaded or busy background, as shops
 * show them. Measured for the rates that are asked for, when they first are: it takes the
 * tower a second. */
#include "engine/engine_impl.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

#define N_PICTURES 6
#define OCTAVES    5

/* ---- drawing -------------------------------------------------------------------------- */

/* A value for each point of a lattice, the same whenever it is asked for. */
static double lattice(int x, int y, uint64_t seed)
{
    struct rng g;
    rng_init(&g, seed ^ ((uint64_t)(uint32_t)x << 32 | (uint32_t)y));
    return rng_double(&g);
}

static double smooth(double t)
{
    return t * t * (3 - 2 * t);
}

/* Between 0 and 1, with features of about one lattice cell. */
static double value_noise(double x, double y, uint64_t seed)
{
    int x0 = (int)floor(x);
    int y0 = (int)floor(y);
    double u = smooth(x - x0);
    double v = smooth(y - y0);
    double top = lattice(x0, y0, seed) * (1 - u) + lattice(x0 + 1, y0, seed) * u;
    double bottom = lattice(x0, y0 + 1, seed) * (1 - u) + lattice(x0 + 1, y0 + 1, seed) * u;
    return top * (1 - v) + bottom * v;
}

/* Natural pictures have as much contrast in each octave. */
static double texture(double x, double y, double scale, uint64_t seed)
{
    double sum = 0;
    for (int o = 0; o < OCTAVES; o++) {
        sum += value_noise(x * scale, y * scale, seed + (uint64_t)o) / OCTAVES;
        scale *= 2;
    }
    return sum;
}

/* One point of picture `index` in unit coordinates: rgb in 0..1. */
static void shade(int index, double x, double y, double rgb[3])
{
    int n_things = index < 3 ? 1 : 2 + index;
    double light = 0.75 + 0.25 * (1 - y);
    double busy = index % 3 == 2 ? texture(x, y, 6, 90 + (uint64_t)index) : 0.95 - 0.2 * index / 6;
    for (int c = 0; c < 3; c++) {
        rgb[c] = light * busy * (index % 3 == 2 ? lattice(c, 7, (uint64_t)index) : 1);
    }
    for (int i = 0; i < n_things; i++) {
        uint64_t seed = 1000 * (uint64_t)index + 10 * (uint64_t)i;
        double radius = n_things == 1 ? 0.33 : 0.16;
        double dx = (x - (n_things == 1 ? 0.5 : 0.15 + 0.7 * lattice(i, 1, seed))) / radius;
        double dy = (y - (n_things == 1 ? 0.5 : 0.15 + 0.7 * lattice(i, 2, seed))) / radius;
        double power = i % 2 ? 2 : 6; /* round, or a box with round corners */
        if (pow(fabs(dx), power) + pow(fabs(dy), power) < 1) {
            double grain = texture(dx, dy, 2 + 3 * lattice(i, 3, seed), seed);
            double shadow = 1 - 0.35 * (dx + dy + 2) / 4;
            for (int c = 0; c < 3; c++) {
                rgb[c] = shadow * (0.2 + 0.8 * lattice(c, 4, seed)) * (0.4 + 0.8 * grain);
            }
        }
    }
}

static void draw(int index, struct image *im)
{
    for (int y = 0; y < im->height; y++) {
        for (int x = 0; x < im->width; x++) {
            double rgb[3];
            shade(index, (x + 0.5) / im->width, (y + 0.5) / im->height, rgb);
            for (int c = 0; c < 3; c++) {
                double v = 255 * rgb[c];
                im->rgb[((size_t)y * (size_t)im->width + (size_t)x) * 3 + (size_t)c] =
                    (uint8_t)(v < 0     ? 0
                              : v > 255 ? 255
                                        : v);
            }
        }
    }
}

/* ---- measuring -------------------------------------------------------------------------- */

struct measuring {
    const struct plan_step *step;
    struct arena *scratch;
    struct merge_rates *rates;
    int rate;
};

static bool everywhere(void *ctx, int layer)
{
    (void)ctx;
    (void)layer;
    return true;
}

static int measure(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                   int n_metric, struct err *e)
{
    struct measuring *m = ctx;
    struct compress_outcome out = {.weakest = NAN};
    struct compress_call call = {.stage = STAGE_VIT_LAYER,
                                 .layer = layer,
                                 .n_layer = n_layer,
                                 .metric = metric,
                                 .n_metric = n_metric,
                                 .options = m->step->options};
    struct arena_mark mark = arena_mark(m->scratch);
    int rc = m->step->method->ops.apply(&call, rows, m->scratch, &out, e);
    arena_rewind(m->scratch, mark);
    merge_rates_add(m->rates, m->rate, layer, out.weakest);
    return rc;
}

static int encode(struct engine *en, int index, struct measuring *m, struct err *e)
{
    struct arena *a = &en->scratch;
    int size = vision_info(en->vision)->image_size;
    struct image im = {size, size, arena_alloc(a, (size_t)size * (size_t)size * 3, 1)};
    struct rows rows;
    struct stage_hook hook = {everywhere, measure, m};
    struct vision_picture picture = {.hook = &hook, .arena = a, .rows = &rows};
    float *pixels;
    if (!im.rgb) {
        return err_no_memory(e, (size_t)size * (size_t)size * 3);
    }
    draw(index, &im);
    if (vision_preprocess(en->vision, &im, 0, a, &pixels, e)) {
        return -1;
    }
    picture.pixels = pixels;
    return vision_encode(en->vision, &picture, 1, &en->compute, a, e);
}

static int measure_rate(struct engine *en, const struct plan_step *like, int rate, struct err *e)
{
    struct plan_step step = *like;
    compressor_defaults(step.method, step.options);
    step.options[compressor_option_index(step.method, "ratio")] = merge_rate_ratio(rate);
    struct measuring m = {&step, &en->scratch, &en->calibration.merge, rate};
    for (int i = 0; i < N_PICTURES; i++) {
        struct arena_mark mark = arena_mark(&en->scratch);
        int rc = encode(en, i, &m, e);
        arena_rewind(&en->scratch, mark);
        if (rc) {
            return -1;
        }
    }
    return 0;
}

int engine_calibrate_pictures(struct engine *en, const struct plan_step *step, float *thresholds,
                              struct err *e)
{
    const struct vision_info *v = vision_info(en->vision);
    struct merge_rates *rates = &en->calibration.merge;
    double ratio = plan_step_ratio(step, v->n_patches);
    if (merge_rates_init(rates, v->n_layer, e)) {
        return -1;
    }
    for (int rate = 0; rate < MERGE_RATES; rate++) {
        if (merge_rates_needs(rates, rate, ratio) && measure_rate(en, step, rate, e)) {
            merge_rates_clear(rates);
            return -1;
        }
    }
    merge_rates_thresholds(rates, ratio, thresholds);
    return 0;
}
