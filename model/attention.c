/* Work is cut into units: some queries of one job, the query heads of one KV head, and a
 * run of key tiles. With many queries a unit has all their keys. With few (decoding) the
 * keys are shared out as well; then the result of each tile is kept, and a second step
 * adds them up in the order in which one unit would have done it. */
#include "model/attention.h"

#include "tensor/kernels.h"
#include "tensor/vector_ops.h"

#include <stdatomic.h>

_Static_assert(KV_BLOCK_ROWS % ATTEND_KEYS == 0, "a tile's keys lie in one block of the cache");

/* bf16 parts of weights and values of rows in bulk: the linear layers behind them take one,
 * too. */
#define WEIGHT_PARTS 1
#define MAX_HEADS    16 /* query heads of one unit */
/* Keys are shared out while there are fewer units than this for each thread, */
#define UNITS_PER_THREAD 4
/* into runs of at least so many tiles: a unit costs about a tile's work to begin, */
#define MIN_TILES 2
/* as long as what is kept takes no more than this. */
#define MAX_KEPT_BYTES ((size_t)8 << 20)

struct unit {
    const struct attention_job *job;
    int head_kv;
    int head;    /* first query head */
    int n_heads; /* 1..MAX_HEADS */
    int query;   /* first query */
    int n_queries;
    int first_tile, end_tile; /* of the keys */
    float *kept;              /* results of all tiles of these queries; NULL = not kept */
};

struct schedule {
    const struct attention_shape *shape;
    const struct attention_job *jobs;
    int n_jobs;
    int heads_per_unit, units_per_head_kv, queries_per_unit;
    int tiles_per_unit; /* 0 = all */
    float *kept;        /* of all units, job by job; NULL when tiles_per_unit is 0 */
    int n_units;
    atomic_int next;      /* units are handed out one by one: causal ones differ in cost */
    struct attend *tiles; /* [threads] */
};

static int rows_of(const struct unit *u)
{
    return u->n_queries * u->n_heads;
}

/* Keys that query i of the job sees. */
static int keys_of(const struct attention_job *job, int i)
{
    return job->n_keys - (job->n - 1 - i);
}

static int tiles_of(int n_keys)
{
    return (n_keys + ATTEND_KEYS - 1) / ATTEND_KEYS;
}

/* ---- one unit ---- */

static void load_queries(const struct schedule *s, const struct unit *u, struct attend *t)
{
    size_t width = (size_t)u->n_heads * (size_t)t->dim;
    size_t ld = (size_t)s->shape->n_head * (size_t)t->dim;
    for (int i = 0; i < u->n_queries; i++) {
        const float *from =
            u->job->q + (size_t)(u->query + i) * ld + (size_t)u->head * (size_t)t->dim;
        float *to = t->q + (size_t)i * width;
        for (size_t j = 0; j < width; j++) {
            to[j] = from[j] * s->shape->scale;
        }
        for (int h = 0; h < u->n_heads; h++) {
            t->position[i * u->n_heads + h] = u->job->position[u->query + i];
        }
    }
}

/* True when no query of the unit can see a key of this tile, for its window. */
static bool out_of_window(const struct unit *u, int first, int n)
{
    const struct attention_job *job = u->job;
    if (job->window <= 0) {
        return false;
    }
    const float *key_position = kv_positions(job->kv, first);
    float newest = key_position[0];
    for (int i = 1; i < n; i++) {
        newest = key_position[i] > newest ? key_position[i] : newest;
    }
    for (int i = 0; i < u->n_queries; i++) {
        if (job->position[u->query + i] - newest < (float)job->window) {
            return false;
        }
    }
    return true;
}

/* Keys of tile number `tile` that the unit's last query sees; 0 when the tile is of no use
 * to any of them. */
static int keys_in_tile(const struct unit *u, int tile)
{
    int first = tile * ATTEND_KEYS;
    int n = keys_of(u->job, u->query + u->n_queries - 1) - first;
    n = n < ATTEND_KEYS ? n : ATTEND_KEYS;
    return n <= 0 || out_of_window(u, first, n) ? 0 : n;
}

/* The n keys and values from row `first` on are one run of memory. */
static void load_keys(const struct unit *u, struct attend *t, int first, int n)
{
    const struct kv_group *kv = u->job->kv;
    if (kv->type == KV_Q8_0) {
        struct kv_q8 k = kv_q8_keys(kv, u->job->layer, u->head_kv, first);
        struct kv_q8 v = kv_q8_values(kv, u->job->layer, u->head_kv, first);
        attend_load_q8(t, 0, &(struct attend_q8){k.q, k.scale}, &(struct attend_q8){v.q, v.scale},
                       n);
        return;
    }
    attend_load_f16(t, 0, kv_keys(kv, u->job->layer, u->head_kv, first),
                    kv_values(kv, u->job->layer, u->head_kv, first), n);
}

