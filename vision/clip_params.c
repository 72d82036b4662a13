#include "vision/clip_params.h"

#include "vision/projector.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bounds: several times what published towers have, and small enough that no product of
 * two of them leaves an int. */
#define MAX_PATCHES 16384

enum { REQUIRED = 1 };

struct int_key {
    const char *name;
    int64_t min, max;
    int flags;
    size_t offset; /* into clip_params; SIZE_MAX = checked, not used */
};

#define AT(field) offsetof(struct clip_params, field)

static const struct int_key int_keys[] = {
    {"clip.vision.image_size", 1, 4096, REQUIRED, AT(image_size)},
    {"clip.vision.patch_size", 1, 256, REQUIRED, AT(patch_size)},
    {"clip.vision.embedding_length", 1, 16384, REQUIRED, AT(n_embd)},
    {"clip.vision.feed_forward_length", 1, 65536, REQUIRED, AT(n_ff)},
    {"clip.vision.block_count", 1, 256, REQUIRED, AT(n_layer)},
    {"clip.vision.attention.head_count", 1, 256, REQUIRED, AT(n_head)},
    {"clip.vision.projector.scale_factor", 1, 16, 0, AT(scale_factor)},
    {"clip.vision.projection_dim", 1, 65536, 0, SIZE_MAX},
    {"clip.vision.preproc_min_tiles", 0, 1024, 0, SIZE_MAX},
    {"clip.vision.preproc_max_tiles", 0, 1024, 0, SIZE_MAX},
    {"clip.vision.preproc_image_size", 1, 65536, 0, SIZE_MAX},
};

static int key_error(const struct gguf *g, const char *key, const char *why, struct err *e)
{
    return err_set(e, ERR_RANGE, "%.200s: %s %s", gguf_path(g), key, why);
}

static int read_ints(struct clip_params *p, const struct gguf *g, struct err *e)
{
    for (size_t i = 0; i < sizeof int_keys / sizeof *int_keys; i++) {
        const struct int_key *k = &int_keys[i];
        int64_t v = 0;
        int found = gguf_get_int(g, k->name, k->min, k->max, &v, e);
        if (found < 0) {
            return -1;
        }
        if (found == GGUF_ABSENT && (k->flags & REQUIRED)) {
            return key_error(g, k->name, "is missing", e);
        }
        if (found == GGUF_FOUND && k->offset != SIZE_MAX) {
            int narrow = (int)v;
            memcpy((char *)p + k->offset, &narrow, sizeof narrow);
        }
    }
    return 0;
}

static int read_eps(struct clip_params *p, const struct gguf *g, struct err *e)
{
    static const char key[] = "clip.vision.attention.layer_norm_epsilon";
    double eps;
    int found = gguf_get_float(g, key, 1e-12, 1e-2, &eps, e);
    if (found == GGUF_ABSENT) {
        return key_error(g, key, "is missing", e);
    }
    p->eps = (float)eps;
    return found;
}

static int read_triple(const struct gguf *g, const char *key, float min, float max, float out[3],
                       struct err *e)
{
    struct gguf_array a;
    int found = gguf_get_array(g, key, GGUF_F32, &a, e);
    if (found == GGUF_ABSENT) {
        return key_error(g, key, "is missing", e);
    }
    if (found < 0) {
        return -1;
    }
    if (a.n != 3) {
        return key_error(g, key, "must have 3 values", e);
    }
    memcpy(out, a.data, 3 * sizeof *out);
    for (int i = 0; i < 3; i++) {
        if (!(out[i] >= min && out[i] <= max)) {
            return key_error(g, key, "is out of range", e);
        }
    }
    return 0;
}

static int read_activation(struct clip_params *p, const struct gguf *g, struct err *e)
{
    bool gelu = false;
    bool silu = false;
    if (gguf_get_bool(g, "clip.use_gelu", &gelu, e) < 0 ||
        gguf_get_bool(g, "clip.use_silu", &silu, e) < 0) {
        return -1;
    }
    if (gelu && silu) {
        return key_error(g, "clip.use_gelu", "and clip.use_silu are both true", e);
    }
    p->activation = gelu ? p->projector->gelu : silu ? CLIP_SILU : CLIP_GELU_QUICK;
    return 0;
}

