#include "model/sampler.h"

#include "base/alloc.h"
#include "base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BIASES    65536
#define MAX_PENALTY_N (1 << 20)

const struct sampler_params sampler_params_default = {
    .temperature = 0.8f,
    .top_k = 40,
    .top_p = 0.95f,
    .min_p = 0.05f,
    .repeat_penalty = 1.0f,
    .penalty_last_n = 64,
};

struct candidate {
    token_id id;
    float logit;
    float p; /* meaningful after softmax */
};

struct sampler {
    struct sampler_params params; /* logit_bias points to biases */
    int n_vocab;
    struct logit_bias *biases;
    token_id *eog; /* [n_eog] banned by ignore_eos */
    int n_eog;
    int *count;       /* [n_vocab] how often each id stands in the penalty window */
    token_id *window; /* ring of the accepted ids [penalty_last_n]; NULL when it has no end */
    int n_window, window_at;
    float *logits;                /* [n_vocab] with biases and penalties */
    struct candidate *candidates; /* [n_vocab] */
    int n;                        /* candidates left */
    bool sorted;                  /* best first */
    struct rng rng;
};

/* Best first; of equals the lower id. */
static bool better(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare_candidates(const void *a, const void *b)
{
    return better(a, b) ? -1 : better(b, a) ? 1 : 0;
}

/* Heap with the worst of the kept on top. */
static void sift_down(struct candidate *heap, int n, int i)
{
    for (;;) {
        int worst = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++) {
            worst = better(&heap[worst], &heap[child]) ? child : worst;
        }
        if (worst == i) {
            return;
        }
        struct candidate t = heap[i];
        heap[i] = heap[worst];
        heap[worst] = t;
        i = worst;
    }
}

/* The k best of c[n] to its front, best first; the others behind them in no order. A
 * pass with a small heap: a sort of a whole vocabulary takes longer than the model's
 * last layer. */
static void select_best(struct candidate *c, int n, int k)
{
    for (int i = k / 2 - 1; i >= 0; i--) {
        sift_down(c, k, i);
    }
    for (int i = k; i < n; i++) {
        if (better(&c[i], &c[0])) {
            struct candidate t = c[0];
            c[0] = c[i];
            c[i] = t;
            sift_down(c, k, 0);
        }
    }
    qsort(c, (size_t)k, sizeof *c, compare_candidates);
}

/* ---- making one ---- */

static int check_range(const char *name, double v, double min, double max, struct err *e)
{
    if (!(v >= min && v <= max)) {
        return err_set(e, ERR_RANGE, "%s is %g; it must be in [%g, %g]", name, v, min, max);
    }
    return 0;
}

static int check_params(const struct sampler_params *p, int n_vocab, struct err *e)
{
    if (check_range("temperature", (double)p->temperature, 0, 1e4, e) ||
        check_range("top_k", p->top_k, 0, 1 << 30, e) ||
        check_range("top_p", (double)p->top_p, 0, 1, e) ||
        check_range("min_p", (double)p->min_p, 0, 1, e) ||
        check_range("repeat_penalty", (double)p->repeat_penalty, 1e-3, 1e3, e) ||
        check_range("frequency_penalty", (double)p->frequency_penalty, -1e3, 1e3, e) ||
        check_range("presence_penalty", (double)p->presence_penalty, -1e3, 1e3, e) ||
        check_range("penalty_last_n", p->penalty_last_n, -1, MAX_PENALTY_N, e) ||
        check_range("the number of logit_bias entries", p->n_logit_bias, 0, MAX_BIASES, e)) {
        return -1;
    }
    for (int i = 0; i < p->n_logit_bias; i++) {
        const struct logit_bias *b = &p->logit_bias[i];
        if (b->id < 0 || b->id >= n_vocab) {
            return err_set(e, ERR_RANGE, "logit_bias names token %d; the vocabulary has %d", b->id,
                           n_vocab);
        }
        if (check_range("logit_bias", (double)b->bias, -100, 100, e)) {
            return -1;
        }
    }
    return 0;
}

static bool uses_penalties(const struct sampler_params *p)
{
    return p->penalty_last_n != 0 && (p->repeat_penalty != 1.0f || p->frequency_penalty != 0.0f ||
                                      p->presence_penalty != 0.0f);
}

static int copy_biases(struct sampler *s, struct err *e)
{
    size_t n = (size_t)s->params.n_logit_bias;
    if (n == 0) {
        return 0;
    }
    s->biases = mem_alloc(n, sizeof *s->biases);
    if (!s->biases) {
        return err_no_memory(e, n * sizeof *s->biases);
    }
    memcpy(s->biases, s->params.logit_bias, n * sizeof *s->biases);
    s->params.logit_bias = s->biases;
    return 0;
}

