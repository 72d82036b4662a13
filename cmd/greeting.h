/* What `tamp serve` prints on stdout when it is ready: what runs, and a line to try it. */
#ifndef TAMP_CMD_GREETING_H
#define TAMP_CMD_GREETING_H

#include "compress/plan.h"
#include "config/config.h"
#include "engine/engine.h"

void greeting_print(const struct config *c, const struct engine_info *info, const struct plan *plan,
                    int port, struct buf *out);

#endif
