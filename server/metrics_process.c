#include "server/metrics_process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static void read_memory(struct process_usage *out)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long total = 0;
    unsigned long long resident = 0;
    if (!f) {
        return;
    }
    if (fscanf(f, "%llu %llu", &total, &resident) == 2) {
        double page = (double)sysconf(_SC_PAGESIZE);
        out->virtual_bytes = (double)total * page;
        out->resident_bytes = (double)resident * page;
    }
    fclose(f);
}

static double count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    if (!d) {
        return 0;
    }
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

void process_usage_read(struct process_usage *out)
{
    *out = (struct process_usage){0};
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        out->cpu_seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        out->max_fds = (double)limit.rlim_cur;
    }
    read_memory(out);
    out->open_fds = count_fds();
}
