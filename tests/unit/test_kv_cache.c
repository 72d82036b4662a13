/* Lengths, groups and bytes of the KV cache. */
#include "base/alloc.h"
#include "model/kv_cache.h"
#include "tests/test.h"

#include <string.h>

static const struct kv_shape shape = {.n_layer = 10, .n_head_kv = 3, .head_dim = 8};

TEST(kv_groups, "cutoffs cut the layers; the first and the last need no group")
{
    static const struct {
        int cutoffs[4], n_cutoffs;
        int n_groups, first[4];
    } cases[] = {
        {{0}, 0, 1, {0}},
        {{-1}, 1, 1, {0}},
        {{0}, 1, 2, {0, 1}},
        {{9}, 1, 1, {0}},
        {{-1, 4, 9, KV_F16}, 3, 2, {0, 5}},
        {{2, 5, 8, KV_F16}, 3, 4, {0, 3, 6, 9}},
        {{-1, 0, 1, 9}, 4, 3, {0, 1, 2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = ERR_INIT;
        struct kv_cache kv;
        CHECK_OK(kv_init(&kv, &shape, cases[i].cutoffs, cases[i].n_cutoffs, 16, &e), e);
        CHECK_INT(kv.n_groups, ==, cases[i].n_groups);
        int layers = 0;
        for (int g = 0; g < kv.n_groups; g++) {
            CHECK_INT(kv.group[g].first_layer, ==, cases[i].first[g]);
            CHECK_INT(kv.group[g].first_layer, ==, layers);
            layers += kv.group[g].n_layer;
        }
        CHECK_INT(layers, ==, shape.n_layer);
        for (int il = 0; il < shape.n_layer; il++) {
            const struct kv_group *g = kv_group_of(&kv, il);
            CHECK(il >= g->first_layer && il < g->first_layer + g->n_layer);
        }
        kv_clear(&kv);
    }
}

/* A row: 2 planes x 3 heads x 8 x 2 bytes in each layer, and two floats in each group. */
#define LAYER_BYTES 96
#define GROUP_BYTES 8

TEST(kv_counts_bytes, "bytes are those of keys, values, positions and masses, and of whole blocks")
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    size_t low;
    size_t high;
    const int cutoff = 3;
    CHECK_OK(kv_init(&kv, &shape, &cutoff, 1, 500, &e), e);
    CHECK_INT(kv_bytes(&kv), ==, 0);
    CHECK(kv_block_bytes(&shape, 4, &low) && kv_block_bytes(&shape, 6, &high));
    CHECK_INT(low, >=, KV_BLOCK_ROWS * (4 * LAYER_BYTES + GROUP_BYTES));
    CHECK_INT(low, <=, KV_BLOCK_ROWS * (4 * LAYER_BYTES + GROUP_BYTES) + 128);
    CHECK_OK(kv_prepare(&kv, 129, &e), e);
    CHECK_INT(kv_bytes(&kv), ==, 2 * (low + high));
    CHECK_INT(kv_used_bytes(&kv), ==, 0);
    kv.group[0].n = 129;
    kv.group[1].n = 5;
    CHECK_INT(kv_used_bytes(&kv), ==,
              129 * (4 * LAYER_BYTES + GROUP_BYTES) + 5 * (6 * LAYER_BYTES + GROUP_BYTES));
    kv_trim(&kv); /* rows merged after layer 3 need one block less above it */
    CHECK_INT(kv_bytes(&kv), ==, 2 * low + high);
    CHECK_OK(kv_prepare(&kv, 371, &e), e);
    CHECK_INT(kv_bytes(&kv), ==, 4 * low + 3 * high);
    CHECK(kv_prepare(&kv, 372, &e));
    CHECK_INT(e.code, ==, ERR_CONTEXT_LENGTH);
    kv_clear(&kv);
    CHECK_INT(kv_bytes(&kv), ==, 0);
    kv_clear(&kv);
}

TEST(kv_offsets, "rows of layers and heads tile the blocks without gap or overlap")
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    const int cutoff = 3;
    CHECK_OK(kv_init(&kv, &shape, &cutoff, 1, 300, &e), e);
    CHECK_OK(kv_prepare(&kv, 300, &e), e);
    for (int i = 0; i < 2; i++) {
        const struct kv_group *g = &kv.group[i];
        for (int row = 0; row < 300; row += row == 0 ? 127 : 1) {
            const struct kv_block *b = g->blocks[row / KV_BLOCK_ROWS];
            size_t want = (size_t)(row % KV_BLOCK_ROWS) * 8;
            for (int layer = 0; layer < g->n_layer; layer++) {
                for (int head = 0; head < 3; head++, want += KV_BLOCK_ROWS * 8) {
                    CHECK(kv_keys(g, g->first_layer + layer, head, row) == b->k + want);
                    CHECK(kv_values(g, g->first_layer + layer, head, row) == b->v + want);
                }
            }
            CHECK(kv_positions(g, row) == b->position + row % KV_BLOCK_ROWS);
            CHECK(kv_log_masses(g, row) == b->log_mass + row % KV_BLOCK_ROWS);
        }
        /* the sanitizer sees a plane that is too short */
        struct kv_block *last = g->blocks[g->n_blocks - 1];
        size_t plane = (size_t)g->n_layer * 3 * KV_BLOCK_ROWS * 8 * 2;
        memset(last->k, 0, plane);
        memset(last->v, 0, plane);
        memset(last->position, 0, KV_BLOCK_ROWS * sizeof(float));
        memset(last->log_mass, 0, KV_BLOCK_ROWS * sizeof(float));
    }
    kv_clear(&kv);
}

