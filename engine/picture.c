/* What is known of a picture before the tower sees it: which cells must not merge, which
 * repeat each other, at what size it is encoded, and the keys under which its rows are
 * known. On the caller's thread, like all of job_prepare. */
#include "engine/engine_impl.h"

#include "compress/modifiers.h"
#include "compress/picture_areas.h"
#include "vision/overlay.h"

#include <math.h>
#include <string.h>

int picture_side(const struct vision_info *v)
{
    return (int)lround(sqrt((double)v->n_rows));
}

int picture_bound(const struct prompt_image *im, const struct plan_step *step, int n_rows)
{
    int left = step->method->ops.predict(step->options, n_rows);
    left = left < 0 ? n_rows : left + im->n_protected;
    return left < n_rows ? left : n_rows;
}

bool picture_looks_back(const struct plan_step *step)
{
    int option = step->method->info.looks_back;
    return option > 0 && step->options[option - 1] != 0;
}

static void leave_alone(struct job *j, struct prompt_image *im, const char *reason)
{
    im->step.method = compressors[0];
    report_skip(&j->result.report, im->step.stage, reason);
}

/* ---- cells ---------------------------------------------------------------------------- */

static void mark_regions(const struct vision *v, const struct image *picture,
                         const struct chat_part *part, int side, uint8_t *mask)
{
    float f[4];
    vision_frame(v, picture->width, picture->height, f);
    for (int i = 0; i < part->n_regions; i++) {
        const struct chat_region *r = &part->regions[i];
        areas_mark_box(f[0] + r->left * f[2], f[1] + r->top * f[3], f[0] + r->right * f[2],
                       f[1] + r->bottom * f[3], side, mask);
    }
}

static bool wants_print(const struct plan_step *step)
{
    return (int)modifier_value(step, MODIFIER_PROTECT) == PROTECT_TEXT;
}

/* Protected cells and digests, from the bytes that the tower sees at full size. */
static int study_cells(struct job *j, struct prompt_image *im, const struct image *picture,
                       const struct chat_part *part, const float *pixels, struct err *e)
{
    const struct vision *v = j->engine->vision;
    int side = picture_side(vision_info(v));
    size_t n = (size_t)side * (size_t)side;
    size_t size = (size_t)vision_info(v)->image_size;
    im->protect = arena_zalloc(&j->arena, n, sizeof *im->protect);
    im->digest = arena_alloc(&j->arena, n, sizeof *im->digest);
    uint8_t *rgb = arena_alloc(&j->arena, size * size * 3, 1);
    if (!im->protect || !im->digest || !rgb) {
        return err_no_memory(e, size * size * 3);
    }
    vision_bytes(v, pixels, rgb);
    areas_digest(rgb, (int)size, side, im->digest);
    if (wants_print(&im->step) &&
        2 * areas_mark_print(rgb, (int)size, side, im->protect) > side * side) {
        leave_alone(j, im, "text_heavy");
    }
    mark_regions(v, picture, part, side, im->protect);
    for (size_t i = 0; i < n; i++) {
        im->n_protected += im->protect[i];
    }
    return 0;
}

/* ---- size ----------------------------------------------------------------------------- */

/* The grid of a smaller picture, when the plan is to encode one. */
static int choose_size(struct job *j, struct prompt_image *im, struct err *e)
{
    const struct vision_info *v = vision_info(j->engine->vision);
    int side = picture_side(v);
    struct picture_facts facts = {.width = side, .height = side};
    if (im->step.method == compressors[0] || im->step.stage != STAGE_PIXELS) {
        return 0;
    }
    if (rows_init(&im->grid, &j->arena, side * side, 1, ROW_IMAGE, 0, e)) {
        return -1;
    }
    for (int i = 0; i < side * side; i++) {
        im->grid.x[i] = 0;
        im->grid.flags[i] = im->protect && im->protect[i] ? ROW_PROTECTED : 0;
    }
    report_init(&im->grid_report, &j->plan);
    if (compress_apply_picture(&im->step, &facts, &im->grid, &j->arena, &im->grid_report, e)) {
        return -1;
    }
    int small = (int)lround(sqrt((double)im->grid.n));
    im->small_side = im->grid.n < side * side ? small : 0;
    return 0;
}

/* ---- keys ----------------------------------------------------------------------------- */

static void make_keys(const struct job *j, struct prompt_image *im,
                      const struct prompt_image *before)
{
    const struct vision_info *v = vision_info(j->engine->vision);
    bool early = step_in_tower(&im->step);
    bool protects = im->n_protected > 0 && im->step.method != compressors[0];
    memcpy(im->key, im->plain_key, sizeof im->key);
    if (early) {
        image_rows_key(im->plain_key, &im->step, im->key);
        image_key_add(im->key, "in tower", NULL, 0);
    }
    if (early && protects) {
        image_key_add(im->key, "protected", im->protect, (size_t)v->n_rows);
    }
    image_rows_key(im->key, &im->step, im->info.key);
    if (protects) {
        image_key_add(im->info.key, "protected", im->protect, (size_t)v->n_rows);
    }
    if (before && picture_looks_back(&im->step)) {
        image_key_add(im->info.key, "before", before->info.key, sizeof before->info.key);
    }
}

