/* Each step of the sampler on small distributions that can be worked out by hand. */
#include "base/alloc.h"
#include "base/rng.h"
#include "model/sampler.h"
#include "model/tokenizer.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

struct vocab {
    struct gguf *g;
    struct tokenizer *t;
    int n;
    float *logits; /* [n]: -20 everywhere, tests raise some */
};

static struct vocab vocab_open(void)
{
    struct err e = ERR_INIT;
    struct vocab v;
    char *path = test_golden_path("tiny/smollm-legacy-quants.gguf");
    v.g = gguf_open(path, &e);
    v.t = v.g ? tokenizer_open(v.g, &e) : NULL;
    if (!v.t) {
        FAIL("%s", e.msg);
    }
    v.n = tokenizer_n_vocab(v.t);
    v.logits = mem_alloc((size_t)v.n, sizeof *v.logits);
    CHECK(v.logits);
    for (int i = 0; i < v.n; i++) {
        v.logits[i] = -20;
    }
    mem_free(path);
    return v;
}

static void vocab_close(struct vocab *v)
{
    tokenizer_close(v->t);
    gguf_close(v->g);
    mem_free(v->logits);
}

static const struct sampler_params plain = {
    .temperature = 1, .top_p = 1, .repeat_penalty = 1, .penalty_last_n = 64, .seed = 7};

static struct sampler *make(const struct vocab *v, struct sampler_params p)
{
    struct err e = ERR_INIT;
    struct sampler *s = sampler_new(&p, v->t, &e);
    if (!s) {
        FAIL("%s", e.msg);
    }
    return s;
}

static token_id greedy(const struct vocab *v, struct sampler_params p)
{
    p.temperature = 0;
    struct sampler *s = make(v, p);
    token_id id = sampler_sample(s, v->logits, NULL);
    sampler_free(s);
    return id;
}

/* How often each of ids 10..19 is drawn in n samples; nothing else may be. */
static void draw_counts(const struct vocab *v, struct sampler_params p, int n, int count[10])
{
    struct sampler *s = make(v, p);
    memset(count, 0, 10 * sizeof *count);
    for (int i = 0; i < n; i++) {
        token_id id = sampler_sample(s, v->logits, NULL);
        CHECK(id >= 10 && id < 20);
        count[id - 10]++;
    }
    sampler_free(s);
}

TEST(sampler_greedy, "temperature 0 takes the best, of equals the lower id, and leaves the logits")
{
    struct vocab v = vocab_open();
    v.logits[50] = v.logits[31] = v.logits[77] = 3;
    CHECK_INT(greedy(&v, plain), ==, 31);
    v.logits[77] = 3.5f;
    CHECK_INT(greedy(&v, sampler_params_default), ==, 77);
    CHECK_DOUBLE(v.logits[77], ==, 3.5);
    vocab_close(&v);
}

TEST(sampler_temperature, "draws follow the softmax at the temperature")
{
    struct vocab v = vocab_open();
    const float p[4] = {0.5f, 0.25f, 0.15f, 0.1f};
    const float temperatures[] = {1.0f, 0.5f, 2.0f};
    const int n = 20000;
    for (int i = 0; i < 4; i++) {
        v.logits[10 + i] = logf(p[i]);
    }
    for (int k = 0; k < 3; k++) {
        struct sampler_params params = plain;
        int count[10];
        double sum = 0;
        params.temperature = temperatures[k];
        params.top_k = 4; /* the rest weighs 1e-7 each, at temperature 2 enough to be drawn */
        params.seed = test_seed();
        draw_counts(&v, params, n, count);
        for (int i = 0; i < 4; i++) {
            sum += pow((double)p[i], 1 / (double)temperatures[k]);
        }
        for (int i = 0; i < 4; i++) {
            double want = n * pow((double)p[i], 1 / (double)temperatures[k]) / sum;
            CHECK_DOUBLE(fabs(count[i] - want), <=, 5 * sqrt(want)); /* five sigma */
        }
    }
    vocab_close(&v);
}

