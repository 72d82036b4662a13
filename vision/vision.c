/* One mmproj file: tower and projector, and between them the way back from the tower's
 * order of rows to the order of the picture. */
#include "vision/vision.h"

#include "base/alloc.h"
#include "tensor/gguf.h"
#include "vision/preprocess.h"
#include "vision/projector.h"
#include "vision/vision_impl.h"
#include "vision/vit.h"

#include <stdio.h>
#include <string.h>

struct vision {
    struct gguf *g;
    struct vit tower;
    struct projector projector;
    struct vision_info info;
    char name[128];
};

static void fill_info(struct vision *v)
{
    const struct clip_params *p = &v->tower.params;
    struct gguf_string s = {"", 0};
    (void)gguf_get_string(v->g, "general.name", &s, NULL);
    snprintf(v->name, sizeof v->name, "%.*s", (int)(s.len < 127 ? s.len : 127), s.ptr);
    v->info = (struct vision_info){
        .name = v->name,
        .projector = p->projector->name,
        .image_size = p->image_size,
        .patch_size = p->patch_size,
        .n_patches = p->n_side * p->n_side,
        .n_rows = projector_rows(&v->projector, p->n_side),
        .n_layer = p->n_run,
        .n_embd = p->n_embd,
        .n_head = p->n_head,
        .n_embd_out = v->projector.n_out,
        .merge_in_tower = v->projector.scale_factor == 1,
        .text_before = p->projector->text_before,
        .text_after = p->projector->text_after,
    };
}

static int check_architecture(const struct gguf *g, struct err *e)
{
    struct gguf_string s = {"", 0};
    if (gguf_get_string(g, "general.architecture", &s, e) < 0) {
        return -1;
    }
    if (s.len != 4 || memcmp(s.ptr, "clip", 4) != 0) {
        return err_set(e, ERR_UNSUPPORTED,
                       "%.200s: general.architecture is not \"clip\": this is no vision file "
                       "(mmproj)",
                       gguf_path(g));
    }
    return 0;
}

static int load(struct vision *v, const char *path, int image_size, struct err *e)
{
    struct clip_params params;
    v->g = gguf_open(path, e);
    if (!v->g || check_architecture(v->g, e) || clip_params_read(&params, v->g, image_size, e) ||
        vit_open(&v->tower, v->g, &params, e) || projector_open(&v->projector, v->g, &params, e)) {
        return -1;
    }
    fill_info(v);
    return 0;
}

struct vision *vision_open_sized(const char *path, int image_size, struct err *e)
{
    struct vision *v = mem_zalloc(1, sizeof *v);
    if (!v) {
        err_no_memory(e, sizeof *v);
        return NULL;
    }
    if (load(v, path, image_size, e)) {
        vision_close(v);
        return NULL;
    }
    return v;
}

struct vision *vision_open(const char *path, struct err *e)
{
    return vision_open_sized(path, 0, e);
}

void vision_close(struct vision *v)
{
    if (v) {
        projector_close(&v->projector);
        vit_close(&v->tower);
        gguf_close(v->g);
        mem_free(v);
    }
}

const struct vision_info *vision_info(const struct vision *v)
{
    return &v->info;
}

const struct vit *vision_tower(const struct vision *v)
{
    return &v->tower;
}

int vision_pack(struct vision *v, const struct compute *c, struct err *e)
{
    if (vit_pack(&v->tower, c, e) || projector_pack(&v->projector, c, e)) {
        return -1;
    }
    gguf_release_pages(v->g);
    return 0;
}

int vision_preprocess(const struct vision *v, const struct image *im, struct arena *a,
                      float **pixels, struct err *e)
{
    return preprocess_image(&v->tower.params, im, a, pixels, e);
}

/* Number the rows by their first patch and drop the class token. to[i] is the new number
 * of row i, or -1; returns how many there are. */
static int raster_order(const struct rows *r, int n_class, int32_t *to)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        to[i] = -1;
    }
    for (int s = n_class; s < r->n_source; s++) {
        if (to[r->owner[s]] < 0) {
            to[r->owner[s]] = n++;
        }
    }
    return n;
}

