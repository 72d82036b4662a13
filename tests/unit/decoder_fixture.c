#include "tests/unit/decoder_fixture.h"

#include "base/alloc.h"
#include "tensor/attend_kernels.h"
#include "tensor/kernels.h"
#include "tensor/vector_ops.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

void fixture_open(struct fixture *f, const char *path, int n_threads)
{
    struct err e = ERR_INIT;
    *f = (struct fixture){.g = gguf_open(path, &e)};
    if (!f->g) {
        FAIL("%s", e.msg);
    }
    f->d = decoder_open(f->g, &e);
    f->pool = pool_new(n_threads, &e);
    f->compute = (struct compute){.pool = f->pool, .kernels = kernels_choose(NULL, &e)};
    if (!f->d || !f->pool || !f->compute.kernels) {
        FAIL("%s", e.msg);
    }
    arena_init(&f->rows, (size_t)1 << 30);
    arena_init(&f->scratch, (size_t)1 << 30);
    f->info = decoder_info(f->d);
}

/* ---- caches in fp32 ---- */

/* One plane of keys or values and its fp32 twin. Kernels have no context, and each test
 * is a process of its own: so these are globals. */
static struct plane {
    const uint16_t *half;
    size_t n;
    float *exact;
} planes[64];
static int n_planes;
static struct kernels exact_kernels;
static struct vector_ops exact_ops;
static struct attend_kernels exact_attend;
static const struct vector_ops *real_ops;

static float *exact_at(const uint16_t *half)
{
    for (int i = 0; i < n_planes; i++) {
        if (half >= planes[i].half && half < planes[i].half + planes[i].n) {
            return planes[i].exact + (half - planes[i].half);
        }
    }
    FAIL("a half-precision operand that is in no cache");
}

static void exact_store(uint16_t *y, const float *x, int n)
{
    memcpy(exact_at(y), x, (size_t)n * sizeof *x);
}

static void exact_columns(float *to, const uint16_t *from, int n, int dim)
{
    real_ops->attend->columns_f32(to, exact_at(from), (size_t)dim, n, dim);
}

static void exact_rows(float *to, const uint16_t *from, int n, int dim, int width)
{
    for (int i = 0; i < n; i++, from += dim, to += width) {
        memcpy(to, exact_at(from), (size_t)dim * sizeof *to);
        memset(to + dim, 0, (size_t)(width - dim) * sizeof *to);
    }
}

static void exact_product(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b,
                          size_t ldb, int rows, int depth, int cols, bool add)
{
    /* The fixture's caches are one run: nothing is added to. */
    CHECK(!add);
    real_ops->attend->product(c, ldc, a, lda, exact_at(b), ldb, rows, depth, cols);
}

void fixture_exact_kv(struct fixture *f)
{
    exact_kernels = *f->compute.kernels;
    exact_kernels.f32_to_f16 = exact_store;
    f->compute.kernels = &exact_kernels;
    real_ops = vector_ops_used();
    exact_ops = *real_ops;
    exact_attend = *real_ops->attend;
    exact_attend.columns_f16 = exact_columns;
    exact_attend.rows_f16 = exact_rows;
    exact_attend.product_f16 = exact_product;
    exact_ops.attend = &exact_attend;
    vector_ops_use(&exact_ops);
    f->exact_kv = true;
}

void fixture_close(struct fixture *f)
{
    if (f->exact_kv) {
        vector_ops_use(real_ops);
    }
    arena_clear(&f->rows);
    arena_clear(&f->scratch);
    pool_free(f->pool);
    decoder_close(f->d);
    gguf_close(f->g);
}

static void add_plane(const uint16_t *half, size_t n)
{
    CHECK_INT(n_planes, <, 64);
    planes[n_planes] = (struct plane){half, n, mem_alloc(n, sizeof(float))};
    CHECK(planes[n_planes].exact);
    n_planes++;
}

static void remove_plane(const uint16_t *half, size_t n)
{
    (void)n;
    for (int i = 0; i < n_planes; i++) {
        if (planes[i].half == half) {
            mem_free(planes[i].exact);
            planes[i] = planes[--n_planes];
            return;
        }
    }
}

static void for_planes(const struct kv_cache *kv, void (*fn)(const uint16_t *half, size_t n))
{
    for (int i = 0; i < kv->n_groups; i++) {
        const struct kv_group *g = &kv->group[i];
        size_t n = (size_t)g->n_layer * (size_t)g->n_head_kv * KV_BLOCK_ROWS * (size_t)g->head_dim;
        for (int k = 0; k < g->n_blocks; k++) {
            fn(g->blocks[k]->k, n);
            fn(g->blocks[k]->v, n);
        }
    }
}

