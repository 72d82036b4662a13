#include "server/admission.h"

#include "base/alloc.h"

#include <microhttpd.h>

int admission_init(struct admission *a, int n, struct err *e)
{
    *a = (struct admission){.n = n};
    a->slots = mem_zalloc((size_t)n, sizeof *a->slots);
    if (!a->slots) {
        return err_no_memory(e, (size_t)n * sizeof *a->slots);
    }
    pthread_mutex_init(&a->lock, NULL);
    for (int i = n - 1; i >= 0; i--) {
        pthread_mutex_init(&a->slots[i].lock, NULL);
        a->slots[i].next_free = a->free;
        a->free = &a->slots[i];
    }
    return 0;
}

void admission_clear(struct admission *a)
{
    if (!a->slots) {
        return;
    }
    for (int i = 0; i < a->n; i++) {
        pthread_mutex_destroy(&a->slots[i].lock);
    }
    pthread_mutex_destroy(&a->lock);
    mem_free(a->slots);
    *a = (struct admission){0};
}

struct slot *admission_enter(struct admission *a, struct MHD_Connection *mhd)
{
    pthread_mutex_lock(&a->lock);
    struct slot *slot = a->free;
    if (slot) {
        a->free = slot->next_free;
    }
    pthread_mutex_unlock(&a->lock);
    if (slot) {
        pthread_mutex_lock(&slot->lock);
        slot->mhd = mhd;
        slot->rung = false;
        slot->suspended = false;
        slot->held = false;
        pthread_mutex_unlock(&slot->lock);
    }
    return slot;
}

void admission_leave(struct admission *a, struct slot *slot)
{
    pthread_mutex_lock(&slot->lock);
    slot->mhd = NULL;
    slot->suspended = false;
    pthread_mutex_unlock(&slot->lock);
    pthread_mutex_lock(&a->lock);
    slot->next_free = a->free;
    a->free = slot;
    pthread_mutex_unlock(&a->lock);
}

/* Under the lock. */
static void ring(struct slot *slot)
{
    slot->rung = true;
    if (slot->suspended && !slot->held && slot->mhd) {
        slot->suspended = false;
        MHD_resume_connection(slot->mhd);
    }
}

void slot_ring(void *arg)
{
    struct slot *slot = arg;
    pthread_mutex_lock(&slot->lock);
    ring(slot);
    pthread_mutex_unlock(&slot->lock);
}

void slot_hold(struct slot *slot)
{
    pthread_mutex_lock(&slot->lock);
    slot->held = true;
    slot->suspended = true;
    MHD_suspend_connection(slot->mhd);
    pthread_mutex_unlock(&slot->lock);
}

void slot_unhold(struct slot *slot)
{
    pthread_mutex_lock(&slot->lock);
    slot->held = false;
    ring(slot);
    pthread_mutex_unlock(&slot->lock);
}

bool slot_wait(struct slot *slot)
{
    pthread_mutex_lock(&slot->lock);
    bool wait = !slot->rung;
    slot->rung = false;
    if (wait) {
        slot->suspended = true;
        MHD_suspend_connection(slot->mhd);
    }
    pthread_mutex_unlock(&slot->lock);
    return wait;
}
