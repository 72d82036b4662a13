/* Tiny vision files with random weights, computed a second time in double and in the
 * plainest way: all three projectors, with and without class token and pixel shuffle. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tensor/gguf.h"
#include "tensor/weight.h"
#include "tests/test.h"
#include "tests/unit/vision_fixture.h"
#include "vision/projector.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_ROWS 40
#define WIDTH    80

struct naive {
    const struct tiny_clip *t;
    struct gguf *g;
    int n_side, n_class, n; /* rows with class token */
    double x[MAX_ROWS][WIDTH];
};

/* Elements of a tensor as they lie in the file; the caller frees. */
static float *tensor(const struct naive *v, const char *name)
{
    struct err e = ERR_INIT;
    const struct gguf_tensor *t = gguf_find_tensor(v->g, name);
    if (!t) {
        FAIL("no tensor %s", name);
    }
    float *data =
        weight_vector(v->g, name, (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]), &e);
    CHECK(data);
    return data;
}

static float *named(const struct naive *v, const char *name, const char *suffix)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    return tensor(v, full);
}

static void linear(const struct naive *v, const char *name, bool has_bias, const double *x,
                   int n_in, double *y, int n_out)
{
    float *w = named(v, name, "weight");
    float *b = has_bias ? named(v, name, "bias") : NULL;
    for (int o = 0; o < n_out; o++) {
        y[o] = b ? (double)b[o] : 0;
        for (int i = 0; i < n_in; i++) {
            y[o] += (double)w[o * n_in + i] * x[i];
        }
    }
    mem_free(w);
    mem_free(b);
}

static void norm(const struct naive *v, const char *name, double *x, int n, double eps)
{
    float *w = named(v, name, "weight");
    float *b = named(v, name, "bias");
    double mean = 0;
    double var = 0;
    for (int i = 0; i < n; i++) {
        mean += x[i] / n;
    }
    for (int i = 0; i < n; i++) {
        var += (x[i] - mean) * (x[i] - mean) / n;
    }
    for (int i = 0; i < n; i++) {
        x[i] = (x[i] - mean) / sqrt(var + eps) * (double)w[i] + (double)b[i];
    }
    mem_free(w);
    mem_free(b);
}

