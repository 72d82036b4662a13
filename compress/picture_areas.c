#include "compress/picture_areas.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* Print on product photos, as drawn and photographed samples of tests show it at cells of 14
 * pixels: contrast of at least 24 of 255 about the mean, a stroke every seven pixels or
 * denser one way and some the other way, and two modes that explain most of the spread (a smooth
 * ramp 0.75, noise 0.64). */
#define LEAST_DEVIATION 24.0
#define LEAST_CROSSINGS 1.6
#define LEAST_OTHER_WAY 0.5 /* stripes are no print */
#define LEAST_GRADIENT  14.0
#define LEAST_BIMODAL   0.7
/* Fluctuations below this share of the deviation are no strokes. */
#define HYSTERESIS 0.4

void areas_mark_box(float left, float top, float right, float bottom, int side, uint8_t *mask)
{
    for (int y = 0; y < side; y++) {
        for (int x = 0; x < side; x++) {
            bool inside = (float)(x + 1) > left * (float)side && (float)x < right * (float)side &&
                          (float)(y + 1) > top * (float)side && (float)y < bottom * (float)side;
            mask[y * side + x] |= inside;
        }
    }
}

struct cell {
    const uint8_t *rgb; /* its first pixel */
    size_t stride;      /* bytes from line to line */
    int n;              /* pixels a side */
};

static struct cell cell_at(const uint8_t *rgb, int size, int side, int x, int y)
{
    int n = size / side;
    size_t stride = (size_t)size * 3;
    return (struct cell){rgb + (size_t)(y * n) * stride + (size_t)(x * n) * 3, stride, n};
}

static double luminance(const struct cell *c, int x, int y)
{
    const uint8_t *p = c->rgb + (size_t)y * c->stride + (size_t)x * 3;
    return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

/* How often a line of n values, `across` or down, changes sides about the mean. */
static int crossings(const struct cell *c, int line, bool across, double mean, double least)
{
    int side = 0;
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        double off = luminance(c, across ? i : line, across ? line : i) - mean;
        int now = off > least ? 1 : off < -least ? -1 : side;
        n += now != side && side != 0;
        side = now;
    }
    return n;
}

/* Share of the variance that is between what is above the mean and what is below. */
static double bimodality(const struct cell *c, double mean, double variance)
{
    double above = 0;
    double sum_above = 0;
    double n = (double)c->n * c->n;
    for (int y = 0; y < c->n; y++) {
        for (int x = 0; x < c->n; x++) {
            double l = luminance(c, x, y);
            above += l > mean;
            sum_above += l > mean ? l : 0;
        }
    }
    if (above == 0 || above == n) {
        return 0;
    }
    double gap = sum_above / above - (mean * n - sum_above) / (n - above);
    return above / n * (1 - above / n) * gap * gap / variance;
}

static bool has_strokes(const struct cell *c)
{
    double n = (double)c->n * c->n;
    double sum = 0;
    double squares = 0;
    double gradient = 0;
    for (int y = 0; y < c->n; y++) {
        for (int x = 0; x < c->n; x++) {
            double l = luminance(c, x, y);
            sum += l;
            squares += l * l;
            gradient += x > 0 ? fabs(l - luminance(c, x - 1, y)) : 0;
            gradient += y > 0 ? fabs(l - luminance(c, x, y - 1)) : 0;
        }
    }
    double mean = sum / n;
    double variance = squares / n - mean * mean;
    if (variance < LEAST_DEVIATION * LEAST_DEVIATION || gradient / n < LEAST_GRADIENT) {
        return false;
    }
    double across = 0;
    double down = 0;
    for (int line = 0; line < c->n; line++) {
        across += crossings(c, line, true, mean, HYSTERESIS * sqrt(variance));
        down += crossings(c, line, false, mean, HYSTERESIS * sqrt(variance));
    }
    double more = across > down ? across : down;
    double fewer = across > down ? down : across;
    return more / c->n >= LEAST_CROSSINGS && fewer / c->n >= LEAST_OTHER_WAY &&
           bimodality(c, mean, variance) >= LEAST_BIMODAL;
}

int areas_mark_print(const uint8_t *rgb, int size, int side, uint8_t *mask)
{
    int found = 0;
    for (int y = 0; y < side; y++) {
        bool before = false;
        bool marked = false; /* the cell before is marked already */
        for (int x = 0; x < side; x++) {
            struct cell c = cell_at(rgb, size, side, x, y);
            bool now = has_strokes(&c);
            if (now && before) {
                found += marked ? 1 : 2;
                mask[y * side + x - 1] = 1;
                mask[y * side + x] = 1;
            }
            marked = now && before;
            before = now;
        }
    }
    return found;
}

void areas_digest(const uint8_t *rgb, int size, int side, uint64_t *digest)
{
    for (int i = 0; i < side * side; i++) {
        struct cell c = cell_at(rgb, size, side, i % side, i / side);
        uint64_t h = 14695981039346656037u; /* FNV-1a */
        for (int y = 0; y < c.n; y++) {
            for (int b = 0; b < c.n * 3; b++) {
                h = (h ^ c.rgb[(size_t)y * c.stride + (size_t)b]) * 1099511628211u;
            }
        }
        digest[i] = h;
    }
}
