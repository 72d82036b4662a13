/* The tower against rows of ONNX Runtime and PyTorch, merging against ToMe's own groups,
 * and what must not change a bit: threads, a hook that does nothing. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"
#include "tests/unit/vision_fixture.h"
#include "vision/vit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static float *golden(const char *name, int n, int width)
{
    float *data;
    int64_t shape[4];
    char *path = test_golden_path(name);
    test_npy(path, &data, shape);
    mem_free(path);
    CHECK_INT(shape[0], ==, n);
    CHECK_INT(shape[1], ==, width);
    return data;
}

static double worst_cosine(const float *got, int step, const float *want, int n, int width)
{
    double worst = 1;
    for (int i = 0; i < n; i++) {
        double c = test_cosine(got + (size_t)(i * step) * (size_t)width,
                               want + (size_t)i * (size_t)width, (size_t)width);
        worst = c < worst || isnan(c) ? c : worst;
    }
    return worst;
}

static void tower_rows(struct vision_fixture *f, const char *picture, const struct stage_hook *hook,
                       struct rows *out)
{
    *out = vision_fixture_tower(f, vision_fixture_picture(f, picture), hook, &f->compute);
}

TEST(vit_224, "the tower's 257 rows of a 224 px picture are ONNX Runtime's")
{
    struct vision_fixture f;
    struct rows r;
    vision_fixture_open(&f, test_mmproj_path(), 0, 2);
    tower_rows(&f, "picture_224.png", NULL, &r);
    float *want = golden("vit_224.npy", 257, 384);
    CHECK_INT(r.n, ==, 257);
    /* weights in half precision cost 1e-6 */
    CHECK_DOUBLE(worst_cosine(r.x, 1, want, 257, 384), >=, 0.9999);
    mem_free(want);
    vision_fixture_close(&f);
}

TEST(vit_448, "at 448 px, with positions from the table as trained, every fifth row too")
{
    struct vision_fixture f;
    struct rows r;
    vision_fixture_open(&f, test_mmproj_path(), 448, 2);
    tower_rows(&f, "picture_448.png", NULL, &r);
    float *want = golden("vit_448_every5.npy", 205, 384);
    CHECK_INT(r.n, ==, 1025);
    CHECK_DOUBLE(worst_cosine(r.x, 5, want, 205, 384), >=, 0.9999);
    mem_free(want);
    vision_fixture_close(&f);
}

TEST(vit_adapter_224, "256 rows for the language model, in raster order")
{
    struct vision_fixture f;
    struct rows r;
    struct err e = ERR_INIT;
    vision_fixture_open(&f, test_first_mmproj_path(), 0, 2);
    float *pixels = vision_fixture_picture(&f, "picture_224.png");
    r = vision_fixture_encode(&f, pixels, NULL);
    float *want = golden("adapter_rows_224.npy", 256, 576);
    CHECK_INT(r.n, ==, 256);
    CHECK_INT(r.n_source, ==, 256);
    CHECK_OK(rows_check(&r, &e), e);
    CHECK_DOUBLE(worst_cosine(r.x, 1, want, 256, 576), >=, 0.9999);
    for (int i = 0; i < 256; i++) {
        CHECK_DOUBLE(r.position[i], ==, i);
        CHECK_INT(r.kind[i], ==, ROW_IMAGE);
        CHECK_INT(r.flags[i], ==, 0);
    }
    mem_free(want);
    vision_fixture_close(&f);
}

