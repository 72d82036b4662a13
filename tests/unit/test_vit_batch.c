/* Several pictures in one pass of the tower: the bits of each are those it has alone, for
 * every kernel set, with weights packed and not, with other plans beside it. */
#include "base/rng.h"
#include "compress/compressor.h"
#include "tensor/kernels.h"
#include "tests/test.h"
#include "tests/unit/vision_fixture.h"

#include <string.h>
#include <unistd.h>

#define MOST 5

/* A plan of one picture, and what it saw. */
struct plan_at {
    double ratio; /* 1 = look only, 0 = no hook */
    struct arena *scratch;
    int last_rows;
};

static bool every_layer(void *ctx, int layer)
{
    (void)ctx;
    (void)layer;
    return true;
}

static int merge(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                 int n_metric, struct err *e)
{
    struct plan_at *p = ctx;
    const struct compressor *tome = compressor_find("tome");
    double options[COMPRESSOR_MAX_OPTIONS];
    compressor_defaults(tome, options);
    options[compressor_option_index(tome, "ratio")] = p->ratio;
    struct compress_call call = {STAGE_VIT_LAYER, layer,   n_layer, metric,
                                 n_metric,        options, NULL,    NULL};
    struct compress_outcome outcome = {0};
    struct arena_mark mark = arena_mark(p->scratch);
    int rc = p->ratio > 1 ? tome->ops.apply(&call, rows, p->scratch, &outcome, e) : 0;
    arena_rewind(p->scratch, mark);
    CHECK_OK(rows_check(rows, e), *e);
    p->last_rows = rows->n;
    return rc;
}

static void check_same(const struct rows *got, const struct rows *want)
{
    CHECK_INT(got->n, ==, want->n);
    CHECK_INT(got->n_source, ==, want->n_source);
    CHECK(test_same_bits(got->x, want->x, (size_t)want->n * (size_t)want->n_embd));
    CHECK(test_same_bits(got->mass, want->mass, (size_t)want->n));
    CHECK(test_same_bits(got->position, want->position, (size_t)want->n));
    CHECK(memcmp(got->flags, want->flags, (size_t)want->n) == 0);
    CHECK(memcmp(got->owner, want->owner, (size_t)want->n_source * sizeof *want->owner) == 0);
}

/* Pictures `which` [n] of all in one pass, against what each was alone. */
static void check_batch(struct vision_fixture *f, const struct vision_picture *all,
                        const struct rows *alone, const int *which, int n)
{
    struct err e = ERR_INIT;
    struct vision_picture pass[MOST];
    struct rows rows[MOST];
    for (int i = 0; i < n; i++) {
        pass[i] = all[which[i]];
        pass[i].rows = &rows[i];
    }
    CHECK_OK(vision_encode(f->v, pass, n, &f->compute, &f->scratch, &e), e);
    CHECK_INT(f->scratch.used_bytes, ==, 0);
    for (int i = 0; i < n; i++) {
        check_same(&rows[i], &alone[which[i]]);
    }
}

/* Every picture alone, then `rounds` random passes, the first one with all of them. */
static void check_company(struct vision_fixture *f, float *const *pixels, const double *ratios,
                          int n, int rounds, struct rng *rng)
{
    struct plan_at plans[MOST];
    struct stage_hook hooks[MOST];
    struct vision_picture all[MOST];
    struct rows alone[MOST];
    for (int i = 0; i < n; i++) {
        plans[i] = (struct plan_at){ratios[i], &f->scratch, 0};
        hooks[i] = (struct stage_hook){every_layer, merge, &plans[i]};
        all[i] = (struct vision_picture){pixels[i], ratios[i] > 0 ? &hooks[i] : NULL, &f->arena,
                                         &alone[i], 0};
        alone[i] = vision_fixture_encode(f, pixels[i], all[i].hook);
        CHECK(ratios[i] <= 1 || plans[i].last_rows < vision_info(f->v)->n_patches);
    }
    for (int k = 0; k < rounds; k++) {
        int which[MOST];
        int m = k == 0 ? n : 2 + (int)rng_below(rng, (uint32_t)(n - 1));
        for (int i = 0; i < m; i++) {
            which[i] = k == 0 ? i : (int)rng_below(rng, (uint32_t)n); /* one may come twice */
        }
        check_batch(f, all, alone, which, m);
    }
}

/* Tall and square pictures, and noise, at the side that the file says. */
static void make_pictures(struct vision_fixture *f, float *pixels[MOST], struct rng *rng)
{
    static const int sizes[MOST][2] = {{224, 224}, {31, 200}, {448, 300}, {17, 17}, {640, 100}};
    for (int i = 0; i < MOST; i++) {
        struct err e = ERR_INIT;
        struct image im = {.width = sizes[i][0], .height = sizes[i][1]};
        size_t n = (size_t)im.width * (size_t)im.height * 3;
        im.rgb = arena_alloc(&f->arena, n, 1);
        CHECK(im.rgb);
        for (size_t at = 0; at < n; at++) {
            im.rgb[at] = (uint8_t)(at * (size_t)(i + 3) / 997 + rng_below(rng, 40));
        }
        CHECK_OK(vision_preprocess(f->v, &im, 0, &f->arena, &pixels[i], &e), e);
    }
}