TEST(sampler_seed, "the same seed gives the same draws, another seed others")
{
    struct vocab v = vocab_open();
    token_id first[64];
    for (int i = 0; i < v.n; i++) {
        v.logits[i] = 0;
    }
    for (int run = 0; run < 3; run++) {
        struct sampler_params p = plain;
        p.seed = run == 2 ? 8 : 7;
        struct sampler *s = make(&v, p);
        int same = 0;
        for (int i = 0; i < 64; i++) {
            token_id id = sampler_sample(s, v.logits, NULL);
            first[i] = run == 0 ? id : first[i];
            same += id == first[i];
        }
        CHECK(run == 2 ? same < 32 : same == 64);
        sampler_free(s);
    }
    vocab_close(&v);
}

TEST(sampler_truncation, "top_k, top_p and min_p keep exactly the candidates they should")
{
    /* probabilities .4 .3 .2 .1 on ids 13, 12, 11, 10 */
    static const struct {
        int top_k;
        float top_p, min_p;
        int kept;
    } cases[] = {
        {0, 1, 0, 4},     {1, 1, 0, 1},     {3, 1, 0, 3},     {4, 1, 0, 4},
        {0, 0.39f, 0, 1}, {0, 0.41f, 0, 2}, {0, 0.69f, 0, 2}, {0, 0.71f, 0, 3},
        {0, 0, 0, 1},     {0, 1, 0.26f, 3}, {0, 1, 0.24f, 4}, {0, 1, 0.74f, 2},
        {0, 1, 1, 1},     {2, 0.55f, 0, 1}, {2, 0.6f, 0, 2},  {3, 0.95f, 0.6f, 2},
    };
    struct vocab v = vocab_open();
    for (int i = 0; i < 4; i++) {
        v.logits[10 + i] = logf((float)(i + 1) / 10);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sampler_params p = plain;
        int count[10];
        p.top_k = cases[i].top_k;
        p.top_p = cases[i].top_p;
        p.min_p = cases[i].min_p;
        p.temperature = 1.0f;
        draw_counts(&v, p, 400, count);
        for (int k = 0; k < 4; k++) {
            if ((count[3 - k] > 0) != (k < cases[i].kept)) {
                FAIL("case %zu: id %d was drawn %d times", i, 13 - k, count[3 - k]);
            }
        }
    }
    vocab_close(&v);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

TEST(sampler_flat_top_p, "a nucleus larger than the first look is still exact")
{
    struct vocab v = vocab_open();
    struct rng r;
    rng_init(&r, test_seed());
    float *sorted = mem_alloc((size_t)v.n, sizeof *sorted);
    CHECK(sorted && v.n > 256);
    double total = 0;
    for (int i = 0; i < v.n; i++) {
        v.logits[i] = sorted[i] = (float)rng_double(&r);
        total += exp((double)v.logits[i]);
    }
    qsort(sorted, (size_t)v.n, sizeof *sorted, compare_floats);
    double sum = 0;
    int kept = 0;
    while (sum < 0.97 * total) {
        sum += exp((double)sorted[kept++]);
    }
    CHECK_INT(kept, >, 256);
    struct sampler_params p = plain;
    p.top_p = 0.97f;
    struct sampler *s = make(&v, p);
    float lowest = INFINITY;
    for (int i = 0; i < 30000; i++) {
        float logit = v.logits[sampler_sample(s, v.logits, NULL)];
        lowest = logit < lowest ? logit : lowest;
    }
    /* every one of about 300 is drawn in 30000 but for e^-90 */
    CHECK(lowest == sorted[kept - 1] || lowest == sorted[kept - 2]); /* rounding at the edge */
    sampler_free(s);
    mem_free(sorted);
    vocab_close(&v);
}

TEST(sampler_bias, "logit_bias adds, -100 bans, 100 forces; ignore_eos bans every end of text")
{
    struct vocab v = vocab_open();
    token_id eos = tokenizer_eos(v.t);
    const struct logit_bias add[] = {{40, 2}, {41, -2}};
    const struct logit_bias ban[] = {{40, -100}};
    const struct logit_bias force[] = {{60, 100}};
    struct sampler_params p = plain;
    CHECK(eos >= 0 && eos != 40 && eos != 41 && eos != 60);
    v.logits[40] = 5;
    v.logits[41] = 6;
    p.logit_bias = add;
    p.n_logit_bias = 2;
    CHECK_INT(greedy(&v, p), ==, 40);
    p.logit_bias = ban;
    p.n_logit_bias = 1;
    CHECK_INT(greedy(&v, p), ==, 41);
    p.logit_bias = force;
    CHECK_INT(greedy(&v, p), ==, 60);
    p.n_logit_bias = 0;
    v.logits[eos] = 50;
    CHECK_INT(greedy(&v, p), ==, eos);
    p.ignore_eos = true;
    CHECK_INT(greedy(&v, p), ==, 41);
    v.logits[40] = 1e30f; /* a ban is no large number */
    p.logit_bias = ban;
    p.n_logit_bias = 1;
    CHECK_INT(greedy(&v, p), ==, 41);
    vocab_close(&v);
}

TEST(sampler_all_banned, "with every token banned a token still comes")
{
    struct vocab v = vocab_open();
    struct sampler_params p = plain;
    struct logit_bias *ban = mem_alloc((size_t)v.n, sizeof *ban);
    CHECK(ban);
    for (int i = 0; i < v.n; i++) {
        ban[i] = (struct logit_bias){i, -100};
    }
    p.logit_bias = ban;
    p.n_logit_bias = v.n;
    v.logits[33] = 1;
    struct sampler *s = make(&v, p);
    mem_free(ban); /* it was copied */
    CHECK_INT(sampler_sample(s, v.logits, NULL), ==, 33);
    sampler_free(s);
    vocab_close(&v);
}

/* The logit that token 10 ends up with: the value of a rival at which greedy changes. */
static double effective_logit(const struct vocab *v, struct sampler *s)
{
    double low = -50;
    double high = 50;
    for (int i = 0; i < 40; i++) {
        double mid = (low + high) / 2;
        v->logits[11] = (float)mid;
        if (sampler_sample(s, v->logits, NULL) == 10) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return low;
}

TEST(sampler_penalties, "repeat divides or multiplies, frequency counts, presence is once")
{
    static const struct {
        float repeat, frequency, presence, logit;
        int times;
        double want;
    } cases[] = {
        {1, 0, 0, 4, 3, 4},      {2, 0, 0, 4, 3, 2},      {2, 0, 0, -4, 3, -8},
        {1, 0.5f, 0, 4, 3, 2.5}, {1, 0, 0.5f, 4, 3, 3.5}, {2, 0.5f, 0.25f, 4, 3, 0.25},
        {2, 1, 1, 4, 0, 4},      {1, -1, 0, 4, 2, 6},
    };
    struct vocab v = vocab_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sampler_params p = plain;
        p.temperature = 0;
        p.repeat_penalty = cases[i].repeat;
        p.frequency_penalty = cases[i].frequency;
        p.presence_penalty = cases[i].presence;
        struct sampler *s = make(&v, p);
        for (int k = 0; k < cases[i].times; k++) {
            sampler_accept(s, 10);
        }
        v.logits[10] = cases[i].logit;
        CHECK_DOUBLE(fabs(effective_logit(&v, s) - cases[i].want), <=, 1e-5);
        sampler_free(s);
    }
    vocab_close(&v);
}

TEST(sampler_penalty_window,
     "tokens leave the window after penalty_last_n others; 0 is off, -1 no end")
{
    struct vocab v = vocab_open();
    struct sampler_params p = plain;
    p.temperature = 0;
    p.frequency_penalty = 1;
    const struct {
        int last_n, others;
        double want;
    } cases[] = {{4, 0, 8}, {4, 2, 8}, {4, 3, 9}, {4, 4, 10}, {0, 0, 10}, {-1, 300, 8}, {1, 0, 9}};
    v.logits[10] = 10;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p.penalty_last_n = cases[i].last_n;
        struct sampler *s = make(&v, p);
        sampler_accept(s, 10);
        sampler_accept(s, 10);
        for (int k = 0; k < cases[i].others; k++) {
            sampler_accept(s, 20 + k % 3);
        }
        CHECK_DOUBLE(fabs(effective_logit(&v, s) - cases[i].want), <=, 1e-5);
        sampler_free(s);
    }
    vocab_close(&v);
}