TEST(vit_smaller, "a smaller picture in a large tower is what a small tower makes of it")
{
    struct vision_fixture large;
    struct vision_fixture small;
    struct err e = ERR_INIT;
    struct rows r;
    vision_fixture_open(&large, test_mmproj_path(), 0, 2);
    vision_fixture_open(&small, test_mmproj_path(), 112, 2);
    float *pixels = vision_fixture_picture(&small, "picture_448.png");
    struct rows want = vision_fixture_encode(&small, pixels, NULL);
    float *full = vision_fixture_picture(&large, "picture_448.png");
    struct rows full_rows = vision_fixture_encode(&large, full, NULL);
    struct rows beside;
    const struct vision_picture two[2] = {{full, NULL, &large.arena, &beside, 0},
                                          {pixels, NULL, &large.arena, &r, 8}};
    CHECK_OK(vision_encode(large.v, two, 2, &large.compute, &large.scratch, &e), e);
    CHECK_INT(r.n, ==, 64);
    CHECK_INT(r.n_source, ==, 64);
    CHECK_OK(rows_check(&r, &e), e);
    CHECK(test_same_bits(r.x, want.x, (size_t)r.n * (size_t)r.n_embd));
    CHECK_INT(beside.n, ==, 256);
    CHECK(test_same_bits(beside.x, full_rows.x, (size_t)beside.n * (size_t)beside.n_embd));
    vision_fixture_close(&large);
    vision_fixture_close(&small);
}

/* Naive: all of the softmax in double, for class token and without. */
static void check_share(int n_class, struct rng *g)
{
    enum { HEADS = 2, DIM = 4, ROWS = 5, SOURCES = 9 };
    float q[ROWS * HEADS * DIM];
    float k[ROWS * HEADS * DIM];
    float mass[ROWS] = {1, 3, 2, 1, 2};
    int32_t owner[SOURCES] = {0, 1, 1, 2, 4, 3, 1, 2, 4};
    float share[SOURCES];
    float work[2 * ROWS];
    double want[SOURCES] = {0};
    double total = 0;
    const struct rows r = {.n = ROWS, .n_source = SOURCES, .mass = mass, .owner = owner};
    random_values(q, ROWS, HEADS * DIM, SHAPE_UNIFORM, g);
    random_values(k, ROWS, HEADS * DIM, SHAPE_UNIFORM, g);
    for (int query = 0; query < (n_class ? 1 : ROWS); query++) {
        for (int h = 0; h < HEADS; h++) {
            double e[ROWS];
            double sum = 0;
            for (int j = 0; j < ROWS; j++) {
                double dot = 0;
                for (int d = 0; d < DIM; d++) {
                    dot += (double)q[(query * HEADS + h) * DIM + d] *
                           (double)k[(j * HEADS + h) * DIM + d];
                }
                e[j] = (double)mass[j] * exp(dot / sqrt(DIM));
                sum += e[j];
            }
            for (int s = n_class; s < SOURCES; s++) {
                want[s - n_class] += e[owner[s]] / sum / (double)mass[owner[s]];
            }
        }
    }
    vit_attention_share(q, k, &r, n_class, HEADS, DIM, share, work);
    for (int s = 0; s < SOURCES - n_class; s++) {
        total += want[s];
    }
    for (int s = 0; s < SOURCES - n_class; s++) {
        CHECK_DOUBLE(fabs(want[s] / total - (double)share[s]), <, 1e-6);
    }
}

TEST(vit_attention_shares, "how much the tower looked at each patch, merged ones included")
{
    struct rng g;
    rng_init(&g, test_seed());
    for (int i = 0; i < 20; i++) {
        check_share(i % 2, &g);
    }
}

TEST(vit_info, "what the default file says about itself")
{
    struct vision_fixture f;
    vision_fixture_open(&f, test_mmproj_path(), 0, 1);
    const struct vision_info *v = vision_info(f.v);
    CHECK_STR(v->projector, "internvl");
    CHECK_STR(v->text_before, "<img>");
    CHECK_STR(v->text_after, "</img>");
    CHECK_INT(v->image_size, ==, 224);
    CHECK_INT(v->n_patches, ==, 256);
    CHECK_INT(v->n_rows, ==, 256);
    CHECK_INT(v->n_layer, ==, 12);
    CHECK_INT(v->n_embd_out, ==, 576);
    CHECK(v->merge_in_tower);
    vision_fixture_close(&f);
}

/* -- hooks -------------------------------------------------------------------------- */

static bool every_layer(void *ctx, int layer)
{
    (void)ctx;
    (void)layer;
    return true;
}

