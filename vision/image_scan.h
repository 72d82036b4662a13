/* Facts about a picture from its header and its marker or chunk structure, found by
 * our own code before any decoder sees a byte. Nothing is allocated, and nothing
 * outside [bytes, bytes + n) is read.
 *
 * What the decoder (stb_image) does not check is checked here: that the file is whole
 * (EOI, IEND, checksums), how many scans and restarts it makes the decoder do, whether
 * Huffman tables and sampling factors are such that old versions stay in bounds, and
 * how much memory decoding takes. Bytes after EOI or IEND are ignored. Of an animated
 * PNG the default picture is meant. EXIF orientation is taken from the first Exif block
 * of a JPEG or the eXIf chunk of a PNG; a malformed one counts as absent. */
#ifndef TAMP_VISION_IMAGE_SCAN_H
#define TAMP_VISION_IMAGE_SCAN_H

#include "base/err.h"
#include "vision/image.h"

#include <stddef.h>
#include <stdint.h>

struct image_facts {
    enum image_format format;
    int width, height;     /* as stored, before orientation */
    int orientation;       /* EXIF 1..8, 1 when there is none */
    uint64_t decode_bytes; /* what a well-formed file of this shape needs while decoding */
};

/* 0, or -1 with one of the reasons that image.h lists. */
int image_scan_facts(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                     struct image_facts *out, struct err *e);

/* The two formats; the magic has been checked. */
int image_scan_jpeg(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                    struct image_facts *out, struct err *e);
int image_scan_png(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                   struct image_facts *out, struct err *e);

/* Sides, aspect and pixels against the limits. */
int image_check_size(const struct image_limits *limits, uint32_t width, uint32_t height,
                     struct err *e);

/* Orientation from a TIFF block as EXIF carries it; 1 if there is none or it is
 * malformed. Only the first directory is read, so directory loops cannot matter. */
int image_exif_orientation(const uint8_t *tiff, size_t n);

/* "The picture is cut off: ..." and "... is damaged: ...", the two commonest errors. */
int image_truncated(struct err *e, const char *what);
int image_damaged(struct err *e, const char *what);

#endif