TEST(sampler_logprobs_exact, "log-probabilities are those of the raw softmax, best first")
{
    float logits[1000];
    struct rng r;
    rng_init(&r, test_seed());
    double sum = 0;
    for (int i = 0; i < 1000; i++) {
        logits[i] = i == 700 ? logits[300] : (float)(rng_double(&r) * 12); /* and a tie */
        sum += exp((double)logits[i]);
    }
    struct token_logprob chosen;
    struct token_logprob top[20];
    sampler_logprobs(logits, 1000, 123, 20, &chosen, top);
    CHECK_INT(chosen.id, ==, 123);
    CHECK_DOUBLE(fabs((double)chosen.logprob - ((double)logits[123] - log(sum))), <=, 1e-5);
    for (int k = 0; k < 20; k++) {
        int better = 0;
        for (int i = 0; i < 1000; i++) {
            better +=
                logits[i] > logits[top[k].id] || (logits[i] == logits[top[k].id] && i < top[k].id);
        }
        CHECK_INT(better, ==, k);
        double back = (double)top[k].logprob - (double)chosen.logprob;
        CHECK_DOUBLE(fabs(back - ((double)logits[top[k].id] - (double)logits[123])), <=, 1e-5);
    }
    sampler_logprobs(logits, 1000, 5, 0, &chosen, NULL);
    CHECK_INT(chosen.id, ==, 5);
}

