#include "engine/fair.h"

#include "base/alloc.h"

#include <string.h>

/* Keys that are remembered although none of their requests is there. */
#define REMEMBERED 64

int fair_init(struct fair *f, int max_held, struct err *e)
{
    *f = (struct fair){.max = max_held + REMEMBERED};
    f->keys = mem_alloc((size_t)f->max, sizeof *f->keys);
    return f->keys ? 0 : err_no_memory(e, (size_t)f->max * sizeof *f->keys);
}

void fair_clear(struct fair *f)
{
    mem_free(f->keys);
    *f = (struct fair){0};
}

/* A place for a new key. There is one, because at most max_held are held. */
static int free_place(struct fair *f)
{
    if (f->n < f->max) {
        return f->n++;
    }
    int least = -1;
    for (int i = 0; i < f->n; i++) {
        if (f->keys[i].n_held == 0 && (least < 0 || f->keys[i].service < f->keys[least].service)) {
            least = i;
        }
    }
    return least;
}

/* f->n: it has no number. */
static int find_key(const struct fair *f, const uint8_t *scope)
{
    int key = 0;
    while (key < f->n && memcmp(f->keys[key].scope, scope, FAIR_SCOPE_BYTES) != 0) {
        key++;
    }
    return key;
}

int fair_hold(struct fair *f, const uint8_t scope[FAIR_SCOPE_BYTES])
{
    int key = find_key(f, scope);
    if (key == f->n) {
        key = free_place(f);
        f->keys[key] = (struct fair_key){.n_held = 0};
        memcpy(f->keys[key].scope, scope, FAIR_SCOPE_BYTES);
    }
    f->keys[key].n_held++;
    return key;
}

void fair_release(struct fair *f, int key)
{
    f->keys[key].n_held--;
}

void fair_enter(struct fair *f, int key)
{
    struct fair_key *k = &f->keys[key];
    if (k->n_want == 0) {
        double least = -1;
        for (int i = 0; i < f->n; i++) {
            if (f->keys[i].n_want > 0 && (least < 0 || f->keys[i].service < least)) {
                least = f->keys[i].service;
            }
        }
        least = least < 0 ? f->left_with : least;
        k->service = k->service > least ? k->service : least;
    }
    k->n_want++;
}

void fair_leave(struct fair *f, int key)
{
    struct fair_key *k = &f->keys[key];
    if (--k->n_want == 0) {
        f->left_with = k->service;
    }
}

void fair_charge(struct fair *f, int key, double service)
{
    f->keys[key].service += service;
}

int fair_wanting(const struct fair *f, int key)
{
    return f->keys[key].n_want;
}

int fair_wanting_of(const struct fair *f, const uint8_t scope[FAIR_SCOPE_BYTES])
{
    int key = find_key(f, scope);
    return key < f->n ? f->keys[key].n_want : 0;
}

double fair_service(const struct fair *f, int key)
{
    return f->keys[key].service;
}
