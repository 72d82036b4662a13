/* One pool of worker threads. It computes and knows no request. Workers spin
 * briefly for the next job, then sleep: an idle pool uses no CPU.
 * One caller at a time (the engine thread); the caller works as thread 0. */
#ifndef TAMP_BASE_THREADS_H
#define TAMP_BASE_THREADS_H

#include "base/err.h"

struct pool;

/* n_threads >= 1 includes the caller. NULL with *e set on failure. */
struct pool *pool_new(int n_threads, struct err *e);
void pool_free(struct pool *p); /* joins the workers; NULL is fine */
int pool_size(const struct pool *p);

/* The calling thread will be thread 0 from now on: it goes to the CPU that is meant for
 * it, if the pool pins its threads. It should be a thread of its own for this. */
void pool_pin_caller(const struct pool *p);

/* Calls fn(ctx, ith, nth) once on each of the nth threads and waits for all.
 * p == NULL runs fn(ctx, 0, 1) on the caller. */
void pool_run(struct pool *p, void (*fn)(void *ctx, int ith, int nth), void *ctx);

/* The half-open slice of [0, n) that thread ith of nth owns, in multiples of
 * `grain` (>= 1). Depends on its arguments alone, so results are reproducible. */
void pool_slice(int n, int grain, int ith, int nth, int *begin, int *end);

/* Hardware threads this process may use (affinity and cgroup quota respected). Call it
 * from a thread that is not pinned. */
int threads_available(void);

#endif
