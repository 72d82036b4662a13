#include "model/attention.h"

#include "tensor/blas.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define TILE_ROWS 128 /* queries x heads of one unit of work */
#define TILE_KEYS 128
#define MAX_HEADS 16 /* query heads of one unit */
/* From here on the products go through BLAS on widened tiles; with fewer rows the
 * widening costs more than it brings and the half-precision kernels are faster. */
#define BLAS_ROWS 24

/* What one thread needs for a unit. */
struct attention_tile {
    float *q;        /* [TILE_ROWS, head_dim] scaled queries; row = query * n_heads + head */
    float *scores;   /* [TILE_ROWS, TILE_KEYS] */
    float *keys;     /* [TILE_KEYS, head_dim] widened */
    float *values;   /* [TILE_KEYS, head_dim] widened */
    float *values_t; /* [head_dim, TILE_KEYS] transposed: BLAS here multiplies by a transpose */
    float *sum;      /* [TILE_ROWS, head_dim] running weighted sum of values */
    float *product;  /* [TILE_ROWS, head_dim] */
    float max[TILE_ROWS];
    float norm[TILE_ROWS];
};

/* A unit of work: some queries of one job, some query heads of one KV head. */
struct unit {
    const struct attention_job *job;
    int head_kv;
    int head;    /* first query head */
    int n_heads; /* 1..MAX_HEADS */
    int query;   /* first query */
    int n_queries;
};

struct schedule {
    const struct attention_shape *shape;
    const struct attention_job *jobs;
    int n_jobs;
    int heads_per_unit, units_per_head_kv, queries_per_unit;
    int n_units;
    atomic_int next;              /* units are handed out one by one: causal ones differ in cost */
    struct attention_tile *tiles; /* [threads] */
    const struct kernels *kernels;
};

/* Four lanes as the compiler's own vectors: comparisons become masks, which plain loops
 * with a condition in them do not. */
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

static inline f32x4 splat(float v)
{
    return (f32x4){v, v, v, v};
}

/* where mask is set a, else b */
static inline f32x4 choose(i32x4 mask, f32x4 a, f32x4 b)
{
    return (f32x4)((mask & (i32x4)a) | (~mask & (i32x4)b));
}

/* e^x for x <= 0 to 2 ulp (libm's is a call for each score). NaN stays NaN, so that the
 * check of the logits sees it. */
static inline f32x4 exp_nonpositive(f32x4 x)
{
    const f32x4 lowest = splat(-87.0f);       /* e^-87 is the last normal number */
    const f32x4 rounder = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    i32x4 too_low = x < lowest;
    f32x4 t = choose(too_low, lowest, x);
    f32x4 shifted = t * splat(1.44269504f) + rounder;
    f32x4 n = shifted - rounder;
    f32x4 r = t - n * splat(0.693359375f) + n * splat(2.12194440e-4f); /* ln 2 in two parts */
    f32x4 p = splat(1.9875691e-4f);
    p = p * r + splat(1.3981999e-3f);
    p = p * r + splat(8.3334519e-3f);
    p = p * r + splat(4.1665796e-2f);
    p = p * r + splat(1.6666665e-1f);
    p = p * r + splat(5.0000001e-1f);
    p = p * r * r + r + splat(1.0f);
    u32x4 power = ((u32x4)shifted + 127u) << 23; /* 2^n */
    return choose(too_low, splat(0.0f), p * (f32x4)power);
}

/* Rows of scores have room for whole vectors: TILE_KEYS is a multiple of four. */
static int pad_to_vector(float *x, int n)
{
    for (; n % 4 != 0; n++) {
        x[n] = -INFINITY;
    }
    return n;
}

/* In place x[i] = e^(x[i] - max); returns the sum, added in four lanes. Up to three
 * entries behind the row become 0. */
