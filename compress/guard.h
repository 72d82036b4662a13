/* The guard's rule: which compressed answers are in doubt.
 *
 * Before anything is merged a gain that is too small is not worth a risk (`min_ratio`). After
 * the prompt the decoder itself says how sure it is: with p the probabilities of the answer's
 * next token (temperature 1, no penalties),
 *
 *   margin   p(1st) - p(2nd): of two answers that are nearly as likely the compressed prompt may
 *            have picked the other one
 *   entropy  - sum p ln p, nats
 * A request outside the band is run again, uncompressed, before its first token is sent
 * (engine/guard.c). All of it follows from the request's own rows, so the same request is
 * doubted alone and in any company. */
#ifndef TAMP_COMPRESS_GUARD_H
#define TAMP_COMPRESS_GUARD_H

#include "base/err.h"
#include "compress/compressor.h"

#include <stdbool.h>

struct plan;

enum guard_option { GUARD_MARGIN, GUARD_ENTROPY, GUARD_TOKENS, GUARD_MIN_RATIO, N_GUARD_OPTIONS };
extern const struct compressor_option guard_options[N_GUARD_OPTIONS];

struct guard {
    bool on;
    double value[N_GUARD_OPTIONS]; /* below an option's minimum: not looked at */
};
void guard_init(struct guard *g); /* off, options at their defaults */

/* Sets an option and switches the guard on; "on" (0 or 1) switches alone. ERR_INVALID,
 * ERR_TYPE or ERR_RANGE with param "compression.guard.margin". */
int plan_set_guard(struct plan *p, const char *option, double value, struct err *e);

struct guard_signal {
    double margin, entropy;
};
/* logits [n], n >= 1, finite. */
void guard_measure(const float *logits, int n, struct guard_signal *out);
/* A static word, "narrow_margin" or "high_entropy", or NULL: no doubt. */
const char *guard_doubts(const struct guard *g, const struct guard_signal *s);

#endif
