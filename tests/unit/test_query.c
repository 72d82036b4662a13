/* Rows chosen by a given attention: which sentences and phrases go on, what becomes of the
 * others, by hand; and the attention itself against the softmax written out. */
#include "compress/compressor.h"
#include "model/attention_share.h"
#include "tensor/ops.h"
#include "tests/test.h"
#include "tests/unit/method_fixture.h"
#include "tests/unit/random_rows.h"

#define ARENA_MAX ((size_t)64 << 20)
#define WIDTH     4
#define N         24

static struct method method = {.name = "query", .stage = STAGE_LM_LAYER, .layer = 8, .n_layer = 30};

enum { MERGE, GATHER, DROP };

/* Four sentences of six rows, 0..5, 6..11, 12..17, 18..23; the last one is the question. */
static void four_sentences(struct rows *r, struct arena *a, struct rng *g)
{
    random_rows(r, a, N, WIDTH, SHAPE_UNIFORM, g);
    for (int i = 0; i < N; i++) {
        r->flags[i] = i % 6 == 0 ? ROW_SENTENCE : 0;
        r->flags[i] |= i >= 18 ? ROW_PROTECTED | ROW_QUESTION : 0;
    }
    r->flags[0] |= ROW_BREAK;
    method_defaults(&method);
}

static const char *run(struct rows *r, const float *attention, struct arena *a)
{
    method.metric = attention;
    method.n_metric = 1;
    return method_run(&method, r, a);
}

static void check_same(const struct rows *r, int i, const struct rows *before, int old)
{
    CHECK_DOUBLE(r->position[i], ==, (double)before->position[old]);
    CHECK(test_same_bits(r->x + i * WIDTH, before->x + old * WIDTH, WIDTH));
}

TEST(query_sentences, "the sentence that is attended to goes on whole, where it stood")
{
    struct arena a;
    struct rng g;
    struct rows r;
    struct rows before;
    float attention[N] = {[2] = 0.1f, [8] = 0.4f, [9] = 0.2f, [14] = 0.3f, [20] = 5};
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    for (int fate = MERGE; fate <= DROP; fate++) {
        four_sentences(&r, &a, &g);
        copy_rows(&before, &a, &r);
        method_set(&method, "dropped", fate);
        CHECK(!run(&r, attention, &a));
        int first = r.owner[6];
        CHECK_INT(r.n, ==, fate == GATHER ? 14 : 12); /* 18 free rows at ratio 3, the question */
        CHECK_INT(first, ==, fate == GATHER);
        for (int i = 0; i < 6; i++) {
            bool edge = fate == MERGE && (i == 0 || i == 5);
            CHECK_INT(r.owner[6 + i], ==, first + i);
            CHECK_INT(r.owner[18 + i], ==, r.n - 6 + i);
            check_same(&r, r.n - 6 + i, &before, 18 + i);
            CHECK_DOUBLE(r.position[first + i], ==, 6 + i);
            if (!edge) {
                check_same(&r, first + i, &before, 6 + i);
            }
        }
        if (fate == GATHER) { /* six rows before and six behind became one each, in the middle */
            CHECK_DOUBLE(r.mass[0], ==, 6);
            CHECK_DOUBLE(r.position[0], ==, 2.5);
            CHECK_DOUBLE(r.position[7], ==, 14.5);
        } else {
            CHECK_DOUBLE(r.mass[0], ==, 7);
            CHECK_DOUBLE(r.mass[5], ==, 7);
        }
        if (fate == MERGE) { /* the mean of seven rows; fp32 sums */
            double mean = 0;
            for (int i = 0; i <= 6; i++) {
                mean += (double)before.x[i * WIDTH] / 7;
            }
            CHECK_DOUBLE(fabs((double)r.x[0] - mean), <, 1e-6);
        }
    }
    arena_clear(&a);
}

TEST(query_edge, "the sentence at the edge of the budget goes on in part, by its phrases")
{
    struct arena a;
    struct rng g;
    struct rows r;
    float attention[N] = {[8] = 0.9f, [17] = 0.6f};
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    four_sentences(&r, &a, &g);
    method_set(&method, "ratio", 2); /* nine rows: sentence 6..11, and of 12..17 three */
    method_set(&method, "window", 3);
    method_set(&method, "dropped", DROP);
    CHECK(!run(&r, attention, &a));
    CHECK_INT(r.n, ==, 9 + 6);
    static const int kept[] = {6, 7, 8, 9, 10, 11, 12, 16, 17};
    for (int i = 0; i < 9; i++) {
        CHECK_DOUBLE(r.position[i], ==, kept[i]);
    }
    method_set(&method, "unit",
               0); /* single rows: the two that are attended to, then the first ones */
    four_sentences(&r, &a, &g);
    method_set(&method, "unit", 0);
    method_set(&method, "ratio", 4.5);
    method_set(&method, "dropped", DROP);
    CHECK(!run(&r, attention, &a));
    CHECK_INT(r.n, ==, 4 + 6);
    static const int rows[] = {0, 1, 8, 17};
    for (int i = 0; i < 4; i++) {
        CHECK_DOUBLE(r.position[i], ==, rows[i]);
    }
    arena_clear(&a);
}

