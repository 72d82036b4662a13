/* The loops of struct vector_ops over the lanes of the file that includes this: every
 * vector of a row goes through the same function, the last one by a partial load. */
#ifndef TAMP_TENSOR_VECTOR_OPS_LOOPS_H
#define TAMP_TENSOR_VECTOR_OPS_LOOPS_H

#include "tensor/lanes_math.h"

#include <stdbool.h>

#if defined(LANES)

/* y[i] = new(y[i]) */
#define MAP(name, ...)                                                                             \
    static void name(float *x, size_t n)                                                           \
    {                                                                                              \
        size_t i = 0;                                                                              \
        for (; i + LANES <= n; i += LANES) {                                                       \
            lanes v = l_load(x + i);                                                               \
            l_store(x + i, __VA_ARGS__);                                                           \
        }                                                                                          \
        if (i < n) {                                                                               \
            lanes v = l_load_part(x + i, (int)(n - i));                                            \
            l_store_part(x + i, __VA_ARGS__, (int)(n - i));                                        \
        }                                                                                          \
    }

/* y[i] = new(y[i], x[i]) */
#define MAP_TWO(name, ...)                                                                         \
    static void name(float *y, const float *x, size_t n)                                           \
    {                                                                                              \
        size_t i = 0;                                                                              \
        for (; i + LANES <= n; i += LANES) {                                                       \
            lanes v = l_load(y + i);                                                               \
            lanes w = l_load(x + i);                                                               \
            l_store(y + i, __VA_ARGS__);                                                           \
        }                                                                                          \
        if (i < n) {                                                                               \
            lanes v = l_load_part(y + i, (int)(n - i));                                            \
            lanes w = l_load_part(x + i, (int)(n - i));                                            \
            l_store_part(y + i, __VA_ARGS__, (int)(n - i));                                        \
        }                                                                                          \
    }

MAP(gelu_erf, l_gelu_erf(v))
MAP(gelu_tanh, l_gelu_tanh(v))
MAP(gelu_quick, l_times_sigmoid(v, l_mul(v, l_set(1.702f))))
MAP(silu, l_times_sigmoid(v, v))
MAP_TWO(add, l_add(v, w))
MAP_TWO(silu_mul, l_mul(l_times_sigmoid(v, v), w))
MAP_TWO(gelu_tanh_mul, l_mul(l_gelu_tanh(v), w))

static void softcap(float *x, size_t n, float cap)
{
    lanes c = l_set(cap);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        l_store(x + i, l_mul(c, l_tanh(l_div(l_load(x + i), c))));
    }
    if (i < n) {
        lanes v = l_load_part(x + i, (int)(n - i));
        l_store_part(x + i, l_mul(c, l_tanh(l_div(v, c))), (int)(n - i));
    }
}

static void add_scaled_rows(float *y, const float *x, const float *scale, int n_rows, int n)
{
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        int i = 0;
        for (; i + LANES <= n; i += LANES) {
            l_store(y + i, l_fma(l_load(scale + i), l_load(x + i), l_load(y + i)));
        }
        if (i < n) {
            lanes s = l_load_part(scale + i, n - i);
            lanes sum = l_fma(s, l_load_part(x + i, n - i), l_load_part(y + i, n - i));
            l_store_part(y + i, sum, n - i);
        }
    }
}

/* ---- norms: sums in double, the rest in fp32 ---- */

INLINE float inverse_root(double squares, int n, float eps)
{
    return (float)(1.0 / sqrt(squares / n + (double)eps));
}

static void rms_norm(float *y, const float *x, const float *w, int n_rows, int n, float eps)
{
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        wide_sum squares = wide_zero();
        int i = 0;
        for (; i + LANES <= n; i += LANES) {
            wide_add_square(&squares, l_load(x + i));
        }
        if (i < n) {
            wide_add_square(&squares, l_load_part(x + i, n - i));
        }
        lanes scale = l_set(inverse_root(wide_total(&squares), n, eps));
        const lanes one = l_set(1.0f);
        for (i = 0; i + LANES <= n; i += LANES) {
            lanes v = l_mul(l_load(x + i), scale);
            l_store(y + i, l_mul(v, w ? l_load(w + i) : one));
        }
        if (i < n) {
            lanes v = l_mul(l_load_part(x + i, n - i), scale);
            l_store_part(y + i, l_mul(v, w ? l_load_part(w + i, n - i) : one), n - i);
        }
    }
}