static int read_projector(struct clip_params *p, const struct gguf *g, struct err *e)
{
    struct gguf_string s;
    char name[64];
    int found = gguf_get_string(g, "clip.projector_type", &s, e);
    if (found == GGUF_ABSENT) {
        found = gguf_get_string(g, "clip.vision.projector_type", &s, e);
    }
    if (found == GGUF_ABSENT) {
        return key_error(g, "clip.projector_type", "is missing", e);
    }
    if (found < 0) {
        return -1;
    }
    snprintf(name, sizeof name, "%.*s", (int)(s.len < 63 ? s.len : 63), s.ptr);
    p->projector = projector_find(name);
    if (!p->projector) {
        return err_set(e, ERR_UNSUPPORTED,
                       "%.200s: clip.projector_type is \"%s\"; tamp has internvl, mlp, idefics3",
                       gguf_path(g), name);
    }
    return 0;
}

/* clip.vision.feature_layer: one number means the output of that many blocks. */
static int read_depth(struct clip_params *p, const struct gguf *g, struct err *e)
{
    static const char key[] = "clip.vision.feature_layer";
    p->n_run = p->n_layer - p->projector->n_skip_layers;
    struct gguf_array a;
    int found = gguf_get_array(g, key, GGUF_I32, &a, e);
    if (found < 0) {
        return -1;
    }
    if (found == GGUF_FOUND) {
        int32_t depth = 0;
        if (a.n != 1) {
            return key_error(g, key, "names several layers; tamp takes one", e);
        }
        memcpy(&depth, a.data, sizeof depth);
        if (depth < 1 || depth > p->n_layer) {
            return key_error(g, key, "is out of range", e);
        }
        p->n_run = depth;
    }
    if (p->n_run < 1) {
        return key_error(g, "clip.vision.block_count", "leaves no block to run", e);
    }
    return 0;
}

static int check_heads(const struct clip_params *p, const struct gguf *g, struct err *e)
{
    int64_t n_head_kv = p->n_head;
    if (gguf_get_int(g, "clip.vision.attention.head_count_kv", 1, 256, &n_head_kv, e) < 0) {
        return -1;
    }
    if (n_head_kv != p->n_head) {
        return key_error(g, "clip.vision.attention.head_count_kv",
                         "differs from the number of heads", e);
    }
    if (p->n_embd % p->n_head) {
        return key_error(g, "clip.vision.attention.head_count",
                         "does not divide the embedding length", e);
    }
    return 0;
}

static int check_grid(struct clip_params *p, const struct gguf *g, struct err *e)
{
    p->n_side = p->image_size / p->patch_size;
    if (p->n_side < 1) {
        return key_error(g, "clip.vision.patch_size", "is larger than the picture", e);
    }
    if (p->n_side * p->n_side > MAX_PATCHES) {
        return key_error(g, "clip.vision.image_size", "gives too many patches", e);
    }
    if (p->scale_factor > p->n_side ||
        (p->projector->whole_blocks && p->n_side % p->scale_factor)) {
        return key_error(g, "clip.vision.projector.scale_factor",
                         "does not divide the grid of patches", e);
    }
    return 0;
}

int clip_params_read(struct clip_params *p, const struct gguf *g, int image_size, struct err *e)
{
    *p = (struct clip_params){.scale_factor = 1};
    bool has_tower = true;
    if (gguf_get_bool(g, "clip.has_vision_encoder", &has_tower, e) < 0) {
        return -1;
    }
    if (!has_tower) {
        return key_error(g, "clip.has_vision_encoder", "is false: the file cannot see", e);
    }
    if (read_projector(p, g, e) || read_ints(p, g, e) || read_eps(p, g, e) ||
        read_triple(g, "clip.vision.image_mean", -1, 2, p->mean, e) ||
        read_triple(g, "clip.vision.image_std", 1e-3f, 1e3f, p->std, e) ||
        read_activation(p, g, e) || read_depth(p, g, e) || check_heads(p, g, e)) {
        return -1;
    }
    p->image_size = image_size ? image_size : p->image_size;
    return check_grid(p, g, e);
}
