/* What a numeric function needs beside its operands: the pool and the kernels
 * chosen for this machine. One per engine thread; borrowed, never owned. */
#ifndef TAMP_TENSOR_COMPUTE_H
#define TAMP_TENSOR_COMPUTE_H

#include "base/threads.h"

#include <stdbool.h>

struct kernels;

struct compute {
    struct pool *pool;             /* NULL = the calling thread alone */
    const struct kernels *kernels; /* from kernels_choose, never NULL */
    /* Rows of prompts and pictures: packed weights may go through matrix units, whose bits
     * differ from those of the loops that make answers. */
    bool bulk;
    /* The first so many rows of each product are of answers, whatever `bulk` says of the
     * others: each has the bits that it has alone. */
    int n_answer_rows;
};

#endif
