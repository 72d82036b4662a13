/* The vision side: one mmproj file (tower + projector), pictures in, rows of the
 * language model's width out. Immutable after opening; vision_encode may be called
 * by one thread at a time. */
#ifndef TAMP_VISION_VISION_H
#define TAMP_VISION_VISION_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/compressor.h"
#include "compress/rows.h"
#include "tensor/compute.h"
#include "vision/image.h"

struct vision;

struct vision_info {
    const char *name;      /* general.name of the file */
    const char *projector; /* "internvl", "mlp", "idefics3" */
    int image_size;        /* side in pixels that a picture is resized to */
    int patch_size;
    int n_patches; /* tower rows for one picture, class token not counted */
    int n_rows;    /* rows for the language model, uncompressed */
    int n_layer, n_embd, n_head;
    int n_embd_out;          /* the language model's width */
    bool merge_in_tower;     /* false: the projector needs the full grid, vit-layer is skipped */
    const char *text_before; /* around each picture in the prompt: "<img>"; "" = nothing */
    const char *text_after;
};

struct vision *vision_open(const char *path, struct err *e);
void vision_close(struct vision *v);
/* Make the int8 copies of the tower's and the projector's matrices. Before the first
 * picture, by one thread. */
int vision_pack(struct vision *v, const struct compute *c, struct err *e);
const struct vision_info *vision_info(const struct vision *v);

/* Resize (antialiased bicubic) and normalise as the file says. Runs on HTTP threads. n_side:
 * patches a side, 0 = as the file says; a smaller number makes a smaller picture.
 * *pixels: [3, size, size] fp32 from the arena, size = image_size or n_side * patch_size. */
int vision_preprocess(const struct vision *v, const struct image *im, int n_side, struct arena *a,
                      float **pixels, struct err *e);

/* Where a picture of this size lies in the square that the tower sees: left, top, width,
 * height in fractions of its side. */
void vision_frame(const struct vision *v, int width, int height, float frame[4]);
/* What the tower sees as bytes, [image_size, image_size, 3]. */
void vision_bytes(const struct vision *v, const float *pixels, uint8_t *rgb);

#define VISION_MAX_PICTURES 16 /* in one pass */

/* One picture of a pass. */
struct vision_picture {
    const float *pixels; /* from vision_preprocess */
    /* Runs between attention and MLP of each block on the patch rows; metric = keys
     * averaged over heads. The class token is row 0 of what it sees, ROW_PROTECTED. NULL:
     * nothing merges. */
    const struct stage_hook *hook;
    struct arena *arena; /* memory of `rows` */
    /* Out: rows in raster order of their first patch, position = that patch's index, class
     * token left out, owner and attention (vit_attention_share) over its patches. */
    struct rows *rows;
    int n_side; /* as in vision_preprocess; a smaller picture needs merge_in_tower */
};

/* n pictures, 1..VISION_MAX_PICTURES, through tower and projector: products run over the
 * rows of all of them, attention and merging over each by itself. A picture's rows have the
 * same bits alone and in any company. Scratch is rewound; on failure no rows are set. */
int vision_encode(const struct vision *v, const struct vision_picture *pictures, int n,
                  const struct compute *c, struct arena *scratch, struct err *e);
/* Pictures whose pass takes no more scratch memory than this: 1..VISION_MAX_PICTURES. */
int vision_pictures_in(const struct vision *v, size_t bytes);

#endif
