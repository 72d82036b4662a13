#include "server/workers.h"

#include "base/alloc.h"

#include <pthread.h>

#define MAX_WORKERS 16

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    void (*run)(void *item);
    void **queue; /* ring of [cap] */
    int cap, head, n;
    bool stop;
    pthread_t threads[MAX_WORKERS];
    int n_threads;
};

static void *work(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->n == 0 && !w->stop) {
            pthread_cond_wait(&w->cond, &w->lock);
        }
        if (w->n == 0) {
            break;
        }
        void *item = w->queue[w->head];
        w->head = (w->head + 1) % w->cap;
        w->n--;
        pthread_mutex_unlock(&w->lock);
        w->run(item);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static int start_threads(struct workers *w, int n_threads, struct err *e)
{
    n_threads = n_threads < 1 ? 1 : n_threads > MAX_WORKERS ? MAX_WORKERS : n_threads;
    while (w->n_threads < n_threads) {
        if (pthread_create(&w->threads[w->n_threads], NULL, work, w)) {
            return err_set(e, ERR_IO, "cannot start a request thread");
        }
        w->n_threads++;
    }
    return 0;
}

struct workers *workers_new(int n_threads, int max_queue, void (*run)(void *item), struct err *e)
{
    struct workers *w = mem_zalloc(1, sizeof *w);
    void **queue = mem_zalloc((size_t)max_queue, sizeof *queue);
    if (!w || !queue) {
        mem_free(w);
        mem_free(queue);
        err_no_memory(e, sizeof *w + (size_t)max_queue * sizeof *queue);
        return NULL;
    }
    w->queue = queue;
    w->cap = max_queue;
    w->run = run;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
    if (start_threads(w, n_threads, e)) {
        workers_free(w);
        return NULL;
    }
    return w;
}

bool workers_push(struct workers *w, void *item)
{
    pthread_mutex_lock(&w->lock);
    bool room = w->n < w->cap && !w->stop;
    if (room) {
        w->queue[(w->head + w->n++) % w->cap] = item;
        pthread_cond_signal(&w->cond);
    }
    pthread_mutex_unlock(&w->lock);
    return room;
}

void workers_free(struct workers *w)
{
    if (!w) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_threads; i++) {
        pthread_join(w->threads[i], NULL);
    }
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->lock);
    mem_free(w->queue);
    mem_free(w);
}