static void attend_keys(const struct schedule *s, const struct unit *u, struct attend *t, int first,
                        int n, const struct attend_state *part)
{
    const struct attention_job *job = u->job;
    struct attend_terms terms = {
        .softcap = s->shape->softcap,
        .bias = job->use_log_mass ? kv_log_masses(job->kv, first) : NULL,
        .key_position = kv_positions(job->kv, first),
        .window = (float)job->window,
    };
    load_keys(u, t, first, n);
    for (int r = 0; r < rows_of(u); r++) {
        int seen = keys_of(job, u->query + r / u->n_heads) - first;
        t->visible[r] = seen < 0 ? 0 : seen < n ? seen : n;
    }
    attend_tile(t, rows_of(u), &terms, part);
}

static void store_result(const struct schedule *s, const struct unit *u, const struct attend *t)
{
    size_t ld = (size_t)s->shape->n_head * (size_t)t->dim;
    for (int r = 0; r < rows_of(u); r++) {
        int query = u->query + r / u->n_heads;
        int head = u->head + r % u->n_heads;
        attend_store(t, r, u->job->out + (size_t)query * ld + (size_t)head * (size_t)t->dim);
    }
}

static struct attend_state kept_state(const struct unit *u, const struct attend *t, int tile)
{
    size_t size = attend_state_floats(t, rows_of(u));
    return attend_state_in(t, u->kept + (size_t)tile * size, rows_of(u));
}

static void attend_unit(const struct schedule *s, const struct unit *u, struct attend *t)
{
    load_queries(s, u, t);
    if (u->job->in_bulk) {
        attend_begin_bulk(t, rows_of(u), WEIGHT_PARTS);
    } else {
        attend_begin(t, rows_of(u));
    }
    for (int tile = u->first_tile; tile < u->end_tile; tile++) {
        int n = keys_in_tile(u, tile);
        if (n == 0) {
            continue;
        }
        struct attend_state part = u->kept ? kept_state(u, t, tile) : t->part;
        attend_keys(s, u, t, tile * ATTEND_KEYS, n, &part);
        if (!u->kept) {
            attend_add(t, rows_of(u), &part);
        }
    }
    if (!u->kept) {
        store_result(s, u, t);
    }
}

static void add_kept(const struct schedule *s, const struct unit *u, struct attend *t)
{
    attend_begin(t, rows_of(u));
    for (int tile = 0; tile < tiles_of(u->job->n_keys); tile++) {
        if (keys_in_tile(u, tile) > 0) {
            struct attend_state part = kept_state(u, t, tile);
            attend_add(t, rows_of(u), &part);
        }
    }
    store_result(s, u, t);
}

/* ---- which units there are ---- */

/* Runs of key tiles. */
static int job_parts(const struct schedule *s, const struct attention_job *job)
{
    return s->tiles_per_unit == 0
               ? 1
               : (tiles_of(job->n_keys) + s->tiles_per_unit - 1) / s->tiles_per_unit;
}

/* Sets of rows: queries and heads. */
static int job_sets(const struct schedule *s, const struct attention_job *job)
{
    int tiles = (job->n + s->queries_per_unit - 1) / s->queries_per_unit;
    return tiles * s->shape->n_head_kv * s->units_per_head_kv;
}

static size_t kept_floats(const struct schedule *s, const struct attention_job *job)
{
    int rows = job->n < s->queries_per_unit ? job->n : s->queries_per_unit;
    return attend_state_floats(s->tiles, rows * s->heads_per_unit) * (size_t)tiles_of(job->n_keys);
}

/* Set number `index` of the job with all its keys. Queries that fill no unit are the first
 * ones, which see the fewest keys: from the back, small units come last. */
static struct unit set_at(const struct schedule *s, const struct attention_job *job, int index,
                          float *kept)
{
    int group = s->shape->n_head / s->shape->n_head_kv;
    int per_tile = s->shape->n_head_kv * s->units_per_head_kv;
    int n_tiles = (job->n + s->queries_per_unit - 1) / s->queries_per_unit;
    int end = job->n - (n_tiles - 1 - index / per_tile) * s->queries_per_unit;
    int first_head = index % s->units_per_head_kv * s->heads_per_unit;
    struct unit u = {.job = job, .head_kv = index % per_tile / s->units_per_head_kv};
    u.head = u.head_kv * group + first_head;
    u.n_heads = group - first_head < s->heads_per_unit ? group - first_head : s->heads_per_unit;
    u.query = end > s->queries_per_unit ? end - s->queries_per_unit : 0;
    u.n_queries = end - u.query;
    u.end_tile = tiles_of(keys_of(job, end - 1));
    u.kept = kept ? kept + (size_t)index * kept_floats(s, job) : NULL;
    return u;
}

