/* [{"id": 0, "scale": 0.5}, ...], in a request and in POST /lora-adapters. */
#ifndef TAMP_SERVER_LORA_SCALES_H
#define TAMP_SERVER_LORA_SCALES_H

#include "base/err.h"

struct cJSON;

/* scales[n_loras] from the list; an adapter that is not in it gets 0, as in llama-server.
 * param: where the list is, for messages. */
int lora_scales_read(const struct cJSON *list, const char *param, int n_loras, float *scales,
                     struct err *e);

#endif
