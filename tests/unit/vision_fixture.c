#include "tests/unit/vision_fixture.h"

#include "base/alloc.h"
#include "base/rng.h"
#include "tensor/gguf.h"
#include "tensor/kernels.h"
#include "tests/test.h"
#include "vision/vit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void vision_fixture_open(struct vision_fixture *f, const char *path, int image_size, int n_threads)
{
    struct err e = ERR_INIT;
    *f = (struct vision_fixture){.v = vision_open_sized(path, image_size, &e)};
    if (!f->v) {
        FAIL("%s", e.msg);
    }
    f->pool = pool_new(n_threads, &e);
    f->compute = (struct compute){.pool = f->pool, .kernels = kernels_choose(NULL, &e)};
    if (!f->pool || !f->compute.kernels) {
        FAIL("%s", e.msg);
    }
    arena_init(&f->arena, (size_t)1 << 30);
    arena_init(&f->scratch, (size_t)1 << 30);
}

void vision_fixture_close(struct vision_fixture *f)
{
    arena_clear(&f->arena);
    arena_clear(&f->scratch);
    pool_free(f->pool);
    vision_close(f->v);
}

float *vision_fixture_picture(struct vision_fixture *f, const char *name)
{
    struct err e = ERR_INIT;
    struct image im;
    size_t n;
    float *pixels;
    char *path = test_golden_path(name);
    char *bytes = test_read_file(path, &n);
    CHECK_OK(image_decode((const uint8_t *)bytes, n, &image_limits_default, &im, &e), e);
    CHECK_OK(vision_preprocess(f->v, &im, 0, &f->arena, &pixels, &e), e);
    image_free(&im);
    mem_free(bytes);
    mem_free(path);
    return pixels;
}

struct rows vision_fixture_encode(struct vision_fixture *f, const float *pixels,
                                  const struct stage_hook *hook)
{
    struct err e = ERR_INIT;
    struct rows r;
    const struct vision_picture picture = {pixels, hook, &f->arena, &r, 0};
    CHECK_OK(vision_encode(f->v, &picture, 1, &f->compute, &f->scratch, &e), e);
    CHECK_INT(f->scratch.used_bytes, ==, 0);
    return r;
}

struct rows vision_fixture_tower(struct vision_fixture *f, const float *pixels,
                                 const struct stage_hook *hook, const struct compute *c)
{
    struct err e = ERR_INIT;
    struct vit_picture picture = {.pixels = pixels, .hook = hook};
    CHECK_OK(vit_encode(vision_tower(f->v), &picture, 1, c, &f->scratch, &e), e);
    return picture.rows;
}

/* -- a small GGUF writer ------------------------------------------------------------ */

const struct tiny_clip tiny_clip_default = {.projector = "internvl",
                                            .image_size = 8,
                                            .class_token = true,
                                            .n_layer = 2,
                                            .seed = 7,
                                            .n_out = TINY_OUT};

struct writer {
    const struct tiny_clip *t;
    struct buf keys, tensors, data;
    uint64_t n_keys, n_tensors;
    struct rng rng;
};

static void put(struct buf *b, const void *p, size_t n)
{
    buf_append(b, p, n);
}

static void put_u32(struct buf *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static void put_string(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_puts(b, s);
}

static bool begin_key(struct writer *w, const char *key, uint32_t type)
{
    if (w->t->skip_key && strcmp(w->t->skip_key, key) == 0) {
        return false;
    }
    put_string(&w->keys, key);
    put_u32(&w->keys, type);
    w->n_keys++;
    return true;
}

static void key_int(struct writer *w, const char *key, int64_t v)
{
    bool set = w->t->set_key && strcmp(w->t->set_key, key) == 0;
    if (begin_key(w, key, GGUF_I64)) {
        put_u64(&w->keys, (uint64_t)(set ? w->t->set_value : v));
    }
}

static void key_string(struct writer *w, const char *key, const char *v)
{
    if (begin_key(w, key, GGUF_STRING)) {
        put_string(&w->keys, v);
    }
}

static void key_float(struct writer *w, const char *key, float v)
{
    if (begin_key(w, key, GGUF_F32)) {
        put(&w->keys, &v, sizeof v);
    }
}

static void key_triple(struct writer *w, const char *key, float a, float b, float c)
{
    float v[3] = {a, b, c};
    if (begin_key(w, key, GGUF_ARRAY)) {
        put_u32(&w->keys, GGUF_F32);
        put_u64(&w->keys, 3);
        put(&w->keys, v, sizeof v);
    }
}

static void key_true(struct writer *w, const char *key)
{
    if (begin_key(w, key, GGUF_BOOL)) {
        buf_putc(&w->keys, 1);
    }
}

static void pad(struct buf *b)
{
    while (b->len % 32) {
        buf_putc(b, 0);
    }
}

/* Random values of about the size that keeps a tower of random weights tame. */
static void tensor(struct writer *w, const char *name, int n_dims, const uint64_t *ne)
{
    if (w->t->skip_tensor && strcmp(w->t->skip_tensor, name) == 0) {
        return;
    }
    put_string(&w->tensors, name);
    put_u32(&w->tensors, (uint32_t)n_dims);
    uint64_t n = 1;
    for (int d = 0; d < n_dims; d++) {
        put_u64(&w->tensors, ne[d]);
        n *= ne[d];
    }
    put_u32(&w->tensors, TENSOR_F32);
    put_u64(&w->tensors, w->data.len);
    w->n_tensors++;
    for (uint64_t i = 0; i < n; i++) {
        float v = (float)(rng_double(&w->rng) - 0.5);
        put(&w->data, &v, sizeof v);
    }
    pad(&w->data);
}

static void vector(struct writer *w, const char *name, uint64_t n)
{
    tensor(w, name, 1, &n);
}

static void linear(struct writer *w, const char *name, uint64_t n_in, uint64_t n_out)
{
    char full[64];
    uint64_t ne[2] = {n_in, n_out};
    snprintf(full, sizeof full, "%s.weight", name);
    tensor(w, full, 2, ne);
    snprintf(full, sizeof full, "%s.bias", name);
    vector(w, full, n_out);
}

static void norm(struct writer *w, const char *name, uint64_t n)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    vector(w, full, n);
    snprintf(full, sizeof full, "%s.bias", name);
    vector(w, full, n);
}

