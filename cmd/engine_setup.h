/* From the configuration to an open engine: shared by serve and run. */
#ifndef TAMP_CMD_ENGINE_SETUP_H
#define TAMP_CMD_ENGINE_SETUP_H

#include "config/config.h"
#include "engine/engine.h"

/* Paths of c that are the defaults and not in the working directory are looked up where
 * `make install` puts them: <directory of tamp>/../share/tamp/. NULL with *e set. */
struct engine *engine_setup(const struct config *c, struct err *e);

#endif
