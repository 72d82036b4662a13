/* Attention and RoPE against plain loops in double. */
#include "base/alloc.h"
#include "base/rng.h"
#include "model/attention.h"
#include "model/rope.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/vector_ops_impl.h"
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
    struct kv_shape shape = {1, s->shape.n_head_kv, s->shape.head_dim, KV_F16};
    size_t width = (size_t)s->shape.n_head * (size_t)s->shape.head_dim;
    CHECK_OK(kv_init(&s->kv, &shape, NULL, 0, s->n_keys + 3, &e), e);
    struct kv_group *g = &s->kv.group[0];
    CHECK_OK(kv_prepare(&s->kv, g->capacity, &e), e);
    for (int b = 0; b < g->n_blocks; b++) {
        for (int i = 0; i < shape.n_head_kv * KV_BLOCK_ROWS * shape.head_dim; i++) {
            g->blocks[b]->k[i] = op_f32_to_f16(uniform(r) * 2);
            g->blocks[b]->v[i] = op_f32_to_f16(uniform(r));
        }
    }
    for (int i = 0; i < s->n_keys; i++) {
        *kv_positions(g, i) = (float)(2 * i);
        *kv_log_masses(g, i) = logf((float)(1 + i % 4));
    }
    g->n = s->n_keys;
    s->q = floats((size_t)s->n_queries * width, r);
    s->out = floats((size_t)s->n_queries * width, r);
    s->want = floats((size_t)s->n_queries * width, r);
    s->position = floats((size_t)s->n_queries, r);
    for (int i = 0; i < s->n_queries; i++) {
        s->position[i] = *kv_positions(g, s->n_keys - s->n_queries + i);
    }
}

static void setup_clear(struct setup *s)
{
    kv_clear(&s->kv);
    mem_free(s->q);
    mem_free(s->out);
    mem_free(s->want);
    mem_free(s->position);
}

static double score_of(const struct setup *s, const float *q, int head_kv, int key)
{
    const struct kv_group *g = &s->kv.group[0];
    const uint16_t *k = kv_keys(g, 0, head_kv, key);
    double sum = 0;
    for (int j = 0; j < s->shape.head_dim; j++) {
        sum += (double)q[j] * (double)op_f16_to_f32(k[j]);
    }
    sum *= (double)s->shape.scale;
    if (s->shape.softcap > 0) {
        sum = (double)s->shape.softcap * tanh(sum / (double)s->shape.softcap);
    }
    return sum + (s->use_log_mass ? (double)*kv_log_masses(g, key) : 0);
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
        if (s->window > 0 && *kv_positions(g, last) - *kv_positions(g, key) >= (float)s->window) {
            continue;
        }
        double w = exp(score_of(s, s->q + at, head_kv, key));
        const uint16_t *v = kv_values(g, 0, head_kv, key);
        norm += w;
        for (int j = 0; j < dim; j++) {
            sum[j] += w * (double)op_f16_to_f32(v[j]);
        }
    }
    for (int j = 0; j < dim; j++) {
        s->want[at + (size_t)j] = (float)(sum[j] / norm);
    }
}

/* Queries [first, first + n) of the setup. */
static struct attention_job job_of(const struct setup *s, int first, int n)
{
    size_t at = (size_t)first * (size_t)s->shape.n_head * (size_t)s->shape.head_dim;
    return (struct attention_job){.q = s->q + at,
                                  .out = s->out + at,
                                  .position = s->position + first,
                                  .n = n,
                                  .n_keys = s->n_keys - s->n_queries + first + n,
                                  .kv = &s->kv.group[0],
                                  .window = s->window,
                                  .use_log_mass = s->use_log_mass};
}

static void run_jobs(const struct setup *s, const struct attention_job *jobs, int n_jobs,
                     int n_threads, size_t max_bytes)
{
    struct err e = ERR_INIT;
    struct arena scratch;
    struct attention a;
    struct pool *pool = pool_new(n_threads, &e);
    struct compute c = {.pool = pool, .kernels = kernels_choose(NULL, &e)};
    arena_init(&scratch, max_bytes);
    CHECK_OK(attention_init(&a, &s->shape, &c, &scratch, &e), e);
    attention_run(&a, jobs, n_jobs);
    arena_clear(&scratch);
    pool_free(pool);
}

