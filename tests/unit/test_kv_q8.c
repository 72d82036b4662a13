/* Keys and values in 8 bits: rounding and widening of every kernel set, attention against
 * the formula and against halves, the bytes counted, and the whole model against fp32. */
#include "base/alloc.h"
#include "base/rng.h"
#include "model/attention.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tensor/vector_ops_impl.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"
#include "tests/unit/engine_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_DIM  160
#define MOST_ROWS ATTEND_KEYS

static float uniform(struct rng *r)
{
    return (float)(rng_double(r) * 2 - 1);
}

/* Rows whose blocks are of very different size: zeros, subnormals, the largest halves. */
static void fill(struct rng *r, float *x, int n)
{
    static const float sizes[] = {0, 1e-42f, 1e-7f, 1e-3f, 1, 1, 30, 60000, 8e6f};
    float size = 1;
    for (int i = 0; i < n; i++) {
        if (i % 8 == 0) {
            size = sizes[rng_below(r, sizeof sizes / sizeof *sizes)];
        }
        x[i] = uniform(r) * size;
    }
}

/* What a row of 8 bits may differ from x by. */
static double tolerance(const float *x, int first, int dim)
{
    double most = 0;
    for (int i = first; i < dim && i < first + ATTEND_Q8_BLOCK; i++) {
        most = fmax(most, fabs((double)x[i]));
    }
    /* half a step of most / 127; the scale is a half (2^-11 of it, 2^-25 where it is
     * subnormal), and its rounding counts up to 127 times */
    return most * (0.5 / 127 + 0x1p-11) + 127 * 0x1p-25;
}

TEST(kv_q8_rounding, "each element within half a step; every kernel set makes the same bytes")
{
    static float x[MOST_DIM];
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (int dim = 1; dim <= MOST_DIM; dim++) {
        int8_t want[MOST_DIM];
        uint16_t want_scale[MOST_DIM / ATTEND_Q8_BLOCK];
        int blocks = attend_q8_blocks(dim);
        fill(&r, x, dim);
        attend_ref.round_q8(x, dim, want, want_scale);
        for (int i = 0; i < dim; i++) {
            double got = (double)op_f16_to_f32(want_scale[i / ATTEND_Q8_BLOCK]) * want[i];
            CHECK_DOUBLE(fabs(got - (double)x[i]), <=,
                         tolerance(x, i / ATTEND_Q8_BLOCK * ATTEND_Q8_BLOCK, dim));
        }
        for (int k = 0; k < n_sets; k++) {
            int8_t *q = test_guarded(NULL, (size_t)dim);
            uint16_t *scale = test_guarded(NULL, (size_t)blocks * sizeof *scale);
            const float *from = test_guarded(x, (size_t)dim * sizeof *x);
            sets[k]->attend->round_q8(from, dim, q, scale);
            CHECK(memcmp(q, want, (size_t)dim) == 0);
            CHECK(memcmp(scale, want_scale, (size_t)blocks * sizeof *scale) == 0);
        }
    }
}

TEST(kv_q8_not_finite, "what is no number stays none, and nothing else changes")
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    for (int k = 0; k < 4 * n_sets; k++) {
        for (int at = 0; at < 40; at++) {
            float x[64];
            int8_t q[64];
            uint16_t scale[2];
            float back[64];
            for (int i = 0; i < 64; i++) {
                x[i] = (float)(i % 7) - 3;
            }
            x[at] = bad[k % 4];
            const struct attend_kernels *kernels = sets[k / 4]->attend;
            kernels->round_q8(x, 64, q, scale);
            kernels->rows_q8(back, &(struct attend_q8){q, scale}, 1, 64, 64);
            for (int i = 0; i < 64; i++) {
                bool same_block = i / ATTEND_Q8_BLOCK == at / ATTEND_Q8_BLOCK;
                CHECK(isfinite(back[i]) != same_block);
            }
        }
    }
}

