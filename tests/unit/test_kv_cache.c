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
        {{-1, 4, 9}, 3, 2, {0, 5}},
        {{2, 5, 8}, 3, 4, {0, 3, 6, 9}},
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

TEST(kv_counts_bytes, "bytes are those of keys, values, positions and masses, stored and allocated")
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    const int cutoff = 3;
    CHECK_OK(kv_init(&kv, &shape, &cutoff, 1, 20, &e), e);
    /* a row: 2 planes x 3 heads x 8 x 2 bytes in each layer, and two floats a group */
    CHECK_INT(kv_bytes(&kv), ==, 20 * (10 * 2 * 3 * 8 * 2 + 2 * 2 * 4));
    CHECK_INT(kv_used_bytes(&kv), ==, 0);
    kv.group[0].n = 12;
    kv.group[1].n = 5;
    CHECK_INT(kv_used_bytes(&kv), ==, 12 * (4 * 96 + 8) + 5 * (6 * 96 + 8));
    kv_clear(&kv);
    CHECK_INT(kv_bytes(&kv), ==, 0);
    kv_clear(&kv);
}

TEST(kv_offsets, "planes of layers and heads tile a group without gap or overlap")
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    const int cutoff = 3;
    CHECK_OK(kv_init(&kv, &shape, &cutoff, 1, 7, &e), e);
    for (int g = 0; g < 2; g++) {
        size_t want = 0;
        for (int il = 0; il < kv.group[g].n_layer; il++) {
            for (int h = 0; h < shape.n_head_kv; h++, want += 7 * 8) {
                int layer = kv.group[g].first_layer + il;
                CHECK_INT(kv_head_offset(&kv.group[g], &shape, layer, h), ==, want);
            }
        }
        memset(kv.group[g].k, 0, want * 2); /* the sanitizer sees a plane that is too short */
        memset(kv.group[g].v, 0, want * 2);
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
        {{10, 3, 8}, {-2}, 1, 4, ERR_RANGE},
        {{10, 3, 8}, {10}, 1, 4, ERR_RANGE},
        {{10, 3, 8}, {4, 4}, 2, 4, ERR_RANGE},
        {{10, 3, 8}, {4, 2}, 2, 4, ERR_RANGE},
        {{10, 3, 8}, {0, 1, 2, 3}, 4, 4, ERR_TOO_LARGE},
        {{10, 3, 8}, {0}, 0, 0, ERR_RANGE},
        {{0, 3, 8}, {0}, 0, 4, ERR_RANGE},
        {{1 << 30, 1 << 30, 1 << 30}, {0}, 0, 1 << 30, ERR_TOO_LARGE},
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

TEST(kv_out_of_memory, "each failing allocation leaves an empty cache and no leak")
{
    const int cutoff = 3;
    for (long n = 1; n <= 8; n++) {
        struct err e = ERR_INIT;
        struct kv_cache kv = {0};
        alloc_fail_at(n);
        CHECK(kv_init(&kv, &shape, &cutoff, 1, 20, &e));
        alloc_fail_at(0);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
        CHECK_INT(kv.n_groups, ==, 0);
    }
}
