/* What the tests of vision/ share: the default file opened, pictures as its input, and
 * tiny vision files with random weights written on the spot. */
#ifndef TAMP_TESTS_UNIT_VISION_FIXTURE_H
#define TAMP_TESTS_UNIT_VISION_FIXTURE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/threads.h"
#include "tensor/compute.h"
#include "vision/vision.h"
#include "vision/vision_impl.h"

struct vision_fixture {
    struct vision *v;
    struct pool *pool;
    struct compute compute;
    struct arena arena, scratch;
};

void vision_fixture_open(struct vision_fixture *f, const char *path, int image_size, int n_threads);
void vision_fixture_close(struct vision_fixture *f);
/* tests/golden/<name> decoded and normalised; from the fixture's arena. */
float *vision_fixture_picture(struct vision_fixture *f, const char *name);
/* One picture alone, rows from the fixture's arena; and through the tower only, from its
 * scratch, with compute's kernels. */
struct rows vision_fixture_encode(struct vision_fixture *f, const float *pixels,
                                  const struct stage_hook *hook);
struct rows vision_fixture_tower(struct vision_fixture *f, const float *pixels,
                                 const struct stage_hook *hook, const struct compute *c);

/* A tiny file: 2 blocks of width 8 with 2 heads, patches of 2 pixels, 12 output columns. */
struct tiny_clip {
    const char *projector;
    int image_size;
    int scale_factor; /* 0 = no such key */
    bool class_token;
    int n_layer;
    const char *skip_key; /* leave this key out */
    const char *set_key;  /* write this integer key with set_value instead */
    int64_t set_value;
    const char *skip_tensor;
    const char *legacy_names; /* "1": ffn_up and ffn_down exchanged */
    uint64_t seed;
    int n_out; /* width of the rows */
};
extern const struct tiny_clip tiny_clip_default;

#define TINY_EMBD 8
#define TINY_FF   20
#define TINY_HEAD 2
#define TINY_OUT  12

/* Writes it to a new temporary file; path [64]. The caller unlinks. */
void tiny_clip_write(const struct tiny_clip *t, char *path);

#endif
