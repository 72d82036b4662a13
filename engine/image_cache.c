#include "engine/image_cache.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/lru.h"

#include <nettle/sha2.h>
#include <string.h>

#define N_BUCKETS 1024

/* Everything in one block of memory, the floats first. */
struct entry {
    struct lru use; /* first: an entry is found by its node */
    struct entry *next_in_bucket;
    uint8_t key[IMAGE_KEY_BYTES];
    size_t bytes;
    struct rows rows;
    double mean_rows; /* of a block of the tower */
    int n_skipped;
    struct {
        enum stage stage;
        const char *reason;
    } skipped[REPORT_MAX_SKIPPED];
};

struct image_cache {
    size_t max_bytes, used_bytes;
    struct lru used;
    struct entry *buckets[N_BUCKETS];
};

/* ---- keys --------------------------------------------------------------------------- */

static void add_bytes(struct sha256_ctx *sha, const void *p, size_t n)
{
    sha256_update(sha, n, p);
}

static void add_number(struct sha256_ctx *sha, uint64_t v)
{
    add_bytes(sha, &v, sizeof v);
}

/* With its length, so that no two lists of strings read the same. */
static void add_string(struct sha256_ctx *sha, const char *s)
{
    size_t n = s ? strlen(s) : 0;
    add_number(sha, n);
    add_bytes(sha, s ? s : "", n);
}

static void add_step(struct sha256_ctx *sha, const struct plan_step *step)
{
    add_string(sha, step ? step->method->info.name : "off");
    if (step) {
        add_number(sha, (uint64_t)step->stage);
        add_bytes(sha, step->options, (size_t)compressor_n_options(step->method) * sizeof(double));
    }
}

void image_cache_key(const uint8_t *scope, size_t scope_bytes, const struct image *picture,
                     const struct vision_info *v, const struct plan_step *step,
                     uint8_t key[IMAGE_KEY_BYTES])
{
    struct sha256_ctx sha;
    sha256_init(&sha);
    add_string(&sha, "tamp picture 1");
    add_number(&sha, scope_bytes);
    add_bytes(&sha, scope, scope_bytes);
    add_string(&sha, v->name);
    add_string(&sha, v->projector);
    add_number(&sha, (uint64_t)v->image_size);
    add_number(&sha, (uint64_t)v->patch_size);
    add_step(&sha, step);
    add_number(&sha, (uint64_t)picture->width);
    add_number(&sha, (uint64_t)picture->height);
    add_number(&sha, 3);
    add_bytes(&sha, picture->rgb, (size_t)picture->width * (size_t)picture->height * 3);
    sha256_digest(&sha, IMAGE_KEY_BYTES, key);
}

void image_rows_key(const uint8_t tower_key[IMAGE_KEY_BYTES], const struct plan_step *step,
                    uint8_t key[IMAGE_KEY_BYTES])
{
    struct sha256_ctx sha;
    sha256_init(&sha);
    add_string(&sha, "tamp rows 1");
    add_bytes(&sha, tower_key, IMAGE_KEY_BYTES);
    add_step(&sha, step);
    sha256_digest(&sha, IMAGE_KEY_BYTES, key);
}

void image_key_add(uint8_t key[IMAGE_KEY_BYTES], const char *name, const void *bytes, size_t n)
{
    struct sha256_ctx sha;
    sha256_init(&sha);
    add_bytes(&sha, key, IMAGE_KEY_BYTES);
    add_string(&sha, name);
    add_number(&sha, n);
    add_bytes(&sha, bytes, n);
    sha256_digest(&sha, IMAGE_KEY_BYTES, key);
}

/* ---- the table ------------------------------------------------------------------------ */

static struct entry **bucket_of(struct image_cache *c, const uint8_t *key)
{
    return &c->buckets[(key[0] | (unsigned)key[1] << 8) % N_BUCKETS];
}

static struct entry *find(struct image_cache *c, const uint8_t *key)
{
    struct entry *n = *bucket_of(c, key);
    while (n && memcmp(n->key, key, IMAGE_KEY_BYTES) != 0) {
        n = n->next_in_bucket;
    }
    return n;
}