TEST(query_borders, "each message keeps a row; exact rows count for their sentence and stay")
{
    struct arena a;
    struct rng g;
    struct rows r;
    struct rows before;
    float attention[N] = {[15] = 9};
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    four_sentences(&r, &a, &g);
    r.flags[6] |= ROW_BREAK;
    r.flags[15] |= ROW_PROTECTED | ROW_EXACT;
    copy_rows(&before, &a, &r);
    method_set(&method, "dropped", MERGE);
    CHECK(!run(&r, attention, &a));
    /* 17 free rows at ratio 3: five of the last sentence, one of the first message */
    CHECK_INT(r.n, ==, 1 + 5 + 1 + 6);
    CHECK_INT(r.owner[5], ==, 0);
    CHECK_INT(r.owner[6], ==, r.owner[12]);
    check_same(&r, r.owner[15], &before, 15);
    CHECK_DOUBLE(r.mass[r.owner[15]], ==, 1);
    CHECK_STR(run(&r, NULL, &a), "no_question");
    method_set(&method, "ratio", 1);
    copy_rows(&before, &a, &r);
    CHECK(!run(&r, attention, &a));
    CHECK(same_rows(&r, &before));
    CHECK_INT(compressor_find("query")->ops.predict(method.option, 9), ==, 9);
    arena_clear(&a);
}

/* Number d of key i, of KV head 1 in layer 1. */
static double key_number(const struct kv_group *kv, int i, int d)
{
    if (kv->type == KV_Q8_0) {
        struct kv_q8 row = kv_q8_keys(kv, 1, 1, i);
        return (double)op_f16_to_f32(row.scale[d / 32]) * row.q[d];
    }
    return (double)op_f16_to_f32(kv_keys(kv, 1, 1, i)[d]);
}

/* Halves between 1 and 2; in 8 bits between -1 and 1, each 32 with a scale of their own. */
static void draw_key(const struct kv_group *kv, int i, struct rng *g)
{
    for (int d = 0; d < kv->head_dim; d++) {
        if (kv->type == KV_Q8_0) {
            struct kv_q8 row = kv_q8_keys(kv, 1, 1, i);
            row.q[d] = (int8_t)((int)rng_below(g, 255) - 127);
            row.scale[d / 32] = (uint16_t)(0x1c00 + rng_below(g, 1024)); /* 1/256 to 1/128 */
        } else {
            kv_keys(kv, 1, 1, i)[d] = (uint16_t)(0x3c00 + rng_below(g, 1024));
        }
    }
}

static void check_share(enum kv_type type)
{
    enum { DIM = 40, KEYS = 150, QUERIES = 3, HEADS = 4 };
    struct arena a;
    struct rng g;
    struct kv_cache kv;
    struct err e = ERR_INIT;
    const struct kv_shape shape = {.n_layer = 2, .n_head_kv = 2, .head_dim = DIM, .type = type};
    const struct attention_shape attention = {HEADS, 2, DIM, 0.125f, 0};
    float q[QUERIES * HEADS * DIM];
    float share[KEYS] = {0};
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    CHECK_OK(kv_init(&kv, &shape, NULL, 0, KEYS, &e), e);
    CHECK_OK(kv_prepare(&kv, KEYS, &e), e);
    kv.group[0].n = KEYS;
    for (int i = 0; i < QUERIES * HEADS * DIM; i++) {
        q[i] = random_signed(&g);
    }
    for (int i = 0; i < KEYS; i++) {
        draw_key(&kv.group[0], i, &g);
    }
    int head = 3; /* of KV head 1 */
    CHECK_OK(attention_share(&attention, q, QUERIES, &kv.group[0], 1, head, KEYS, share, &a, &e),
             e);
    double want[KEYS] = {0};
    for (int i = 0; i < QUERIES; i++) {
        double score[KEYS];
        double total = 0;
        for (int k = 0; k < KEYS - 2 + i; k++) {
            double dot = 0;
            for (int d = 0; d < DIM; d++) {
                dot += (double)q[(i * HEADS + head) * DIM + d] * key_number(&kv.group[0], k, d);
            }
            score[k] = exp(dot / 8);
            total += score[k];
        }
        for (int k = 0; k < KEYS - 2 + i; k++) {
            want[k] += score[k] / total;
        }
    }
    for (int k = 0; k < KEYS; k++) {
        CHECK_DOUBLE(fabs((double)share[k] - want[k]), <, 1e-6); /* fp32 sums of 150 terms */
    }
    struct arena none;
    arena_init(&none, 0);
    CHECK(attention_share(&attention, q, 1, &kv.group[0], 1, 0, KEYS, share, &none, &e));
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    kv_clear(&kv);
    arena_clear(&a);
}

TEST(attention_share_by_hand, "shares are softmax(q k / 8), causal, summed over the queries")
{
    check_share(KV_F16);
    check_share(KV_Q8_0);
}
