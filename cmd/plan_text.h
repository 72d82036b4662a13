/* The plan of an operator, from text: what --profile, --compression and `profiles:` of
 * the file say, turned into a struct plan. The server's requests do not come here. */
#ifndef TAMP_CMD_PLAN_TEXT_H
#define TAMP_CMD_PLAN_TEXT_H

#include "base/buf.h"
#include "compress/plan.h"
#include "config/config.h"

/* Settings on top of *p, separated by commas or spaces: "image.ratio=2",
 * "text.method=off", "protect_system=false". Methods are set before their options,
 * wherever they stand. On failure *p is untouched. */
int plan_text_apply(struct plan *p, const char *settings, struct err *e);

/* The settings that make this plan out of profile off; "" when it is off. */
void plan_text_print(const struct plan *p, struct buf *out);

/* Add the file's profiles to those that are built in, then make the plan in force. */
int plan_text_from_config(struct plan *p, const struct config *c, struct err *e);

#endif
