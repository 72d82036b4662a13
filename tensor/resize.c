/* Bicubic resize as two one-dimensional passes, across and then down.
 *
 * The kernel is Keys' cubic (1981) with parameter a. Two border rules exist, and files
 * in the world depend on each: with antialias the taps outside the picture are dropped
 * and the rest is normalised (Pillow; torch with antialias), without it they read the
 * nearest edge pixel (torch, OpenCV). Both become the same thing here: for each output
 * position a first source index and a list of weights. */
#include "base/alloc.h"
#include "base/checked.h"
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

struct taps {
    int max;        /* weights for each output position */
    int *first;     /* [n] first source index */
    int *count;     /* [n] */
    float *weights; /* [n, max] */
};

static double cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static int clamp_index(int i, int n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Taps outside are dropped, the rest normalised to sum 1. */
static void dropped_taps(struct taps *t, int i, int n_src, double ratio, double a)
{
    double stretch = ratio > 1 ? ratio : 1;
    double centre = (i + 0.5) * ratio;
    int begin = (int)(centre - 2 * stretch + 0.5);
    int end = (int)(centre + 2 * stretch + 0.5);
    begin = begin < 0 ? 0 : begin;
    end = end > n_src ? n_src : end;
    double sum = 0;
    for (int s = begin; s < end; s++) {
        sum += cubic((s + 0.5 - centre) / stretch, a);
    }
    float *w = t->weights + (size_t)i * (size_t)t->max;
    for (int s = begin; s < end; s++) {
        w[s - begin] = (float)(cubic((s + 0.5 - centre) / stretch, a) / sum);
    }
    t->first[i] = begin;
    t->count[i] = end - begin;
}

/* Taps outside add their weight to the edge pixel. */
static void clamped_taps(struct taps *t, int i, int n_src, double ratio, double a)
{
    double at = (i + 0.5) * ratio - 0.5;
    int base = (int)floor(at);
    int begin = clamp_index(base - 1, n_src);
    int end = clamp_index(base + 2, n_src) + 1;
    float *w = t->weights + (size_t)i * (size_t)t->max;
    memset(w, 0, (size_t)t->max * sizeof *w);
    for (int s = base - 1; s <= base + 2; s++) {
        w[clamp_index(s, n_src) - begin] += (float)cubic(at - s, a);
    }
    t->first[i] = begin;
    t->count[i] = end - begin;
}

static void taps_free(struct taps *t)
{
    mem_free(t->first);
    mem_free(t->count);
    mem_free(t->weights);
}

static int taps_init(struct taps *t, int n_src, int n_dst, float a, int antialias)
{
    double ratio = (double)n_src / n_dst;
    *t = (struct taps){.max = antialias && ratio > 1 ? 2 * (int)ceil(2 * ratio) + 1 : 5};
    t->first = mem_alloc((size_t)n_dst, sizeof *t->first);
    t->count = mem_alloc((size_t)n_dst, sizeof *t->count);
    t->weights = mem_alloc((size_t)n_dst, (size_t)t->max * sizeof *t->weights);
    if (!t->first || !t->count || !t->weights) {
        taps_free(t);
        return -1;
    }
    for (int i = 0; i < n_dst; i++) {
        (antialias ? dropped_taps : clamped_taps)(t, i, n_src, ratio, (double)a);
    }
    return 0;
}

/* dst[j, c] = sum_s weight[j, s] src[first_j + s, c]: rows of n elements, `step` apart. */
static void apply(const struct taps *t, int n_dst, const float *src, float *dst, size_t step)
{
    for (int j = 0; j < n_dst; j++) {
        const float *w = t->weights + (size_t)j * (size_t)t->max;
        const float *from = src + (size_t)t->first[j] * step;
        float *to = dst + (size_t)j * step;
        memset(to, 0, step * sizeof *to);
        for (int s = 0; s < t->count[j]; s++) {
            for (size_t c = 0; c < step; c++) {
                to[c] += w[s] * from[(size_t)s * step + c];
            }
        }
    }
}

/* The same for step 4, the sum in one vector register: a large photo goes this way. */
static void apply4(const struct taps *t, int n_dst, const float *src, float *dst)
{
    for (int j = 0; j < n_dst; j++) {
        const float *w = t->weights + (size_t)j * (size_t)t->max;
        const float *from = src + (size_t)t->first[j] * 4;
        float sum[4] = {0};
        for (int s = 0; s < t->count[j]; s++) {
            for (int c = 0; c < 4; c++) {
                sum[c] += w[s] * from[4 * s + c];
            }
        }
        memcpy(dst + (size_t)j * 4, sum, sizeof sum);
    }
}

int op_resize_bicubic(const float *src, int src_h, int src_w, float *dst, int dst_h, int dst_w,
                      int channels, float a, int antialias)
{
    size_t row;
    struct taps across;
    struct taps down;
    if (!ck_mul((size_t)dst_w, (size_t)channels, &row) ||
        taps_init(&across, src_w, dst_w, a, antialias)) {
        return -1;
    }
    if (taps_init(&down, src_h, dst_h, a, antialias)) {
        taps_free(&across);
        return -1;
    }
    size_t bytes;
    float *middle = ck_mul(row, sizeof *middle, &bytes) ? mem_alloc((size_t)src_h, bytes) : NULL;
    if (middle) {
        for (int y = 0; y < src_h; y++) {
            const float *from = src + (size_t)y * (size_t)src_w * (size_t)channels;
            if (channels == 4) {
                apply4(&across, dst_w, from, middle + (size_t)y * row);
            } else {
                apply(&across, dst_w, from, middle + (size_t)y * row, (size_t)channels);
            }
        }
        apply(&down, dst_h, middle, dst, row);
    }
    mem_free(middle);
    taps_free(&across);
    taps_free(&down);
    return middle ? 0 : -1;
}
