/* What can be added to every method. The methods know nothing of it: `norm` looks at the rows
 * before and after a step, `reweight` and `residual` act behind it, of a picture once, on the
 * rows that go to the language model; `log_mass` and `steps` are for the decoder's caller.
 *
 *   norm=direction  a merged row is stretched to the mean length of its members, weighted by
 *                   mass: the mean of different directions is shorter than they are
 *   reweight        rows times n softmax(z), kept within [0.5, 2]; z = mean attention of the
 *                   row's sources * mass^0.5, less its mean, over its standard deviation
 *   residual=a      y += a (mean of the rows of its picture or message - y)
 *   protect=text    cells that look like print never merge (picture_areas.h)
 *   log_mass        decoder_slice.use_log_mass, from the place on where the step acts
 *   steps=n         plan_lm_steps
 * reweight and residual compensate for strong merging and do nothing below 8 sources for a
 * row. Protected rows are never touched. */
#ifndef TAMP_COMPRESS_MODIFIERS_H
#define TAMP_COMPRESS_MODIFIERS_H

#include "compress/merge.h"
#include "compress/plan.h"

enum modifier {
    MODIFIER_NORM,
    MODIFIER_REWEIGHT,
    MODIFIER_RESIDUAL,
    MODIFIER_PROTECT,
    MODIFIER_LOG_MASS,
    MODIFIER_STEPS,
    N_MODIFIERS
};
enum { PROTECT_NONE, PROTECT_TEXT };

extern const struct compressor_option modifier_options[N_MODIFIERS];

/* The value of a modifier; 0 for methods that have none. */
double modifier_value(const struct plan_step *step, enum modifier m);

/* What norm=direction must know of the rows before a step. */
struct norms {
    int n; /* 0: nothing to do */
    float *norm, *mass;
    int32_t *source;           /* one of the sources of each row */
    struct norm_group *groups; /* [n] work space */
};

/* Before a step, -1 out of memory; and after it, which cannot fail. */
int norms_before(struct norms *b, const struct plan_step *step, const struct rows *rows,
                 struct arena *scratch, struct err *e);
void norms_after(const struct norms *b, struct rows *rows);

/* reweight, then residual, once for each picture. 0, or -1 out of memory with the rows as
 * they were. Scratch is rewound. */
int modifiers_finish(const struct plan_step *step, struct rows *rows, struct arena *scratch,
                     struct err *e);

#endif