TEST(kv_q8_widening, "columns and rows of every set have the reference's bits, to the last byte")
{
    static const int dims[] = {1, 7, 8, 16, 31, 32, 33, 64, 80, 160};
    static const int counts[] = {1, 7, 8, 61, MOST_ROWS};
    static int8_t q[MOST_ROWS * MOST_DIM];
    static uint16_t scale[MOST_ROWS * MOST_DIM / ATTEND_Q8_BLOCK];
    static float want[MOST_DIM * ATTEND_LD];
    static float got[MOST_DIM * ATTEND_LD];
    struct rng r;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof q; i++) {
        q[i] = (int8_t)((int)rng_below(&r, 255) - 127);
    }
    for (size_t i = 0; i < sizeof scale / sizeof *scale; i++) {
        scale[i] = op_f32_to_f16(i % 5 ? (float)rng_double(&r) : 3e-7f);
    }
    for (int k = 0; k < 50 * n_sets; k++) {
        const struct attend_kernels *kernels = sets[k / 50]->attend;
        int dim = dims[k % 10];
        int n = counts[k / 10 % 5];
        int width = (dim + ATTEND_PAD - 1) / ATTEND_PAD * ATTEND_PAD;
        size_t n_scales = (size_t)n * (size_t)attend_q8_blocks(dim);
        const struct attend_q8 from = {test_guarded(q, (size_t)n * (size_t)dim),
                                       test_guarded(scale, n_scales * sizeof *scale)};
        attend_ref.columns_q8(want, &from, n, dim);
        kernels->columns_q8(got, &from, n, dim);
        for (int i = 0; i < dim; i++) {
            CHECK(test_same_bits(got + i * ATTEND_LD, want + i * ATTEND_LD, (size_t)n));
        }
        attend_ref.rows_q8(want, &from, n, dim, width);
        kernels->rows_q8(got, &from, n, dim, width);
        CHECK(test_same_bits(got, want, (size_t)n * (size_t)width));
    }
}

/* ---- attention ------------------------------------------------------------------------ */

enum { HEADS = 6, HEADS_KV = 2, DIM = 64, KEYS = 300 };

struct twin { /* the same keys and values in both forms */
    struct kv_cache kv[2];
    float *k, *v; /* [KEYS, HEADS_KV, DIM] as they were */
};

static void twin_init(struct twin *t, struct rng *r)
{
    struct err e = ERR_INIT;
    size_t n = (size_t)KEYS * HEADS_KV * DIM;
    t->k = mem_alloc(n, sizeof *t->k);
    t->v = mem_alloc(n, sizeof *t->v);
    CHECK(t->k && t->v);
    for (size_t i = 0; i < n; i++) {
        t->k[i] = uniform(r);
        t->v[i] = uniform(r);
    }
    for (int type = 0; type < 2; type++) {
        struct kv_shape shape = {1, HEADS_KV, DIM, (enum kv_type)type};
        CHECK_OK(kv_init(&t->kv[type], &shape, NULL, 0, KEYS, &e), e);
        CHECK_OK(kv_prepare(&t->kv[type], KEYS, &e), e);
        struct kv_group *g = &t->kv[type].group[0];
        for (int i = 0; i < KEYS * HEADS_KV; i++) {
            int row = i / HEADS_KV;
            int head = i % HEADS_KV;
            const float *k = t->k + (size_t)i * DIM;
            const float *v = t->v + (size_t)i * DIM;
            *kv_positions(g, row) = (float)row;
            *kv_log_masses(g, row) = logf((float)(1 + row % 3));
            if (type == KV_Q8_0) {
                struct kv_q8 to_k = kv_q8_keys(g, 0, head, row);
                struct kv_q8 to_v = kv_q8_values(g, 0, head, row);
                attend_ref.round_q8(k, DIM, to_k.q, to_k.scale);
                attend_ref.round_q8(v, DIM, to_v.q, to_v.scale);
                continue;
            }
            for (int d = 0; d < DIM; d++) {
                kv_keys(g, 0, head, row)[d] = op_f32_to_f16(k[d]);
                kv_values(g, 0, head, row)[d] = op_f32_to_f16(v[d]);
            }
        }
        g->n = KEYS;
    }
}

