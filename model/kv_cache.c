#include "model/kv_cache.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/huge_pages.h"

#include <string.h>

static int group_init(struct kv_group *g, const struct kv_shape *shape, int first, int n_layer,
                      int capacity, struct err *e)
{
    size_t bytes;
    size_t n_blocks = (size_t)kv_blocks_for(capacity);
    *g = (struct kv_group){.first_layer = first,
                           .n_layer = n_layer,
                           .n_head_kv = shape->n_head_kv,
                           .head_dim = shape->head_dim,
                           .type = shape->type,
                           .capacity = capacity};
    if (!kv_block_bytes(shape, n_layer, &bytes) || !ck_mul(bytes, n_blocks, &bytes)) {
        return err_set(e, ERR_TOO_LARGE, "a KV cache of %d rows does not fit into memory",
                       capacity);
    }
    g->blocks = mem_zalloc(n_blocks, sizeof(struct kv_block *));
    return g->blocks ? 0 : err_no_memory(e, n_blocks * sizeof(struct kv_block *));
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

/* Cannot fail: group_init computed the same. */
static size_t block_bytes(const struct kv_cache *kv, const struct kv_group *g)
{
    size_t bytes = 0;
    (void)kv_block_bytes(&kv->shape, g->n_layer, &bytes);
    return bytes;
}

int kv_reserve(struct kv_cache *kv, struct kv_pool *pool, struct err *e)
{
    size_t bytes = 0;
    for (int i = 0; i < kv->n_groups; i++) {
        const struct kv_group *g = &kv->group[i];
        bytes += (size_t)kv_blocks_for(g->capacity) * block_bytes(kv, g);
    }
    if (bytes > pool->max_bytes || pool->reserved_bytes > pool->max_bytes - bytes) {
        return err_set(e, ERR_BUSY, "%zu bytes of keys and values beside %zu reserved of %zu",
                       bytes, pool->reserved_bytes, pool->max_bytes);
    }
    pool->reserved_bytes += bytes;
    kv->reserved_bytes = bytes;
    kv->pool = pool;
    return 0;
}

static void drop_behind(struct kv_cache *kv, struct kv_group *g, int n_blocks)
{
    while (g->n_blocks > n_blocks) {
        kv_block_drop(kv->pool, g->blocks[--g->n_blocks]);
    }
}

void kv_clear(struct kv_cache *kv)
{
    for (int i = 0; i < kv->n_groups; i++) {
        drop_behind(kv, &kv->group[i], 0);
        mem_free(kv->group[i].blocks);
    }
    if (kv->pool) {
        kv->pool->reserved_bytes -= kv->reserved_bytes;
    }
    *kv = (struct kv_cache){.shape = kv->shape};
}

int kv_prepare(struct kv_cache *kv, int n, struct err *e)
{
    return kv_prepare_layers(kv, 0, kv->shape.n_layer, n, e);
}

int kv_prepare_layers(struct kv_cache *kv, int first, int end, int n, struct err *e)
{
    for (int i = 0; i < kv->n_groups; i++) {
        struct kv_group *g = &kv->group[i];
        if (g->first_layer >= end || g->first_layer + g->n_layer <= first) {
            continue;
        }
        if (n > g->capacity - g->n) {
            return err_set(e, ERR_CONTEXT_LENGTH, "%d rows after %d do not fit a KV cache of %d", n,
                           g->n, g->capacity);
        }
        while (g->n_blocks < kv_blocks_for(g->n + n)) {
            struct kv_block *b = kv_block_new(kv->pool, &kv->shape, g->n_layer, e);
            if (!b) {
                return -1;
            }
            g->blocks[g->n_blocks++] = b;
            if (g->n_blocks <= (g->n + n) / KV_BLOCK_ROWS) { /* will be full at once */
                huge_pages_advise(b, b->bytes);
            }
        }
    }
    return 0;
}

void kv_trim(struct kv_cache *kv)
{
    for (int i = 0; i < kv->n_groups; i++) {
        drop_behind(kv, &kv->group[i], kv_blocks_for(kv->group[i].n));
    }
}

void kv_share(struct kv_cache *kv, struct kv_group *g, int index, struct kv_block *b)
{
    kv_block_use(kv->pool, b);
    if (index < g->n_blocks) {
        kv_block_drop(kv->pool, g->blocks[index]);
    } else {
        g->n_blocks++;
    }
    g->blocks[index] = b;
}

/* The first n rows of one head. */
static void copy_plane(const struct kv_group *g, uint16_t *to, uint16_t *from, int n)
{
    size_t elements = (size_t)n * (size_t)g->head_dim;
    if (g->type == KV_F16) {
        memcpy(to, from, elements * sizeof *to);
        return;
    }
    struct kv_q8 a = kv_q8_row(g, to, 0);
    struct kv_q8 b = kv_q8_row(g, from, 0);
    memcpy(a.q, b.q, elements);
    memcpy(a.scale, b.scale, (size_t)n * (size_t)attend_q8_blocks(g->head_dim) * sizeof *a.scale);
}

static void copy_rows(const struct kv_group *g, struct kv_block *to, const struct kv_block *from,
                      int n)
{
    size_t plane = kv_plane_halves(g->head_dim, g->type);
    for (size_t at = 0; at < (size_t)g->n_layer * (size_t)g->n_head_kv * plane; at += plane) {
        copy_plane(g, to->k + at, from->k + at, n);
        copy_plane(g, to->v + at, from->v + at, n);
    }
    memcpy(to->position, from->position, (size_t)n * sizeof *to->position);
    memcpy(to->log_mass, from->log_mass, (size_t)n * sizeof *to->log_mass);
}

int kv_own_tail(struct kv_cache *kv, struct err *e)
{
    for (int i = 0; i < kv->n_groups; i++) {
        struct kv_group *g = &kv->group[i];
        int rows = g->n % KV_BLOCK_ROWS;
        if (rows == 0) {
            continue;
        }
        struct kv_block **last = &g->blocks[g->n_blocks - 1];
        struct err failure = ERR_INIT;
        struct kv_block *own = kv_block_new(kv->pool, &kv->shape, g->n_layer, &failure);
        if (own) {
            copy_rows(g, own, *last, rows);
            kv_block_drop(kv->pool, *last);
            *last = own;
        } else if ((*last)->n_running > 1 || (*last)->n_held > 0) {
            for (int k = 0; k < kv->n_groups; k++) {
                kv->group[k].n = 0;
                drop_behind(kv, &kv->group[k], 0);
            }
            *e = failure;
            return -1;
        } /* else making room left it to this sequence alone */
    }
    return 0;
}

size_t kv_row_bytes(const struct kv_shape *shape)
{
    size_t plane = kv_plane_halves(shape->head_dim, shape->type) * sizeof(uint16_t);
    return 2 * (size_t)shape->n_head_kv * (plane / KV_BLOCK_ROWS);
}

size_t kv_bytes(const struct kv_cache *kv)
{
    size_t total = 0;
    for (int i = 0; i < kv->n_groups; i++) {
        total += (size_t)kv->group[i].n_blocks * block_bytes(kv, &kv->group[i]);
    }
    return total;
}

size_t kv_used_bytes(const struct kv_cache *kv)
{
    size_t total = 0;
    for (int i = 0; i < kv->n_groups; i++) {
        const struct kv_group *g = &kv->group[i];
        size_t row = kv_row_bytes(&kv->shape) * (size_t)g->n_layer + 2 * sizeof(float);
        total += row * (size_t)g->n;
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
