/* Attention and RoPE against plain loops in double. */
#include "base/alloc.h"
#include "base/rng.h"
#include "model/attention.h"
#include "model/rope.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

struct setup {
    struct attention_shape shape;
    int n_queries, n_keys;
    int window;
    bool use_log_mass;
    struct kv_cache kv;
    float *q, *out, *want, *position;
};

static float uniform(struct rng *r)
{
    return (float)(rng_double(r) * 2 - 1);
}

static float *floats(size_t n, struct rng *r)
{
    float *x = mem_alloc(n, sizeof *x);
    CHECK(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = uniform(r);
    }
    return x;
}

/* Keys at positions 0, 2, 4, ... (every second row merged away), masses 1 to 4. */
static void setup_init(struct setup *s, struct rng *r)
{
    struct err e = ERR_INIT;
    struct kv_shape shape = {1, s->shape.n_head_kv, s->shape.head_dim};
    size_t width = (size_t)s->shape.n_head * (size_t)s->shape.head_dim;
    CHECK_OK(kv_init(&s->kv, &shape, NULL, 0, s->n_keys + 3, &e), e);
    struct kv_group *g = &s->kv.group[0];
    size_t n = (size_t)shape.n_head_kv * (size_t)g->capacity * (size_t)shape.head_dim;
    for (size_t i = 0; i < n; i++) {
        g->k[i] = op_f32_to_f16(uniform(r) * 2);
        g->v[i] = op_f32_to_f16(uniform(r));
    }
    for (int i = 0; i < s->n_keys; i++) {
        g->position[i] = (float)(2 * i);
        g->log_mass[i] = logf((float)(1 + i % 4));
    }
    g->n = s->n_keys;
    s->q = floats((size_t)s->n_queries * width, r);
    s->out = floats((size_t)s->n_queries * width, r);
    s->want = floats((size_t)s->n_queries * width, r);
    s->position = g->position + s->n_keys - s->n_queries;
}

static void setup_clear(struct setup *s)
{
    kv_clear(&s->kv);
    mem_free(s->q);
    mem_free(s->out);
    mem_free(s->want);
}

static double score_of(const struct setup *s, const float *q, int head_kv, int key)
{
    const struct kv_group *g = &s->kv.group[0];
    size_t at =
        kv_head_offset(g, &s->kv.shape, 0, head_kv) + (size_t)key * (size_t)s->shape.head_dim;
    double sum = 0;
    for (int j = 0; j < s->shape.head_dim; j++) {
        sum += (double)q[j] * (double)op_f16_to_f32(g->k[at + (size_t)j]);
    }
    sum *= (double)s->shape.scale;
    if (s->shape.softcap > 0) {
        sum = (double)s->shape.softcap * tanh(sum / (double)s->shape.softcap);
    }
    return sum + (s->use_log_mass ? (double)g->log_mass[key] : 0);
}

static void plain_head(const struct setup *s, int query, int head)
{
    const struct kv_group *g = &s->kv.group[0];
    int dim = s->shape.head_dim;
    int head_kv = head / (s->shape.n_head / s->shape.n_head_kv);
    size_t at = ((size_t)query * (size_t)s->shape.n_head + (size_t)head) * (size_t)dim;
    int last = s->n_keys - s->n_queries + query;
    double sum[1024] = {0};
    double norm = 0;
    for (int key = 0; key <= last; key++) {
        if (s->window > 0 && g->position[last] - g->position[key] >= (float)s->window) {
            continue;
        }
        double w = exp(score_of(s, s->q + at, head_kv, key));
        size_t v = kv_head_offset(g, &s->kv.shape, 0, head_kv) + (size_t)key * (size_t)dim;
        norm += w;
        for (int j = 0; j < dim; j++) {
            sum[j] += w * (double)op_f16_to_f32(g->v[v + (size_t)j]);
        }
    }
    for (int j = 0; j < dim; j++) {
        s->want[at + (size_t)j] = (float)(sum[j] / norm);
    }
}

static void run(struct setup *s, int n_threads)
{
    struct err e = ERR_INIT;
    struct arena scratch;
    struct attention a;
    struct pool *pool = pool_new(n_threads, &e);
    struct compute c = {pool, kernels_choose(NULL, &e)};
    struct attention_job job = {.q = s->q,
                                .out = s->out,
                                .position = s->position,
                                .n = s->n_queries,
                                .n_keys = s->n_keys,
                                .kv = &s->kv.group[0],
                                .window = s->window,
                                .use_log_mass = s->use_log_mass};
    arena_init(&scratch, (size_t)1 << 28);
    CHECK_OK(attention_init(&a, &s->shape, &c, &scratch, &e), e);
    attention_run(&a, &job, 1);
    arena_clear(&scratch);
    pool_free(pool);
}

