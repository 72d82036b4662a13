/* A few threads that take requests off the event loop while they are parsed and their
 * pictures decoded, so that /health answers meanwhile. A bounded queue, first come
 * first served. */
#ifndef TAMP_SERVER_WORKERS_H
#define TAMP_SERVER_WORKERS_H

#include "base/err.h"

#include <stdbool.h>

struct workers;

struct workers *workers_new(int n_threads, int max_queue, void (*run)(void *item), struct err *e);
/* False when the queue is full. */
bool workers_push(struct workers *w, void *item);
/* Runs what is queued, then joins. NULL is fine. */
void workers_free(struct workers *w);

#endif