static void twin_clear(struct twin *t)
{
    kv_clear(&t->kv[0]);
    kv_clear(&t->kv[1]);
    mem_free(t->k);
    mem_free(t->v);
}

static void attend(const struct twin *t, int type, const float *q, const float *position, int n,
                   int n_threads, float *out)
{
    struct err e = ERR_INIT;
    struct arena scratch;
    struct attention a;
    struct attention_shape shape = {HEADS, HEADS_KV, DIM, 0.125f, 0};
    struct pool *pool = pool_new(n_threads, &e);
    struct compute c = {.pool = pool, .kernels = kernels_choose(NULL, &e)};
    struct attention_job job = {.q = q,
                                .out = out,
                                .position = position,
                                .n = n,
                                .n_keys = KEYS,
                                .kv = &t->kv[type].group[0],
                                .use_log_mass = true};
    arena_init(&scratch, (size_t)1 << 26);
    CHECK_OK(attention_init(&a, &shape, &c, &scratch, &e), e);
    attention_run(&a, &job, 1);
    arena_clear(&scratch);
    pool_free(pool);
}

TEST(kv_q8_attention, "near halves and fp32 for every set, the same bits however it is cut")
{
    enum { QUERIES = 50, WIDTH = HEADS * DIM };
    static float q[QUERIES * WIDTH];
    static float halves[QUERIES * WIDTH];
    static float bytes[QUERIES * WIDTH];
    static float other[QUERIES * WIDTH];
    float position[QUERIES];
    struct rng r;
    struct twin t;
    int n_sets;
    const struct vector_ops *const *sets = vector_ops_here(&n_sets);
    rng_init(&r, test_seed());
    twin_init(&t, &r);
    for (int i = 0; i < QUERIES * WIDTH; i++) {
        q[i] = uniform(&r) * 4;
    }
    for (int i = 0; i < QUERIES; i++) {
        position[i] = (float)(KEYS - QUERIES + i);
    }
    for (int k = 0; k < n_sets; k++) {
        vector_ops_use(sets[k]);
        attend(&t, KV_F16, q, position, QUERIES, 2, halves);
        attend(&t, KV_Q8_0, q, position, QUERIES, 2, bytes);
        /* Elements are off by at most 0.004. A score is a sum of 64 such errors times a
         * query of at most 4 / 8, all independent: 0.01, and a weight moves by as much of
         * itself. Over 250 keys of random sign the sum moves by far less; 0.004 is what one
         * key that has all the weight would show. */
        CHECK_DOUBLE(test_max_diff(bytes, halves, QUERIES * WIDTH), <=, 4e-3);
        CHECK_DOUBLE(test_cosine(bytes, halves, QUERIES * WIDTH), >=, 0.9995);
        CHECK_DOUBLE(test_max_diff(bytes, halves, QUERIES * WIDTH), >, 1e-6);
        for (int n = 1; n < QUERIES; n += 12) { /* the last n queries, few and many */
            size_t at = (size_t)(QUERIES - n) * WIDTH;
            attend(&t, KV_Q8_0, q + at, position + QUERIES - n, n, 1 + n % 3, other);
            CHECK(test_same_bits(other, bytes + at, (size_t)n * WIDTH));
        }
    }
    twin_clear(&t);
}

/* ---- bytes ------------------------------------------------------------------------------ */

