/* What /proc says about this process, for the process_* metrics. */
#ifndef TAMP_SERVER_METRICS_PROCESS_H
#define TAMP_SERVER_METRICS_PROCESS_H

struct process_usage {
    double cpu_seconds, resident_bytes, virtual_bytes, open_fds, max_fds;
};

/* What cannot be read stays 0. */
void process_usage_read(struct process_usage *out);

#endif