struct kv_cache fixture_kv(const struct fixture *f, const int *cutoffs, int n_cutoffs, int capacity)
{
    struct err e = ERR_INIT;
    struct kv_cache kv;
    struct kv_shape shape = decoder_kv_shape(f->d);
    CHECK_OK(kv_init(&kv, &shape, cutoffs, n_cutoffs, capacity, &e), e);
    if (f->exact_kv) { /* all blocks now: only these have a twin */
        CHECK_OK(kv_prepare(&kv, capacity, &e), e);
        for_planes(&kv, add_plane);
    }
    return kv;
}

void fixture_kv_clear(struct kv_cache *kv)
{
    for_planes(kv, remove_plane);
    kv_clear(kv);
}

static bool same_row(const struct kv_group *a, const struct kv_group *b, int row)
{
    size_t bytes = (size_t)a->head_dim * sizeof(uint16_t);
    for (int layer = a->first_layer; layer < a->first_layer + a->n_layer; layer++) {
        for (int head = 0; head < a->n_head_kv; head++) {
            if (memcmp(kv_keys(a, layer, head, row), kv_keys(b, layer, head, row), bytes) != 0 ||
                memcmp(kv_values(a, layer, head, row), kv_values(b, layer, head, row), bytes) !=
                    0) {
                return false;
            }
        }
    }
    return test_same_bits(kv_positions(a, row), kv_positions(b, row), 1) &&
           test_same_bits(kv_log_masses(a, row), kv_log_masses(b, row), 1);
}

bool fixture_same_kv(const struct kv_cache *a, const struct kv_cache *b)
{
    bool same = a->n_groups == b->n_groups;
    for (int i = 0; same && i < a->n_groups; i++) {
        same = a->group[i].n == b->group[i].n;
        for (int row = 0; same && row < a->group[i].n; row++) {
            same = same_row(&a->group[i], &b->group[i], row);
        }
    }
    return same;
}

/* ---- passes ---- */

struct rows fixture_rows(struct fixture *f, const token_id *ids, int n, int first)
{
    struct err e = ERR_INIT;
    struct rows r;
    CHECK_OK(rows_init(&r, &f->rows, n, f->info->n_embd, ROW_TEXT, (float)first, &e), e);
    decoder_embed(f->d, ids, n, r.x, &f->compute);
    return r;
}

void fixture_run(struct fixture *f, struct decoder_slice slice)
{
    struct err e = ERR_INIT;
    CHECK_OK(decoder_run(f->d, &slice, 1, &f->compute, &f->scratch, &e), e);
}

void fixture_ids(struct fixture *f, struct kv_cache *kv, const token_id *ids, int n, bool all,
                 float *logits)
{
    struct rows rows = fixture_rows(f, ids, n, kv->n_positions);
    fixture_run(
        f, (struct decoder_slice){
               .kv = kv, .rows = &rows, .is_prompt = n > 1, .all_logits = all, .logits = logits});
    kv->n_positions += n;
}

float *fixture_logits(const struct fixture *f, int n_rows)
{
    float *logits = mem_alloc((size_t)n_rows * (size_t)f->info->n_vocab, sizeof *logits);
    CHECK(logits);
    return logits;
}

const char *const tiny_names[] = {"llama-bpe",     "llama-spm", "smollm-legacy-quants",
                                  "gpt2-k-quants", "qwen2",     "qwen3",
                                  "gemma3",        NULL};

/* "n id id ... id"; lines that start with # are skipped. */
static int read_ids(FILE *in, token_id *ids, int room)
{
    int n = 0;
    while (fscanf(in, " #%*[^\n]") == 0 && fscanf(in, "%d", &n) != 1) {
        CHECK(!feof(in));
    }
    CHECK_INT(n, <=, room);
    for (int i = 0; i < n; i++) {
        CHECK_INT(fscanf(in, "%d", &ids[i]), ==, 1);
    }
    return n;
}

void tiny_open(struct tiny *t, const char *name, int n_threads)
{
    char file[96];
    int64_t shape[4];
    snprintf(file, sizeof file, "tiny/%s.gguf", name);
    char *path = test_golden_path(file);
    fixture_open(&t->f, path, n_threads);
    mem_free(path);

    snprintf(file, sizeof file, "tiny/%s.sequence.vec", name);
    path = test_golden_path(file);
    FILE *in = fopen(path, "r");
    CHECK(in);
    t->n_prompt = read_ids(in, t->ids, 64);
    t->n_greedy = read_ids(in, t->ids + t->n_prompt, 64);
    fclose(in);
    mem_free(path);

    snprintf(file, sizeof file, "tiny/%s.logits.npy", name);
    path = test_golden_path(file);
    test_npy(path, &t->logits, shape);
    mem_free(path);
    CHECK_INT(shape[0], ==, t->n_prompt + t->n_greedy);
    CHECK_INT(shape[1], ==, t->f.info->n_vocab);
}

void tiny_close(struct tiny *t)
{
    mem_free(t->logits);
    fixture_close(&t->f);
}
