/* engine/image_cache: what is the same picture for whom, and how much is kept. */
#include "base/alloc.h"
#include "engine/image_cache.h"
#include "tests/test.h"

#include <string.h>

static const struct vision_info tower = {.name = "t", .projector = "mlp", .image_size = 8};
static const uint8_t nobody[32];
static uint8_t pixels[3000 * 3];

static void key_of(int width, int height, const uint8_t scope[32], const struct plan_step *step,
                   uint8_t key[IMAGE_KEY_BYTES])
{
    const struct image im = {width, height, pixels};
    image_cache_key(scope, 32, &im, &tower, step, key);
}

static bool same(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, IMAGE_KEY_BYTES) == 0;
}

TEST(image_cache_keys, "size, pixels, scope, tower and plan each make another key")
{
    uint8_t key[IMAGE_KEY_BYTES];
    uint8_t other[IMAGE_KEY_BYTES];
    key_of(30, 100, nobody, NULL, key);
    key_of(30, 100, nobody, NULL, other);
    CHECK(same(key, other));
    key_of(100, 30, nobody, NULL, other);
    CHECK(!same(key, other));
    uint8_t somebody[32] = {[31] = 1};
    key_of(30, 100, somebody, NULL, other);
    CHECK(!same(key, other));
    pixels[8999] = 1;
    key_of(30, 100, nobody, NULL, other);
    CHECK(!same(key, other));
    pixels[8999] = 0;

    const struct image im = {30, 100, pixels};
    struct vision_info larger = tower;
    larger.image_size = 16;
    image_cache_key(nobody, 32, &im, &larger, NULL, other);
    CHECK(!same(key, other));

    struct plan_step step = {.method = compressor_find("tome"), .stage = STAGE_VIT_LAYER};
    uint8_t twice[IMAGE_KEY_BYTES];
    compressor_defaults(step.method, step.options);
    step.options[0] = 2;
    key_of(30, 100, nobody, &step, other);
    CHECK(!same(key, other));
    step.options[0] = 4;
    key_of(30, 100, nobody, &step, twice);
    CHECK(!same(other, twice));
}

/* n rows of which each float says where it is. */
static void make_rows(struct rows *r, struct arena *a, int n, float value)
{
    struct err e = ERR_INIT;
    CHECK_OK(rows_init(r, a, n, 4, ROW_IMAGE, 0, &e), e);
    for (int i = 0; i < n * 4; i++) {
        r->x[i] = value + (float)i;
    }
}

static bool has(struct image_cache *c, uint8_t name, struct arena *a, float value, int n)
{
    uint8_t key[IMAGE_KEY_BYTES] = {name};
    struct report report = {.n_skipped = 0};
    struct rows r;
    struct err e = ERR_INIT;
    int found = image_cache_get(c, key, a, &r, &report, &e);
    CHECK_INT(found, >=, 0);
    if (found) {
        CHECK_INT(r.n, ==, n);
        CHECK_DOUBLE(r.x[n * 4 - 1], ==, value + (float)(n * 4 - 1));
        CHECK_DOUBLE(r.mass[n - 1], ==, 1);
        CHECK_INT(r.owner[n - 1], ==, n - 1);
        CHECK_OK(rows_check(&r, &e), e);
    }
    return found;
}

static void put(struct image_cache *c, uint8_t name, struct arena *a, float value, int n)
{
    const uint8_t key[IMAGE_KEY_BYTES] = {name};
    const struct report report = {.n_skipped = 0};
    struct rows r;
    make_rows(&r, a, n, value);
    image_cache_put(c, key, &r, &report);
    r.x[n * 4 - 1] = -1; /* the cache has its own copy */
}

TEST(image_cache_ceiling, "never more bytes than allowed; what was used last stays")
{
    struct arena a;
    struct err e = ERR_INIT;
    arena_init(&a, 1 << 24);
    struct image_cache *measure = image_cache_new(1 << 20, &e);
    put(measure, 1, &a, 0, 16);
    size_t one = image_cache_bytes(measure);
    CHECK_INT(one, >=, 16 * 4 * 4);
    image_cache_free(measure);

    struct image_cache *c = image_cache_new(3 * one + one / 2, &e);
    for (uint8_t i = 0; i < 3; i++) {
        put(c, i, &a, i, 16);
    }
    CHECK_INT(image_cache_bytes(c), ==, 3 * one);
    CHECK(has(c, 0, &a, 0, 16)); /* 1 is the oldest now */
    put(c, 3, &a, 3, 16);
    CHECK_INT(image_cache_bytes(c), ==, 3 * one);
    CHECK(!has(c, 1, &a, 1, 16));
    CHECK(has(c, 0, &a, 0, 16) && has(c, 2, &a, 2, 16) && has(c, 3, &a, 3, 16));
    put(c, 4, &a, 4, 1000); /* larger than everything allowed */
    CHECK(!has(c, 4, &a, 4, 1000));
    CHECK_INT(image_cache_bytes(c), ==, 3 * one);
    for (int i = 0; i < 2000; i++) {
        put(c, (uint8_t)(i % 251), &a, (float)i, 1 + i % 40);
        CHECK_INT(image_cache_bytes(c), <=, 3 * one + one / 2);
    }
    image_cache_free(c);
    arena_clear(&a);
}

TEST(image_cache_reasons, "reasons come back with the rows; a lack of memory is not kept")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rows r;
    struct report report = {.n_skipped = 0};
    arena_init(&a, 1 << 20);
    make_rows(&r, &a, 8, 0);
    struct image_cache *c = image_cache_new(1 << 20, &e);
    const uint8_t key[IMAGE_KEY_BYTES] = {7};
    report_skip(&report, STAGE_VIT_LAYER, "out_of_memory");
    image_cache_put(c, key, &r, &report);
    CHECK_INT(image_cache_bytes(c), ==, 0);
    report = (struct report){.n_skipped = 0};
    report_skip(&report, STAGE_VIT_LAYER, "nothing_similar");
    image_cache_put(c, key, &r, &report);
    report = (struct report){.n_skipped = 0};
    CHECK_INT(image_cache_get(c, key, &a, &r, &report, &e), ==, 1);
    CHECK_INT(report.n_skipped, ==, 1);
    CHECK_STR(report.skipped[0].reason, "nothing_similar");

    alloc_fail_at(1); /* without memory nothing is kept, and nothing else happens */
    const uint8_t late[IMAGE_KEY_BYTES] = {8};
    image_cache_put(c, late, &r, &(struct report){.n_skipped = 0});
    alloc_fail_at(0);
    CHECK_INT(image_cache_get(c, late, &a, &r, &report, &e), ==, 0);
    CHECK_INT(image_cache_get(c, key, &a, &r, &report, &e), ==, 1);
    image_cache_free(c);
    arena_clear(&a);
}
