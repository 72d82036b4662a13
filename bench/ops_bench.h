/* `bench ops`: what is not a linear layer, piece by piece. */
#ifndef TAMP_BENCH_OPS_BENCH_H
#define TAMP_BENCH_OPS_BENCH_H

/* argv: [--threads N] [--runs N] [--loops NAME] [--only TEXT]. Returns the exit status. */
int bench_ops(int argc, char **argv);

#endif