static double gelu(double x, bool exact)
{
    return exact ? 0.5 * x * (1 + erf(x / sqrt(2)))
                 : 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void embed(struct naive *v, const float *pixels)
{
    bool class_last = strcmp(v->t->projector, "internvl") == 0;
    int size = v->t->image_size;
    int n_patches = v->n_side * v->n_side;
    float *w = tensor(v, "v.patch_embd.weight");
    float *b = tensor(v, "v.patch_embd.bias");
    float *pos = tensor(v, "v.position_embd.weight");
    float *cls = v->n_class ? tensor(v, "v.class_embd") : NULL;
    for (int d = 0; d < TINY_EMBD; d++) {
        int class_pos = class_last ? n_patches : 0;
        if (cls) {
            v->x[0][d] = (double)cls[d] + (double)pos[class_pos * TINY_EMBD + d];
        }
        for (int p = 0; p < n_patches; p++) {
            int place = p + (cls && !class_last ? 1 : 0);
            double sum = (double)b[d] + (double)pos[place * TINY_EMBD + d];
            for (int k = 0; k < 12; k++) { /* channel, y, x */
                int row = p / v->n_side * 2 + k % 4 / 2;
                int col = p % v->n_side * 2 + k % 2;
                sum += (double)w[d * 12 + k] * (double)pixels[(k / 4 * size + row) * size + col];
            }
            v->x[p + v->n_class][d] = sum;
        }
    }
    mem_free(w);
    mem_free(b);
    mem_free(pos);
    mem_free(cls);
}

static void attend(struct naive *v, int layer)
{
    static double q[MAX_ROWS][WIDTH];
    static double k[MAX_ROWS][WIDTH];
    static double val[MAX_ROWS][WIDTH];
    int dim = TINY_EMBD / TINY_HEAD;
    char name[64];
    for (int i = 0; i < v->n; i++) {
        double y[WIDTH];
        memcpy(y, v->x[i], sizeof y);
        snprintf(name, sizeof name, "v.blk.%d.ln1", layer);
        norm(v, name, y, TINY_EMBD, 1e-6);
        snprintf(name, sizeof name, "v.blk.%d.attn_q", layer);
        linear(v, name, true, y, TINY_EMBD, q[i], TINY_EMBD);
        snprintf(name, sizeof name, "v.blk.%d.attn_k", layer);
        linear(v, name, true, y, TINY_EMBD, k[i], TINY_EMBD);
        snprintf(name, sizeof name, "v.blk.%d.attn_v", layer);
        linear(v, name, true, y, TINY_EMBD, val[i], TINY_EMBD);
    }
    for (int i = 0; i < v->n; i++) {
        double mixed[WIDTH] = {0};
        double out[WIDTH];
        for (int h = 0; h < TINY_HEAD; h++) {
            double p[MAX_ROWS];
            double sum = 0;
            for (int j = 0; j < v->n; j++) {
                double dot = 0;
                for (int d = h * dim; d < (h + 1) * dim; d++) {
                    dot += q[i][d] * k[j][d];
                }
                p[j] = exp(dot / sqrt(dim));
                sum += p[j];
            }
            for (int j = 0; j < v->n; j++) {
                for (int d = h * dim; d < (h + 1) * dim; d++) {
                    mixed[d] += p[j] / sum * val[j][d];
                }
            }
        }
        snprintf(name, sizeof name, "v.blk.%d.attn_out", layer);
        linear(v, name, true, mixed, TINY_EMBD, out, TINY_EMBD);
        for (int d = 0; d < TINY_EMBD; d++) {
            v->x[i][d] += out[d];
        }
    }
}

static void feed_forward(struct naive *v, int layer, bool exact)
{
    bool swapped = v->t->legacy_names != NULL;
    char up[64];
    char down[64];
    char ln[64];
    snprintf(up, sizeof up, "v.blk.%d.%s", layer, swapped ? "ffn_down" : "ffn_up");
    snprintf(down, sizeof down, "v.blk.%d.%s", layer, swapped ? "ffn_up" : "ffn_down");
    snprintf(ln, sizeof ln, "v.blk.%d.ln2", layer);
    for (int i = 0; i < v->n; i++) {
        double y[WIDTH];
        double hidden[TINY_FF];
        double out[WIDTH];
        memcpy(y, v->x[i], sizeof y);
        norm(v, ln, y, TINY_EMBD, 1e-6);
        linear(v, up, true, y, TINY_EMBD, hidden, TINY_FF);
        for (int d = 0; d < TINY_FF; d++) {
            hidden[d] = gelu(hidden[d], exact);
        }
        linear(v, down, true, hidden, TINY_FF, out, TINY_EMBD);
        for (int d = 0; d < TINY_EMBD; d++) {
            v->x[i][d] += out[d];
        }
    }
}

/* The patches of output row r side by side; patches beyond the grid are zero. */
static void gather(const struct naive *v, int r, int s, double *y)
{
    int side = (v->n_side + s - 1) / s;
    memset(y, 0, (size_t)(TINY_EMBD * s * s) * sizeof *y);
    for (int dy = 0; dy < s; dy++) {
        for (int dx = 0; dx < s; dx++) {
            int row = r / side * s + dy;
            int col = r % side * s + dx;
            if (row < v->n_side && col < v->n_side) {
                memcpy(y + (dy * s + dx) * TINY_EMBD, v->x[v->n_class + row * v->n_side + col],
                       TINY_EMBD * sizeof *y);
            }
        }
    }
}

static void project(const struct naive *v, int s, double *y, double *out)
{
    double hidden[10];
    if (strcmp(v->t->projector, "idefics3") == 0) {
        linear(v, "mm.model.fc", false, y, TINY_EMBD * s * s, out, TINY_OUT);
        return;
    }
    bool internvl = strcmp(v->t->projector, "internvl") == 0;
    if (internvl) {
        norm(v, "mm.model.mlp.0", y, TINY_EMBD * s * s, 1e-5);
    }
    linear(v, internvl ? "mm.model.mlp.1" : "mm.0", true, y, TINY_EMBD * s * s, hidden, 10);
    for (int i = 0; i < 10; i++) {
        hidden[i] = gelu(hidden[i], true);
    }
    linear(v, internvl ? "mm.model.mlp.3" : "mm.2", true, hidden, 10, out, TINY_OUT);
}

static int naive_encode(const struct tiny_clip *t, const char *path, const float *pixels,
                        double out[MAX_ROWS][TINY_OUT])
{
    static struct naive v;
    struct err e = ERR_INIT;
    int s = t->scale_factor ? t->scale_factor : 1;
    v = (struct naive){
        .t = t, .g = gguf_open(path, &e), .n_side = t->image_size / 2, .n_class = t->class_token};
    CHECK(v.g);
    v.n = v.n_class + v.n_side * v.n_side;
    CHECK_INT(v.n, <=, MAX_ROWS);
    embed(&v, pixels);
    int n_run = t->n_layer - (strcmp(t->projector, "mlp") == 0);
    for (int i = 0; i < n_run; i++) {
        attend(&v, i);
        feed_forward(&v, i, strcmp(t->projector, "idefics3") != 0);
    }
    for (int i = 0; i < v.n; i++) {
        norm(&v, "v.post_ln", v.x[i], TINY_EMBD, 1e-6);
    }
    int side = (v.n_side + s - 1) / s;
    for (int r = 0; r < side * side; r++) {
        double y[WIDTH];
        gather(&v, r, s, y);
        project(&v, s, y, out[r]);
    }
    gguf_close(v.g);
    return side * side;
}

static void compare(const struct tiny_clip *t)
{
    static double want[MAX_ROWS][TINY_OUT];
    char path[64];
    struct vision_fixture f;
    struct rows r;
    struct rng rng;
    struct err e = ERR_INIT;
    float pixels[3 * 12 * 12];
    rng_init(&rng, test_seed() + t->seed);
    for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++) {
        pixels[i] = (float)(4 * rng_double(&rng) - 2);
    }
    tiny_clip_write(t, path);
    vision_fixture_open(&f, path, 0, 2);
    r = vision_fixture_encode(&f, pixels, NULL);
    int n = naive_encode(t, path, pixels, want);
    unlink(path);
    CHECK_INT(r.n, ==, n);
    CHECK_INT(vision_info(f.v)->n_rows, ==, n);
    CHECK_INT(vision_info(f.v)->n_embd_out, ==, TINY_OUT);
    CHECK_OK(rows_check(&r, &e), e);
    for (int i = 0; i < n * TINY_OUT; i++) {
        /* fp32 through two blocks of norms and sums of at most 72 terms of size 1 */
        CHECK_DOUBLE(fabs((double)r.x[i] - want[i / TINY_OUT][i % TINY_OUT]), <=, 1e-4);
    }
    vision_fixture_close(&f);
}