static void drop(struct image_cache *c, struct entry *n)
{
    struct entry **at = bucket_of(c, n->key);
    while (*at != n) {
        at = &(*at)->next_in_bucket;
    }
    *at = n->next_in_bucket;
    lru_remove(&n->use);
    c->used_bytes -= n->bytes;
    mem_free(n);
}

struct image_cache *image_cache_new(size_t max_bytes, struct err *e)
{
    struct image_cache *c = mem_zalloc(1, sizeof *c);
    if (!c) {
        err_no_memory(e, sizeof *c);
        return NULL;
    }
    c->max_bytes = max_bytes;
    lru_init(&c->used);
    return c;
}

void image_cache_free(struct image_cache *c)
{
    if (c) {
        while (c->used.next != &c->used) {
            drop(c, (struct entry *)c->used.next);
        }
        mem_free(c);
    }
}

size_t image_cache_bytes(const struct image_cache *c)
{
    return c ? c->used_bytes : 0;
}

/* ---- rows in and out -------------------------------------------------------------------- */

int image_cache_get(struct image_cache *c, const uint8_t key[IMAGE_KEY_BYTES], struct arena *a,
                    struct rows *rows, struct report *report, struct err *e)
{
    struct entry *n = find(c, key);
    if (!n) {
        return 0;
    }
    if (rows_copy(rows, &n->rows, a, e)) {
        return -1;
    }
    for (int i = 0; i < n->n_skipped; i++) {
        report_skip(report, n->skipped[i].stage, n->skipped[i].reason);
    }
    report->mean_rows_per_layer = n->mean_rows;
    lru_touch(&c->used, &n->use);
    return 1;
}

static bool without_memory(const struct report *report)
{
    for (int i = 0; i < report->n_skipped; i++) {
        if (strcmp(report->skipped[i].reason, "out_of_memory") == 0) {
            return true;
        }
    }
    return false;
}

/* Bytes of an entry for these rows; false when they are no size. */
static bool entry_bytes(const struct rows *r, size_t *out)
{
    size_t n = (size_t)r->n;
    size_t floats;
    size_t flags;
    size_t owners;
    return ck_mul(n, (size_t)r->n_embd + 2, &floats) && ck_mul(floats, sizeof(float), &floats) &&
           ck_mul(n, 2, &flags) &&
           ck_mul((size_t)r->n_source, sizeof(int32_t) + sizeof(float), &owners) &&
           ck_add(floats, flags, out) && ck_add(*out, owners, out) &&
           ck_add(*out, sizeof(struct entry), out);
}

static struct entry *entry_new(const struct rows *r, size_t bytes)
{
    struct entry *n = mem_zalloc(1, bytes);
    if (!n) {
        return NULL;
    }
    n->bytes = bytes;
    n->rows = *r;
    n->rows.x = (float *)(n + 1);
    n->rows.mass = n->rows.x + (size_t)r->n * (size_t)r->n_embd;
    n->rows.position = n->rows.mass + r->n;
    n->rows.owner = (int32_t *)(n->rows.position + r->n);
    float *attention = (float *)(n->rows.owner + r->n_source);
    n->rows.attention = r->attention ? attention : NULL;
    n->rows.kind = (uint8_t *)(attention + r->n_source);
    n->rows.flags = n->rows.kind + r->n;
    rows_assign(&n->rows, r);
    return n;
}

void image_cache_put(struct image_cache *c, const uint8_t key[IMAGE_KEY_BYTES],
                     const struct rows *rows, const struct report *report)
{
    size_t bytes;
    if (without_memory(report) || !entry_bytes(rows, &bytes) || bytes > c->max_bytes ||
        find(c, key)) {
        return;
    }
    while (c->used_bytes > c->max_bytes - bytes) {
        drop(c, (struct entry *)c->used.prev);
    }
    struct entry *n = entry_new(rows, bytes);
    if (!n) {
        return;
    }
    memcpy(n->key, key, IMAGE_KEY_BYTES);
    n->mean_rows = report->mean_rows_per_layer;
    n->n_skipped = report->n_skipped;
    for (int i = 0; i < report->n_skipped; i++) {
        n->skipped[i].stage = report->skipped[i].stage;
        n->skipped[i].reason = report->skipped[i].reason;
    }
    struct entry **at = bucket_of(c, key);
    n->next_in_bucket = *at;
    *at = n;
    lru_add(&c->used, &n->use);
    c->used_bytes += bytes;
}
