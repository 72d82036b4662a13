/* CPUs in the right order and limits of containers, from folders made for the test. */
#include "base/cpus.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Writes text to root/path and makes the folders on the way. */
static void put(const char *root, const char *path, const char *text)
{
    char at[256];
    snprintf(at, sizeof at, "%s/%s", root, path);
    for (char *slash = at + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(at, 0700);
        *slash = '/';
    }
    FILE *f = fopen(at, "w");
    CHECK(f);
    fputs(text, f);
    fclose(f);
}

static void make_root(char *root, size_t size)
{
    snprintf(root, size, "/tmp/tamp-cpus-XXXXXX");
    CHECK(mkdtemp(root));
}

static void remove_root(const char *root)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    CHECK_INT(system(command), ==, 0);
}

TEST(cpus_cores_first, "one hardware thread of each core comes before the second of any")
{
    char root[64];
    struct cpus c;
    cpu_set_t allowed;
    make_root(root, sizeof root);
    CPU_ZERO(&allowed);
    /* cores {0,1} {2,3} {4,6} and CPU 9, of which the system says nothing */
    static const char *const siblings[] = {"0-1\n", "0-1\n", "2,3\n", "2,3\n",
                                           "4,6\n", NULL,    "4,6\n"};
    for (int cpu = 0; cpu < 7; cpu++) {
        char path[64];
        snprintf(path, sizeof path, "cpu%d/topology/thread_siblings_list", cpu);
        if (siblings[cpu]) {
            put(root, path, siblings[cpu]);
        }
    }
    static const int use[] = {0, 1, 3, 4, 6, 9}; /* 2 is not allowed: 3 is alone there */
    for (size_t i = 0; i < sizeof use / sizeof *use; i++) {
        CPU_SET(use[i], &allowed);
    }
    cpus_sort(&c, &allowed, root);
    static const int want[] = {0, 3, 4, 9, 1, 6};
    CHECK_INT(c.n, ==, 6);
    CHECK_INT(c.n_cores, ==, 4);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(c.cpu[i], ==, want[i]);
    }
    remove_root(root);
}

TEST(cpus_cgroup_limits, "v2 and v1, at any level, no limit, and a path that is the host's")
{
    static const struct {
        const char *self;
        const char *file[3][2]; /* path below the mount, text */
        int limit;
    } cases[] = {
        {"0::/\n", {{"cpu.max", "200000 100000\n"}}, 2},
        {"0::/\n", {{"cpu.max", "max 100000\n"}}, 0},
        {"0::/\n", {{"cpu.max", "150000 100000\n"}}, 2},
        {"0::/\n", {{NULL, NULL}}, 0},
        {"0::/a/b\n", {{"a/b/cpu.max", "max 100000\n"}, {"a/cpu.max", "300000 100000\n"}}, 3},
        {"0::/a/b\n", {{"a/b/cpu.max", "50000 100000\n"}, {"a/cpu.max", "300000 100000\n"}}, 1},
        {"0::/docker/1234\n", {{"cpu.max", "400000 100000\n"}}, 4},
        {"0::/../x\n", {{"cpu.max", "400000 100000\n"}}, 4},
        {"5:cpuset:/a\n4:cpu,cpuacct:/a\n",
         {{"cpu/a/cpu.cfs_quota_us", "250000\n"}, {"cpu/a/cpu.cfs_period_us", "100000\n"}},
         3},
        {"4:cpuacct,cpu:/a\n",
         {{"cpu/cpu.cfs_quota_us", "-1\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}},
         0},
        {"5:cpuset:/a\n",
         {{"cpu/a/cpu.cfs_quota_us", "250000\n"}, {"cpu/a/cpu.cfs_period_us", "100000\n"}},
         0},
        {"nonsense\n4:cpu\n\n", {{"cpu.max", "400000 100000\n"}}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char root[64];
        char self[80];
        make_root(root, sizeof root);
        put(root, "self", cases[i].self);
        snprintf(self, sizeof self, "%s/self", root);
        for (int k = 0; k < 3 && cases[i].file[k][0]; k++) {
            put(root, cases[i].file[k][0], cases[i].file[k][1]);
        }
        CHECK_INT(cpus_cgroup_limit(self, root), ==, cases[i].limit);
        remove_root(root);
    }
    CHECK_INT(cpus_cgroup_limit("/nonexistent", "/nonexistent"), ==, 0);
}