void picture_begin(struct job *j, int index)
{
    struct prompt_image *im = &j->prompt.images[index];
    if (j->attempt.plain) {
        struct plan plain = j->plan;
        plan_make_plain(&plain);
        im->step = plain.step[MODALITY_IMAGE];
    } else {
        plan_step_set_rung(&im->step, &im->planned, j->attempt.rung);
    }
    bool small = im->small_side > 0 && !j->attempt.plain;
    im->pixels = small ? im->small : im->whole;
    im->n_side = small ? im->small_side : 0;
    im->in_prefix = im->looked_up = im->has_rows = false;
    im->rows = (struct rows){.n = 0};
    im->info = (struct prefix_picture){.n_rows = 0};
    if (job_uses_image_cache(j) || job_uses_prefix_cache(j)) {
        make_keys(j, im, index > 0 ? im - 1 : NULL);
    }
}

/* A gain that is too small is not worth a doubt. */
static bool gains_little(const struct job *j, const struct prompt_image *im)
{
    int n = vision_info(j->engine->vision)->n_rows;
    return im->step.method != compressors[0] && j->plan.guard.on &&
           picture_bound(im, &im->step, n) * j->plan.guard.value[GUARD_MIN_RATIO] > n;
}

int picture_prepare(struct job *j, int index, const struct image *picture,
                    const struct chat_part *part, struct err *e)
{
    struct prompt_image *im = &j->prompt.images[index];
    const struct vision *v = j->engine->vision;
    bool acts = im->step.method != compressors[0];
    bool whole = !acts || im->step.stage != STAGE_PIXELS || wants_print(&im->step) || j->overlay ||
                 j->plan.guard.on || j->is_sampled || j->attempt.plain;
    if (whole && vision_preprocess(v, picture, 0, &j->arena, &im->whole, e)) {
        return -1;
    }
    if (acts && im->whole &&
        (part->n_regions > 0 || wants_print(&im->step) || im->step.method->info.looks_back) &&
        study_cells(j, im, picture, part, im->whole, e)) {
        return -1;
    }
    if (acts && !im->whole && part->n_regions > 0) {
        leave_alone(j, im, "protected_area");
    }
    if (gains_little(j, im)) {
        leave_alone(j, im, "too_little_gain");
    }
    if (choose_size(j, im, e)) {
        return -1;
    }
    if (im->small_side > 0
            ? vision_preprocess(v, picture, im->small_side, &j->arena, &im->small, e)
            : !im->whole && vision_preprocess(v, picture, 0, &j->arena, &im->whole, e)) {
        return -1;
    }
    if (job_uses_image_cache(j) || job_uses_prefix_cache(j)) {
        image_cache_key(j->scope, sizeof j->scope, picture, vision_info(v), NULL, im->plain_key);
    }
    im->planned = im->step;
    picture_begin(j, index);
    return 0;
}

/* ---- after the tower -------------------------------------------------------------------- */

/* The rows of a small picture stand for the cells of the full one. */
int picture_adopt_grid(struct prompt_image *im, struct arena *a, struct err *e)
{
    const struct rows *g = &im->grid;
    if (im->n_side == 0) {
        return 0;
    }
    if (im->rows.n != g->n) {
        return err_set(e, ERR_INTERNAL, "a picture of %d rows where %d were planned", im->rows.n,
                       g->n);
    }
    float *attention = arena_alloc(a, (size_t)g->n_source, sizeof *attention);
    if (!attention) {
        return err_no_memory(e, (size_t)g->n_source * sizeof *attention);
    }
    for (int s = 0; s < g->n_source; s++) {
        attention[s] = im->rows.attention[g->owner[s]] / g->mass[g->owner[s]];
    }
    memcpy(im->rows.mass, g->mass, (size_t)g->n * sizeof *g->mass);
    memcpy(im->rows.position, g->position, (size_t)g->n * sizeof *g->position);
    im->rows.attention = attention;
    im->rows.owner = g->owner;
    im->rows.n_source = g->n_source;
    return 0;
}

void picture_protect(const struct prompt_image *im, struct rows *rows, int n_class)
{
    for (int s = n_class; im->n_protected > 0 && s < rows->n_source; s++) {
        if (im->protect[s - n_class] && rows->owner[s] >= 0) {
            rows->flags[rows->owner[s]] |= ROW_PROTECTED;
        }
    }
}

/* A drawing is smaller than its pixels as bytes, and some. */
#define PNG_SPARE_BYTES 4096

int picture_draw(struct engine *en, struct job *j, const struct prompt_image *im, struct err *e)
{
    const struct vision_info *v = vision_info(en->vision);
    size_t bytes = (size_t)v->image_size * (size_t)v->image_size * 3;
    uint8_t *rgb = arena_alloc(&j->arena, bytes, 1);
    if (!j->overlays) {
        j->overlays = arena_zalloc(&j->arena, (size_t)j->prompt.n_images, sizeof *j->overlays);
    }
    if (!rgb || !j->overlays) {
        return err_no_memory(e, bytes);
    }
    int side = picture_side(v);
    struct buf png;
    struct overlay_cells cells = {.side = side, .owner = im->rows.owner, .fixed = im->protect};
    buf_init(&png, 2 * bytes + PNG_SPARE_BYTES);
    vision_bytes(en->vision, im->whole, rgb);
    int rc = overlay_draw(rgb, v->image_size, &cells, &png, e);
    uint8_t *copy = rc ? NULL : arena_alloc(&j->arena, png.len, 1);
    if (copy) {
        memcpy(copy, png.data, png.len);
        j->overlays[j->result.n_overlays++] =
            (struct picture_overlay){.method = im->step.method->info.name,
                                     .side = side,
                                     .n_rows = im->rows.n,
                                     .owner = im->rows.owner,
                                     .protect = im->protect,
                                     .png = copy,
                                     .png_bytes = png.len};
        j->result.overlays = j->overlays;
    } else if (rc == 0) {
        rc = err_no_memory(e, png.len);
    }
    buf_free(&png);
    return rc;
}