static int list_eog(struct sampler *s, const struct tokenizer *t, struct err *e)
{
    for (token_id id = 0; id < s->n_vocab; id++) {
        s->n_eog += tokenizer_is_eog(t, id);
    }
    s->eog = mem_alloc((size_t)s->n_eog + 1, sizeof *s->eog);
    if (!s->eog) {
        return err_no_memory(e, (size_t)s->n_eog * sizeof *s->eog);
    }
    int n = 0;
    for (token_id id = 0; id < s->n_vocab; id++) {
        if (tokenizer_is_eog(t, id)) {
            s->eog[n++] = id;
        }
    }
    return 0;
}

static int alloc_buffers(struct sampler *s, struct err *e)
{
    size_t n = (size_t)s->n_vocab;
    bool penalties = uses_penalties(&s->params);
    bool ring = penalties && s->params.penalty_last_n > 0;
    s->logits = mem_alloc(n, sizeof *s->logits);
    s->candidates = mem_alloc(n, sizeof *s->candidates);
    s->count = penalties ? mem_zalloc(n, sizeof *s->count) : NULL;
    s->window = ring ? mem_alloc((size_t)s->params.penalty_last_n, sizeof *s->window) : NULL;
    if (!s->logits || !s->candidates || (penalties && !s->count) || (ring && !s->window)) {
        return err_no_memory(e, n * (sizeof *s->logits + sizeof *s->candidates));
    }
    return 0;
}

struct sampler *sampler_new(const struct sampler_params *p, const struct tokenizer *t,
                            struct err *e)
{
    int n_vocab = tokenizer_n_vocab(t);
    if (check_params(p, n_vocab, e)) {
        return NULL;
    }
    struct sampler *s = mem_zalloc(1, sizeof *s);
    if (!s) {
        err_no_memory(e, sizeof *s);
        return NULL;
    }
    s->params = *p;
    s->n_vocab = n_vocab;
    rng_init(&s->rng, p->seed);
    if (copy_biases(s, e) || (p->ignore_eos && list_eog(s, t, e)) || alloc_buffers(s, e)) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(struct sampler *s)
{
    if (!s) {
        return;
    }
    mem_free(s->biases);
    mem_free(s->eog);
    mem_free(s->count);
    mem_free(s->window);
    mem_free(s->logits);
    mem_free(s->candidates);
    mem_free(s);
}

void sampler_accept(struct sampler *s, token_id id)
{
    if (!s->count || id < 0 || id >= s->n_vocab) {
        return;
    }
    s->count[id]++;
    if (!s->window) {
        return;
    }
    int last_n = s->params.penalty_last_n;
    if (s->n_window == last_n) {
        s->count[s->window[s->window_at]]--;
    } else {
        s->n_window++;
    }
    s->window[s->window_at] = id;
    s->window_at = (s->window_at + 1) % last_n;
}

/* ---- the steps ---- */

static bool is_allowed(const uint32_t *allowed, token_id id)
{
    return !allowed || (allowed[id / 32] >> (id % 32) & 1);
}

static void step_grammar(struct sampler *s, const uint32_t *allowed)
{
    for (token_id id = 0; allowed && id < s->n_vocab; id++) {
        s->logits[id] = is_allowed(allowed, id) ? s->logits[id] : -INFINITY;
    }
}

static void step_logit_bias(struct sampler *s)
{
    for (int i = 0; i < s->params.n_logit_bias; i++) {
        const struct logit_bias *b = &s->biases[i];
        s->logits[b->id] = b->bias <= -100.0f ? -INFINITY : s->logits[b->id] + b->bias;
    }
    for (int i = 0; i < s->n_eog; i++) {
        s->logits[s->eog[i]] = -INFINITY;
    }
}

/* repeat_penalty (arXiv 1909.05858) divides positive logits and multiplies negative
 * ones, so that both become less likely. */
static void step_penalties(struct sampler *s)
{
    const struct sampler_params *p = &s->params;
    if (!s->count) {
        return;
    }
    for (int i = 0; i < s->n_vocab; i++) {
        if (s->count[i] > 0) {
            float *logit = &s->logits[i];
            *logit = *logit <= 0 ? *logit * p->repeat_penalty : *logit / p->repeat_penalty;
            *logit -= (float)s->count[i] * p->frequency_penalty + p->presence_penalty;
        }
    }
}

/* All that are not banned become candidates, in order of id. */
static void make_candidates(struct sampler *s)
{
    s->n = 0;
    s->sorted = false;
    for (token_id id = 0; id < s->n_vocab; id++) {
        if (s->logits[id] > -INFINITY) {
            s->candidates[s->n++] = (struct candidate){.id = id, .logit = s->logits[id]};
        }
    }
}

static void step_top_k(struct sampler *s)
{
    int k = s->params.top_k;
    if (k == 0 || k >= s->n) {
        return;
    }
    select_best(s->candidates, s->n, k);
    s->n = k;
    s->sorted = true;
}

static float best_logit(const struct sampler *s)
{
    float max = s->candidates[0].logit;
    for (int i = 1; i < s->n; i++) {
        max = s->candidates[i].logit > max ? s->candidates[i].logit : max;
    }
    return max;
}

/* p of every candidate at a temperature. */
static void softmax(struct sampler *s, float temperature)
{
    float max = best_logit(s);
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        s->candidates[i].p = expf((s->candidates[i].logit - max) / temperature);
        sum += (double)s->candidates[i].p;
    }
    for (int i = 0; i < s->n; i++) {
        s->candidates[i].p = (float)((double)s->candidates[i].p / sum);
    }
}

