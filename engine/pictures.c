/* Pictures become rows: from the prefix cache, the image cache, or through the tower,
 * several in one pass. Engine thread only.
 *
 * A pass has pictures of the oldest request that needs any, for this one waits for all of
 * its own, and at most one companion of another request: products over twice the rows read
 * the weights once, and beyond that there is little to gain, while the oldest request pays
 * for every companion with its first token. Nobody waits for a pass to fill. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "compress/modifiers.h"

#include <string.h>

/* Scratch of a pass. Four 224 px pictures of a ViT-S/14 fit; from there on a pass gains
 * nothing from one more. */
#define PASS_BYTES ((size_t)32 << 20)
/* Pictures of a pass that has another request's. */
#define SHARED_PICTURES 2

struct tower_hook {
    struct prompt_image *image; /* its report gets times and reasons of the single layers */
    struct arena *scratch;
    int n_patches;            /* sources before these are the class token */
    bool acts;                /* rows merge inside the tower */
    struct engine *shadow_of; /* of a shadow, which stops when somebody comes; else NULL */
    double rows;              /* of n_blocks blocks so far */
    int n_blocks;
};

struct picture_pass {
    struct job *jobs[VISION_MAX_PICTURES];
    struct prompt_image *images[VISION_MAX_PICTURES];
    int n;
};

static bool tower_wants(void *ctx, int layer)
{
    (void)ctx;
    (void)layer;
    return true;
}

static int tower_run(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                     int n_metric, struct err *e)
{
    struct tower_hook *h = ctx;
    if (h->shadow_of && shadow_is_disturbed(h->shadow_of)) {
        return err_set(e, ERR_CANCELLED, "somebody came");
    }
    if (h->acts && layer == 0) {
        picture_protect(h->image, rows, rows->n_source - h->n_patches);
    }
    h->rows += rows->n;
    h->n_blocks++;
    if (!h->acts) {
        return 0;
    }
    return compress_apply(&h->image->step, MODALITY_IMAGE, layer, n_layer, rows, metric, n_metric,
                          h->scratch, &h->image->layers, e);
}

/* ---- which pictures ------------------------------------------------------------------ */

/* Whether rows are needed of a picture: its keys and values may be there already, but one
 * behind it is compared with it, or it shall be drawn. */
static bool needs_rows(const struct job *j, const struct prompt_image *im)
{
    const struct prompt_image *end = j->prompt.images + j->prompt.n_images;
    bool needed = !im->in_prefix || j->overlay;
    for (const struct prompt_image *later = im + 1; !needed && later < end; later++) {
        needed = !later->in_prefix && picture_looks_back(&later->step);
    }
    return needed;
}

/* Thresholds for a step whose counts follow the content. */
static int measure(struct engine *en, struct job *j, struct prompt_image *im, struct err *e)
{
    size_t n = (size_t)vision_info(en->vision)->n_layer;
    float *thresholds = im->step.thresholds ? NULL : arena_alloc(&j->arena, n, sizeof *thresholds);
    if (im->step.thresholds) {
        return 0;
    }
    if (!thresholds) {
        return err_no_memory(e, n * sizeof *thresholds);
    }
    im->step.thresholds = thresholds;
    return engine_calibrate_pictures(en, &im->step, thresholds, e);
}

/* 1: the rows of this picture are there. 0: only the tower can make them. -1: no memory. */
static int find_rows(struct engine *en, struct job *j, struct prompt_image *im, struct err *e)
{
    if (!needs_rows(j, im) || im->has_rows) {
        return 1;
    }
    report_init(&im->layers, &j->plan);
    if (plan_step_is_adaptive(&im->step) && measure(en, j, im, e)) {
        return -1;
    }
    if (im->full.n > 0 && !step_in_tower(&im->step)) {
        im->has_rows = rows_copy(&im->rows, &im->full, &j->arena, e) == 0;
        return im->has_rows ? 1 : -1;
    }
    if (!job_uses_image_cache(j)) {
        return 0;
    }
    int found = image_cache_get(en->image_cache, im->key, &j->arena, &im->rows, &im->layers, e);
    j->result.images_queried += !im->looked_up;
    j->result.images_cached += found > 0;
    im->looked_up = true;
    im->has_rows = found > 0;
    return found;
}

