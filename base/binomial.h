/* Exact bounds of a share: of n independent trials k were good, how good can the coin be
 * trusted to be? Clopper and Pearson, "The use of confidence or fiducial limits illustrated
 * in the case of the binomial", Biometrika 1934. */
#ifndef TAMP_BASE_BINOMIAL_H
#define TAMP_BASE_BINOMIAL_H

#define BINOMIAL_MAX_TRIALS 10000000

/* P(at least k of n trials are good), each with probability p; 0 <= k <= n, within 1e-9. */
double binomial_tail(int k, int n, double p);

/* The largest share that k good ones of n still rule out: one-sided bound at level alpha,
 * that is, wrong at most in a share alpha of all samples. 0 for k = 0. */
double binomial_lower_bound(int k, int n, double alpha);

/* The most bad ones of n for which the bound still reaches target; -1 when none at all
 * are too many. 0 < target < 1. */
int binomial_most_bad(int n, double target, double alpha);

/* The least trials that can reach target: with not a single bad one. */
int binomial_least_trials(double target, double alpha);

#endif