/* Units are numbered job by job, in a job by queries first and by keys last. With `whole`
 * sets are counted instead. */
static struct unit unit_at(const struct schedule *s, int index, bool whole)
{
    const struct attention_job *job = s->jobs;
    float *kept = s->kept;
    for (;; job++) {
        int n = job_sets(s, job) * (whole ? 1 : job_parts(s, job));
        if (index < n) {
            break;
        }
        index -= n;
        kept = kept ? kept + (size_t)job_sets(s, job) * kept_floats(s, job) : NULL;
    }
    int parts = whole ? 1 : job_parts(s, job);
    struct unit u = set_at(s, job, index / parts, kept);
    if (parts > 1) {
        u.first_tile = index % parts * s->tiles_per_unit;
        int end = u.first_tile + s->tiles_per_unit;
        u.end_tile = end < u.end_tile ? end : u.end_tile;
    }
    return u;
}

static void unit_worker(void *ctx, int ith, int nth)
{
    struct schedule *s = ctx;
    (void)nth;
    for (;;) {
        int index = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (index >= s->n_units) {
            return;
        }
        /* From the back: the last queries see the most keys. */
        struct unit u = unit_at(s, s->n_units - 1 - index, false);
        attend_unit(s, &u, &s->tiles[ith]);
    }
}

static int count_sets(const struct schedule *s)
{
    int n = 0;
    for (int i = 0; i < s->n_jobs; i++) {
        n += job_sets(s, &s->jobs[i]);
    }
    return n;
}

static void add_worker(void *ctx, int ith, int nth)
{
    struct schedule *s = ctx;
    int begin;
    int end;
    pool_slice(count_sets(s), 1, ith, nth, &begin, &end);
    for (int i = begin; i < end; i++) {
        struct unit u = unit_at(s, i, true);
        add_kept(s, &u, &s->tiles[ith]);
    }
}

/* Share out the keys where that is worth it and there is memory for it. */
static void split_keys(struct schedule *s, const struct attention *a, int n_threads)
{
    size_t n_tiles = 0;
    size_t floats = 0;
    if (count_sets(s) >= UNITS_PER_THREAD * n_threads || n_threads == 1) {
        return;
    }
    for (int i = 0; i < s->n_jobs; i++) {
        size_t sets = (size_t)job_sets(s, &s->jobs[i]);
        n_tiles += sets * (size_t)tiles_of(s->jobs[i].n_keys);
        floats += sets * kept_floats(s, &s->jobs[i]);
    }
    int share = (int)(n_tiles / (2 * UNITS_PER_THREAD) / (size_t)n_threads);
    if (n_tiles / (2 * MIN_TILES) < (size_t)n_threads || floats > MAX_KEPT_BYTES / sizeof(float)) {
        return;
    }
    s->kept = arena_alloc(a->scratch, floats, sizeof *s->kept);
    s->tiles_per_unit = !s->kept ? 0 : share > MIN_TILES ? share : MIN_TILES;
}

static void plan_units(struct schedule *s)
{
    int group = s->shape->n_head / s->shape->n_head_kv;
    s->heads_per_unit = group < MAX_HEADS ? group : MAX_HEADS;
    s->units_per_head_kv = (group + s->heads_per_unit - 1) / s->heads_per_unit;
    s->queries_per_unit = ATTEND_ROWS / s->heads_per_unit;
}

int attention_init(struct attention *a, const struct attention_shape *shape,
                   const struct compute *c, struct arena *scratch, struct err *e)
{
    int n_threads = pool_size(c->pool);
    *a = (struct attention){.shape = *shape, .compute = c, .scratch = scratch};
    a->tiles = arena_zalloc(scratch, (size_t)n_threads, sizeof *a->tiles);
    for (int i = 0; i < n_threads; i++) {
        if (!a->tiles || attend_init(&a->tiles[i], vector_ops_used()->attend,
                                     c->kernels->attend_bulk, shape->head_dim, scratch)) {
            return err_set(e, ERR_NO_MEMORY, "no scratch memory left for attention");
        }
    }
    return 0;
}

void attention_run(const struct attention *a, const struct attention_job *jobs, int n_jobs)
{
    struct arena_mark mark = arena_mark(a->scratch);
    struct schedule s = {.shape = &a->shape, .jobs = jobs, .n_jobs = n_jobs, .tiles = a->tiles};
    plan_units(&s);
    split_keys(&s, a, pool_size(a->compute->pool));
    for (int i = 0; i < n_jobs; i++) {
        s.n_units += job_sets(&s, &jobs[i]) * job_parts(&s, &jobs[i]);
    }
    pool_run(a->compute->pool, unit_worker, &s);
    if (s.kept) {
        pool_run(a->compute->pool, add_worker, &s);
    }
    arena_rewind(a->scratch, mark);
}
