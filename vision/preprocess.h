/* Pixels of a picture -> what the tower's patch embedding reads. */
#ifndef TAMP_VISION_PREPROCESS_H
#define TAMP_VISION_PREPROCESS_H

#include "base/arena.h"
#include "base/err.h"
#include "vision/clip_params.h"
#include "vision/image.h"

/* Resize to image_size x image_size (antialiased bicubic, a = -0.5, rounded to 8 bits as
 * Pillow does) and normalise: (v / 255 - mean) / std. internvl and idefics3 stretch the
 * picture, as llama.cpp does with the overview it gives them; mlp keeps the aspect and
 * fills the borders with (122, 116, 104), as LLaVA was trained. A picture that has the
 * size already is only normalised.
 * out: [3, image_size, image_size] from the arena. */
int preprocess_image(const struct clip_params *p, const struct image *im, struct arena *a,
                     float **out, struct err *e);

/* Where a picture of this size lies in the square: left, top, width, height in fractions of
 * its side. */
void preprocess_frame(const struct clip_params *p, int width, int height, float frame[4]);
/* pixels [3, image_size, image_size] as preprocess_image makes them -> rgb [.., .., 3]. */
void preprocess_bytes(const struct clip_params *p, const float *pixels, uint8_t *rgb);

/* Only the resize: rgb [size, size, 3]. */
int preprocess_resize(const struct clip_params *p, const struct image *im, uint8_t *rgb,
                      struct err *e);

#endif
