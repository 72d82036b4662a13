/* One request through engine.h, as the server makes it: what every measurement of
 * `tamp bench` and of the programs in bench/ consists of. */
#ifndef TAMP_CMD_BENCH_JOB_H
#define TAMP_CMD_BENCH_JOB_H

#include "base/buf.h"
#include "engine/engine.h"

#include <stdbool.h>

/* Greedy, never ending early, no cache used or filled. picture may be NULL. False with
 * the reason on stderr. */
bool bench_job(struct engine *en, const struct plan *plan, const char *prompt,
               const struct image_bytes *picture, int n_tokens, struct job_result *result);

/* n words, each one token for the tokenizers we know, in an order that no other `run`
 * has. */
void bench_words(struct buf *out, int n, int run);

/* A prompt of exactly n rows with the chat template around it, or the nearest that whole
 * words allow. False if n is below what the template alone takes, or on an error. */
bool bench_prompt(struct engine *en, const struct plan *plan, struct buf *out, int n, int run);

/* The file at path into b; out points into b. False with the reason on stderr. */
bool bench_picture(const char *path, struct image_bytes *out, struct buf *b);

#endif
