/* A calibration while it runs: requests, plans, the answers so far. It knows how to ask, and
 * nothing of flags and reports. */
#ifndef TAMP_CMD_CALIBRATE_RUN_H
#define TAMP_CMD_CALIBRATE_RUN_H

#include "cmd/calibrate_data.h"
#include "cmd/calibrate_pairs.h"
#include "cmd/calibrate_report.h"
#include "config/config.h"

#define CALIBRATE_MAX_STEPS 64
#define CALIBRATE_ALPHA     0.05

struct calibrate_run {
    struct engine *engine; /* the caller's */
    int max_tokens;
    struct chat_request_limits limits;
    struct calibrate_data data;
    struct calibrate_pairs pairs;
    uint8_t model[CALIBRATE_DIGEST_BYTES]; /* what answers depend on besides request and plan */

    int n_steps;
    const char *steps[CALIBRATE_MAX_STEPS];     /* settings, as typed */
    struct plan plans[CALIBRATE_MAX_STEPS + 1]; /* plans[n_steps] is no compression */
    char *printed[CALIBRATE_MAX_STEPS + 1];     /* canonical form of each, owned */
    int *order[HALF_COUNT];                     /* [n_items] into data.items, owned */
    int n_items[HALF_COUNT];

    struct calibrate_cost { /* sums over the requests that a plan was asked */
        double rows, rows_off, prompt, prompt_off;
    } cost[CALIBRATE_MAX_STEPS];
    struct calibrate_difference *differences; /* [n_differences], owned */
    int n_differences, n_different[CALIBRATE_MAX_STEPS];
    int n_asked;  /* by this process, not found in the file */
    struct err e; /* why sequence_run stopped */
};

/* From now on Ctrl-C and SIGTERM stop the asking (ERR_CANCELLED); a second one ends the
 * process as usual, and nothing is lost by it either. */
void calibrate_catch_signals(void);

/* Room for the differences, and c->model: the engine is open already. */
int calibrate_run_init(struct calibrate_run *c, const struct config *config, struct err *e);
/* The uncompressed answer of every request, and which requests count; they are dealt to the
 * halves by lot, the same lot each time. */
int calibrate_deal(struct calibrate_run *c, struct err *e);
/* sequence.agrees, ctx = struct calibrate_run */
int calibrate_agrees(void *ctx, int step, int half, int i);
/* Everything that is owned; the engine stays the caller's. */
void calibrate_run_clear(struct calibrate_run *c);

#endif
