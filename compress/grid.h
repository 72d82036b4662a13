/* Cells of a picture's grid put together into the cells of a smaller grid. A cell of the
 * fine grid belongs to the one coarse cell that its centre lies in, so masses add up and the
 * origins partition the picture, whether or not the sides divide. (The bins of adaptive
 * average pooling as it is usually written overlap where they do not: a row would be counted
 * twice.) */
#ifndef TAMP_COMPRESS_GRID_H
#define TAMP_COMPRESS_GRID_H

#include "compress/compressor.h"

/* The coarse cell, of n_coarse in a line, that holds the centre of cell i of n. */
int grid_coarse(int i, int n, int n_coarse);

/* NULL when rows are the complete grid of the call's picture, else the reason. */
const char *grid_missing(const struct compress_call *call, const struct rows *rows);

/* map[n] for rows_merge of a complete grid: free rows of one coarse cell become one row,
 * protected ones stay alone; raster order of first cells. Returns how many rows there will
 * be, or -1 out of memory. */
int grid_partition(const struct picture_facts *p, const struct rows *rows, int width, int height,
                   int32_t *map, struct arena *scratch, struct err *e);

#endif
