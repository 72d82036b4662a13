/* The tail is the regularised incomplete beta function I_p(k, n - k + 1), by its continued
 * fraction (DLMF 8.17.22) with the modified Lentz method: some tens of steps whatever n is,
 * where a sum would have n terms. */
#include "base/binomial.h"

#include <math.h>
#include <stdbool.h>

#define MOST_STEPS 10000
#define SMALL      1e-300

/* One factor of the fraction: both convergents get the term, 0 is moved away from. */
static double lentz(double term, double *c, double *d)
{
    *d = 1 + term * *d;
    *c = 1 + term / *c;
    *d = 1 / (fabs(*d) < SMALL ? SMALL : *d);
    *c = fabs(*c) < SMALL ? SMALL : *c;
    return *c * *d;
}

static double fraction(double a, double b, double x)
{
    double c = 1;
    double d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < SMALL ? SMALL : d);
    double value = d;
    for (int m = 1; m < MOST_STEPS; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        value *= lentz(even, &c, &d);
        double last = lentz(odd, &c, &d);
        value *= last;
        if (fabs(last - 1) < 1e-15) {
            break;
        }
    }
    return value;
}

/* lgamma without the global signgam, which is not thread-safe. */
static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign);
}

/* I_x(a, b) for 0 < x < 1; the fraction converges fast on one side of the mean. */
static double incomplete_beta(double a, double b, double x)
{
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log1p(-x));
    bool turned = x >= (a + 1) / (a + b + 2);
    return turned ? 1 - front * fraction(b, a, 1 - x) / b : front * fraction(a, b, x) / a;
}

double binomial_tail(int k, int n, double p)
{
    if (k <= 0 || p >= 1) {
        return 1;
    }
    return p <= 0 ? 0 : incomplete_beta(k, n - k + 1, p);
}

double binomial_lower_bound(int k, int n, double alpha)
{
    if (k <= 0 || n <= 0) {
        return 0;
    }
    double low = 0;
    double high = (double)k / n;
    for (int i = 0; i < 60; i++) {
        double p = (low + high) / 2;
        if (binomial_tail(k, n, p) < alpha) {
            low = p;
        } else {
            high = p;
        }
    }
    return low;
}

int binomial_most_bad(int n, double target, double alpha)
{
    /* The bound reaches target exactly when target itself would give so many good ones
     * too seldom. */
    int bad = -1;
    while (bad + 1 < n && binomial_tail(n - bad - 1, n, target) <= alpha) {
        bad++;
    }
    return bad;
}

int binomial_least_trials(double target, double alpha)
{
    return (int)ceil(log(alpha) / log(target) - 1e-9);
}
