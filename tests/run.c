/* Runs every TEST of the program, each in its own process with a time limit, and ends
 * with "N passed, N failed, N skipped". See tests/README.md. */
#include "tensor/blas.h"
#include "tensor/kernels_impl.h"
#include "tensor/vector_ops.h"
#include "tests/test.h"
#include "vision/image.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIPPED 77
/* A sanitizer on a loaded machine takes its time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TIME_LIMIT_S 1800
#else
#define TIME_LIMIT_S 300
#endif

extern const struct test_case __start_tamp_tests[];
extern const struct test_case __stop_tamp_tests[];

static uint64_t seed = 20240521;
static const char *program;
static const char *kernel = "auto";

uint64_t test_seed(void)
{
    return seed;
}

struct options {
    bool list, no_slow, verbose;
    const char *const *patterns;
    int n_patterns;
};

static bool wanted(const struct test_case *t, const struct options *o)
{
    if (o->no_slow && t->slow) {
        return false;
    }
    for (int i = 0; i < o->n_patterns; i++) {
        if (strstr(t->name, o->patterns[i]) || strstr(t->file, o->patterns[i])) {
            return true;
        }
    }
    return o->n_patterns == 0;
}

/* Everything that takes the best kernels takes these. Ends the program when it cannot: a set
 * that this CPU lacks is one skipped test. */
static void force_kernels(const char *name)
{
    struct err e = ERR_INIT;
    const struct kernels *k = kernels_choose(name, &e);
    if (!k && e.code == ERR_UNSUPPORTED) {
        printf("skip  %s\n0 passed, 0 failed, 1 skipped\n", e.msg);
        exit(0);
    }
    if (!k) {
        fprintf(stderr, "%s\n", e.msg);
        exit(2);
    }
    vector_ops_use(vector_ops_for(k));
    kernels_prefer(k);
    kernel = name;
}

/* 0 passed, 1 failed, 2 skipped */
static int run_one(const struct test_case *t, const struct options *o)
{
    struct timespec a;
    struct timespec b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        return 1;
    }
    if (pid == 0) {
        alarm(TIME_LIMIT_S);
        t->fn();
        fflush(stdout);
        exit(0); /* exit, not _exit: the leak checker reports there */
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        if (o->verbose) {
            printf("ok    %-48s %8.1f ms\n", t->name, ms);
        }
        return 0;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
        return 2;
    }
    printf("FAIL  %s (%s)\n", t->name, t->description);
    if (WIFSIGNALED(status)) {
        printf("      ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    printf("      again: %s --kernel %s --seed %llu %s\n", program, kernel,
           (unsigned long long)seed, t->name);
    return 1;
}

int main(int argc, char **argv)
{
    image_worker_maybe_run(argc, argv);
    blas_init(argv); /* products as the program computes them: OpenBLAS without threads */
    struct options o = {0};
    program = argv[0];
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            o.list = true;
        } else if (strcmp(argv[i], "--no-slow") == 0) {
            o.no_slow = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            o.verbose = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--kernel") == 0 && i + 1 < argc) {
            force_kernels(argv[++i]);
        } else {
            fprintf(
                stderr,
                "usage: %s [--list] [--no-slow] [--verbose] [--seed N] [--kernel SET] [NAME ...]\n"
                "NAME: part of a test's name or file\n",
                argv[0]);
            return 2;
        }
    }
    o.patterns = (const char *const *)argv + i;
    o.n_patterns = argc - i;

    int count[3] = {0};
    for (const struct test_case *t = __start_tamp_tests; t < __stop_tamp_tests; t++) {
        if (!wanted(t, &o)) {
            continue;
        }
        if (o.list) {
            printf("%-48s %s%s\n", t->name, t->description, t->slow ? " [slow]" : "");
        } else {
            count[run_one(t, &o)]++;
        }
    }
    if (o.list) {
        return 0;
    }
    if (count[0] + count[1] + count[2] == 0) {
        fprintf(stderr, "no test matches\n");
        return 2;
    }
    printf("%d passed, %d failed, %d skipped\n", count[0], count[1], count[2]);
    return count[1] ? 1 : 0;
}
