/* Bytes of a JPEG or PNG -> 8-bit RGB, oriented as a person sees it, alpha on white. */
#ifndef TAMP_VISION_IMAGE_H
#define TAMP_VISION_IMAGE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct image {
    int width, height;
    uint8_t *rgb; /* [height, width, 3]; owned, image_free */
};

struct image_limits {
    int min_side;        /* 400 image_too_small */
    int max_side;        /* 400 image_too_large */
    int max_aspect;      /* 400 image_aspect */
    uint64_t max_pixels; /* 400 image_too_large */
    size_t max_bytes;    /* of the file */
    size_t memory_bytes; /* for decoding one picture, beyond 4 * width * height */
};
extern const struct image_limits image_limits_default;

enum image_format { IMAGE_JPEG, IMAGE_PNG };

/* The header alone, from our own parser; nothing is decoded or allocated. width and
 * height are those after EXIF orientation. Reasons: unsupported_image,
 * image_too_small, image_too_large, image_aspect, image_truncated, image_bomb,
 * unsupported_colorspace. */
struct image_header {
    enum image_format format;
    int width, height;
    int orientation; /* EXIF 1..8 */
};
int image_scan(const uint8_t *bytes, size_t n, const struct image_limits *limits,
               struct image_header *out, struct err *e);

/* Scan, then decode in the confined helper process (started on first use, restarted
 * when it dies). Thread-safe. */
int image_decode(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                 struct image *out, struct err *e);
void image_free(struct image *im);

/* Start the helper now (before threads exist); optional. Stop it at the end. */
int image_worker_start(struct err *e);
void image_worker_stop(void);

#endif