TEST(projector_internvl, "internvl by rows and by blocks of 2 x 2 equals the formula")
{
    struct tiny_clip t = tiny_clip_default;
    compare(&t);
    t.scale_factor = 1;
    compare(&t);
    t.scale_factor = 2;
    compare(&t);
}

TEST(projector_mlp, "mlp equals the formula, with class token and without, old names or new")
{
    struct tiny_clip t = tiny_clip_default;
    t.projector = "mlp";
    compare(&t);
    t.class_token = false;
    compare(&t);
    t.legacy_names = "1";
    t.n_layer = 3;
    compare(&t);
}

TEST(projector_idefics3, "idefics3 equals the formula, also where blocks hang over the grid")
{
    struct tiny_clip t = tiny_clip_default;
    t.projector = "idefics3";
    t.class_token = false;
    t.scale_factor = 2;
    compare(&t);
    t.image_size = 10; /* 5 x 5 patches, 3 x 3 blocks */
    compare(&t);
    t.scale_factor = 3;
    t.image_size = 12;
    compare(&t);
}

TEST(projector_frames, "what stands around a picture in the prompt")
{
    CHECK_STR(projector_find("internvl")->text_before, "<img>");
    CHECK_STR(projector_find("internvl")->text_after, "</img>");
    CHECK_STR(projector_find("mlp")->text_before, "");
    CHECK_STR(projector_find("idefics3")->text_after, "<fake_token_around_image>");
    CHECK(projector_find("qwen2vl_merger") == NULL);
}

static bool never(void *ctx, int layer)
{
    (void)layer;
    FAIL("the hook of a projector that needs the grid was asked (%p)", ctx);
}

TEST(projector_no_merge, "with a scale factor the tower's hook is not used")
{
    char path[64];
    struct vision_fixture f;
    struct rows r;
    struct tiny_clip t = tiny_clip_default;
    float pixels[3 * 8 * 8] = {0};
    struct stage_hook hook = {never, NULL, NULL};
    t.scale_factor = 2;
    tiny_clip_write(&t, path);
    vision_fixture_open(&f, path, 0, 1);
    unlink(path);
    CHECK(!vision_info(f.v)->merge_in_tower);
    r = vision_fixture_encode(&f, pixels, &hook);
    CHECK_INT(r.n, ==, 4);
    CHECK_INT(r.n_source, ==, 16);
    for (int i = 0; i < 4; i++) {
        CHECK_DOUBLE(r.mass[i], ==, 4);
    }
    CHECK_DOUBLE(r.position[3], ==, 10); /* patch (2, 2) of 4 x 4 */
    vision_fixture_close(&f);
}
