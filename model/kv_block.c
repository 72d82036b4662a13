#include "model/kv_block.h"

#include "base/checked.h"
#include "base/huge_pages.h"

/* The header takes whole cache lines, so that k begins on one. */
#define HEADER_BYTES ((sizeof(struct kv_block) + 63) / 64 * 64)

/* Halves of k or v in a block; false when they do not fit into size_t bytes. */
static bool halves_of(const struct kv_shape *shape, int n_layer, size_t *out)
{
    return ck_mul((size_t)n_layer, (size_t)shape->n_head_kv, out) &&
           ck_mul(*out, kv_plane_halves(shape->head_dim, shape->type), out);
}

bool kv_block_bytes(const struct kv_shape *shape, int n_layer, size_t *out)
{
    size_t rows = HEADER_BYTES + (size_t)KV_BLOCK_ROWS * 2 * sizeof(float);
    return halves_of(shape, n_layer, out) && ck_mul(*out, 2 * sizeof(uint16_t), out) &&
           ck_add(*out, rows, out);
}

void kv_pool_init(struct kv_pool *p, const struct kv_shape *shape, size_t max_bytes)
{
    *p = (struct kv_pool){.shape = *shape, .max_bytes = max_bytes};
}

static bool fits(const struct kv_pool *pool, size_t bytes)
{
    return !pool ||
           (pool->used_bytes <= pool->max_bytes && bytes <= pool->max_bytes - pool->used_bytes);
}

static bool evict(const struct kv_pool *pool)
{
    return pool && pool->evict && pool->evict(pool->evict_ctx);
}

/* What is cached is given up before a request fails for want of memory, too. */
static void *allocate(const struct kv_pool *pool, size_t bytes)
{
    for (;;) {
        void *memory = fits(pool, bytes) ? huge_pages_alloc(bytes) : NULL;
        if (memory || !evict(pool)) {
            return memory;
        }
    }
}

struct kv_block *kv_block_new(struct kv_pool *pool, const struct kv_shape *shape, int n_layer,
                              struct err *e)
{
    size_t bytes;
    size_t halves;
    if (!kv_block_bytes(shape, n_layer, &bytes) || !halves_of(shape, n_layer, &halves)) {
        err_set(e, ERR_TOO_LARGE, "a block of %d rows of keys and values does not fit into memory",
                KV_BLOCK_ROWS);
        return NULL;
    }
    struct kv_block *b = allocate(pool, bytes);
    if (!b) {
        err_no_memory(e, bytes);
        return NULL;
    }
    *b = (struct kv_block){.n_running = 1, .bytes = bytes};
    b->k = (uint16_t *)((char *)b + HEADER_BYTES);
    b->v = b->k + halves;
    b->position = (float *)(void *)(b->v + halves);
    b->log_mass = b->position + KV_BLOCK_ROWS;
    if (pool) {
        pool->used_bytes += bytes;
        pool->running_bytes += bytes;
    }
    return b;
}

static void free_unused(struct kv_pool *pool, struct kv_block *b)
{
    if (b->n_running > 0 || b->n_held > 0) {
        return;
    }
    if (pool) {
        pool->used_bytes -= b->bytes;
    }
    huge_pages_free(b, b->bytes);
}

void kv_block_use(struct kv_pool *pool, struct kv_block *b)
{
    if (b->n_running++ == 0 && pool) {
        pool->running_bytes += b->bytes;
    }
}

void kv_block_drop(struct kv_pool *pool, struct kv_block *b)
{
    if (--b->n_running == 0 && pool) {
        pool->running_bytes -= b->bytes;
    }
    free_unused(pool, b);
}

bool kv_block_hold(struct kv_pool *pool, struct kv_block *b)
{
    if (b->n_held++ > 0) {
        return false;
    }
    pool->held_bytes += b->bytes;
    return true;
}

bool kv_block_release(struct kv_pool *pool, struct kv_block *b)
{
    bool last = --b->n_held == 0;
    if (last) {
        pool->held_bytes -= b->bytes;
    }
    free_unused(pool, b);
    return last;
}