static int look_only(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                     int n_metric, struct err *e)
{
    int *calls = ctx;
    CHECK_INT(layer, ==, *calls);
    CHECK_INT(n_layer, ==, 12);
    CHECK_INT(n_metric, ==, 64);
    CHECK_INT(rows->n, ==, 257);
    CHECK_INT(rows->flags[0], ==, ROW_PROTECTED);
    CHECK_INT(rows->flags[1], ==, 0);
    CHECK_INT(rows->kind[0], ==, ROW_IMAGE);
    CHECK(isfinite(metric[257 * 64 - 1]));
    CHECK_OK(rows_check(rows, e), *e);
    (*calls)++;
    return 0;
}

static struct rows encode(struct vision_fixture *f, const struct stage_hook *hook)
{
    return vision_fixture_encode(f, vision_fixture_picture(f, "picture_224.png"), hook);
}

static void same_bits(const struct rows *a, const struct rows *b)
{
    CHECK_INT(a->n, ==, b->n);
    CHECK_INT(memcmp(a->x, b->x, (size_t)a->n * (size_t)a->n_embd * sizeof *a->x), ==, 0);
    CHECK_INT(memcmp(a->mass, b->mass, (size_t)a->n * sizeof *a->mass), ==, 0);
    CHECK_INT(memcmp(a->owner, b->owner, (size_t)a->n_source * sizeof *a->owner), ==, 0);
}

TEST(vit_idle_hook, "a hook that does nothing changes no bit; it sees every block once")
{
    struct vision_fixture f;
    int calls = 0;
    struct stage_hook hook = {every_layer, look_only, &calls};
    vision_fixture_open(&f, test_mmproj_path(), 0, 2);
    struct rows without = encode(&f, NULL);
    struct rows with = encode(&f, &hook);
    CHECK_INT(calls, ==, 12);
    same_bits(&without, &with);
    vision_fixture_close(&f);
}

struct tome {
    const struct compressor *method;
    struct arena *scratch;
    double options[COMPRESSOR_MAX_OPTIONS];
    int n[64];
};

static int merge(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                 int n_metric, struct err *e)
{
    struct tome *t = ctx;
    struct compress_call call = {STAGE_VIT_LAYER, layer,      n_layer, metric,
                                 n_metric,        t->options, NULL,    NULL};
    struct compress_outcome outcome = {0};
    struct arena_mark mark = arena_mark(t->scratch);
    int result = t->method->ops.apply(&call, rows, t->scratch, &outcome, e);
    arena_rewind(t->scratch, mark);
    CHECK_OK(rows_check(rows, e), *e);
    t->n[layer] = rows->n - 1; /* class token */
    return result;
}

static struct tome tome_at(double ratio, struct arena *scratch)
{
    struct tome t = {.method = compressor_find("tome"), .scratch = scratch};
    CHECK(t.method);
    for (int i = 0; i < t.method->info.n_options; i++) {
        t.options[i] = t.method->info.options[i].def;
    }
    t.options[compressor_option_index(t.method, "ratio")] = ratio;
    return t;
}

TEST(vit_threads, "one, two and three threads give the same bits, merged or not")
{
    struct vision_fixture f[3];
    struct rows whole[3];
    struct rows merged[3];
    for (int i = 0; i < 3; i++) {
        vision_fixture_open(&f[i], test_mmproj_path(), 0, i + 1);
        whole[i] = encode(&f[i], NULL);
        struct tome t = tome_at(4, &f[i].scratch);
        struct stage_hook hook = {every_layer, merge, &t};
        merged[i] = encode(&f[i], &hook);
    }
    for (int i = 1; i < 3; i++) {
        same_bits(&whole[0], &whole[i]);
        same_bits(&merged[0], &merged[i]);
    }
    for (int i = 0; i < 3; i++) {
        vision_fixture_close(&f[i]);
    }
}

/* -- ToMe against the reference -------------------------------------------------------- */

struct tome_golden {
    int ratio, n_rows[12], n_groups;
    int group[256]; /* patch -> group, in the reference's order */
};

