/* One case, measured several times, one line for each run on stdout: for people, or as JSON
 * for bench/compare and for scripts. A JSON line has "case", "rows" (prompt rows that were
 * computed), the milliseconds of its parts, "kernel" and "threads". */
#ifndef TAMP_BENCH_BENCH_CASE_H
#define TAMP_BENCH_BENCH_CASE_H

#include "engine/engine.h"

#include <stdbool.h>

struct bench_case {
    int prefill;         /* rows of a prompt to run, one token after it; 0 = not this case */
    int decode;          /* tokens to write after `context` rows; 0 = not this case */
    int context;         /* rows before the tokens of `decode` */
    const char *image;   /* picture file to ask about; NULL = not this case */
    struct plan plan;    /* compression of the request */
    const char *profile; /* its name, for the line */
    bool json;
};

/* False after an error, which is on stderr. */
bool bench_case_run(struct engine *en, const struct bench_case *c, int n_runs);

#endif