TEST(kv_q8_bytes, "34 bytes for 32 elements, counted exactly; a copied tail keeps its rows")
{
    static const struct kv_shape q8 = {3, 2, 80, KV_Q8_0};
    static const struct kv_shape f16 = {3, 2, 80, KV_F16};
    struct err e = ERR_INIT;
    struct kv_cache kv[2];
    size_t block;
    size_t block_f16;
    /* 80 elements are three blocks, the last one of 16 */
    CHECK_INT(kv_row_bytes(&q8), ==, 2 * 2 * (80 + 3 * 2));
    CHECK_INT(kv_row_bytes(&f16), ==, 2 * 2 * 80 * 2);
    CHECK(kv_block_bytes(&q8, 3, &block) && kv_block_bytes(&f16, 3, &block_f16));
    CHECK_INT(block_f16 - block, ==, KV_BLOCK_ROWS * 3 * (kv_row_bytes(&f16) - kv_row_bytes(&q8)));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(kv_init(&kv[i], &q8, NULL, 0, 200, &e), e);
    }
    CHECK_OK(kv_prepare(&kv[0], 140, &e), e);
    struct kv_group *g = &kv[0].group[0];
    g->n = 140;
    CHECK_INT(kv_used_bytes(&kv[0]), ==, 140 * (3 * kv_row_bytes(&q8) + 8));
    CHECK_INT(kv_bytes(&kv[0]), ==, 2 * block);
    for (int i = 0; i < 140 * 6; i++) {
        struct kv_q8 k = kv_q8_keys(g, i / 2 % 3, i % 2, i / 6);
        struct kv_q8 v = kv_q8_values(g, i / 2 % 3, i % 2, i / 6);
        memset(k.q, i % 127, 80);
        memset(v.q, i % 113, 80);
        k.scale[0] = k.scale[1] = k.scale[2] = (uint16_t)i;
        v.scale[0] = v.scale[1] = v.scale[2] = (uint16_t)(2 * i);
        int at = i / 6;
        *kv_positions(g, at) = (float)at;
    }
    for (int b = 0; b < 2; b++) {
        kv_share(&kv[1], &kv[1].group[0], b, g->blocks[b]);
    }
    kv[1].group[0].n = 140;
    CHECK_OK(kv_own_tail(&kv[1], &e), e);
    CHECK(kv[1].group[0].blocks[0] == g->blocks[0]);
    CHECK(kv[1].group[0].blocks[1] != g->blocks[1]);
    for (int i = 0; i < 140 * 6; i++) {
        struct kv_q8 k = kv_q8_keys(&kv[1].group[0], i / 2 % 3, i % 2, i / 6);
        struct kv_q8 v = kv_q8_values(&kv[1].group[0], i / 2 % 3, i % 2, i / 6);
        CHECK(k.q[0] == i % 127 && k.q[79] == i % 127 && v.q[0] == i % 113 && v.q[79] == i % 113);
        CHECK(k.scale[0] == (uint16_t)i && k.scale[2] == (uint16_t)i);
        CHECK(v.scale[0] == (uint16_t)(2 * i) && v.scale[2] == (uint16_t)(2 * i));
        int at = i / 6;
        CHECK_DOUBLE(*kv_positions(&kv[1].group[0], at), ==, at);
    }
    kv_clear(&kv[0]);
    kv_clear(&kv[1]);
}

/* ---- the whole model ---------------------------------------------------------------------- */

static int arg_max(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

/* In chunks of a few rows, so that rows read what earlier passes stored. */
static void run_chunks(struct fixture *f, enum kv_type type, const token_id *ids, int n, int chunk,
                       float *logits)
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    struct kv_shape shape = decoder_kv_shape(f->d);
    shape.type = type;
    CHECK_OK(kv_init(&kv, &shape, NULL, 0, n, &e), e);
    for (int at = 0; at < n; at += chunk) {
        int m = n - at < chunk ? n - at : chunk;
        struct rows rows = fixture_rows(f, ids + at, m, at);
        fixture_run(
            f, (struct decoder_slice){.kv = &kv,
                                      .rows = &rows,
                                      .all_logits = true,
                                      .logits = logits + (size_t)at * (size_t)f->info->n_vocab});
    }
    kv_clear(&kv);
}

