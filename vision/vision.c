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

int vision_preprocess(const struct vision *v, const struct image *im, int n_side, struct arena *a,
                      float **pixels, struct err *e)
{
    struct clip_params p = v->tower.params;
    p.image_size = n_side ? n_side * p.patch_size : p.image_size;
    return preprocess_image(&p, im, a, pixels, e);
}

void vision_frame(const struct vision *v, int width, int height, float frame[4])
{
    preprocess_frame(&v->tower.params, width, height, frame);
}

void vision_bytes(const struct vision *v, const float *pixels, uint8_t *rgb)
{
    preprocess_bytes(&v->tower.params, pixels, rgb);
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

/* What the projector reads of all pictures, and what it makes of it. */
struct projection {
    const struct vision *v;
    struct arena *scratch;
    float *in;      /* [n, projector.n_in] */
    float *out;     /* [n, projector.n_out] */
    int32_t *to;    /* [rows of a picture] for raster_order */
    int32_t *owner; /* [n_patches] of one picture */
    int n;
};

static int make_room(struct projection *p, size_t n_rows, struct err *e)
{
    const struct vision *v = p->v;
    size_t n_in = (size_t)v->projector.n_in;
    size_t n_out = (size_t)v->projector.n_out;
    p->in = arena_alloc(p->scratch, n_rows * n_in, sizeof *p->in);
    p->out = arena_alloc(p->scratch, n_rows * n_out, sizeof *p->out);
    p->to = arena_alloc(p->scratch, (size_t)v->info.n_patches + 1, sizeof *p->to);
    p->owner = arena_alloc(p->scratch, (size_t)v->info.n_patches, sizeof *p->owner);
    return p->in && p->out && p->to && p->owner
               ? 0
               : err_no_memory(e, n_rows * (n_in + n_out) * sizeof *p->in);
}

/* The tower's rows, each by itself. Returns their number. */
static int gather_rows(struct projection *p, const struct rows *r, float *to)
{
    int n_class = p->v->tower.class_token != NULL;
    size_t width = (size_t)p->v->info.n_embd;
    int n = raster_order(r, n_class, p->to);
    for (int i = 0; i < r->n; i++) {
        if (p->to[i] >= 0) {
            memcpy(to + (size_t)p->to[i] * width, r->x + (size_t)i * width, width * sizeof *to);
        }
    }
    for (int s = 0; s < r->n_source - n_class; s++) {
        p->owner[s] = p->to[r->owner[s + n_class]];
    }
    return n;
}

/* Blocks of s x s patches side by side: the grid is complete, nothing was merged. */
static int gather_blocks(struct projection *p, const struct rows *r, float *to)
{
    const struct vision *v = p->v;
    int n_side = v->tower.params.n_side;
    int s = v->projector.scale_factor;
    int side = (n_side + s - 1) / s;
    int n_class = v->tower.class_token != NULL;
    projector_shuffle(&v->projector, r->x + (size_t)n_class * (size_t)v->info.n_embd, n_side,
                      v->info.n_embd, to);
    for (int i = 0; i < v->info.n_patches; i++) {
        p->owner[i] = i / n_side / s * side + i % n_side / s;
    }
    return v->info.n_rows;
}

/* What the projector reads of this picture, behind what it reads of those before; *out gets
 * everything but x. */
static int gather(struct projection *p, const struct vit_picture *from, struct arena *a,
                  struct rows *out, struct err *e)
{
    const struct vision *v = p->v;
    const struct rows *r = &from->rows;
    int n_patches = r->n_source - (v->tower.class_token != NULL);
    float *to = p->in + (size_t)p->n * (size_t)v->projector.n_in;
    int n = v->info.merge_in_tower ? gather_rows(p, r, to) : gather_blocks(p, r, to);
    if (rows_init(out, a, n_patches, v->info.n_embd_out, ROW_IMAGE, 0, e)) {
        return -1;
    }
    out->attention = arena_alloc(a, (size_t)n_patches, sizeof *out->attention);
    if (!out->attention) {
        return err_no_memory(e, (size_t)n_patches * sizeof *out->attention);
    }
    memcpy(out->attention, from->attention, (size_t)n_patches * sizeof *out->attention);
    describe(out, n, p->owner, n_patches);
    p->n += n;
    return 0;
}

/* All rows at once, or those of each picture where company would change their bits. */
static int project(struct projection *p, const struct rows *rows, int n, const struct compute *c,
                   struct err *e)
{
    const struct projector *projector = &p->v->projector;
    if (n == 1 || projector_is_exact(projector, p->n)) {
        return projector_apply(projector, p->in, p->n, p->out, c, p->scratch, e);
    }
    float *in = p->in;
    float *out = p->out;
    for (int i = 0; i < n; i++) {
        if (projector_apply(projector, in, rows[i].n, out, c, p->scratch, e)) {
            return -1;
        }
        in += (size_t)rows[i].n * (size_t)projector->n_in;
        out += (size_t)rows[i].n * (size_t)projector->n_out;
    }
    return 0;
}

/* From the tower's rows to those of the language model. */
static int finish(const struct vision *v, const struct vit_picture *tower,
                  const struct vision_picture *pictures, int n, const struct compute *c,
                  struct arena *scratch, struct err *e)
{
    struct projection p = {.v = v, .scratch = scratch};
    struct rows rows[VISION_MAX_PICTURES];
    size_t n_rows = 0;
    for (int i = 0; i < n; i++) {
        n_rows += (size_t)(v->info.merge_in_tower ? tower[i].rows.n : v->info.n_rows);
    }
    if (make_room(&p, n_rows, e)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        if (gather(&p, &tower[i], pictures[i].arena, &rows[i], e)) {
            return -1;
        }
    }
    if (project(&p, rows, n, c, e)) {
        return -1;
    }
    const float *from = p.out;
    for (int i = 0; i < n; i++) {
        size_t count = (size_t)rows[i].n * (size_t)rows[i].n_embd;
        memcpy(rows[i].x, from, count * sizeof *from);
        from += count;
        *pictures[i].rows = rows[i];
    }
    return 0;
}

int vision_encode(const struct vision *v, const struct vision_picture *pictures, int n,
                  const struct compute *compute, struct arena *scratch, struct err *e)
{
    struct compute bulk = *compute;
    bulk.bulk = vit_is_packed(&v->tower);
    struct vit_picture tower[VISION_MAX_PICTURES];
    if (n < 1 || n > VISION_MAX_PICTURES) {
        return err_set(e, ERR_INTERNAL, "a pass of %d pictures; 1 to %d are possible", n,
                       VISION_MAX_PICTURES);
    }
    for (int i = 0; i < n; i++) {
        tower[i] = (struct vit_picture){.pixels = pictures[i].pixels,
                                        .n_side = v->info.merge_in_tower ? pictures[i].n_side : 0,
                                        .hook = v->info.merge_in_tower ? pictures[i].hook : NULL};
    }
    struct arena_mark mark = arena_mark(scratch);
    int result = vit_encode(&v->tower, tower, n, &bulk, scratch, e);
    if (result == 0) {
        result = finish(v, tower, pictures, n, &bulk, scratch, e);
    }
    arena_rewind(scratch, mark);
    return result;
}

int vision_pictures_in(const struct vision *v, size_t bytes)
{
    const struct projector *p = &v->projector;
    size_t floats = (size_t)p->n_in + 2 * (size_t)p->n_out; /* and what is between two linears */
    size_t each = vit_picture_bytes(&v->tower) + (size_t)v->info.n_patches * floats * sizeof(float);
    size_t n = bytes / each;
    return n < 1 ? 1 : n > VISION_MAX_PICTURES ? VISION_MAX_PICTURES : (int)n;
}
