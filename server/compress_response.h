/* What a preview of the engine's reads like in /v1/compress. */
#ifndef TAMP_SERVER_COMPRESS_RESPONSE_H
#define TAMP_SERVER_COMPRESS_RESPONSE_H

#include "base/buf.h"
#include "engine/engine.h"

/* One entry of "plans". asked: the plan as JSON, as the client named it. */
void render_preview(struct buf *out, const char *asked, const struct job_result *r);

#endif
