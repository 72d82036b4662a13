/* Where the chunks of a prompt end. A chunk is what the prefix cache keeps and what merges
 * inside the decoder by itself: its borders close merge groups. So they follow from the rows
 * of the prompt alone, read from the left, never from what is cached or who else runs:
 * prompts that begin alike are cut alike there, and what the prefix cache keeps of one is to
 * the bit what another would compute.
 *
 * A pass through the decoder may end anywhere in a chunk or behind several, as there is time
 * for (engine/step.c). Where bits depend on what is computed together, because rows merge
 * inside the decoder or weights are not packed, a pass has whole chunks, one at a time.
 *
 * A chunk ends where a message or a picture ends, once it is worth a pass, because that
 * is where prompts begin to differ: the next question about the same ten photos; and behind
 * the static prefix, however short its last chunk is, for all of that is paid once. */
#ifndef TAMP_ENGINE_CHUNK_H
#define TAMP_ENGINE_CHUNK_H

#include "compress/rows.h"

#include <stdbool.h>

/* Large enough for the matrix products, small enough that cancellation is not held up, nor
 * running answers where a chunk must stay whole. */
#define CHUNK_MAX_ROWS 256
#define CHUNK_MIN_ROWS 64

/* Whether n rows are a whole chunk. next: enum row_flag of the row behind them. */
static inline bool chunk_is_whole(int n, unsigned next)
{
    return n >= CHUNK_MAX_ROWS || (next & ROW_CUT) || ((next & ROW_BREAK) && n >= CHUNK_MIN_ROWS);
}

#endif