TEST(sampler_refuses, "each parameter out of range, and memory that runs out")
{
    struct vocab v = vocab_open();
    const struct logit_bias far[] = {{v.n, 1}};
    const struct logit_bias below[] = {{-1, 1}};
    const struct logit_bias big[] = {{1, 101}};
    struct sampler_params bad[14];
    for (int i = 0; i < 14; i++) {
        bad[i] = plain;
    }
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].top_k = -1;
    bad[3].top_p = 1.01f;
    bad[4].top_p = NAN;
    bad[5].min_p = -0.1f;
    bad[6].repeat_penalty = 0;
    bad[7].frequency_penalty = INFINITY;
    bad[8].presence_penalty = NAN;
    bad[9].penalty_last_n = -2;
    bad[10].n_logit_bias = -1;
    bad[11].logit_bias = far;
    bad[12].logit_bias = below;
    bad[13].logit_bias = big;
    bad[11].n_logit_bias = bad[12].n_logit_bias = bad[13].n_logit_bias = 1;
    for (int i = 0; i < 14; i++) {
        struct err e = ERR_INIT;
        CHECK(!sampler_new(&bad[i], v.t, &e));
        CHECK_INT(e.code, ==, ERR_RANGE);
    }
    struct sampler_params full = plain;
    const struct logit_bias one[] = {{1, 1}};
    full.logit_bias = one;
    full.n_logit_bias = 1;
    full.ignore_eos = true;
    full.frequency_penalty = 1;
    for (long n = 1; n <= 7; n++) {
        struct err e = ERR_INIT;
        alloc_fail_at(n);
        CHECK(!sampler_new(&full, v.t, &e));
        alloc_fail_at(0);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    }
    vocab_close(&v);
}