/* How many of the best reach top_p together; 0 when the k best do not. */
static int nucleus(const struct sampler *s, int k)
{
    double sum = 0;
    for (int i = 0; i < k; i++) {
        sum += (double)s->candidates[i].p;
        if (sum >= (double)s->params.top_p) {
            return i + 1;
        }
    }
    return 0;
}

/* The smallest set of the most likely whose probability reaches top_p
 * (arXiv 1904.09751). It is nearly always small: look among 256, then eight times as
 * many, before the whole vocabulary is sorted. */
static void step_top_p(struct sampler *s)
{
    if (s->params.top_p >= 1.0f) {
        return;
    }
    softmax(s, 1.0f);
    int kept = 0;
    for (int k = 256; kept == 0; k *= 8) {
        k = k > s->n || s->sorted ? s->n : k;
        if (!s->sorted) {
            select_best(s->candidates, s->n, k);
        }
        kept = nucleus(s, k);
        if (k == s->n) {
            /* Rounding may leave the whole a little below top_p. */
            kept = kept > 0 ? kept : s->n;
        }
    }
    s->n = kept;
    s->sorted = true;
}

/* Those at least min_p times as likely as the best; the order stays. */
static void step_min_p(struct sampler *s)
{
    if (s->params.min_p <= 0.0f) {
        return;
    }
    float lowest = best_logit(s) + logf(s->params.min_p);
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->candidates[i].logit >= lowest) {
            s->candidates[n++] = s->candidates[i];
        }
    }
    s->n = n;
}

static token_id draw(struct sampler *s)
{
    softmax(s, s->params.temperature);
    double u = rng_double(&s->rng);
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        sum += (double)s->candidates[i].p;
        if (u < sum) {
            return s->candidates[i].id;
        }
    }
    return s->candidates[s->n - 1].id;
}

static token_id arg_max(const float *logits, int n)
{
    token_id best = 0;
    for (token_id id = 1; id < n; id++) {
        best = logits[id] > logits[best] ? id : best;
    }
    return best;
}

/* Everything is banned, but a token must come. */
static token_id best_allowed(const struct sampler *s, const float *logits, const uint32_t *allowed)
{
    token_id best = -1;
    for (token_id id = 0; id < s->n_vocab; id++) {
        if (is_allowed(allowed, id) && (best < 0 || logits[id] > logits[best])) {
            best = id;
        }
    }
    return best;
}

token_id sampler_sample(struct sampler *s, const float *logits, const uint32_t *allowed)
{
    memcpy(s->logits, logits, (size_t)s->n_vocab * sizeof *logits);
    step_grammar(s, allowed);
    step_logit_bias(s);
    step_penalties(s);
    if (s->params.temperature <= 0.0f) {
        token_id best = arg_max(s->logits, s->n_vocab);
        return s->logits[best] > -INFINITY ? best : best_allowed(s, logits, allowed);
    }
    make_candidates(s);
    if (s->n == 0) {
        return best_allowed(s, logits, allowed);
    }
    step_top_k(s);
    step_top_p(s);
    step_min_p(s);
    return draw(s);
}

/* ---- log-probabilities ---- */

void sampler_logprobs(const float *logits, int n_vocab, token_id chosen, int n_top,
                      struct token_logprob *chosen_out, struct token_logprob *top)
{
    float max = logits[arg_max(logits, n_vocab)];
    double sum = 0;
    for (int i = 0; i < n_vocab; i++) {
        sum += exp((double)logits[i] - (double)max);
    }
    double log_sum = (double)max + log(sum);
    *chosen_out = (struct token_logprob){chosen, (float)((double)logits[chosen] - log_sum)};
    /* Insertion into a list of at most 20: cheaper than any selection. */
    int n = 0;
    for (token_id id = 0; id < n_vocab; id++) {
        if (n == n_top && (n == 0 || !(logits[id] > logits[top[n - 1].id]))) {
            continue;
        }
        int at = n < n_top ? n++ : n - 1;
        while (at > 0 && logits[id] > logits[top[at - 1].id]) {
            top[at] = top[at - 1];
            at--;
        }
        top[at].id = id;
    }
    for (int i = 0; i < n; i++) {
        top[i].logprob = (float)((double)logits[top[i].id] - log_sum);
    }
}
