/* JSON trees as text with blanks, the way prompts of tools were trained with: Python's
 * json.dumps. */
#ifndef TAMP_SERVER_JSON_LAYOUT_H
#define TAMP_SERVER_JSON_LAYOUT_H

#include "base/buf.h"
#include "base/err.h"

struct cJSON;

/* indent 0: one line with ", " and ": "; otherwise a line for each member, so many blanks
 * deeper. Appends to out. */
int json_layout(struct buf *out, const struct cJSON *v, int indent, struct err *e);

#endif
