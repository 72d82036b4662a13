/* exp, tanh and the Gaussian distribution on fp32 lanes. The polynomials are near-minimax
 * (Chebyshev) fits of our own. Errors, which test_vector_ops.c checks against double:
 *   exp    2 ulp of the result where it is normal; below that it goes to 0 through the
 *          subnormals, above log(FLT_MAX) it is inf
 *   tanh   4 ulp; sigmoid and the Gaussian distribution 2e-7 of the result above 1e-3
 * NaN gives NaN. */
#ifndef TAMP_TENSOR_LANES_MATH_H
#define TAMP_TENSOR_LANES_MATH_H

#include "tensor/lanes.h"

#if defined(LANES)

/* e^x = 2^n e^r with n whole and |r| <= log(2) / 2; e^r = 1 + r + r^2 P(r). */
INLINE lanes l_exp(lanes x)
{
    /* The bounds keep n small enough for l_scale2; min and max give x for NaN. */
    x = l_min(l_set(89.0f), l_max(l_set(-104.0f), x));
    lanes n = l_round(l_mul(x, l_set(1.44269504f)));
    lanes r = l_fnma(n, l_set(0x1.62e43p-1f), x); /* log(2) in two parts */
    r = l_fnma(n, l_set(-1.90465430e-9f), r);
    lanes p = l_set(1.392618359e-3f);
    p = l_fma(p, r, l_set(8.363179053e-3f));
    p = l_fma(p, r, l_set(4.166655462e-2f));
    p = l_fma(p, r, l_set(1.666657699e-1f));
    p = l_fma(p, r, l_set(5.0e-1f));
    p = l_fma(p, l_mul(r, r), r);
    return l_scale2(l_add(p, l_set(1.0f)), n);
}

/* Near 0 an odd polynomial, elsewhere 1 - 2 / (e^2|x| + 1). */
INLINE lanes l_tanh(lanes x)
{
    lanes a = l_abs(x);
    lanes u = l_mul(x, x);
    lanes p = l_set(-6.096714166e-3f);
    p = l_fma(p, u, l_set(2.0997179e-2f));
    p = l_fma(p, u, l_set(-5.385090958e-2f));
    p = l_fma(p, u, l_set(1.333276974e-1f));
    p = l_fma(p, u, l_set(-3.333332894e-1f));
    lanes near = l_fma(l_mul(p, u), x, x);
    lanes e = l_exp(l_add(a, a));
    lanes far = l_sub(l_set(1.0f), l_div(l_set(2.0f), l_add(e, l_set(1.0f))));
    return l_choose(l_less(a, l_set(0.625f)), near, l_copysign(far, x));
}

/* x / (1 + e^-scaled): x sigmoid(scaled). Goes to x and to 0 at the ends. */
INLINE lanes l_times_sigmoid(lanes x, lanes scaled)
{
    lanes e = l_exp(l_sub(l_set(0.0f), scaled));
    return l_div(x, l_add(l_set(1.0f), e));
}

/* x Phi(x). Phi(-a) = erfc(a / sqrt 2) / 2 = e^(-a^2/2) t P(t) / 2 with t = 1 / (1 + c a):
 * no cancellation on the left, where 1 + erf loses all digits. */
INLINE lanes l_gelu_erf(lanes x)
{
    lanes a = l_abs(x);
    lanes t = l_div(l_set(1.0f), l_fma(a, l_set(0.2316418883f), l_set(1.0f)));
    lanes p = l_set(5.990428528e-2f);
    p = l_fma(p, t, l_set(-3.347410624e-1f));
    p = l_fma(p, t, l_set(6.690174841e-1f));
    p = l_fma(p, t, l_set(-6.160370179e-1f));
    p = l_fma(p, t, l_set(5.483817927e-1f));
    p = l_fma(p, t, l_set(-7.591924805e-2f));
    p = l_fma(p, t, l_set(2.149124423e-1f));
    p = l_fma(p, t, l_set(1.636798272e-1f));
    p = l_fma(p, t, l_set(1.86035195e-1f));
    p = l_fma(p, t, l_set(1.84766302e-1f));
    lanes gauss = l_exp(l_mul(l_mul(a, a), l_set(-0.5f)));
    lanes tail = l_mul(l_mul(l_mul(p, t), l_set(0.5f)), gauss);
    lanes phi = l_choose(l_less(x, l_set(0.0f)), tail, l_sub(l_set(1.0f), tail));
    return l_mul(x, phi);
}

INLINE lanes l_gelu_tanh(lanes x)
{
    /* (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
    lanes cube = l_mul(l_mul(l_mul(x, x), x), l_set(0.044715f));
    return l_times_sigmoid(x, l_mul(l_add(x, cube), l_set(1.595769122f)));
}

#endif
#endif