static void next_golden(FILE *in, struct tome_golden *g)
{
    int n;
    CHECK_INT(fscanf(in, " ratio %d rows %d", &g->ratio, &n), ==, 2);
    CHECK_INT(n, ==, 12);
    for (int i = 0; i < 12; i++) {
        CHECK_INT(fscanf(in, "%d", &g->n_rows[i]), ==, 1);
    }
    CHECK_INT(fscanf(in, " groups %d", &g->n_groups), ==, 1);
    for (int k = 0; k < g->n_groups; k++) {
        CHECK_INT(fscanf(in, "%d", &n), ==, 1);
        for (int i = 0; i < n; i++) {
            int patch;
            CHECK_INT(fscanf(in, "%d", &patch), ==, 1);
            CHECK(patch >= 0 && patch < 256);
            g->group[patch] = k;
        }
    }
}

static void skip_comments(FILE *in)
{
    int c;
    while ((c = fgetc(in)) == '#') {
        while ((c = fgetc(in)) != '\n' && c != EOF) {
        }
    }
    ungetc(c, in);
}

/* Patches that are not with the same companions as in the reference. */
static int patches_elsewhere(const struct rows *r, const struct tome_golden *g)
{
    int wrong = 0;
    for (int i = 0; i < 256; i++) {
        bool same = true;
        for (int k = 0; k < 256; k++) {
            same &= (r->owner[i + 1] == r->owner[k + 1]) == (g->group[i] == g->group[k]);
        }
        if (!same) {
            printf("      ratio %d: patch %d has other companions\n", g->ratio, i);
            wrong++;
        }
    }
    return wrong;
}

static void check_rows(const struct rows *r, const struct tome_golden *g)
{
    float *want = golden("tome4_rows_224.npy", 64, 384);
    for (int i = 0; i < 256; i++) {
        const float *got = r->x + (size_t)r->owner[i + 1] * 384;
        CHECK_DOUBLE(test_cosine(got, want + (size_t)g->group[i] * 384, 384), >=, 0.999);
    }
    mem_free(want);
}

TEST(vit_tome, "ToMe at 2x, 4x, 8x makes the reference's groups, layer by layer as many rows")
{
    char *path = test_golden_path("tome_224.vec");
    FILE *in = fopen(path, "r");
    CHECK(in);
    skip_comments(in);
    struct vision_fixture f;
    vision_fixture_open(&f, test_mmproj_path(), 0, 2);
    for (int k = 0; k < 3; k++) {
        struct tome_golden g;
        next_golden(in, &g);
        struct tome t = tome_at(g.ratio, &f.scratch);
        struct stage_hook hook = {every_layer, merge, &t};
        struct rows r;
        tower_rows(&f, "picture_224.png", &hook, &r);
        for (int i = 0; i < 12; i++) {
            CHECK_INT(t.n[i], ==, g.n_rows[i]);
        }
        CHECK_INT(patches_elsewhere(&r, &g), ==, 0);
        if (g.ratio == 4) {
            check_rows(&r, &g);
        }
        arena_clear(&f.scratch);
    }
    fclose(in);
    mem_free(path);
    vision_fixture_close(&f);
}

TEST(vit_tome_raster, "merged rows come out in the order of their first patch, with its position")
{
    struct vision_fixture f;
    struct err e = ERR_INIT;
    vision_fixture_open(&f, test_mmproj_path(), 0, 2);
    struct tome t = tome_at(4, &f.scratch);
    struct stage_hook hook = {every_layer, merge, &t};
    struct rows r = encode(&f, &hook);
    CHECK_INT(r.n, ==, 64);
    CHECK_INT(r.n_source, ==, 256);
    CHECK_OK(rows_check(&r, &e), e);
    int32_t first[64];
    rows_first_source(&r, first);
    for (int i = 0; i < r.n; i++) {
        CHECK_DOUBLE(r.position[i], ==, first[i]);
        CHECK(i == 0 || first[i] > first[i - 1]);
    }
    vision_fixture_close(&f);
}

/* -- parts ---------------------------------------------------------------------------- */

