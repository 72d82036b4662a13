/* A picture with its groups drawn into it, for people. */
#ifndef TAMP_VISION_OVERLAY_H
#define TAMP_VISION_OVERLAY_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

struct overlay_cells {
    int side;             /* cells along a side of the picture */
    const int32_t *owner; /* [side^2] row of each cell, negative = dropped */
    const uint8_t *fixed; /* [side^2] 1 = protected, or NULL */
};

/* rgb [size, size, 3] is drawn into; then as PNG behind what is in out. Cells of a row that
 * stands for several are tinted, one colour for a row, and light lines run between cells of
 * different rows; what is protected has a green frame, what was dropped is dark. -1 out of
 * memory, or when out is full. */
int overlay_draw(uint8_t *rgb, int size, const struct overlay_cells *cells, struct buf *out,
                 struct err *e);

#endif