static void run(struct setup *s, int n_threads)
{
    struct attention_job job = job_of(s, 0, s->n_queries);
    run_jobs(s, &job, 1, n_threads, (size_t)1 << 28);
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
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    const size_t n_cases = sizeof cases / sizeof cases[0];
    rng_init(&r, test_seed());
    for (size_t k = 0; k < (size_t)n_sets * n_cases; k++) {
        size_t i = k % n_cases;
        vector_ops_use(sets[k / n_cases]);
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

/* Everything that a setup's queries can be computed beside. */
static void check_same_bits(struct setup *s)
{
    size_t width = (size_t)s->shape.n_head * (size_t)s->shape.head_dim;
    size_t n = (size_t)s->n_queries * width;
    float *whole = mem_alloc(n, sizeof *whole);
    CHECK(whole);
    run(s, 1);
    memcpy(whole, s->out, n * sizeof *whole);
    for (int threads = 1; threads <= 5; threads += 2) {
        for (int chunk = 1; chunk <= 70; chunk = 3 * chunk + 1) { /* one job after the other */
            memset(s->out, 0, n * sizeof *whole);
            for (int at = 0; at < s->n_queries; at += chunk) {
                int left = s->n_queries - at;
                struct attention_job job = job_of(s, at, left < chunk ? left : chunk);
                run_jobs(s, &job, 1, threads, (size_t)1 << 28);
            }
            CHECK(memcmp(whole, s->out, n * sizeof *whole) == 0);
        }
    }
    struct attention_job jobs[3] = {job_of(s, 0, 1), job_of(s, 1, s->n_queries - 2),
                                    job_of(s, s->n_queries - 1, 1)};
    memset(s->out, 0, n * sizeof *whole);
    run_jobs(s, jobs, 3, 4, (size_t)1 << 28);
    CHECK(memcmp(whole, s->out, n * sizeof *whole) == 0);
    mem_free(whole);
}

TEST(attention_bits, "a query's bits: alone, in any chunk, beside others, with any threads")
{
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int k = 0; k < 4 * n_sets; k++) {
        struct setup s = {
            .shape = {k & 1 ? 9 : 4, k & 1 ? 3 : 4, k & 1 ? 64 : 40, 0.2f, k & 2 ? 20.0f : 0.0f},
            .n_queries = 75,
            .n_keys = 700 + k,
            .window = k & 2 ? 500 : 0,
            .use_log_mass = k & 1};
        vector_ops_use(sets[k / 4]);
        setup_init(&s, &r);
        check_same_bits(&s);
        setup_clear(&s);
    }
}

TEST(attention_full_scratch, "no memory to share out the keys: the same result with one thread")
{
    struct rng r;
    rng_init(&r, test_seed());
    struct setup s = {.shape = {2, 1, 64, 0.2f, 0}, .n_queries = 1, .n_keys = 900};
    setup_init(&s, &r);
    struct attention_job job = job_of(&s, 0, 1);
    run(&s, 2);
    memcpy(s.want, s.out, 128 * sizeof *s.out);
    /* what attention_init takes for two threads and a few bytes more */
    struct err e = ERR_INIT;
    struct arena scratch;
    struct attention a;
    struct compute c = {.pool = pool_new(2, &e), .kernels = kernels_choose(NULL, &e)};
    arena_init(&scratch, (size_t)1 << 28);
    CHECK_OK(attention_init(&a, &s.shape, &c, &scratch, &e), e);
    size_t fixed = scratch.used_bytes;
    arena_clear(&scratch);
    pool_free(c.pool);
    memset(s.out, 0, 128 * sizeof *s.out);
    run_jobs(&s, &job, 1, 2, fixed + 1024);
    CHECK_DOUBLE(test_max_diff(s.want, s.out, 128), ==, 0);
    setup_clear(&s);
}

TEST(attention_nan, "a key that is not finite shows in the result instead of being masked away")
{
    static const int n_queries[] = {1, 40};
    struct rng r;
    rng_init(&r, test_seed());
    for (int i = 0; i < 2; i++) {
        struct setup s = {.shape = {2, 1, 16, 0.25f, 0}, .n_queries = n_queries[i], .n_keys = 200};
        setup_init(&s, &r);
        *kv_keys(&s.kv.group[0], 0, 0, 5) = 0x7e00; /* NaN */
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