static void naive_attention(const float *q, const float *k, const float *v, const float *bias,
                            int n, int n_head, int dim, float *out)
{
    int width = n_head * dim;
    double *p = mem_alloc((size_t)n, sizeof *p);
    CHECK(p);
    for (int i = 0; i < n * n_head; i++) {
        const float *qi = q + i / n_head * width + i % n_head * dim;
        double sum = 0;
        for (int j = 0; j < n; j++) {
            const float *kj = k + j * width + i % n_head * dim;
            double dot = 0;
            for (int d = 0; d < dim; d++) {
                dot += (double)qi[d] * (double)kj[d];
            }
            p[j] = exp(dot / sqrt(dim) + (bias ? (double)bias[j] : 0));
            sum += p[j];
        }
        for (int d = 0; d < dim; d++) {
            double y = 0;
            for (int j = 0; j < n; j++) {
                y += p[j] / sum * (double)v[j * width + i % n_head * dim + d];
            }
            out[i / n_head * width + i % n_head * dim + d] = (float)y;
        }
    }
    mem_free(p);
}

TEST(vit_attention_naive, "attention with and without log mass equals the formula in double")
{
    static const int shapes[][3] = {{1, 1, 4}, {5, 3, 7}, {65, 2, 8}, {257, 6, 64}, {130, 1, 16}};
    struct err e = ERR_INIT;
    struct rng rng;
    rng_init(&rng, test_seed());
    struct pool *pool = pool_new(2, &e);
    struct compute c = {.pool = pool, .kernels = kernels_choose(NULL, &e)};
    struct arena scratch;
    arena_init(&scratch, (size_t)1 << 28);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int n = shapes[s][0];
        int width = shapes[s][1] * shapes[s][2];
        size_t count = (size_t)n * (size_t)width;
        float *x = mem_alloc(5 * count + (size_t)n, sizeof *x);
        CHECK(x);
        for (size_t i = 0; i < 3 * count; i++) {
            x[i] = (float)(4 * rng_double(&rng) - 2);
        }
        float *bias = x + 5 * count;
        for (int i = 0; i < n; i++) {
            bias[i] = logf((float)(1 + i % 9));
        }
        for (int with = 0; with < 2; with++) {
            naive_attention(x, x + count, x + 2 * count, with ? bias : NULL, n, shapes[s][1],
                            shapes[s][2], x + 3 * count);
            const struct vit_part whole = {n, with ? bias : NULL};
            CHECK_OK(vit_attention(x, x + count, x + 2 * count, &whole, 1, shapes[s][1],
                                   shapes[s][2], x + 4 * count, &c, &scratch, &e),
                     e);
            /* fp32 sums of up to 257 terms */
            CHECK_DOUBLE(test_max_diff(x + 4 * count, x + 3 * count, count), <=, 2e-5);
        }
        mem_free(x);
    }
    arena_clear(&scratch);
    pool_free(pool);
}

TEST(vit_positions, "the table made from the full one is the one that the file has")
{
    struct err e = ERR_INIT;
    struct vision *v = vision_open(test_mmproj_path(), &e);
    CHECK(v);
    struct gguf *g = gguf_open(test_mmproj_path(), &e);
    CHECK(g);
    size_t n = (size_t)1370 * 384;
    float *full = weight_vector(g, "v.position_embd_full.weight", n, &e);
    CHECK(full);
    float *made = mem_alloc((size_t)256 * 384, sizeof *made);
    CHECK(made);
    CHECK_INT(op_resize_bicubic(full + 384, 37, 37, made, 16, 16, 384, -0.75f, 0), ==, 0);
    const float *positions = vision_tower(v)->positions;
    CHECK(test_same_bits(positions, full, 384)); /* class token first */
    /* double and fp32 sums of 16 products */
    CHECK_DOUBLE(test_max_diff(positions + 384, made, (size_t)256 * 384), <=, 1e-5);
    mem_free(made);
    mem_free(full);
    gguf_close(g);
    vision_close(v);
}

/* -- files ------------------------------------------------------------------------------ */

