/* Bytes -> pixels: our scan, the helper, then each row put where its orientation says. */
#include "vision/image.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "vision/decode_worker.h"
#include "vision/vision_impl.h"

#include <stdbool.h>

struct placement {
    uint8_t *rgb;
    int width, height; /* as stored */
    int orientation;
};

/* Where pixel (0, y) of the stored picture goes, and how far it is to (1, y), in
 * pixels of the oriented one. Orientations as in EXIF 2.3: which stored edge is on top. */
static void place(const struct placement *p, int64_t y, int64_t *start, int64_t *step)
{
    int64_t w = p->width;
    int64_t h = p->height;
    switch (p->orientation) {
    case 2:
        *start = y * w + w - 1, *step = -1;
        return;
    case 3:
        *start = (h - 1 - y) * w + w - 1, *step = -1;
        return;
    case 4:
        *start = (h - 1 - y) * w, *step = 1;
        return;
    case 5:
        *start = y, *step = h;
        return;
    case 6:
        *start = h - 1 - y, *step = h;
        return;
    case 7:
        *start = (w - 1) * h + h - 1 - y, *step = -h;
        return;
    case 8:
        *start = (w - 1) * h + y, *step = -h;
        return;
    default:
        *start = y * w, *step = 1;
    }
}

static void place_row(void *ctx, int y, const uint8_t *rgb)
{
    const struct placement *p = ctx;
    int64_t start;
    int64_t step;
    place(p, y, &start, &step);
    uint8_t *to = p->rgb + start * 3;
    if (step == 1) {
        memcpy(to, rgb, (size_t)p->width * 3);
        return;
    }
    for (int x = 0; x < p->width; x++, rgb += 3) {
        uint8_t *pixel = to + (int64_t)x * step * 3;
        pixel[0] = rgb[0];
        pixel[1] = rgb[1];
        pixel[2] = rgb[2];
    }
}

int image_decode_unscanned(const uint8_t *bytes, size_t n, const struct image_facts *facts,
                           uint64_t budget, struct image *out, uint64_t *peak_bytes, struct err *e)
{
    size_t pixels;
    if (!ck_mul((size_t)facts->width, (size_t)facts->height, &pixels)) {
        return err_no_memory(e, ~0ull);
    }
    bool turned = facts->orientation >= 5;
    struct image im = {.width = turned ? facts->height : facts->width,
                       .height = turned ? facts->width : facts->height,
                       .rgb = mem_alloc(pixels, 3)};
    if (!im.rgb) {
        return err_no_memory(e, 3ull * pixels);
    }
    struct placement p = {im.rgb, facts->width, facts->height, facts->orientation};
    struct decode_sink sink = {place_row, &p};
    if (decode_worker_run(bytes, n, facts, budget, &sink, peak_bytes, e)) {
        mem_free(im.rgb);
        return -1;
    }
    *out = im;
    return 0;
}

int image_decode_measured(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                          struct image *out, uint64_t *peak_bytes, struct err *e)
{
    struct image_facts facts;
    if (image_scan_facts(bytes, n, limits, &facts, e)) {
        return -1;
    }
    uint64_t budget =
        4 * (uint64_t)facts.width * (uint64_t)facts.height + (uint64_t)limits->memory_bytes;
    return image_decode_unscanned(bytes, n, &facts, budget, out, peak_bytes, e);
}

int image_decode(const uint8_t *bytes, size_t n, const struct image_limits *limits,
                 struct image *out, struct err *e)
{
    return image_decode_measured(bytes, n, limits, out, NULL, e);
}

void image_free(struct image *im)
{
    mem_free(im->rgb);
    *im = (struct image){0};
}
