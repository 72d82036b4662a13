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

/* The header and the marker structure, from our own parser; nothing is decoded or
 * allocated. width and height are those after EXIF orientation. Reasons:
 * unsupported_image, image_too_small, image_too_large, image_aspect, image_truncated,
 * image_bomb, unsupported_colorspace, image_decode_failed (damaged). */
struct image_header {
    enum image_format format;
    int width, height;
    int orientation; /* EXIF 1..8 */
};
int image_scan(const uint8_t *bytes, size_t n, const struct image_limits *limits,
               struct image_header *out, struct err *e);

/* Scan, then decode in a confined helper process (started on first use, restarted when
 * it dies). Adds the reason image_decode_failed also for a decoder that crashed or took
 * too long. Thread-safe; blocks for a few seconds at most. */
int image_decode(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                 struct image *out, struct err *e);
void image_free(struct image *im);

/* The helper is this same program, run again with one hidden argument: call this first
 * thing in main, before anything is set up. Does not return in a helper. */
void image_worker_maybe_run(int argc, char **argv);
/* Start a helper now instead of at the first picture; optional. */
int image_worker_start(struct err *e);
/* Ends the helpers; a later image_decode would start them again. */
void image_worker_stop(void);
/* How often a helper died or had to be ended, and was replaced. */
uint64_t image_worker_restarts(void);

#endif
