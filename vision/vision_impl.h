/* What the tests need of the inside of vision/. */
#ifndef TAMP_VISION_VISION_IMPL_H
#define TAMP_VISION_VISION_IMPL_H

#include "vision/image.h"
#include "vision/image_scan.h"
#include "vision/vision.h"

#include <stdint.h>
#include <sys/types.h>

/* image_decode that also tells the most bytes that the decoder held. */
int image_decode_measured(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                          struct image *out, uint64_t *peak_bytes, struct err *e);

/* Process id of helper i, 0 when it is not running or i is out of range. */
pid_t decode_worker_pid(int i);
/* Milliseconds a picture may take; the default again when 0. */
void decode_worker_set_deadline_ms(int ms);
/* Send one picture to the helper without our own scan before it: the facts are the caller's
 * claim. */
int image_decode_unscanned(const uint8_t *bytes, size_t n, const struct image_facts *facts,
                           uint64_t budget, struct image *out, uint64_t *peak_bytes, struct err *e);

/* A vision file with pictures of another side than it says (0 = as it says). */
struct vision *vision_open_sized(const char *path, int image_size, struct err *e);
/* The tower alone, with its parameters. */
struct vit;
const struct vit *vision_tower(const struct vision *v);

#endif