TEST(kv_refuses, "cutoffs out of order or range, too many groups, impossible sizes")
{
    static const struct {
        struct kv_shape shape;
        int cutoffs[4], n_cutoffs, capacity;
        enum err_code code;
    } cases[] = {
        {{10, 3, 8, KV_F16}, {-2}, 1, 4, ERR_RANGE},
        {{10, 3, 8, KV_F16}, {10}, 1, 4, ERR_RANGE},
        {{10, 3, 8, KV_F16}, {4, 4}, 2, 4, ERR_RANGE},
        {{10, 3, 8, KV_F16}, {4, 2}, 2, 4, ERR_RANGE},
        {{10, 3, 8, KV_F16}, {0, 1, 2, 3}, 4, 4, ERR_TOO_LARGE},
        {{10, 3, 8, KV_F16}, {0}, 0, 0, ERR_RANGE},
        {{0, 3, 8, KV_F16}, {0}, 0, 4, ERR_RANGE},
        {{1 << 30, 1 << 30, 1 << 30, KV_F16}, {0}, 0, 1 << 30, ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = ERR_INIT;
        struct kv_cache kv = {0};
        CHECK(kv_init(&kv, &cases[i].shape, cases[i].cutoffs, cases[i].n_cutoffs, cases[i].capacity,
                      &e));
        CHECK_INT(e.code, ==, cases[i].code);
        CHECK_INT(kv_bytes(&kv), ==, 0);
    }
}

TEST(kv_out_of_memory, "each failing allocation leaves what was there and no leak")
{
    const int cutoff = 3;
    for (long n = 1; n <= 2; n++) {
        struct err e = ERR_INIT;
        struct kv_cache kv = {0};
        alloc_fail_at(n);
        CHECK(kv_init(&kv, &shape, &cutoff, 1, 20, &e));
        alloc_fail_at(0);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
        CHECK_INT(kv.n_groups, ==, 0);
    }
    for (long n = 1; n <= 4; n++) {
        struct err e = ERR_INIT;
        struct kv_cache kv;
        struct kv_pool pool;
        kv_pool_init(&pool, &shape, (size_t)1 << 24);
        CHECK_OK(kv_init(&kv, &shape, &cutoff, 1, 300, &e), e);
        CHECK_OK(kv_reserve(&kv, &pool, &e), e);
        alloc_fail_at(n);
        CHECK(kv_prepare(&kv, 200, &e));
        alloc_fail_at(0);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
        CHECK_INT(kv_bytes(&kv), ==, pool.used_bytes);
        CHECK_OK(kv_prepare(&kv, 200, &e), e);
        CHECK_INT(kv.group[0].n_blocks, ==, 2);
        kv_clear(&kv);
        CHECK_INT(pool.used_bytes + pool.running_bytes + pool.reserved_bytes, ==, 0);
    }
}

/* ---- sharing --------------------------------------------------------------------------- */

/* What a prefix cache would keep: blocks, the first one given up first. */
struct shelf {
    struct kv_pool *pool;
    struct kv_block *blocks[16];
    int first, n;
};

static bool give_up(void *ctx)
{
    struct shelf *s = ctx;
    if (s->first == s->n) {
        return false;
    }
    kv_block_release(s->pool, s->blocks[s->first++]);
    return true;
}

static void keep(struct shelf *s, const struct kv_group *g)
{
    for (int i = 0; i < g->n_blocks; i++) {
        CHECK(kv_block_hold(s->pool, g->blocks[i]));
        s->blocks[s->n++] = g->blocks[i];
    }
}

static void pool_of(struct kv_pool *pool, struct shelf *s, int n_blocks)
{
    size_t bytes;
    CHECK(kv_block_bytes(&shape, shape.n_layer, &bytes));
    kv_pool_init(pool, &shape, (size_t)n_blocks * bytes);
    *s = (struct shelf){.pool = pool};
    pool->evict = give_up;
    pool->evict_ctx = s;
}

/* A sequence of this many rows; row i has the position first + i. */
static void sequence(struct kv_cache *kv, struct kv_pool *pool, int capacity)
{
    struct err e = ERR_INIT;
    CHECK_OK(kv_init(kv, &shape, NULL, 0, capacity, &e), e);
    CHECK_OK(kv_reserve(kv, pool, &e), e);
}

static void append(struct kv_cache *kv, int n, float first)
{
    struct err e = ERR_INIT;
    struct kv_group *g = &kv->group[0];
    CHECK_OK(kv_prepare(kv, n, &e), e);
    for (int i = 0; i < n; i++) {
        *kv_positions(g, g->n + i) = first + (float)i;
        *kv_keys(g, shape.n_layer - 1, 2, g->n + i) = (uint16_t)((int)first + i);
    }
    g->n += n;
}

static void check_rows(const struct kv_cache *kv, int from, int to, float first)
{
    const struct kv_group *g = &kv->group[0];
    for (int i = from; i < to; i++) {
        CHECK_DOUBLE(*kv_positions(g, i), ==, first + i - from);
        CHECK_INT(*kv_keys(g, shape.n_layer - 1, 2, i), ==, (int)first + i - from);
    }
}

TEST(kv_shared_beginning,
     "a shared beginning stays as it is, whoever goes on from it and whoever leaves")
{
    struct err e = ERR_INIT;
    struct kv_pool pool;
    struct shelf shelf;
    struct kv_cache kv[3];
    pool_of(&pool, &shelf, 12);
    size_t block = pool.max_bytes / 12;
    sequence(&kv[0], &pool, 400);
    append(&kv[0], 200, 1000);
    keep(&shelf, &kv[0].group[0]);
    append(&kv[0], 20, 2000); /* behind the rows that are kept, into the same block */
    for (int s = 1; s < 3; s++) {
        sequence(&kv[s], &pool, 400);
        kv_share(&kv[s], &kv[s].group[0], 0, shelf.blocks[0]);
        kv_share(&kv[s], &kv[s].group[0], 1, shelf.blocks[1]);
        kv[s].group[0].n = 200;
        CHECK_OK(kv_own_tail(&kv[s], &e), e);
        CHECK(kv[s].group[0].blocks[0] == shelf.blocks[0]);
        CHECK(kv[s].group[0].blocks[1] != shelf.blocks[1]);
        append(&kv[s], 100, 3000.0f * (float)s);
    }
    CHECK_INT(pool.used_bytes, ==, (2 + 2 + 2) * block);
    CHECK_INT(pool.running_bytes, ==, pool.used_bytes);
    CHECK_INT(pool.held_bytes, ==, 2 * block);
    kv[0].group[0].n = 200; /* a second answer to the same prompt */
    append(&kv[0], 10, 500);
    for (int s = 0; s < 3; s++) {
        check_rows(&kv[s], 0, 200, 1000);
    }
    check_rows(&kv[0], 200, 210, 500);
    check_rows(&kv[1], 200, 300, 3000);
    check_rows(&kv[2], 200, 300, 6000);
    kv_clear(&kv[0]);
    kv_clear(&kv[2]);
    CHECK_INT(pool.used_bytes, ==, 4 * block);
    check_rows(&kv[1], 0, 200, 1000);
    kv_clear(&kv[1]);
    CHECK_INT(pool.running_bytes + pool.reserved_bytes, ==, 0);
    CHECK_INT(pool.used_bytes, ==, 2 * block);
    while (give_up(&shelf)) {
    }
    CHECK_INT(pool.used_bytes + pool.held_bytes, ==, 0);
}

TEST(kv_reserved, "what runs always finds room: kept blocks go, and no more is let in than fits")
{
    struct err e = ERR_INIT;
    struct kv_pool pool;
    struct shelf shelf;
    struct kv_cache kv[3];
    pool_of(&pool, &shelf, 8);
    sequence(&kv[0], &pool, 4 * KV_BLOCK_ROWS);
    append(&kv[0], 3 * KV_BLOCK_ROWS + 1, 0);
    keep(&shelf, &kv[0].group[0]);
    kv_clear(&kv[0]);
    CHECK_INT(pool.used_bytes, ==, pool.max_bytes / 2);
    sequence(&kv[0], &pool, 4 * KV_BLOCK_ROWS);
    sequence(&kv[1], &pool, 4 * KV_BLOCK_ROWS);
    CHECK_OK(kv_init(&kv[2], &shape, NULL, 0, 1, &e), e);
    CHECK(kv_reserve(&kv[2], &pool, &e));
    CHECK_INT(e.code, ==, ERR_BUSY);
    kv_clear(&kv[2]);
    append(&kv[0], 4 * KV_BLOCK_ROWS, 0);
    CHECK_INT(pool.held_bytes, >, 0);
    append(&kv[1], 4 * KV_BLOCK_ROWS, 0);
    CHECK_INT(pool.held_bytes, ==, 0);
    CHECK_INT(pool.used_bytes, ==, pool.max_bytes);
    kv_clear(&kv[0]);
    kv_clear(&kv[1]);
    CHECK_INT(pool.used_bytes, ==, 0);
}

TEST(kv_full_pool, "a shared tail can be written even when nothing is free for a copy")
{
    struct err e = ERR_INIT;
    struct kv_pool pool;
    struct shelf shelf;
    struct kv_cache kv;
    pool_of(&pool, &shelf, 2);
    sequence(&kv, &pool, 2 * KV_BLOCK_ROWS);
    append(&kv, KV_BLOCK_ROWS + 40, 0);
    keep(&shelf, &kv.group[0]);
    kv_clear(&kv);
    sequence(&kv, &pool, 2 * KV_BLOCK_ROWS);
    kv_share(&kv, &kv.group[0], 0, shelf.blocks[0]);
    kv_share(&kv, &kv.group[0], 1, shelf.blocks[1]);
    kv.group[0].n = KV_BLOCK_ROWS + 40;
    CHECK_OK(kv_own_tail(&kv, &e), e);
    CHECK_INT(pool.held_bytes, ==, 0); /* only by giving up the entry the tail came from */
    append(&kv, KV_BLOCK_ROWS - 40, 5000);
    check_rows(&kv, 0, KV_BLOCK_ROWS + 40, 0);
    check_rows(&kv, KV_BLOCK_ROWS + 40, 2 * KV_BLOCK_ROWS, 5000);
    kv_clear(&kv);
    CHECK_INT(pool.used_bytes, ==, 0);
}