TEST(kv_q8_decoder,
     "SmolLM2 with keys and values in 8 bits: logits near fp32's; any chunks, same bits")
{
    enum { N = 160 };
    struct fixture f;
    struct err e = ERR_INIT;
    token_id ids[N];
    struct rng r;
    fixture_open(&f, test_model_path(), 2);
    rng_init(&r, 7);
    /* A text that the model knows how to go on is what rounding hurts least, random tokens
     * what it hurts most: every second half of a line is the line before. */
    for (int i = 0; i < N; i++) {
        ids[i] =
            i % 16 < 8 || i < 16 ? (token_id)rng_below(&r, (uint32_t)f.info->n_vocab) : ids[i - 16];
    }
    float *want = fixture_logits(&f, N);
    float *got = fixture_logits(&f, N);
    float *again = fixture_logits(&f, N);
    run_chunks(&f, KV_F16, ids, N, N, want);
    CHECK_OK(decoder_pack(f.d, &f.compute, &e), e);
    run_chunks(&f, KV_Q8_0, ids, N, 40, got);
    double worst = 1;
    int same = 0;
    int n_vocab = f.info->n_vocab;
    for (int i = 0; i < N; i++) {
        const float *a = got + (size_t)i * (size_t)n_vocab;
        const float *b = want + (size_t)i * (size_t)n_vocab;
        double cosine = test_cosine(a, b, (size_t)n_vocab);
        worst = cosine < worst ? cosine : worst;
        same += arg_max(a, n_vocab) == arg_max(b, n_vocab);
    }
    printf("      worst cosine of a row %.6f, arg-max the same at %d of %d\n", worst, same, N);
    CHECK_DOUBLE(worst, >=, 0.99);
    CHECK_DOUBLE((double)same / N, >=, 0.95);
    run_chunks(&f, KV_Q8_0, ids, N, 7, again);
    CHECK(test_same_bits(got, again, (size_t)N * (size_t)n_vocab));
    mem_free(want);
    mem_free(got);
    mem_free(again);
    fixture_close(&f);
}

TEST(kv_q8_engine, "an engine with 8 bits: half the bytes reported, same text beside others")
{
    struct engine_params p = {.model_path = TINY,
                              .chat_template = "chatml",
                              .n_parallel = 4,
                              .max_queue = 8,
                              .n_threads = 2,
                              .speculation = true};
    struct engine *halves = open_engine(&p);
    p.cache_q8 = true;
    struct engine *en = open_engine(&p);
    struct question q[4];
    const char *texts[] = {"hello world", "the shop", "a red jacket, size 42", "12345"};
    char *alone[4];
    struct job *jobs[4];
    CHECK_STR(engine_info(halves)->cache_type, "f16");
    CHECK_STR(engine_info(en)->cache_type, "q8_0");
    for (int i = 0; i < 4; i++) {
        ask(&q[i], texts[i], "off", 12);
        alone[i] = answer_of(en, &q[i]);
    }
    for (int i = 0; i < 4; i++) {
        jobs[i] = submit(en, &q[i]);
    }
    for (int i = 0; i < 4; i++) {
        struct buf text;
        CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
        CHECK_STR(buf_str(&text), alone[i]);
        buf_free(&text);
        size_t bytes = job_result(jobs[i])->kv_bytes;
        job_free(jobs[i]);
        struct job *j = submit(halves, &q[i]);
        CHECK_INT(read_all(j, &text), ==, JOB_EVENT_END);
        buf_free(&text);
        CHECK_INT(bytes, >, job_result(j)->kv_bytes / 2);
        CHECK_INT(bytes, <, job_result(j)->kv_bytes * 2 / 3);
        job_free(j);
        mem_free(alone[i]);
    }
    struct engine_stats s[2];
    engine_stats(halves, &s[0]);
    engine_stats(en, &s[1]);
    CHECK_INT(s[1].kv_total_bytes, <, s[0].kv_total_bytes * 2 / 3);
    engine_close(halves);
    engine_close(en);
}
