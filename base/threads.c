#include "base/threads.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/cpus.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Longer than the gap between two matrix products of one decode step, shorter than
 * anything a person or a scheduler would notice. */
#define SPIN_NS 100000
/* Looks at the word between two looks at the clock. */
#define LOOKS 32

struct worker {
    pthread_t thread;
    struct pool *pool;
    int ith;
};

/* Two words are waited for: `generation` by the workers, `pending` by the caller. Whoever
 * is about to sleep says so first and the kernel compares the word once more; whoever
 * changes a word looks afterwards whether somebody sleeps. All of these are sequentially
 * consistent, so one of the two always sees the other, and while everybody spins no
 * system call is made. */
struct pool {
    int n_threads;
    int n_started;
    struct worker *workers; /* [n_threads - 1] */
    uint64_t spin_ns;
    void (*fn)(void *ctx, int ith, int nth);
    void *ctx;
    atomic_uint generation; /* bumped for every job */
    atomic_uint pending;    /* workers still busy with it */
    atomic_uint n_asleep;   /* workers that sleep, or are about to */
    atomic_bool caller_asleep;
    atomic_bool stop;
    bool pinned;
    int cpu[]; /* [n_threads] when pinned */
};

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void sleep_while(atomic_uint *word, unsigned value)
{
    /* Woken, interrupted or too late: the caller of this looks again in any case. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(atomic_uint *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* True when the word changed from value before the time to sleep came. */
static bool spin_while(const struct pool *p, atomic_uint *word, unsigned value)
{
    uint64_t begin = 0;
    for (;;) {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value) {
                return true;
            }
            cpu_relax();
        }
        uint64_t now = clock_ns();
        begin = begin ? begin : now;
        if (now - begin >= p->spin_ns) {
            return false;
        }
    }
}

static unsigned wait_for_job(struct pool *p, unsigned seen)
{
    if (!spin_while(p, &p->generation, seen)) {
        atomic_fetch_add(&p->n_asleep, 1);
        while (atomic_load(&p->generation) == seen) {
            sleep_while(&p->generation, seen);
        }
        atomic_fetch_sub(&p->n_asleep, 1);
    }
    return atomic_load_explicit(&p->generation, memory_order_acquire);
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
        if (atomic_fetch_sub(&p->pending, 1) == 1 && atomic_load(&p->caller_asleep)) {
            wake_all(&p->pending);
        }
    }
}

/* A thread stays on its CPU when the pool takes every core or every hardware thread that
 * the process may use: then there is nothing to choose, and a migration only costs caches.
 * A smaller pool is left to the scheduler, for two such programs would choose the same
 * CPUs. */
static void choose_cpus(struct pool *p)
{
    struct cpus c;
    cpus_read(&c);
    p->spin_ns = p->n_threads <= c.n ? SPIN_NS : 0; /* whoever spins keeps another from work */
    p->pinned = p->n_threads == c.n || p->n_threads == c.n_cores;
    for (int i = 0; p->pinned && i < p->n_threads; i++) {
        p->cpu[i] = c.cpu[i];
    }
}

static void pin(const struct pool *p, pthread_t thread, int ith)
{
    cpu_set_t set;
    if (p->pinned) {
        CPU_ZERO(&set);
        CPU_SET(p->cpu[ith], &set);
        (void)pthread_setaffinity_np(thread, sizeof set, &set); /* slower at worst */
    }
}

void pool_pin_caller(const struct pool *p)
{
    if (p && p->n_threads > 1) {
        pin(p, pthread_self(), 0);
    }
}

struct pool *pool_new(int n_threads, struct err *e)
{
    if (n_threads < 1 || n_threads > 1024) {
        err_set(e, ERR_RANGE, "threads must be 1 to 1024, not %d", n_threads);
        return NULL;
    }
    size_t bytes = sizeof(struct pool) + (size_t)n_threads * sizeof(int);
    struct pool *p = mem_zalloc(1, bytes);
    if (!p) {
        err_no_memory(e, bytes);
        return NULL;
    }
    p->n_threads = n_threads;
    choose_cpus(p);
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
        pin(p, w->thread, i);
        p->n_started++;
    }
    return p;
}

static void publish(struct pool *p)
{
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->n_asleep) > 0) {
        wake_all(&p->generation);
    }
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
    mem_free(p->workers);
    mem_free(p);
}

int pool_size(const struct pool *p)
{
    return p ? p->n_threads : 1;
}

static void wait_for_workers(struct pool *p)
{
    for (unsigned left; (left = atomic_load(&p->pending)) != 0;) {
        if (!spin_while(p, &p->pending, left)) {
            atomic_store(&p->caller_asleep, true);
            while ((left = atomic_load(&p->pending)) != 0) {
                sleep_while(&p->pending, left);
            }
            atomic_store(&p->caller_asleep, false);
        }
    }
}

void pool_run(struct pool *p, void (*fn)(void *ctx, int ith, int nth), void *ctx)
{
    if (!p || p->n_threads == 1) {
        fn(ctx, 0, 1);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store_explicit(&p->pending, (unsigned)p->n_threads - 1, memory_order_relaxed);
    publish(p);
    fn(ctx, 0, p->n_threads);
    wait_for_workers(p);
}

void pool_slice(int n, int grain, int ith, int nth, int *begin, int *end)
{
    int units = (n + grain - 1) / grain;
    long long b = (long long)units * ith / nth * grain;
    long long e = (long long)units * (ith + 1) / nth * grain;
    *begin = b > n ? n : (int)b;
    *end = e > n ? n : (int)e;
}

int threads_available(void)
{
    struct cpus c;
    cpus_read(&c);
    int limit = cpus_cgroup_limit(CGROUP_SELF, CGROUP_MOUNT);
    return limit > 0 && limit < c.n ? limit : c.n;
}
