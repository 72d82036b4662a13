#include "base/threads.h"

#include "base/alloc.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* About 50 microseconds: longer than the gap between two matrix products of one
 * decode step, shorter than anything a person or a scheduler would notice. */
#define SPIN_ROUNDS 4000

struct worker {
    pthread_t thread;
    struct pool *pool;
    int ith;
};

struct pool {
    int n_threads;
    int n_started;
    struct worker *workers; /* [n_threads - 1] */
    void (*fn)(void *ctx, int ith, int nth);
    void *ctx;
    atomic_uint generation; /* bumped for every job */
    atomic_int pending;     /* workers still busy with it */
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t done;
};

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static unsigned wait_for_job(struct pool *p, unsigned seen)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        unsigned g = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (g != seen) {
            return g;
        }
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->generation) == seen) {
        pthread_cond_wait(&p->wake, &p->lock);
    }
    unsigned g = atomic_load(&p->generation);
    pthread_mutex_unlock(&p->lock);
    return g;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_job(p, seen);
        if (atomic_load(&p->stop)) {
            return NULL;
        }
        p->fn(p->ctx, w->ith, p->n_threads);
        if (atomic_fetch_sub_explicit(&p->pending, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

struct pool *pool_new(int n_threads, struct err *e)
{
    if (n_threads < 1 || n_threads > 1024) {
        err_set(e, ERR_RANGE, "threads must be 1 to 1024, not %d", n_threads);
        return NULL;
    }
    struct pool *p = mem_zalloc(1, sizeof *p);
    if (!p) {
        err_no_memory(e, sizeof *p);
        return NULL;
    }
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->workers = mem_zalloc((size_t)n_threads, sizeof *p->workers);
    if (!p->workers) {
        err_no_memory(e, (size_t)n_threads * sizeof *p->workers);
        pool_free(p);
        return NULL;
    }
    for (int i = 1; i < n_threads; i++) {
        struct worker *w = &p->workers[i - 1];
        w->pool = p;
        w->ith = i;
        if (pthread_create(&w->thread, NULL, worker_main, w)) {
            err_set(e, ERR_IO, "cannot start worker thread %d of %d", i, n_threads);
            pool_free(p);
            return NULL;
        }
        p->n_started++;
    }
    return p;
}

static void publish(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_free(struct pool *p)
{
    if (!p) {
        return;
    }
    atomic_store(&p->stop, true);
    publish(p);
    for (int i = 0; i < p->n_started; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->workers);
    mem_free(p);
}

int pool_size(const struct pool *p)
{
    return p ? p->n_threads : 1;
}

void pool_run(struct pool *p, void (*fn)(void *ctx, int ith, int nth), void *ctx)
{
    if (!p || p->n_threads == 1) {
        fn(ctx, 0, 1);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store_explicit(&p->pending, p->n_threads - 1, memory_order_release);
    publish(p);
    fn(ctx, 0, p->n_threads);
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (atomic_load_explicit(&p->pending, memory_order_acquire) == 0) {
            return;
        }
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->pending, memory_order_acquire) != 0) {
        pthread_cond_wait(&p->done, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
}

void pool_slice(int n, int grain, int ith, int nth, int *begin, int *end)
{
    int units = (n + grain - 1) / grain;
    long long b = (long long)units * ith / nth * grain;
    long long e = (long long)units * (ith + 1) / nth * grain;
    *begin = b > n ? n : (int)b;
    *end = e > n ? n : (int)e;
}

/* cgroup v2 writes "max 100000" or "<quota> <period>" in microseconds. */
static int cgroup_limit(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) {
        return 0;
    }
    long quota = 0;
    long period = 0;
    int got = fscanf(f, "%ld %ld", &quota, &period);
    fclose(f);
    if (got != 2 || quota <= 0 || period <= 0) {
        return 0;
    }
    return (int)((quota + period - 1) / period);
}

int threads_available(void)
{
    cpu_set_t set;
    int n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = CPU_COUNT(&set);
    }
    int limit = cgroup_limit();
    return limit > 0 && limit < n ? limit : n;
}