/* x - mean, with the mean in two parts: in fp32 alone it would be off by half an ulp of the
 * mean, which is much for a row far from 0. */
struct mean {
    lanes high, low;
};

INLINE lanes centred(lanes x, const struct mean *m)
{
    return l_sub(l_sub(x, m->high), m->low);
}

INLINE struct mean mean_of(const float *x, int n)
{
    wide_sum sum = wide_zero();
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        wide_add(&sum, l_load(x + i));
    }
    if (i < n) {
        wide_add(&sum, l_load_part(x + i, n - i));
    }
    double mean = wide_total(&sum) / n;
    float high = (float)mean;
    return (struct mean){l_set(high), l_set((float)(mean - (double)high))};
}

INLINE float deviation_inverse(const float *x, int n, const struct mean *m, float eps)
{
    wide_sum squares = wide_zero();
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        wide_add_square(&squares, centred(l_load(x + i), m));
    }
    if (i < n) {
        lanes d = centred(l_load_part(x + i, n - i), m);
        wide_add_square(&squares, l_choose(first_lanes(n - i), d, l_set(0.0f)));
    }
    return inverse_root(wide_total(&squares), n, eps);
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int n_rows, int n,
                       float eps)
{
    const lanes zero = l_set(0.0f);
    for (int r = 0; r < n_rows; r++, x += n, y += n) {
        struct mean m = mean_of(x, n);
        lanes scale = l_set(deviation_inverse(x, n, &m, eps));
        int i = 0;
        for (; i + LANES <= n; i += LANES) {
            lanes v = l_mul(centred(l_load(x + i), &m), scale);
            l_store(y + i, l_fma(v, l_load(w + i), b ? l_load(b + i) : zero));
        }
        if (i < n) {
            int part = n - i;
            lanes v = l_mul(centred(l_load_part(x + i, part), &m), scale);
            lanes bias = b ? l_load_part(b + i, part) : zero;
            l_store_part(y + i, l_fma(v, l_load_part(w + i, part), bias), part);
        }
    }
}

/* ---- rotation ---- */

/* (a, b) -> (a c - b s, a s + b c) */
INLINE lanes turned_first(lanes a, lanes b, lanes c, lanes s)
{
    return l_fnma(b, s, l_mul(a, c));
}

INLINE lanes turned_second(lanes a, lanes b, lanes c, lanes s)
{
    return l_fma(a, s, l_mul(b, c));
}

static void rotate_halves(float *x, const float *cosines, const float *sines, int n)
{
    for (int i = 0; i < n; i += LANES) {
        int part = n - i < LANES ? n - i : LANES;
        lanes a = l_load_part(x + i, part);
        lanes b = l_load_part(x + n + i, part);
        lanes c = l_load_part(cosines + i, part);
        lanes s = l_load_part(sines + i, part);
        l_store_part(x + i, turned_first(a, b, c, s), part);
        l_store_part(x + n + i, turned_second(a, b, c, s), part);
    }
}

/* Even lanes hold a, odd ones b: both are v c + (its partner) s, with -s for a. */
static void rotate_adjacent(float *x, const float *cosines, const float *sines, int n)
{
    for (int i = 0; i < n; i += LANES / 2) {
        int part = n - i < LANES / 2 ? n - i : LANES / 2;
        lanes v = l_load_part(x + 2 * i, 2 * part);
        lanes c = l_load_doubled(cosines + i, part);
        lanes s = l_negate_even(l_load_doubled(sines + i, part));
        l_store_part(x + 2 * i, l_fma(l_swap_pairs(v), s, l_mul(v, c)), 2 * part);
    }
}

static void rotate(float *x, const float *cosines, const float *sines, int n, bool adjacent)
{
    (adjacent ? rotate_adjacent : rotate_halves)(x, cosines, sines, n);
}

#define VECTOR_OPS_LOOPS                                                                           \
    .layer_norm = layer_norm, .rms_norm = rms_norm, .add = add,                                    \
    .add_scaled_rows = add_scaled_rows, .gelu_erf = gelu_erf, .gelu_tanh = gelu_tanh,              \
    .gelu_quick = gelu_quick, .silu = silu, .silu_mul = silu_mul, .gelu_tanh_mul = gelu_tanh_mul,  \
    .softcap = softcap, .rotate = rotate

#endif
#endif