static void refuse(const struct tiny_clip *t, const char *word)
{
    char path[64];
    struct err e = ERR_INIT;
    tiny_clip_write(t, path);
    struct vision *v = vision_open(path, &e);
    unlink(path);
    if (v) {
        FAIL("opened although %s should be refused", word);
    }
    if (!strstr(e.msg, word)) {
        FAIL("\"%s\" does not name %s", e.msg, word);
    }
}

TEST(vit_keys, "every clip.* number out of range is an error that names the key")
{
    static const struct {
        const char *key;
        int64_t bad[4];
    } cases[] = {
        {"clip.vision.image_size", {0, -1, 4097, 1}},
        {"clip.vision.patch_size", {0, -1, 257, 9}},
        {"clip.vision.embedding_length", {0, -1, 16385, INT64_MAX}},
        {"clip.vision.feed_forward_length", {0, -1, 65537, INT64_MIN}},
        {"clip.vision.block_count", {0, -1, 257, 1 << 30}},
        {"clip.vision.attention.head_count", {0, -1, 257, 3}},
        {"clip.vision.projector.scale_factor", {0, -1, 17, 3}},
        {"clip.vision.projection_dim", {0, -1, 65537, INT64_MAX}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int k = 0; k < 4; k++) {
            struct tiny_clip t = tiny_clip_default;
            t.scale_factor = 1;
            t.set_key = cases[i].key;
            t.set_value = cases[i].bad[k];
            /* a picture smaller than a patch is told by the patch's key */
            bool crossed = i == 0 && k == 3;
            refuse(&t, crossed ? "clip.vision.patch_size" : cases[i].key);
        }
    }
}

TEST(vit_missing, "missing keys and tensors are errors that name them")
{
    static const char *const keys[] = {"general.architecture",
                                       "clip.projector_type",
                                       "clip.vision.image_size",
                                       "clip.vision.patch_size",
                                       "clip.vision.embedding_length",
                                       "clip.vision.feed_forward_length",
                                       "clip.vision.block_count",
                                       "clip.vision.attention.head_count",
                                       "clip.vision.attention.layer_norm_epsilon",
                                       "clip.vision.image_mean",
                                       "clip.vision.image_std"};
    static const char *const tensors[] = {"v.patch_embd.weight",   "v.position_embd.weight",
                                          "v.blk.1.attn_k.weight", "v.blk.0.ffn_down.weight",
                                          "v.blk.1.ln2.bias",      "v.post_ln.bias",
                                          "mm.model.mlp.3.weight", "mm.model.mlp.0.bias"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct tiny_clip t = tiny_clip_default;
        t.skip_key = keys[i];
        refuse(&t, keys[i]);
    }
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        struct tiny_clip t = tiny_clip_default;
        t.skip_tensor = tensors[i];
        refuse(&t, tensors[i]);
    }
    struct tiny_clip t = tiny_clip_default;
    t.projector = "qwen2vl_merger";
    refuse(&t, "clip.projector_type");
}

TEST(vit_no_memory, "every failing allocation while opening and encoding is an error, no leak")
{
    char path[64];
    tiny_clip_write(&tiny_clip_default, path);
    float pixels[3 * 8 * 8] = {0};
    struct err e = ERR_INIT;
    struct compute c = {.pool = NULL, .kernels = kernels_choose(NULL, &e)};
    bool done = false;
    int n_failed = 0;
    for (long at = 1; !done; at++) {
        struct arena a;
        struct arena scratch;
        struct rows r[2];
        arena_init(&a, 1 << 24);
        arena_init(&scratch, 1 << 24);
        alloc_fail_at(at);
        struct vision *v = vision_open(path, &e);
        const struct vision_picture two[2] = {{pixels, NULL, &a, &r[0], 0},
                                              {pixels, NULL, &a, &r[1], 0}};
        done = v && vision_encode(v, two, 2, &c, &scratch, &e) == 0;
        done &= alloc_count() < at;
        n_failed += !done;
        vision_close(v);
        arena_clear(&a);
        arena_clear(&scratch);
        CHECK_INT(at, <, 1000);
    }
    alloc_fail_at(0);
    unlink(path);
    CHECK_INT(n_failed, >, 40);
}
