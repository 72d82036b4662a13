/* The CPUs that this process may use: which ones, which of them share a core, and how
 * much of them a container grants. */
#ifndef TAMP_BASE_CPUS_H
#define TAMP_BASE_CPUS_H

#include <sched.h>

#define CPUS_MAX CPU_SETSIZE

#define CPUS_SYSFS   "/sys/devices/system/cpu"
#define CGROUP_SELF  "/proc/self/cgroup"
#define CGROUP_MOUNT "/sys/fs/cgroup"

struct cpus {
    int n;             /* hardware threads */
    int n_cores;       /* cores they are on: cpu[0..n_cores) are on different ones */
    int cpu[CPUS_MAX]; /* the first hardware thread of each core, then the second, ... */
};

/* Sort the allowed CPUs; sysfs is CPUS_SYSFS outside of tests. Where it says nothing, each
 * CPU counts as a core. */
void cpus_sort(struct cpus *c, const cpu_set_t *allowed, const char *sysfs);

/* The CPUs of the calling thread's affinity mask, sorted. */
void cpus_read(struct cpus *c);

/* Whole CPUs that the cgroups of this process grant (quota / period, rounded up), the
 * smallest on the way to the root; 0 = no limit. Reads cgroup v2 and v1. self, mount:
 * CGROUP_SELF and CGROUP_MOUNT outside of tests. */
int cpus_cgroup_limit(const char *self, const char *mount);

#endif