static float exp_row(float *x, int n, float max)
{
    f32x4 sum = splat(0.0f);
    n = pad_to_vector(x, n);
    for (int i = 0; i < n; i += 4) {
        f32x4 v;
        memcpy(&v, x + i, sizeof v);
        v = exp_nonpositive(v - max);
        sum += v;
        memcpy(x + i, &v, sizeof v);
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* The larger of max and x[0..n); entries behind the row become -inf. */
static float max_row(float *x, int n, float max)
{
    f32x4 best = splat(max);
    n = pad_to_vector(x, n);
    for (int i = 0; i < n; i += 4) {
        f32x4 v;
        memcpy(&v, x + i, sizeof v);
        best = choose(v > best, v, best);
    }
    float low = best[0] > best[1] ? best[0] : best[1];
    float high = best[2] > best[3] ? best[2] : best[3];
    return low > high ? low : high;
}

static void load_queries(const struct schedule *s, const struct unit *u, struct attention_tile *t)
{
    int dim = s->shape->head_dim;
    size_t ld = (size_t)s->shape->n_head * (size_t)dim;
    for (int i = 0; i < u->n_queries; i++) {
        const float *from = u->job->q + (size_t)(u->query + i) * ld + (size_t)u->head * (size_t)dim;
        float *to = t->q + (size_t)i * (size_t)u->n_heads * (size_t)dim;
        for (int j = 0; j < u->n_heads * dim; j++) {
            to[j] = from[j] * s->shape->scale;
        }
    }
}

static void score_with_blas(const struct schedule *s, int rows, const uint16_t *k, int n,
                            struct attention_tile *t)
{
    int dim = s->shape->head_dim;
    s->kernels->f16_to_f32(t->keys, k, n * dim);
    blas_gemm_nt(rows, n, dim, t->q, dim, t->keys, dim, t->scores, TILE_KEYS);
}

static void score_with_kernels(const struct schedule *s, int rows, const uint16_t *k, int n,
                               struct attention_tile *t)
{
    int dim = s->shape->head_dim;
    for (int j = 0; j < n; j++) {
        const uint16_t *key = k + (size_t)j * (size_t)dim;
        for (int r = 0; r < rows; r++) {
            t->scores[r * TILE_KEYS + j] =
                s->kernels->dot_f16(key, t->q + (size_t)r * (size_t)dim, dim);
        }
    }
}

static void transpose(const float *from, int rows, int cols, float *to, int ld_to)
{
    for (int c = 0; c < cols; c++) {
        for (int r = 0; r < rows; r++) {
            to[(size_t)c * (size_t)ld_to + (size_t)r] = from[(size_t)r * (size_t)cols + (size_t)c];
        }
    }
}

static void add_values_with_blas(const struct schedule *s, int rows, const uint16_t *v, int n,
                                 struct attention_tile *t)
{
    int dim = s->shape->head_dim;
    s->kernels->f16_to_f32(t->values, v, n * dim);
    transpose(t->values, n, dim, t->values_t, TILE_KEYS);
    blas_gemm_nt(rows, dim, n, t->scores, TILE_KEYS, t->values_t, TILE_KEYS, t->product, dim);
    op_add(t->sum, t->product, (size_t)rows * (size_t)dim);
}

static void add_values_with_kernels(const struct schedule *s, int rows, const uint16_t *v, int n,
                                    struct attention_tile *t)
{
    int dim = s->shape->head_dim;
    for (int j = 0; j < n; j++) {
        const uint16_t *value = v + (size_t)j * (size_t)dim;
        for (int r = 0; r < rows; r++) {
            s->kernels->axpy_f16(t->sum + (size_t)r * (size_t)dim, value,
                                 t->scores[r * TILE_KEYS + j], dim);
        }
    }
}

/* Keys of the tile [first, first + n) that query i of the unit may see, counted from
 * the front; the window is the caller's. */
static int visible(const struct unit *u, int i, int first, int n)
{
    int seen = u->job->n_keys - (u->job->n - 1 - (u->query + i)) - first;
    return seen < 0 ? 0 : seen < n ? seen : n;
}

/* Soft cap, log mass and window on one row of scores. */
static void adjust_scores(const struct schedule *s, const struct unit *u, float *scores, int n,
                          int first, float position)
{
    const struct attention_job *job = u->job;
    if (s->shape->softcap > 0) {
        op_softcap(scores, (size_t)n, s->shape->softcap);
    }
    if (job->use_log_mass) {
        op_add(scores, job->kv->log_mass + first, (size_t)n);
    }
    if (job->window > 0) {
        const float *key_position = job->kv->position + first;
        for (int j = 0; j < n; j++) {
            scores[j] = position - key_position[j] >= (float)job->window ? -INFINITY : scores[j];
        }
    }
}

/* One step of the running softmax for row r: scores become weights relative to the new
 * maximum, what has been summed so far is scaled to it. */
static void absorb_row(struct attention_tile *t, int r, int n_visible, int n, int dim)
{
    float *scores = t->scores + r * TILE_KEYS;
    float max = max_row(scores, n_visible, t->max[r]);
    int used = max == -INFINITY ? 0 : n_visible;
    memset(scores + used, 0, (size_t)(n - used) * sizeof *scores);
    if (used == 0) {
        return;
    }
    float scale = t->max[r] == -INFINITY ? 0.0f : expf(t->max[r] - max);
    if (scale != 1.0f) {
        op_scale(t->sum + (size_t)r * (size_t)dim, scale, (size_t)dim);
    }
    t->norm[r] = t->norm[r] * scale + exp_row(scores, used, max);
    t->max[r] = max;
}

/* True when no query of the unit can see a key of this tile, for its window. */
static bool out_of_window(const struct unit *u, int first, int n)
{
    const struct attention_job *job = u->job;
    if (job->window <= 0) {
        return false;
    }
    float newest = -INFINITY;
    for (int i = first; i < first + n; i++) {
        newest = job->kv->position[i] > newest ? job->kv->position[i] : newest;
    }
    for (int i = 0; i < u->n_queries; i++) {
        if (job->position[u->query + i] - newest < (float)job->window) {
            return false;
        }
    }
    return true;
}

static void attend_keys(const struct schedule *s, const struct unit *u, struct attention_tile *t,
                        int first, int n)
{
    const struct kv_group *kv = u->job->kv;
    int dim = s->shape->head_dim;
    struct kv_shape kv_shape = {.n_head_kv = s->shape->n_head_kv, .head_dim = dim};
    size_t at =
        kv_head_offset(kv, &kv_shape, u->job->layer, u->head_kv) + (size_t)first * (size_t)dim;
    int rows = u->n_queries * u->n_heads;
    bool blas = rows >= BLAS_ROWS && u->job->n > ATTENTION_EXACT_QUERIES;
    (blas ? score_with_blas : score_with_kernels)(s, rows, kv->k + at, n, t);
    for (int r = 0; r < rows; r++) {
        int query = r / u->n_heads;
        int n_visible = visible(u, query, first, n);
        adjust_scores(s, u, t->scores + r * TILE_KEYS, n_visible, first,
                      u->job->position[u->query + query]);
        absorb_row(t, r, n_visible, n, dim);
    }
    (blas ? add_values_with_blas : add_values_with_kernels)(s, rows, kv->v + at, n, t);
}

static void store_result(const struct schedule *s, const struct unit *u,
                         const struct attention_tile *t)
{
    int dim = s->shape->head_dim;
    size_t ld = (size_t)s->shape->n_head * (size_t)dim;
    for (int r = 0; r < u->n_queries * u->n_heads; r++) {
        int query = u->query + r / u->n_heads;
        int head = u->head + r % u->n_heads;
        float *to = u->job->out + (size_t)query * ld + (size_t)head * (size_t)dim;
        const float *from = t->sum + (size_t)r * (size_t)dim;
        float inverse = 1.0f / t->norm[r];
        for (int j = 0; j < dim; j++) {
            to[j] = from[j] * inverse;
        }
    }
}

static void attend_unit(const struct schedule *s, const struct unit *u, struct attention_tile *t)
{
    int rows = u->n_queries * u->n_heads;
    load_queries(s, u, t);
    memset(t->sum, 0, (size_t)rows * (size_t)s->shape->head_dim * sizeof *t->sum);
    for (int r = 0; r < rows; r++) {
        t->max[r] = -INFINITY;
        t->norm[r] = 0;
    }
    int end = u->job->n_keys - (u->job->n - (u->query + u->n_queries));
    for (int first = 0; first < end; first += TILE_KEYS) {
        int n = end - first < TILE_KEYS ? end - first : TILE_KEYS;
        if (!out_of_window(u, first, n)) {
            attend_keys(s, u, t, first, n);
        }
    }
    store_result(s, u, t);
}

static int job_units(const struct schedule *s, const struct attention_job *job)
{
    int tiles = (job->n + s->queries_per_unit - 1) / s->queries_per_unit;
    return tiles * s->shape->n_head_kv * s->units_per_head_kv;
}

/* Units are numbered job by job, and in a job by queries first. */
static struct unit unit_at(const struct schedule *s, int index)
{
    const struct attention_job *job = s->jobs;
    while (index >= job_units(s, job)) {
        index -= job_units(s, job);
        job++;
    }
    int group = s->shape->n_head / s->shape->n_head_kv;
    int per_tile = s->shape->n_head_kv * s->units_per_head_kv;
    int part = index % per_tile % s->units_per_head_kv;
    struct unit u = {.job = job, .head_kv = index % per_tile / s->units_per_head_kv};
    int first = part * s->heads_per_unit;
    u.head = u.head_kv * group + first;
    u.n_heads = group - first < s->heads_per_unit ? group - first : s->heads_per_unit;
    u.query = index / per_tile * s->queries_per_unit;
    int left = job->n - u.query;
    u.n_queries = left < s->queries_per_unit ? left : s->queries_per_unit;
    return u;
}

static void attention_worker(void *ctx, int ith, int nth)
{
    struct schedule *s = ctx;
    (void)nth;
    for (;;) {
        int index = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (index >= s->n_units) {
            return;
        }
        /* From the back: the last queries see the most keys. */
        struct unit u = unit_at(s, s->n_units - 1 - index);
        attend_unit(s, &u, &s->tiles[ith]);
    }
}

static int tile_alloc(struct attention_tile *t, int head_dim, struct arena *scratch)
{
    size_t dim = (size_t)head_dim * sizeof(float);
    t->q = arena_alloc(scratch, TILE_ROWS, dim);
    t->scores = arena_alloc(scratch, (size_t)TILE_ROWS * TILE_KEYS, sizeof(float));
    t->keys = arena_alloc(scratch, TILE_KEYS, dim);
    t->values = arena_alloc(scratch, TILE_KEYS, dim);
    t->values_t = arena_alloc(scratch, TILE_KEYS, dim);
    t->sum = arena_alloc(scratch, TILE_ROWS, dim);
    t->product = arena_alloc(scratch, TILE_ROWS, dim);
    return t->q && t->scores && t->keys && t->values && t->values_t && t->sum && t->product ? 0
                                                                                            : -1;
}

static void plan_units(struct schedule *s)
{
    int group = s->shape->n_head / s->shape->n_head_kv;
    s->heads_per_unit = group < MAX_HEADS ? group : MAX_HEADS;
    s->units_per_head_kv = (group + s->heads_per_unit - 1) / s->heads_per_unit;
    s->queries_per_unit = TILE_ROWS / s->heads_per_unit;
    for (int i = 0; i < s->n_jobs; i++) {
        s->n_units += job_units(s, &s->jobs[i]);
    }
}

int attention_init(struct attention *a, const struct attention_shape *shape,
                   const struct compute *c, struct arena *scratch, struct err *e)
{
    int n_threads = pool_size(c->pool);
    *a = (struct attention){.shape = *shape, .compute = c};
    a->tiles = arena_zalloc(scratch, (size_t)n_threads, sizeof *a->tiles);
    for (int i = 0; i < n_threads; i++) {
        if (!a->tiles || tile_alloc(&a->tiles[i], shape->head_dim, scratch)) {
            return err_set(e, ERR_NO_MEMORY, "no scratch memory left for attention");
        }
    }
    return 0;
}

void attention_run(const struct attention *a, const struct attention_job *jobs, int n_jobs)
{
    struct schedule s = {.shape = &a->shape,
                         .jobs = jobs,
                         .n_jobs = n_jobs,
                         .tiles = a->tiles,
                         .kernels = a->compute->kernels};
    plan_units(&s);
    pool_run(a->compute->pool, attention_worker, &s);
}
