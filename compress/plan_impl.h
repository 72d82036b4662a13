/* What the two halves of plan share: plan.c (overrides, resolution, print) and
 * plan_profiles.c (the named starting points). */
#ifndef TAMP_COMPRESS_PLAN_IMPL_H
#define TAMP_COMPRESS_PLAN_IMPL_H

#include "compress/plan.h"

/* A method at its defaults in the slot of modality m. */
void plan_step_init(struct plan_step *step, enum modality m, const struct compressor *method);

/* Store a value, and unset what would hide it. */
void plan_step_store(struct plan_step *step, int i, double value);

/* An ERR_INVALID about an unknown `what` named `name`: the nearest of names (NULL-terminated)
 * if one is near, and all of them. */
void plan_unknown_name(struct err *e, const char *param, const char *what, const char *name,
                       const char *const *names);

/* 0 when the option takes the number; "compression.<slot>.<option> is ...; it must be ..."
 * otherwise. */
int plan_check_number(const struct compressor_option *o, const char *slot, double value,
                      struct err *e);

#endif
