/* Which attention heads of a model look things up. In every language model a few heads, the
 * same for all texts, turn from a question to the place that answers it ("retrieval heads",
 * arXiv 2404.15574); most others look at the beginning or the neighbours, and the mean over
 * all of them says little. So they are found by asking: a text of ours with one fact in
 * each sentence, and questions about some of them, once, when the first request wants to know. */
#ifndef TAMP_ENGINE_HEADS_H
#define TAMP_ENGINE_HEADS_H

#include "base/arena.h"
#include "base/err.h"
#include "model/decoder.h"
#include "model/tokenizer.h"

struct lookup_heads {
    int n_layer, n_head;
    /* [n_layer, n_head] how far the sentence that answers stands out among all sentences:
     * standard deviations, mean over the questions. 0: not measured, or no better than the
     * average sentence */
    float *score;
};

struct lookup_head {
    int layer, head;
    float weight; /* of its attention beside that of the others: the square of its score */
};

/* Owns memory until heads_clear, which a zeroed struct may be given too. n_ctx: rows that a
 * sequence may have; a text that does not fit leaves all scores 0. */
int heads_measure(struct lookup_heads *h, const struct decoder *d, const struct tokenizer *t,
                  int n_ctx, const struct compute *c, struct arena *scratch, struct err *e);
void heads_clear(struct lookup_heads *h);

/* The best up to `most` heads in blocks first..last, best first; returns how many: only those
 * with a score. */
int heads_best(const struct lookup_heads *h, int first, int last, int most,
               struct lookup_head *out);

#endif
