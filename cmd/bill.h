/* What one request cost and what the compression saved, in a few lines for people. */
#ifndef TAMP_CMD_BILL_H
#define TAMP_CMD_BILL_H

#include "base/buf.h"
#include "engine/engine.h"

/* packed   292 -> 100 rows (2.9x): image 256 -> 64 by tome, text 36
 * time     ...
 * memory   ...  */
void bill_print(const struct job_result *r, struct buf *out);

#endif
