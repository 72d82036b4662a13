/* Who is in: a fixed number of slots, one for each chat request between its arrival and
 * its last byte, and the bell that wakes it. The engine's notify may ring late, when the
 * request has gone: slots are never freed while the server lives, so a late ring wakes
 * at most somebody who looks and waits on. */
#ifndef TAMP_SERVER_ADMISSION_H
#define TAMP_SERVER_ADMISSION_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>

struct MHD_Connection;

struct slot {
    pthread_mutex_t lock;
    struct MHD_Connection *mhd; /* NULL = free */
    bool rung, suspended;
    bool held; /* a worker has the exchange: rings are kept, nobody is resumed */
    struct slot *next_free;
};

struct admission {
    pthread_mutex_t lock;
    struct slot *slots; /* [n] */
    struct slot *free;
    int n;
};

int admission_init(struct admission *a, int n, struct err *e);
void admission_clear(struct admission *a);

/* NULL: all slots are taken. */
struct slot *admission_enter(struct admission *a, struct MHD_Connection *mhd);
void admission_leave(struct admission *a, struct slot *slot);

/* On the event loop: suspends the connection until slot_unhold, whoever rings meanwhile;
 * then a worker may use its exchange. */
void slot_hold(struct slot *slot);
/* On the worker, as its last act: resumes. The exchange may be gone when this returns. */
void slot_unhold(struct slot *slot);

/* From any thread: resumes the connection if it is suspended, else makes the next
 * slot_wait return at once. The argument is a struct slot. */
void slot_ring(void *arg);
/* On the event loop: true = suspended until the bell rings, false = it rang already. */
bool slot_wait(struct slot *slot);

#endif
