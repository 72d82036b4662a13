/* How many threads compute when nobody says: as many as the process may use, or one for each
 * core, whichever multiplies faster here. Two hardware threads of a core share its
 * multipliers and its caches: whether the second one helps differs between CPUs, kernels
 * and virtual machines, so it is tried. */
#ifndef TAMP_ENGINE_THREAD_COUNT_H
#define TAMP_ENGINE_THREAD_COUNT_H

#include "base/cpus.h"
#include "base/err.h"

struct kernels;

/* What can be chosen: [0] is the first choice where both are alike. */
struct thread_counts {
    int n[2]; /* cores, hardware threads */
    int count;
};

/* Candidates on these CPUs with a cgroup limit (0 = none): one where every core has one
 * hardware thread, or where the limit is below the number of cores. */
struct thread_counts thread_counts_of(const struct cpus *c, int limit);

/* The better of two counts by a probe: probe(ctx, n_threads, &score) gives a time, smaller is
 * better; -1 fails. Each is tried several times in turn and its best counts, since other work
 * on the machine only makes it slower; hardware threads must be 3 % better than cores. */
int thread_count_choose(const struct thread_counts *t,
                        int (*probe)(void *ctx, int n_threads, double *score, struct err *e),
                        void *ctx, struct err *e);

/* The same with products of a prompt and of an answer as the probe, on a thread of its own,
 * which is pinned as the engine's will be: about 30 ms where there are two counts. */
int thread_count_measure(const struct thread_counts *t, const struct kernels *k, struct err *e);

/* The count for this process. -1 with *e set. */
int thread_count_default(const struct kernels *k, struct err *e);

#endif
