/* The pool: every thread is called once a job, slices partition, idle costs nothing. */
#include "base/cpus.h"
#include "base/threads.h"
#include "tests/test.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

struct tally {
    atomic_int calls[8];
    atomic_int nth;
    atomic_long sum;
    int n;
};

static void count(void *ctx, int ith, int nth)
{
    struct tally *t = ctx;
    int begin;
    int end;
    atomic_fetch_add(&t->calls[ith], 1);
    atomic_store(&t->nth, nth);
    pool_slice(t->n, 3, ith, nth, &begin, &end);
    for (int i = begin; i < end; i++) {
        atomic_fetch_add(&t->sum, i);
    }
}

TEST(pool_calls_each_thread_once, "5000 jobs in a row on 1 to 4 threads, nothing lost")
{
    for (int n = 1; n <= 4; n++) {
        struct err e = ERR_INIT;
        struct tally t = {.n = 100};
        struct pool *p = pool_new(n, &e);
        CHECK(p != NULL);
        CHECK_INT(pool_size(p), ==, n);
        for (int job = 1; job <= 5000; job++) {
            pool_run(p, count, &t);
            CHECK_INT(t.sum, ==, 4950L * job);
        }
        for (int i = 0; i < n; i++) {
            CHECK_INT(t.calls[i], ==, 5000);
        }
        CHECK_INT(t.nth, ==, n);
        pool_free(p);
    }
}

TEST(pool_without_a_pool, "NULL runs on the caller alone")
{
    struct tally t = {.n = 10};
    pool_run(NULL, count, &t);
    CHECK_INT(t.calls[0], ==, 1);
    CHECK_INT(t.nth, ==, 1);
    CHECK_INT(pool_size(NULL), ==, 1);
    pool_free(NULL);
}

TEST(pool_wakes_after_sleep, "a job after the workers went to sleep is done all the same")
{
    struct err e = ERR_INIT;
    struct tally t = {.n = 10};
    struct pool *p = pool_new(3, &e);
    CHECK(p != NULL);
    for (int i = 0; i < 5; i++) {
        usleep(20000);
        pool_run(p, count, &t);
    }
    CHECK_INT(t.calls[1] + t.calls[2], ==, 10);
    pool_free(p);
}

/* How many threads of this process are not asleep. */
static int n_awake(void)
{
    int awake = 0;
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300];
        char state = 'S';
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        FILE *f = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1) {
            awake += state != 'S';
        }
        if (f) {
            fclose(f);
        }
    }
    closedir(dir);
    return awake;
}

TEST(pool_idle_sleeps, "some time after a job every worker sleeps instead of spinning")
{
    struct err e = ERR_INIT;
    struct tally t = {.n = 10};
    struct pool *p = pool_new(4, &e);
    CHECK(p != NULL);
    pool_run(p, count, &t);
    int polls = 0;
    while (n_awake() > 1) { /* the one that is awake is this one */
        CHECK_INT(++polls, <, 10000);
        usleep(1000);
    }
    pool_free(p);
}

static void note_cpus(void *ctx, int ith, int nth)
{
    cpu_set_t *sets = ctx;
    (void)nth;
    CHECK_INT(sched_getaffinity(0, sizeof sets[ith], &sets[ith]), ==, 0);
}

/* The affinity of each thread of a pool of n, the caller's with it. */
static void cpus_of_pool(int n, cpu_set_t *sets)
{
    struct err e = ERR_INIT;
    struct pool *p = pool_new(n, &e);
    CHECK(p != NULL);
    pool_pin_caller(p);
    pool_run(p, note_cpus, sets);
    pool_free(p);
}

TEST(pool_pins_when_it_takes_all, "one CPU each when the pool takes all, the whole mask otherwise")
{
    static cpu_set_t sets[CPUS_MAX + 1];
    cpu_set_t all;
    struct cpus c;
    cpus_read(&c);
    if (c.n < 2 || c.n > 64) {
        SKIP("needs 2 to 64 CPUs");
    }
    CHECK_INT(sched_getaffinity(0, sizeof all, &all), ==, 0);
    cpus_of_pool(c.n + 1, sets);
    for (int i = 0; i <= c.n; i++) {
        CHECK(CPU_EQUAL(&sets[i], &all));
    }
    cpus_of_pool(c.n, sets);
    for (int i = 0; i < c.n; i++) {
        CHECK_INT(CPU_COUNT(&sets[i]), ==, 1);
        CHECK(CPU_ISSET(c.cpu[i], &sets[i]));
    }
}

TEST(pool_refuses_odd_sizes, "0, negative and absurd thread counts are errors")
{
    static const int bad[] = {0, -1, 1025};
    for (int i = 0; i < 3; i++) {
        struct err e = ERR_INIT;
        CHECK(pool_new(bad[i], &e) == NULL);
        CHECK_INT(e.code, ==, ERR_RANGE);
    }
}

TEST(pool_slices_partition, "for all sizes, grains and thread counts: in order, no gap, no overlap")
{
    for (int n = 0; n < 70; n++) {
        for (int grain = 1; grain <= 9; grain++) {
            for (int nth = 1; nth <= 7; nth++) {
                int at = 0;
                for (int ith = 0; ith < nth; ith++) {
                    int begin;
                    int end;
                    pool_slice(n, grain, ith, nth, &begin, &end);
                    CHECK_INT(begin, ==, at);
                    CHECK_INT(end, >=, begin);
                    CHECK(begin % grain == 0 || begin == n);
                    at = end;
                }
                CHECK_INT(at, ==, n);
            }
        }
    }
}

TEST(threads_available_is_sane, "at least one, at most what the machine has configured")
{
    CHECK_INT(threads_available(), >=, 1);
    CHECK_INT(threads_available(), <=, sysconf(_SC_NPROCESSORS_CONF));
}
