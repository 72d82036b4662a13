/* Cores or hardware threads: what can be chosen, and by which measurements. */
#include "engine/thread_count.h"
#include "tensor/kernels.h"
#include "tests/test.h"

#include <string.h>

static void check_counts(int n, int n_cores, int limit, int first, int second)
{
    const struct cpus c = {.n = n, .n_cores = n_cores};
    struct thread_counts t = thread_counts_of(&c, limit);
    CHECK_INT(t.count, ==, second ? 2 : 1);
    CHECK_INT(t.n[0], ==, first);
    CHECK(!second || t.n[1] == second);
}

TEST(thread_counts_of_cpus, "a choice only where cores have two threads and the limit allows both")
{
    check_counts(2, 2, 0, 2, 0);  /* cores with one thread each */
    check_counts(8, 4, 0, 4, 8);  /* with two */
    check_counts(2, 1, 0, 1, 2);  /* one core */
    check_counts(8, 4, 6, 4, 6);  /* a cgroup grants six CPUs */
    check_counts(8, 4, 4, 4, 0);  /* as many as cores */
    check_counts(8, 4, 1, 1, 0);  /* fewer */
    check_counts(8, 4, 64, 4, 8); /* more than there are */
}

/* A machine whose probe takes ms[i] with t.n[i] threads, and the first `slow` times ten times
 * as long. */
struct machine {
    struct thread_counts t;
    double ms[2];
    int slow, fails_at;
    int calls[2], n_calls;
};

static int fake_probe(void *ctx, int n_threads, double *score, struct err *e)
{
    struct machine *m = ctx;
    int which = n_threads == m->t.n[0] ? 0 : 1;
    CHECK_INT(n_threads, ==, m->t.n[which]);
    m->calls[which]++;
    *score = m->ms[which] * (m->n_calls < m->slow ? 10 : 1);
    return ++m->n_calls == m->fails_at ? err_set(e, ERR_IO, "broken") : 0;
}

static int choose(struct machine *m, struct err *e)
{
    m->t = (struct thread_counts){{4, 8}, 2};
    return thread_count_choose(&m->t, fake_probe, m, e);
}

TEST(thread_count_best, "the faster one by its best try; hardware threads must gain 3 %")
{
    struct err e = ERR_INIT;
    CHECK_INT(choose(&(struct machine){.ms = {10, 9}}, &e), ==, 8);
    CHECK_INT(choose(&(struct machine){.ms = {10, 9.8}}, &e), ==, 4);
    CHECK_INT(choose(&(struct machine){.ms = {10, 12}}, &e), ==, 4);
    /* disturbed at first, also if only one of the two is */
    CHECK_INT(choose(&(struct machine){.ms = {10, 9}, .slow = 5}, &e), ==, 8);
    CHECK_INT(choose(&(struct machine){.ms = {10, 12}, .slow = 1}, &e), ==, 4);
    struct machine even = {.ms = {10, 9}};
    choose(&even, &e);
    CHECK_INT(even.calls[0], ==, even.calls[1]);
    CHECK_INT(choose(&(struct machine){.ms = {1, 1}, .fails_at = 3}, &e), ==, -1);
    CHECK_STR(e.msg, "broken");
    struct machine one = {.t = {{3}, 1}};
    CHECK_INT(thread_count_choose(&one.t, fake_probe, &one, &e), ==, 3);
    CHECK_INT(one.n_calls, ==, 0);
}

TEST(thread_count_here, "the real probe runs with any two counts and chooses one of them")
{
    struct err e = ERR_INIT;
    const struct kernels *k = kernels_choose(NULL, &e);
    int n = thread_count_measure(&(struct thread_counts){{1, 2}, 2}, k, &e);
    CHECK(n == 1 || n == 2);
    n = thread_count_measure(&(struct thread_counts){{1, 1025}, 2}, k, &e);
    CHECK_INT(n, ==, -1);
    CHECK(strstr(e.msg, "1025"));
    CHECK_INT(thread_count_default(k, &e), >=, 1);
}
