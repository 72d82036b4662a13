/* Cells of a picture's grid that must not merge: what the user points at, and what looks
 * like print. No model; bytes of pixels in, a mask of cells out. */
#ifndef TAMP_COMPRESS_PICTURE_AREAS_H
#define TAMP_COMPRESS_PICTURE_AREAS_H

#include <stdint.h>

/* mask[side * side] |= 1 where a cell of the square overlaps the box, in fractions. */
void areas_mark_box(float left, float top, float right, float bottom, int side, uint8_t *mask);

/* mask[side * side] |= 1 where the cells of rgb [size, size, 3] look like print: strokes of
 * strong contrast that change sides about the cell's mean again and again, two brightnesses
 * rather than many, and a neighbour beside it that looks the same, because print comes in
 * lines. Returns the number of cells found. */
int areas_mark_print(const uint8_t *rgb, int size, int side, uint8_t *mask);

/* digest[side * side]: equal for cells with equal bytes, and else as good as never. */
void areas_digest(const uint8_t *rgb, int size, int side, uint64_t *digest);

#endif
