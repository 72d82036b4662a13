/* Resizing goes across first, in stripes of rows, and then down, so that the fp32 copy of
 * a large photo never exists as a whole: 64 rows of it do. */
#include "vision/preprocess.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "tensor/ops.h"
#include "vision/projector.h"

#include <math.h>
#include <string.h>

#define STRIPE_ROWS 64
#define PILLOW_A    (-0.5f)

static const uint8_t border[3] = {122, 116, 104};

static uint8_t to_byte(float v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)(v + 0.5f);
}

/* rows [n, 3] bytes -> [n, 4] floats: with a fourth channel a pixel is one vector. */
static void widen(const uint8_t *rgb, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[4 * i] = (float)rgb[3 * i];
        out[4 * i + 1] = (float)rgb[3 * i + 1];
        out[4 * i + 2] = (float)rgb[3 * i + 2];
        out[4 * i + 3] = 0;
    }
}

/* across [im->height, width, 4], rounded and clipped: Pillow keeps bytes between the two
 * passes, so overshoot at an edge does not reach the second one. */
static int resize_across(const struct image *im, int width, float *across, float *stripe)
{
    for (int y = 0; y < im->height; y += STRIPE_ROWS) {
        int rows = im->height - y < STRIPE_ROWS ? im->height - y : STRIPE_ROWS;
        float *to = across + (size_t)y * (size_t)width * 4;
        widen(im->rgb + (size_t)y * (size_t)im->width * 3, (size_t)rows * (size_t)im->width,
              stripe);
        if (op_resize_bicubic(stripe, rows, im->width, to, rows, width, 4, PILLOW_A, 1)) {
            return -1;
        }
        for (size_t i = 0; i < (size_t)rows * (size_t)width * 4; i++) {
            to[i] = (float)to_byte(to[i]);
        }
    }
    return 0;
}

struct frame { /* where the picture lies in the square */
    int x, y, width, height;
};

static struct frame frame_of(const struct clip_params *p, int width, int height)
{
    int size = p->image_size;
    struct frame f = {0, 0, size, size};
    if (!p->projector->pad_to_square || width == height) {
        return f;
    }
    double longer = width > height ? width : height;
    f.width = (int)ceil(width * size / longer);
    f.height = (int)ceil(height * size / longer);
    f.width = f.width > size ? size : f.width;
    f.height = f.height > size ? size : f.height;
    f.x = (size - f.width) / 2;
    f.y = (size - f.height) / 2;
    return f;
}

static void paste(const struct frame *f, const float *pixels, int size, uint8_t *rgb)
{
    for (size_t i = 0; i < (size_t)size * (size_t)size * 3; i++) {
        rgb[i] = border[i % 3];
    }
    for (int y = 0; y < f->height; y++) {
        uint8_t *to = rgb + ((size_t)(f->y + y) * (size_t)size + (size_t)f->x) * 3;
        const float *from = pixels + (size_t)y * (size_t)f->width * 4;
        for (int x = 0; x < f->width; x++, to += 3, from += 4) {
            to[0] = to_byte(from[0]);
            to[1] = to_byte(from[1]);
            to[2] = to_byte(from[2]);
        }
    }
}

int preprocess_resize(const struct clip_params *p, const struct image *im, uint8_t *rgb,
                      struct err *e)
{
    struct frame f = frame_of(p, im->width, im->height);
    size_t stripe_floats;
    size_t across_floats;
    if (!ck_mul((size_t)im->width * 4, STRIPE_ROWS, &stripe_floats) ||
        !ck_mul((size_t)im->height, (size_t)f.width * 4, &across_floats)) {
        return err_no_memory(e, ~0ull);
    }
    float *stripe = mem_alloc(stripe_floats, sizeof *stripe);
    float *across = mem_alloc(across_floats, sizeof *across);
    float *done = mem_alloc((size_t)f.width * (size_t)f.height * 4, sizeof *done);
    int failed =
        !stripe || !across || !done || resize_across(im, f.width, across, stripe) ||
        op_resize_bicubic(across, im->height, f.width, done, f.height, f.width, 4, PILLOW_A, 1);
    if (!failed) {
        paste(&f, done, p->image_size, rgb);
    }
    mem_free(stripe);
    mem_free(across);
    mem_free(done);
    return failed ? err_no_memory(e, across_floats * sizeof *across) : 0;
}

void preprocess_frame(const struct clip_params *p, int width, int height, float frame[4])
{
    struct frame f = frame_of(p, width, height);
    float size = (float)p->image_size;
    frame[0] = (float)f.x / size;
    frame[1] = (float)f.y / size;
    frame[2] = (float)f.width / size;
    frame[3] = (float)f.height / size;
}

void preprocess_bytes(const struct clip_params *p, const float *pixels, uint8_t *rgb)
{
    size_t plane = (size_t)p->image_size * (size_t)p->image_size;
    for (size_t i = 0; i < 3 * plane; i++) {
        rgb[i] = to_byte((pixels[i % 3 * plane + i / 3] * p->std[i % 3] + p->mean[i % 3]) * 255);
    }
}

static void normalise(const struct clip_params *p, const uint8_t *rgb, float *out)
{
    size_t plane = (size_t)p->image_size * (size_t)p->image_size;
    for (size_t c = 0; c < 3; c++) {
        for (size_t i = 0; i < plane; i++) {
            out[c * plane + i] = ((float)rgb[3 * i + c] / 255.0f - p->mean[c]) / p->std[c];
        }
    }
}

int preprocess_image(const struct clip_params *p, const struct image *im, struct arena *a,
                     float **out, struct err *e)
{
    size_t n = (size_t)p->image_size * (size_t)p->image_size * 3;
    float *pixels = arena_alloc(a, n, sizeof *pixels);
    if (!pixels) {
        return err_no_memory(e, n * sizeof *pixels);
    }
    if (im->width == p->image_size && im->height == p->image_size) {
        normalise(p, im->rgb, pixels);
        *out = pixels;
        return 0;
    }
    uint8_t *rgb = mem_alloc(n, 1);
    if (!rgb) {
        return err_no_memory(e, n);
    }
    int result = preprocess_resize(p, im, rgb, e);
    if (result == 0) {
        normalise(p, rgb, pixels);
        *out = pixels;
    }
    mem_free(rgb);
    return result;
}