/* The pass makes the same rows already: they will be in the cache. */
static bool is_in(const struct picture_pass *p, const struct job *j, const struct prompt_image *im)
{
    for (int i = 0; i < p->n && job_uses_image_cache(j); i++) {
        if (job_uses_image_cache(p->jobs[i]) &&
            memcmp(p->images[i]->key, im->key, IMAGE_KEY_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

/* Pictures of a job that need the tower, up to `most` in the pass. */
static int collect(struct engine *en, struct job *j, int most, struct picture_pass *p,
                   struct err *e)
{
    for (int i = 0; i < j->prompt.n_images && p->n < most; i++) {
        struct prompt_image *im = &j->prompt.images[i];
        int found = find_rows(en, j, im, e);
        if (found < 0) {
            return -1;
        }
        if (found == 0 && !is_in(p, j, im)) {
            p->jobs[p->n] = j;
            p->images[p->n++] = im;
        }
    }
    return 0;
}

/* Who was submitted next after this time and has pictures to make. */
static struct job *next_job(const struct engine *en, const struct job *after)
{
    struct job *next = NULL;
    for (int i = 0; i < en->n_running; i++) {
        struct job *j = en->running[i];
        if (j->state == JOB_ENCODING && j->submitted_ms > after->submitted_ms &&
            !atomic_load(&j->cancelled) && (!next || j->submitted_ms < next->submitted_ms)) {
            next = j;
        }
    }
    return next;
}

static void collect_companions(struct engine *en, struct job *j, struct picture_pass *p)
{
    while (p->n < SHARED_PICTURES && (j = next_job(en, j))) {
        struct err unused = ERR_INIT; /* it will find the same when it is the oldest */
        (void)collect(en, j, SHARED_PICTURES, p, &unused);
    }
}

/* Answers that run wait for a pass: it has one picture then. */
static int most_pictures(const struct engine *en)
{
    for (int i = 0; i < en->n_running; i++) {
        if (en->running[i]->state == JOB_DECODE) {
            return 1;
        }
    }
    return vision_pictures_in(en->vision, PASS_BYTES);
}

/* ---- through the tower ----------------------------------------------------------------- */

/* Rows after a projector that needs the full grid are each their own source. */
static int own_sources(struct rows *r, struct arena *a, struct err *e)
{
    r->owner = arena_alloc(a, (size_t)r->n, sizeof *r->owner);
    if (!r->owner) {
        return err_no_memory(e, (size_t)r->n * sizeof *r->owner);
    }
    for (int i = 0; i < r->n; i++) {
        r->owner[i] = i;
        r->mass[i] = 1.0f;
        r->position[i] = (float)i;
    }
    r->n_source = r->n;
    return 0;
}

static int take_rows(struct engine *en, struct job *j, struct prompt_image *im, struct err *e)
{
    if (picture_adopt_grid(im, &j->arena, e) ||
        (im->rows.n_source != vision_info(en->vision)->n_rows &&
         own_sources(&im->rows, &j->arena, e))) {
        return -1;
    }
    im->has_rows = true;
    if (job_uses_image_cache(j)) {
        image_cache_put(en->image_cache, im->key, &im->rows, &im->layers);
    }
    return 0;
}

/* Rows of a picture in a block of the tower, the mean over its blocks. */
static double note_rows(struct engine *en, struct prompt_image *im, const struct tower_hook *h)
{
    int patches = im->n_side > 0 ? im->n_side * im->n_side : vision_info(en->vision)->n_patches;
    im->layers.mean_rows_per_layer = h->n_blocks > 0 ? h->rows / h->n_blocks : patches;
    return im->layers.mean_rows_per_layer;
}

static void note_pace(struct engine *en, double ms, double rows)
{
    double now = ms / rows;
    en->tower_ms_per_row = en->tower_ms_per_row > 0 ? 0.8 * en->tower_ms_per_row + 0.2 * now : now;
}

/* Pictures [first, first + n) of the pass. On failure of a part the others have rows. */
static int encode(struct engine *en, const struct picture_pass *p, int first, int n, struct err *e)
{
    struct vision_picture pictures[VISION_MAX_PICTURES];
    struct tower_hook contexts[VISION_MAX_PICTURES];
    struct stage_hook hooks[VISION_MAX_PICTURES];
    for (int i = 0; i < n; i++) {
        struct job *j = p->jobs[first + i];
        struct prompt_image *im = p->images[first + i];
        report_init(&im->layers, &j->plan);
        contexts[i] = (struct tower_hook){.image = im,
                                          .scratch = &en->scratch,
                                          .n_patches = vision_info(en->vision)->n_patches,
                                          .acts = im->step.stage == STAGE_VIT_LAYER &&
                                                  step_in_tower(&im->step),
                                          .shadow_of = j->is_shadow ? en : NULL};
        hooks[i] = (struct stage_hook){tower_wants, tower_run, &contexts[i]};
        pictures[i] =
            (struct vision_picture){.pixels = im->pixels,
                                    .n_side = im->n_side,
                                    .hook = contexts[i].acts || j->is_shadow ? &hooks[i] : NULL,
                                    .arena = &j->arena,
                                    .rows = &im->rows};
    }
    double begin = clock_ms();
    if (vision_encode(en->vision, pictures, n, &en->compute, &en->scratch, e)) {
        return -1;
    }
    double ms = clock_ms() - begin;
    for (int i = first; i < first + n; i++) {
        ms -= p->images[i]->layers.modality[MODALITY_IMAGE].ms;
    }
    double rows = 0;
    for (int i = 0; i < n; i++) {
        rows += note_rows(en, p->images[first + i], &contexts[i]);
    }
    note_pace(en, ms, rows);
    int rc = 0;
    for (int i = first; i < first + n; i++) {
        p->jobs[i]->result.vision_ms += ms / n;
        rc |= take_rows(en, p->jobs[i], p->images[i], e);
    }
    pthread_mutex_lock(&en->lock);
    en->n_picture_passes++;
    en->n_pictures_encoded += (uint64_t)n;
    pthread_mutex_unlock(&en->lock);
    return rc;
}

/* -1: pictures of job j cannot be made. One that another request lacks memory for must not
 * take the others with it, so after a failure each goes by itself. */
static int run_pass(struct engine *en, const struct picture_pass *p, const struct job *j,
                    struct err *e)
{
    struct err failure = ERR_INIT;
    if (p->n == 0 || encode(en, p, 0, p->n, &failure) == 0) {
        return 0;
    }
    int rc = 0;
    for (int i = 0; i < p->n; i++) {
        struct err own = failure;
        bool failed = p->n == 1 || (!p->images[i]->has_rows && encode(en, p, i, 1, &own));
        if (failed && p->jobs[i] == j) {
            *e = own;
            rc = -1;
        }
    }
    return rc;
}

/* ---- what follows the tower ------------------------------------------------------------ */

static void report_picture(struct job *j, const struct prompt_image *im, int n_before)
{
    double ms = im->info.report.modality[MODALITY_IMAGE].ms;
    job_take_skips(j, &im->info.report);
    report_add(&j->result.report, MODALITY_IMAGE, &im->step, n_before, im->info.n_rows, ms);
    j->result.report.modality[MODALITY_IMAGE].dropped +=
        im->info.report.modality[MODALITY_IMAGE].dropped;
    j->result.compress_ms += ms;
}

/* What the tower made, for an attempt with more of it. */
static int keep_full(struct job *j, struct prompt_image *im, struct err *e)
{
    if (!im->has_rows || im->full.n > 0 || step_in_tower(&im->step) || !attempt_may_follow(j)) {
        return 0;
    }
    return rows_copy(&im->full, &im->rows, &j->attempt.kept, e);
}

/* Everything that merges behind the tower, and what the rows before it were. */
static int shrink(struct engine *en, struct prompt_image *im, const struct picture_facts *facts,
                  struct err *e)
{
    if (im->step.method == compressors[0]) {
        return 0;
    }
    if (im->step.stage == STAGE_PIXELS) {
        im->layers = im->grid_report;
    }
    picture_protect(im, &im->rows, 0);
    if (im->step.stage == STAGE_IMAGE_ROWS &&
        compress_apply_picture(&im->step, facts, &im->rows, &en->scratch, &im->layers, e)) {
        return -1;
    }
    double begin = clock_ms();
    struct err failure = ERR_INIT;
    if (modifiers_finish(&im->step, &im->rows, &en->scratch, &failure)) {
        report_skip(&im->layers, im->step.stage, "out_of_memory");
    }
    im->layers.modality[MODALITY_IMAGE].ms += clock_ms() - begin;
    return 0;
}

static int finish_picture(struct engine *en, struct job *j, struct prompt_image *im,
                          const struct picture_facts *facts, struct err *e)
{
    const struct vision_info *v = vision_info(en->vision);
    if (keep_full(j, im, e) || (im->has_rows && shrink(en, im, facts, e))) {
        return -1;
    }
    if (im->in_prefix) {
        im->info.report.modality[MODALITY_IMAGE].ms = 0;
    } else {
        im->info.n_rows = im->rows.n;
        im->info.n_source = im->rows.n_source;
        im->info.report = im->layers;
    }
    report_picture(j, im, v->n_rows);
    return j->overlay ? picture_draw(en, j, im, e) : 0;
}

/* In the order of the request: a picture may be compared with those before it. */
static int finish_pictures(struct engine *en, struct job *j, struct err *e)
{
    int n = j->prompt.n_images;
    int side = n ? picture_side(vision_info(en->vision)) : 0;
    struct picture_facts *facts = arena_alloc(&j->arena, (size_t)n, sizeof *facts);
    if (!facts) {
        return err_no_memory(e, (size_t)n * sizeof *facts);
    }
    for (int i = 0; i < n; i++) {
        struct prompt_image *im = &j->prompt.images[i];
        facts[i] = (struct picture_facts){.width = side,
                                          .height = side,
                                          .digest = im->digest,
                                          .previous = i > 0 ? &facts[i - 1] : NULL,
                                          .rows = im->has_rows ? &im->rows : NULL};
        if (finish_picture(en, j, im, &facts[i], e)) {
            return -1;
        }
    }
    return 0;
}

int pictures_advance(struct engine *en, struct job *j, bool *done, bool *encoded, struct err *e)
{
    struct picture_pass pass = {.n = 0};
    *done = *encoded = false;
    if (j->prompt.n_images > 0) {
        if (collect(en, j, most_pictures(en), &pass, e)) {
            return -1;
        }
        if (pass.n > 0 && most_pictures(en) > pass.n) {
            collect_companions(en, j, &pass);
        }
        *encoded = pass.n > 0;
        if (run_pass(en, &pass, j, e)) {
            return -1;
        }
    }
    for (int i = 0; i < j->prompt.n_images; i++) {
        const struct prompt_image *im = &j->prompt.images[i];
        if (needs_rows(j, im) && !im->has_rows) {
            return 0;
        }
    }
    *done = true;
    return finish_pictures(en, j, e);
}
