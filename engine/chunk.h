/* Where the chunks of a prompt end. A chunk is what goes through the decoder in one pass:
 * its borders close merge groups, and the bits of a row may depend on how many rows are
 * computed beside it. So they follow from the rows of the prompt alone, read from the
 * left, never from what is cached or who else runs: prompts that begin alike are cut alike
 * there, and what the prefix cache keeps of one is to the bit what another would compute.
 *
 * A chunk ends where a message or a picture ends, once it is worth a pass, because that
 * is where prompts begin to differ: the next question about the same ten photos. */
#ifndef TAMP_ENGINE_CHUNK_H
#define TAMP_ENGINE_CHUNK_H

#include <stdbool.h>

/* Large enough for the matrix products, small enough that running answers and
 * cancellation are not held up. */
#define CHUNK_MAX_ROWS 256
#define CHUNK_MIN_ROWS 64

/* Whether n rows are a whole chunk. next_breaks: the row behind them has ROW_BREAK. */
static inline bool chunk_is_whole(int n, bool next_breaks)
{
    return n >= CHUNK_MAX_ROWS || (next_breaks && n >= CHUNK_MIN_ROWS);
}

#endif