TEST(vit_batch_kernels, "a picture has the same bits alone and in any pass, for every kernel set")
{
    static const double ratios[MOST] = {4, 0, 8, 1, 2};
    struct rng rng;
    struct err e = ERR_INIT;
    rng_init(&rng, test_seed());
    for (const char *const *name = kernels_names() + 1; *name; name++) {
        struct vision_fixture f;
        float *pixels[MOST];
        const struct kernels *k = kernels_choose(*name, &e);
        if (!k || !strcmp(*name, "ref")) { /* ref: minutes, and the tiny towers below use it */
            continue;
        }
        vision_fixture_open(&f, test_mmproj_path(), 112, 2);
        f.compute.kernels = k;
        make_pictures(&f, pixels, &rng);
        CHECK_OK(vision_pack(f.v, &f.compute, &e), e);
        check_company(&f, pixels, ratios, MOST, 6, &rng);
        vision_fixture_close(&f);
    }
}

TEST(vit_batch_file_weights, "weights as the file has them: the same, although BLAS multiplies")
{
    static const double ratios[3] = {4, 0, 2};
    struct rng rng;
    struct vision_fixture f;
    float *pixels[MOST];
    rng_init(&rng, test_seed());
    vision_fixture_open(&f, test_mmproj_path(), 112, 2);
    make_pictures(&f, pixels, &rng);
    check_company(&f, pixels, ratios, 3, 3, &rng);
    vision_fixture_close(&f);
}

TEST(vit_batch_projectors, "every kind of projector and tower, odd widths, few and many threads")
{
    static const char *const kinds[] = {"internvl", "mlp", "idefics3"};
    static const double ratios[MOST] = {0, 2, 4, 0, 1};
    struct err e = ERR_INIT;
    struct rng rng;
    rng_init(&rng, test_seed());
    for (int k = 0; k < 24; k++) {
        char path[64];
        float *pixels[MOST];
        struct vision_fixture f;
        struct tiny_clip t = tiny_clip_default;
        t.projector = kinds[k % 3];
        t.scale_factor = k % 3 == 1 ? 0 : k / 3 % 2 ? 2 : 0;
        t.class_token = k / 6 % 2;
        t.n_out = 7 + k;
        t.seed = (uint64_t)k;
        tiny_clip_write(&t, path);
        vision_fixture_open(&f, path, 0, 1 + k % 3);
        unlink(path);
        make_pictures(&f, pixels, &rng);
        if (k >= 12) {
            f.compute.kernels = kernels_choose("ref", &e);
            CHECK_OK(vision_pack(f.v, &f.compute, &e), e);
        }
        check_company(&f, pixels, ratios, MOST, 4, &rng);
        vision_fixture_close(&f);
    }
}

TEST(vit_batch_memory, "a pass takes the memory that its number of pictures was chosen for")
{
    struct rng rng;
    struct err e = ERR_INIT;
    struct vision_fixture f;
    float *pixels[MOST];
    struct rows rows;
    rng_init(&rng, test_seed());
    vision_fixture_open(&f, test_mmproj_path(), 0, 1);
    CHECK_OK(vision_pack(f.v, &f.compute, &e), e);
    make_pictures(&f, pixels, &rng);
    size_t mb = (size_t)1 << 20;
    int last = 0;
    for (size_t budget = 0; budget <= 128 * mb; budget += 16 * mb) {
        struct vision_picture pass[VISION_MAX_PICTURES];
        int n = vision_pictures_in(f.v, budget);
        CHECK_INT(n, >=, 1);
        CHECK_INT(n, >=, last);
        CHECK_INT(n, <=, VISION_MAX_PICTURES);
        if (n > 1 && n != last) {
            for (int i = 0; i < n; i++) {
                pass[i] = (struct vision_picture){pixels[i % MOST], NULL, &f.arena, &rows, 0};
            }
            f.scratch.peak_bytes = 0;
            CHECK_OK(vision_encode(f.v, pass, n, &f.compute, &f.scratch, &e), e);
            CHECK_INT(f.scratch.peak_bytes, <=, budget);
            CHECK_INT(f.scratch.peak_bytes, >, budget / 3); /* and no far smaller one */
            arena_clear(&f.arena);
            make_pictures(&f, pixels, &rng);
        }
        last = n;
    }
    CHECK_INT(last, ==, VISION_MAX_PICTURES);
    vision_fixture_close(&f);
}
