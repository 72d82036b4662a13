#include "base/cpus.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The lowest CPU on the core of `cpu`: names the core. */
static int core_of(int cpu, const char *sysfs)
{
    char path[PATH_MAX];
    int first = cpu;
    snprintf(path, sizeof path, "%s/cpu%d/topology/thread_siblings_list", sysfs, cpu);
    FILE *f = fopen(path, "r");
    if (!f) {
        return cpu;
    }
    if (fscanf(f, "%d", &first) != 1 || first < 0 || first >= CPUS_MAX) {
        first = cpu;
    }
    fclose(f);
    return first;
}

void cpus_sort(struct cpus *c, const cpu_set_t *allowed, const char *sysfs)
{
    int on_core[CPUS_MAX] = {0}; /* allowed CPUs seen so far of the core with this name */
    int rank[CPUS_MAX] = {0};
    int highest = 0;
    c->n = 0;
    c->n_cores = 0;
    for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
        if (CPU_ISSET(cpu, allowed)) {
            rank[cpu] = on_core[core_of(cpu, sysfs)]++;
            c->n_cores += rank[cpu] == 0;
            highest = rank[cpu] > highest ? rank[cpu] : highest;
        }
    }
    for (int r = 0; r <= highest; r++) {
        for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
            if (CPU_ISSET(cpu, allowed) && rank[cpu] == r) {
                c->cpu[c->n++] = cpu;
            }
        }
    }
}

void cpus_read(struct cpus *c)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) {
        CPU_ZERO(&allowed);
        CPU_SET(0, &allowed);
    }
    cpus_sort(c, &allowed, CPUS_SYSFS);
}

static int whole_cpus(long quota, long period)
{
    if (quota <= 0 || period <= 0) {
        return 0; /* none: v1 writes -1 */
    }
    long n = quota / period + (quota % period != 0);
    return n < CPUS_MAX ? (int)n : 0;
}

/* The first numbers of a file; returns how many there are of two. */
static int read_numbers(const char *folder, const char *file, long *a, long *b)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path) {
        return 0;
    }
    FILE *f = fopen(path, "r");
    if (!f) {
        return 0;
    }
    int n = fscanf(f, "%ld %ld", a, b);
    fclose(f);
    return n < 0 ? 0 : n;
}

/* The limit of one folder; v2 writes "<quota> <period>" or "max <period>" in microseconds. */
static int folder_limit(const char *folder)
{
    long quota = 0;
    long period = 0;
    long none;
    if (read_numbers(folder, "cpu.max", &quota, &period) == 2 ||
        (read_numbers(folder, "cpu.cfs_quota_us", &quota, &none) == 1 &&
         read_numbers(folder, "cpu.cfs_period_us", &period, &none) == 1)) {
        return whole_cpus(quota, period);
    }
    return 0;
}

/* The smallest limit from root/path up to root. In a container the path may be the host's:
 * then its folders are not there, and the root is the container's own. */
static int limit_on_the_way(const char *root, const char *path)
{
    char folder[PATH_MAX];
    size_t root_len = strlen(root);
    int smallest = 0;
    if (strstr(path, "..") ||
        snprintf(folder, sizeof folder, "%s%s", root, path) >= (int)sizeof folder) {
        return folder_limit(root);
    }
    for (;;) {
        int limit = folder_limit(folder);
        smallest = limit > 0 && (smallest == 0 || limit < smallest) ? limit : smallest;
        if (strlen(folder) <= root_len) {
            return smallest;
        }
        *strrchr(folder, '/') = '\0'; /* path begins with one */
    }
}

/* Does the list "cpu,cpuacct" name cpu? */
static bool has_cpu(const char *controllers)
{
    for (const char *at = controllers; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strcspn(at, ",") == 3 && strncmp(at, "cpu", 3) == 0) {
            return true;
        }
    }
    return false;
}

int cpus_cgroup_limit(const char *self, const char *mount)
{
    char line[PATH_MAX];
    int smallest = 0;
    FILE *f = fopen(self, "r");
    if (!f) {
        return 0;
    }
    /* "0::/path" is v2, "4:cpu,cpuacct:/path" is v1; both may be there. */
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path || path[1] != '/') {
            continue;
        }
        *path++ = '\0';
        controllers++;
        char root[PATH_MAX];
        bool v2 = !*controllers;
        if ((!v2 && !has_cpu(controllers)) ||
            snprintf(root, sizeof root, "%s%s", mount, v2 ? "" : "/cpu") >= (int)sizeof root) {
            continue;
        }
        int limit = limit_on_the_way(root, path);
        smallest = limit > 0 && (smallest == 0 || limit < smallest) ? limit : smallest;
    }
    fclose(f);
    return smallest;
}
