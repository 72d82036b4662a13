/* Rows of pictures that went through the tower and the projector before.
 *
 * The key is ours alone (no client chooses any part of it) and a whole SHA-256 over
 *
 *   scope      who asks: a hit is faster than a miss, so pictures of one API key must not
 *              be seen by another
 *   picture    version, width, height, channels, preprocessing, pixels. Width and height
 *              keep 30 x 100 and 100 x 30 pixels of the same bytes apart
 *   step       what was planned inside the tower. Whatever merges after it starts from
 *              the same rows and is not part of the key
 *
 * Keys are computed by any thread; the cache belongs to the engine thread. */
#ifndef TAMP_ENGINE_IMAGE_CACHE_H
#define TAMP_ENGINE_IMAGE_CACHE_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/plan.h"
#include "compress/report.h"
#include "compress/rows.h"
#include "vision/image.h"
#include "vision/vision.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_KEY_BYTES 32

struct image_cache;

/* scope [scope_bytes]. step: what runs inside the tower; NULL = nothing. */
void image_cache_key(const uint8_t *scope, size_t scope_bytes, const struct image *picture,
                     const struct vision_info *v, const struct plan_step *step,
                     uint8_t key[IMAGE_KEY_BYTES]);

/* The key of the rows that enter the decoder, from the key of those that leave the tower:
 * with the whole step of the picture, wherever it acts. */
void image_rows_key(const uint8_t tower_key[IMAGE_KEY_BYTES], const struct plan_step *step,
                    uint8_t key[IMAGE_KEY_BYTES]);
/* What else rows depend on goes into their key, by a name. */
void image_key_add(uint8_t key[IMAGE_KEY_BYTES], const char *name, const void *bytes, size_t n);

/* max_bytes: what the entries may take, their own fields included. */
struct image_cache *image_cache_new(size_t max_bytes, struct err *e);
void image_cache_free(struct image_cache *c); /* NULL is fine */

/* 1: *rows is a copy in `a`, and the reasons why the tower skipped merging are added to
 * the report, which gets the tower's mean_rows_per_layer. 0: not there. -1: no memory for the copy.
 */
int image_cache_get(struct image_cache *c, const uint8_t key[IMAGE_KEY_BYTES], struct arena *a,
                    struct rows *rows, struct report *report, struct err *e);
/* Keep a copy; `report` has the tower's reasons and mean_rows_per_layer. What was left unmerged for
 * lack of memory is not kept, for it would be another answer the next time. Gives up the entries
 * that were not used for longest; without memory nothing is kept. */
void image_cache_put(struct image_cache *c, const uint8_t key[IMAGE_KEY_BYTES],
                     const struct rows *rows, const struct report *report);

size_t image_cache_bytes(const struct image_cache *c); /* taken now; NULL = 0 */

#endif
