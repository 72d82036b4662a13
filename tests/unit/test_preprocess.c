/* Resizing against Pillow's, normalising exactly. */
#include "base/alloc.h"
#include "tests/test.h"
#include "vision/preprocess.h"
#include "vision/projector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct clip_params params_for(const char *projector, int size)
{
    return (struct clip_params){.projector = projector_find(projector),
                                .image_size = size,
                                .mean = {0.485f, 0.456f, 0.406f},
                                .std = {0.229f, 0.224f, 0.225f}};
}

static void load(const char *path, struct image *im)
{
    size_t n;
    struct err e = ERR_INIT;
    char *bytes = test_read_file(path, &n);
    CHECK_OK(image_decode((const uint8_t *)bytes, n, &image_limits_default, im, &e), e);
    mem_free(bytes);
}

TEST(preprocess_exact_size, "a picture of the right size is normalised and nothing else")
{
    struct clip_params p = params_for("internvl", 5);
    uint8_t rgb[5 * 5 * 3];
    for (size_t i = 0; i < sizeof rgb; i++) {
        rgb[i] = (uint8_t)(i * 37);
    }
    struct image im = {5, 5, rgb};
    struct arena a;
    struct err e = ERR_INIT;
    float *out;
    arena_init(&a, 1 << 20);
    CHECK_OK(preprocess_image(&p, &im, &a, &out, &e), e);
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < 25; i++) {
            float want = ((float)rgb[3 * i + c] / 255.0f - p.mean[c]) / p.std[c];
            CHECK(test_same_bits(&out[c * 25 + i], &want, 1));
        }
    }
    arena_clear(&a);
}

static void compare_with_pillow(int side)
{
    char path[64];
    struct image im;
    struct err e = ERR_INIT;
    struct clip_params p = params_for("internvl", side);
    size_t body = (size_t)side * (size_t)side * 3;
    size_t n;
    load("tests/data/resize/source.png", &im);
    uint8_t *got = mem_alloc(body, 1);
    CHECK(got);
    CHECK_OK(preprocess_resize(&p, &im, got, &e), e);
    snprintf(path, sizeof path, "tests/data/resize/stretched%d.ppm", side);
    uint8_t *want = (uint8_t *)test_read_file(path, &n);
    for (size_t i = 0; i < body; i++) {
        /* Pillow rounds to 8 bits between the two passes as well */
        CHECK_INT(abs(got[i] - want[n - body + i]), <=, 1);
    }
    mem_free(got);
    mem_free(want);
    image_free(&im);
}

TEST(preprocess_pillow, "shrunk and enlarged pictures equal Pillow's bicubic")
{
    compare_with_pillow(28);
    compare_with_pillow(64);
    compare_with_pillow(112);
}

TEST(preprocess_flat, "a flat picture stays flat at any aspect and size")
{
    static const int sizes[][2] = {{2, 400}, {400, 2}, {1000, 999}, {3, 3}, {64, 129}};
    struct clip_params p = params_for("internvl", 32);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t n = (size_t)sizes[k][0] * (size_t)sizes[k][1] * 3;
        struct image im = {sizes[k][0], sizes[k][1], mem_alloc(n, 1)};
        uint8_t out[32 * 32 * 3];
        struct err e = ERR_INIT;
        CHECK(im.rgb);
        memset(im.rgb, 201, n);
        CHECK_OK(preprocess_resize(&p, &im, out, &e), e);
        for (size_t i = 0; i < sizeof out; i++) {
            CHECK_INT(out[i], ==, 201);
        }
        image_free(&im);
    }
}

TEST(preprocess_padded, "mlp keeps the aspect and fills the borders")
{
    struct clip_params p = params_for("mlp", 8);
    uint8_t rgb[2 * 4 * 3];
    uint8_t out[8 * 8 * 3];
    struct err e = ERR_INIT;
    memset(rgb, 9, sizeof rgb);
    struct image im = {4, 2, rgb}; /* wide: a band of four rows in the middle */
    CHECK_OK(preprocess_resize(&p, &im, out, &e), e);
    for (int y = 0; y < 8; y++) {
        bool inside = y >= 2 && y < 6;
        for (int x = 0; x < 8; x++) {
            const uint8_t *px = out + (y * 8 + x) * 3;
            CHECK_INT(px[0], ==, inside ? 9 : 122);
            CHECK_INT(px[1], ==, inside ? 9 : 116);
            CHECK_INT(px[2], ==, inside ? 9 : 104);
        }
    }
}

TEST(preprocess_no_memory, "every failing allocation is an error, no leak")
{
    struct clip_params p = params_for("internvl", 16);
    uint8_t rgb[9 * 7 * 3] = {0};
    struct image im = {9, 7, rgb};
    struct arena a;
    float *out;
    int n_failed = 0;
    arena_init(&a, 1 << 20);
    for (long at = 1; at < 200; at++) {
        struct err e = ERR_INIT;
        alloc_fail_at(at);
        if (preprocess_image(&p, &im, &a, &out, &e)) {
            CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            n_failed++;
        }
        arena_clear(&a);
    }
    alloc_fail_at(0);
    CHECK_INT(n_failed, >, 10);
    CHECK_INT(n_failed, <, 100);
}