static void write_block(struct writer *w, int i)
{
    static const char *const square[] = {"attn_q", "attn_k", "attn_v", "attn_out"};
    bool swapped = w->t->legacy_names != NULL;
    char name[64];
    for (int k = 0; k < 4; k++) {
        snprintf(name, sizeof name, "v.blk.%d.%s", i, square[k]);
        linear(w, name, TINY_EMBD, TINY_EMBD);
    }
    snprintf(name, sizeof name, "v.blk.%d.%s", i, swapped ? "ffn_down" : "ffn_up");
    linear(w, name, TINY_EMBD, TINY_FF);
    snprintf(name, sizeof name, "v.blk.%d.%s", i, swapped ? "ffn_up" : "ffn_down");
    linear(w, name, TINY_FF, TINY_EMBD);
    snprintf(name, sizeof name, "v.blk.%d.ln1", i);
    norm(w, name, TINY_EMBD);
    snprintf(name, sizeof name, "v.blk.%d.ln2", i);
    norm(w, name, TINY_EMBD);
}

static void write_projector(struct writer *w)
{
    uint64_t s = w->t->scale_factor ? (uint64_t)w->t->scale_factor : 1;
    uint64_t n_in = TINY_EMBD * s * s;
    if (strcmp(w->t->projector, "internvl") == 0) {
        norm(w, "mm.model.mlp.0", n_in);
        linear(w, "mm.model.mlp.1", n_in, 10);
        linear(w, "mm.model.mlp.3", 10, (uint64_t)w->t->n_out);
    } else if (strcmp(w->t->projector, "mlp") == 0) {
        linear(w, "mm.0", TINY_EMBD, 10);
        linear(w, "mm.2", 10, (uint64_t)w->t->n_out);
    } else {
        uint64_t ne[2] = {n_in, (uint64_t)w->t->n_out};
        tensor(w, "mm.model.fc.weight", 2, ne);
    }
}

static void write_keys(struct writer *w)
{
    key_string(w, "general.architecture", "clip");
    key_string(w, "general.name", "tiny");
    key_true(w, "clip.has_vision_encoder");
    key_true(w, "clip.use_gelu");
    key_string(w, "clip.projector_type", w->t->projector);
    key_int(w, "clip.vision.image_size", w->t->image_size);
    key_int(w, "clip.vision.patch_size", 2);
    key_int(w, "clip.vision.embedding_length", TINY_EMBD);
    key_int(w, "clip.vision.feed_forward_length", TINY_FF);
    key_int(w, "clip.vision.block_count", w->t->n_layer);
    key_int(w, "clip.vision.attention.head_count", TINY_HEAD);
    key_float(w, "clip.vision.attention.layer_norm_epsilon", 1e-6f);
    key_int(w, "clip.vision.projection_dim", TINY_OUT);
    if (w->t->scale_factor) {
        key_int(w, "clip.vision.projector.scale_factor", w->t->scale_factor);
    }
    key_triple(w, "clip.vision.image_mean", 0.5f, 0.4f, 0.3f);
    key_triple(w, "clip.vision.image_std", 0.25f, 0.5f, 0.2f);
}

static void write_tensors(struct writer *w)
{
    uint64_t side = (uint64_t)w->t->image_size / 2;
    uint64_t patch[4] = {2, 2, 3, TINY_EMBD};
    uint64_t positions[2] = {TINY_EMBD, side * side + w->t->class_token};
    tensor(w, "v.patch_embd.weight", 4, patch);
    vector(w, "v.patch_embd.bias", TINY_EMBD);
    if (w->t->class_token) {
        vector(w, "v.class_embd", TINY_EMBD);
    }
    tensor(w, "v.position_embd.weight", 2, positions);
    for (int i = 0; i < w->t->n_layer; i++) {
        write_block(w, i);
    }
    norm(w, "v.post_ln", TINY_EMBD);
    write_projector(w);
}

void tiny_clip_write(const struct tiny_clip *t, char *path)
{
    struct writer w = {.t = t};
    struct buf head;
    buf_init(&w.keys, 1 << 20);
    buf_init(&w.tensors, 1 << 20);
    buf_init(&w.data, 1 << 24);
    buf_init(&head, 1 << 24);
    rng_init(&w.rng, t->seed);
    write_keys(&w);
    write_tensors(&w);
    buf_puts(&head, "GGUF");
    put_u32(&head, 3);
    put_u64(&head, w.n_tensors);
    put_u64(&head, w.n_keys);
    put(&head, w.keys.data, w.keys.len);
    put(&head, w.tensors.data, w.tensors.len);
    pad(&head);
    put(&head, w.data.data, w.data.len);
    snprintf(path, 64, "/tmp/tamp-clip-XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0 && !buf_failed(&head));
    CHECK_INT(write(fd, head.data, head.len), ==, (long long)head.len);
    close(fd);
    buf_free(&w.keys);
    buf_free(&w.tensors);
    buf_free(&w.data);
    buf_free(&head);
}
