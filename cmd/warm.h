/* Static prefixes, computed before the first request comes. */
#ifndef TAMP_CMD_WARM_H
#define TAMP_CMD_WARM_H

#include "compress/plan.h"
#include "engine/engine.h"

/* The static prefix of the plan in force and of every profile goes through the decoder and
 * stays in the prefix cache; one log line each. Blocks. -1: one cannot be used at all, such
 * as a text that is longer than the context. */
int warm_static_prefixes(struct engine *en, const struct plan *in_force, struct err *e);

#endif
