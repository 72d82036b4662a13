/* The loops that find what this CPU can do at most: one function for each kind of
 * arithmetic and each instruction set, all operands in registers, so that nothing but the
 * multipliers limits them. */
#ifndef TAMP_BENCH_PEAK_LOOPS_H
#define TAMP_BENCH_PEAK_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peak_loop {
    const char *what; /* "int8", "fp32", "bf16" */
    const char *how;  /* the instruction */
    bool (*can_run)(void);
    /* Runs n rounds and returns something that depends on all of them. */
    int64_t (*run)(int64_t n);
    int64_t ops; /* multiplications and additions in one round */
};

/* Ends with what == NULL. */
extern const struct peak_loop peak_loops[];

/* Reads n bytes (a multiple of 512, 64-byte aligned) once and returns their sum as words. */
uint64_t peak_read(const uint8_t *bytes, size_t n);

/* Asks the kernel for the tile registers of AMX, for the whole process; once, before the
 * threads are made. */
void peak_loops_init(void);

#endif
