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

/* Room for the longest prompt. */
#define BENCH_PROMPT_BYTES (8 << 20)

/* n words, each one token for the tokenizers we know, in an order that no other `run` below
 * 2,401 has, from the fourth word on at the latest. */
void bench_words(struct buf *out, int n, int run);

/* How many words make a prompt of exactly n rows with the chat template around it, or the
 * nearest that whole words allow: once for all runs of a case. -1 with the reason on stderr
 * if n is below what the template alone takes, or on an error. */
int bench_prompt_words(struct engine *en, const struct plan *plan, int n);

/* The file at path into b; out points into b. False with the reason on stderr. */
bool bench_picture(const char *path, struct image_bytes *out, struct buf *b);

#endif
