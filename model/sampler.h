/* From logits to a token: a chain of steps, in llama.cpp's order: what a grammar allows,
 * logit bias, penalties, top_k, top_p, min_p, temperature, draw. The same seed gives the same
 * text. */
#ifndef TAMP_MODEL_SAMPLER_H
#define TAMP_MODEL_SAMPLER_H

#include "base/err.h"
#include "model/tokenizer.h"

#include <stdint.h>

struct logit_bias {
    token_id id;
    float bias; /* -100..100; OpenAI: -100 bans, 100 forces */
};

struct sampler_params {
    float temperature;       /* 0 = greedy */
    int top_k;               /* 0 = off */
    float top_p;             /* 1 = off */
    float min_p;             /* 0 = off */
    float repeat_penalty;    /* 1 = off */
    float frequency_penalty; /* 0 = off */
    float presence_penalty;  /* 0 = off */
    int penalty_last_n;      /* how far back penalties look; -1 = everything generated */
    uint64_t seed;
    const struct logit_bias *logit_bias; /* [n_logit_bias], copied */
    int n_logit_bias;
    bool ignore_eos;
};
extern const struct sampler_params sampler_params_default;

struct sampler;

/* NULL with *e set (bias id out of the vocabulary, no memory). */
struct sampler *sampler_new(const struct sampler_params *p, const struct tokenizer *t,
                            struct err *e);
void sampler_free(struct sampler *s);

struct token_logprob {
    token_id id;
    float logprob;
};

/* logits [n_vocab] are left as they are. Ties go to the lower id. Bit id % 32 of word id / 32
 * of `allowed` says whether token id may come, at least one may; NULL: all. */
token_id sampler_sample(struct sampler *s, const float *logits, const uint32_t *allowed);
/* Tell it what was chosen (prompt tokens count for repeat_penalty as in llama.cpp). */
void sampler_accept(struct sampler *s, token_id id);
/* Log-probabilities of the raw distribution: the chosen token and the best n_top. */
void sampler_logprobs(const float *logits, int n_vocab, token_id chosen, int n_top,
                      struct token_logprob *chosen_out, struct token_logprob *top);

#endif
