/* `bench kernels`: the matrix products alone, by shape, type and number of rows. */
#ifndef TAMP_BENCH_KERNEL_BENCH_H
#define TAMP_BENCH_KERNEL_BENCH_H

/* argv: [--threads N] [--runs N] [--kernel NAME] [--only TEXT] [--json]. A JSON line has
 * "type", "n_out", "n_in", "rows", "bulk" (through matrix units where there are any), "ms"
 * (of one product, the median of the runs), "gops" (2 n_out n_in rows in that time, however
 * often a kernel multiplies), "gb_per_s" (of weights), "kernel" and "threads". Returns the
 * exit status. */
int bench_kernels(int argc, char **argv);

#endif