/* Everything but x: what each output row stands for. n rows were made by rows_init. */
static void describe(struct rows *out, int n, const int32_t *owner, int n_source)
{
    for (int i = 0; i < n; i++) {
        out->mass[i] = 0;
        out->position[i] = -1;
    }
    for (int s = 0; s < n_source; s++) {
        int i = owner[s];
        out->owner[s] = i;
        out->mass[i] += 1;
        if (out->position[i] < 0) {
            out->position[i] = (float)s;
        }
    }
    out->n = n;
    out->n_source = n_source;
}

/* The tower's rows, each by itself, through the projector. */
static int project_rows(const struct vision *v, const struct rows *r, const struct compute *c,
                        struct arena *a, struct arena *scratch, struct rows *out, struct err *e)
{
    int n_class = v->tower.class_token != NULL;
    int n_patches = v->info.n_patches;
    size_t width = (size_t)v->info.n_embd;
    int32_t *to = arena_alloc(scratch, (size_t)r->n, sizeof *to);
    int32_t *owner = arena_alloc(scratch, (size_t)n_patches, sizeof *owner);
    float *sorted = arena_alloc(scratch, (size_t)r->n * width, sizeof *sorted);
    if (!to || !owner || !sorted) {
        return err_no_memory(e, (size_t)r->n * width * sizeof *sorted);
    }
    int n = raster_order(r, n_class, to);
    for (int i = 0; i < r->n; i++) {
        if (to[i] >= 0) {
            memcpy(sorted + (size_t)to[i] * width, r->x + (size_t)i * width,
                   width * sizeof *sorted);
        }
    }
    for (int s = 0; s < n_patches; s++) {
        owner[s] = to[r->owner[s + n_class]];
    }
    if (rows_init(out, a, n_patches, v->info.n_embd_out, ROW_IMAGE, 0, e)) {
        return -1;
    }
    describe(out, n, owner, n_patches);
    return projector_apply(&v->projector, sorted, n, out->x, c, scratch, e);
}

/* Blocks of s x s patches side by side: the grid is complete, nothing was merged. */
static int project_blocks(const struct vision *v, const struct rows *r, const struct compute *c,
                          struct arena *a, struct arena *scratch, struct rows *out, struct err *e)
{
    const struct projector *p = &v->projector;
    int n_side = v->tower.params.n_side;
    int s = p->scale_factor;
    int side = (n_side + s - 1) / s;
    int n_class = v->tower.class_token != NULL;
    size_t floats = (size_t)v->info.n_rows * (size_t)p->n_in;
    float *blocks = arena_alloc(scratch, floats, sizeof *blocks);
    int32_t *owner = arena_alloc(scratch, (size_t)v->info.n_patches, sizeof *owner);
    if (!blocks || !owner) {
        return err_no_memory(e, floats * sizeof *blocks);
    }
    projector_shuffle(p, r->x + (size_t)n_class * (size_t)v->info.n_embd, n_side, v->info.n_embd,
                      blocks);
    for (int i = 0; i < v->info.n_patches; i++) {
        owner[i] = i / n_side / s * side + i % n_side / s;
    }
    if (rows_init(out, a, v->info.n_patches, v->info.n_embd_out, ROW_IMAGE, 0, e)) {
        return -1;
    }
    describe(out, v->info.n_rows, owner, v->info.n_patches);
    return projector_apply(p, blocks, v->info.n_rows, out->x, c, scratch, e);
}

int vision_encode(const struct vision *v, const float *pixels, const struct stage_hook *hook,
                  const struct compute *compute, struct arena *a, struct arena *scratch,
                  struct rows *out, struct err *e)
{
    struct compute bulk = *compute;
    bulk.bulk = true;
    const struct compute *c = &bulk;
    struct arena_mark mark = arena_mark(scratch);
    struct rows r;
    bool each = v->info.merge_in_tower;
    int result = vit_encode(&v->tower, pixels, each ? hook : NULL, c, scratch, &r, e);
    if (result == 0) {
        result = each ? project_rows(v, &r, c, a, scratch, out, e)
                      : project_blocks(v, &r, c, a, scratch, out, e);
    }
    arena_rewind(scratch, mark);
    return result;
}