TEST(attention_plain, "tiles, groups of heads, windows, masses and caps equal plain loops")
{
    static const struct {
        int n_head, n_head_kv, head_dim, n_queries, n_keys, window;
        bool use_log_mass;
        float softcap;
    } cases[] = {
        {1, 1, 2, 1, 1, 0, false, 0},       {3, 1, 64, 1, 300, 0, false, 0},
        {9, 3, 64, 70, 70, 0, false, 0},    {9, 3, 64, 70, 333, 0, true, 0},
        {4, 4, 32, 129, 257, 0, true, 30},  {8, 2, 24, 5, 140, 0, false, 2},
        {40, 1, 16, 9, 150, 0, true, 0},    {2, 1, 256, 40, 128, 7, false, 0},
        {4, 2, 32, 200, 400, 100, true, 0}, {4, 2, 32, 1, 400, 33, true, 0},
        {4, 2, 32, 3, 129, 1, false, 0},
    };
    struct rng r;
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct setup s = {.shape = {cases[i].n_head, cases[i].n_head_kv, cases[i].head_dim, 0.5f,
                                    cases[i].softcap},
                          .n_queries = cases[i].n_queries,
                          .n_keys = cases[i].n_keys,
                          .window = cases[i].window,
                          .use_log_mass = cases[i].use_log_mass};
        setup_init(&s, &r);
        size_t n = (size_t)s.n_queries * (size_t)s.shape.n_head * (size_t)s.shape.head_dim;
        for (int query = 0; query < s.n_queries; query++) {
            for (int head = 0; head < s.shape.n_head; head++) {
                plain_head(&s, query, head);
            }
        }
        run(&s, 2);
        /* values are below 1; float sums of up to 400 terms are good to 1e-6 of that, and
         * scores of up to 30 are off by 2e-6, which moves a weight by as much */
        CHECK_DOUBLE(test_max_diff(s.out, s.want, n), <=, 1e-5);
        float *first = mem_alloc(n, sizeof *first);
        CHECK(first);
        memcpy(first, s.out, n * sizeof *first);
        for (int threads = 1; threads <= 3; threads++) {
            memset(s.out, 0, n * sizeof *s.out);
            run(&s, threads);
            CHECK(memcmp(first, s.out, n * sizeof *first) == 0);
        }
        mem_free(first);
        setup_clear(&s);
    }
}

/* Each query of s alone, into want. */
static void one_by_one(struct setup *s)
{
    size_t width = (size_t)s->shape.n_head * (size_t)s->shape.head_dim;
    for (int i = 0; i < s->n_queries; i++) {
        struct setup one = *s;
        one.n_queries = 1;
        one.n_keys = s->n_keys - (s->n_queries - 1 - i);
        one.q += (size_t)i * width;
        one.out = s->want + (size_t)i * width;
        one.position += i;
        run(&one, 1);
    }
}

TEST(attention_few_exact,
     "up to ATTENTION_EXACT_QUERIES at once, each query has its bits from alone")
{
    static const int heads[][3] = {{9, 3, 64}, {14, 2, 64}, {32, 4, 128}, {40, 1, 16}, {4, 4, 24}};
    struct rng r;
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        for (int n = 2; n <= ATTENTION_EXACT_QUERIES; n++) {
            struct setup s = {.shape = {heads[i][0], heads[i][1], heads[i][2], 0.5f, n & 1 ? 0 : 3},
                              .n_queries = n,
                              .n_keys = 125 + (int)rng_below(&r, 300),
                              .window = n % 3 == 0 ? 40 : 0,
                              .use_log_mass = n & 2};
            setup_init(&s, &r);
            size_t bytes =
                (size_t)n * (size_t)s.shape.n_head * (size_t)s.shape.head_dim * sizeof *s.out;
            one_by_one(&s);
            run(&s, 2);
            CHECK(memcmp(s.out, s.want, bytes) == 0);
            setup_clear(&s);
        }
    }
}

TEST(attention_nan, "a key that is not finite shows in the result instead of being masked away")
{
    static const int n_queries[] = {1, 40};
    struct rng r;
    rng_init(&r, test_seed());
    for (int i = 0; i < 2; i++) {
        struct setup s = {.shape = {2, 1, 16, 0.25f, 0}, .n_queries = n_queries[i], .n_keys = 200};
        setup_init(&s, &r);
        s.kv.group[0].k[5 * 16] = 0x7e00; /* NaN */
        run(&s, 1);
        CHECK(isnan(s.out[0]));
        setup_clear(&s);
    }
}

TEST(rope_equals_ops, "the table gives what op_rope gives, both pairings, part of a head, scaled")
{
    struct rng r;
    float factors[32];
    rng_init(&r, test_seed());
    for (int i = 0; i < 32; i++) {
        factors[i] = 1.0f + (float)i / 8;
    }
    for (int i = 0; i < 16; i++) {
        bool neox = i & 1;
        int n_rot = i & 2 ? 64 : 24;
        float scale = i & 4 ? 0.125f : 1.0f;
        const float *f = i & 8 ? factors : NULL;
        float position[3] = {0, 17.5f, 300};
        float table[3 * 64];
        struct rope rope;
        rope_init(&rope, n_rot, neox, 10000, scale, f);
        rope_table(&rope, position, 3, table);
        for (int p = 0; p < 3; p++) {
            float *x = floats(2 * 64, &r);
            float want[2 * 64];
            memcpy(want, x, sizeof want);
            op_rope(want, n_rot, position[p], 10000, scale, f, neox);
            op_rope(want + 64, n_rot, position[p], 10000, scale, f, neox);
            rope_apply(&rope, table + p * n_rot, x, 2, 64);
            /* op_rope may take its angle in float: 300 * 6e-8 */
            CHECK_DOUBLE(test_max_diff(x, want, 128), <=, 5e-5);
            mem_free(x);
        }
    }
}
