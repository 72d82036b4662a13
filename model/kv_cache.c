#include "model/kv_cache.h"

#include "base/alloc.h"
#include "base/checked.h"

#include <string.h>

/* Elements of k (or v) in one group; false when they do not fit into size_t bytes. */
static bool plane_elements(const struct kv_shape *shape, int n_layer, int capacity, size_t *out)
{
    size_t bytes;
    return ck_mul((size_t)n_layer, (size_t)shape->n_head_kv, out) &&
           ck_mul(*out, (size_t)capacity, out) && ck_mul(*out, (size_t)shape->head_dim, out) &&
           ck_mul(*out, sizeof(uint16_t), &bytes);
}

static int group_init(struct kv_group *g, const struct kv_shape *shape, int first, int n_layer,
                      int capacity, struct err *e)
{
    size_t n;
    *g = (struct kv_group){.first_layer = first, .n_layer = n_layer, .capacity = capacity};
    if (!plane_elements(shape, n_layer, capacity, &n)) {
        return err_set(e, ERR_TOO_LARGE, "a KV cache of %d rows does not fit into memory",
                       capacity);
    }
    g->k = mem_alloc_aligned(n, sizeof *g->k);
    g->v = mem_alloc_aligned(n, sizeof *g->v);
    g->position = mem_alloc((size_t)capacity, sizeof *g->position);
    g->log_mass = mem_alloc((size_t)capacity, sizeof *g->log_mass);
    if (!g->k || !g->v || !g->position || !g->log_mass) {
        return err_no_memory(e, 2 * sizeof *g->k * n);
    }
    return 0;
}

static int check_arguments(const struct kv_shape *shape, const int *cutoffs, int n_cutoffs,
                           int capacity, struct err *e)
{
    if (shape->n_layer < 1 || shape->n_head_kv < 1 || shape->head_dim < 1 || capacity < 1) {
        return err_set(e, ERR_RANGE, "a KV cache needs at least one layer, head and row");
    }
    for (int i = 0; i < n_cutoffs; i++) {
        int lowest = i > 0 ? cutoffs[i - 1] + 1 : -1;
        if (cutoffs[i] < lowest || cutoffs[i] >= shape->n_layer) {
            return err_set(e, ERR_RANGE, "cutoff layer %d is not in [%d, %d]", cutoffs[i], lowest,
                           shape->n_layer - 1);
        }
    }
    return 0;
}

static int add_group(struct kv_cache *kv, int first, int end, int capacity, struct err *e)
{
    if (kv->n_groups == KV_MAX_GROUPS) {
        return err_set(e, ERR_TOO_LARGE, "rows may merge after at most %d inner layers",
                       KV_MAX_GROUPS - 1);
    }
    kv->n_groups++;
    return group_init(&kv->group[kv->n_groups - 1], &kv->shape, first, end - first, capacity, e);
}

int kv_init(struct kv_cache *kv, const struct kv_shape *shape, const int *cutoffs, int n_cutoffs,
            int capacity, struct err *e)
{
    *kv = (struct kv_cache){.shape = *shape};
    if (check_arguments(shape, cutoffs, n_cutoffs, capacity, e)) {
        return -1;
    }
    int first = 0;
    int rc = 0;
    for (int i = 0; i <= n_cutoffs && rc == 0; i++) {
        int end = i < n_cutoffs ? cutoffs[i] + 1 : shape->n_layer;
        if (end > first) {
            rc = add_group(kv, first, end, capacity, e);
            first = end;
        }
    }
    if (rc) {
        kv_clear(kv);
    }
    return rc;
}

void kv_clear(struct kv_cache *kv)
{
    for (int i = 0; i < kv->n_groups; i++) {
        struct kv_group *g = &kv->group[i];
        mem_free(g->k);
        mem_free(g->v);
        mem_free(g->position);
        mem_free(g->log_mass);
    }
    *kv = (struct kv_cache){.shape = kv->shape};
}

/* Bytes that `rows` rows take in one group. */
static size_t group_bytes(const struct kv_cache *kv, const struct kv_group *g, int rows)
{
    size_t row = 2 * sizeof(uint16_t) * (size_t)g->n_layer * (size_t)kv->shape.n_head_kv *
                     (size_t)kv->shape.head_dim +
                 2 * sizeof(float);
    return row * (size_t)rows;
}

size_t kv_bytes(const struct kv_cache *kv)
{
    size_t total = 0;
    for (int i = 0; i < kv->n_groups; i++) {
        total += group_bytes(kv, &kv->group[i], kv->group[i].capacity);
    }
    return total;
}

size_t kv_used_bytes(const struct kv_cache *kv)
{
    size_t total = 0;
    for (int i = 0; i < kv->n_groups; i++) {
        total += group_bytes(kv, &kv->group[i], kv->group[i].n);
    }
    return total;
}

struct kv_group *kv_group_of(struct kv_cache *kv, int layer)
{
    int i = 0;
    while (i < kv->n_groups - 1 && layer >= kv->group[i].first_layer + kv->group[i].n_layer) {
        i++;
    }
    return &kv->group[i];
}
