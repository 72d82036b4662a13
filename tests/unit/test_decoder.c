/* Properties of the pass: what the cache, merging, batching and threads must not change. */
#include "base/alloc.h"
#include "model/decoder.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A hook that merges neighbours (1,2), (3,4), ... of the first n_prompt rows; the first and
 * the last of them and everything behind stay alone. */
struct pair_merge {
    int layer, n_prompt;
    struct arena arena;
    int n_runs;
    bool fail;
    bool make_equal; /* copy the first row of each pair over the second */
    bool keep_apart; /* do not merge */
};

static bool pairs_wants(void *ctx, int layer)
{
    return layer == ((struct pair_merge *)ctx)->layer;
}

static int merge_pairs(struct pair_merge *m, struct rows *rows, struct err *e)
{
    int32_t map[256];
    int next = 0;
    CHECK_INT(rows->n, <=, 256);
    for (int i = 0; i < rows->n; i++) {
        bool second = i > 0 && i % 2 == 0 && i < m->n_prompt - 1;
        map[i] = second ? next - 1 : next++;
    }
    struct arena_mark mark = arena_mark(&m->arena);
    int rc = rows_merge(rows, map, next, &m->arena, e);
    arena_rewind(&m->arena, mark);
    return rc;
}

static int pairs_run(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                     int n_metric, struct err *e)
{
    struct pair_merge *m = ctx;
    CHECK_INT(layer, ==, m->layer);
    CHECK_INT(layer, <, n_layer);
    CHECK(!metric && n_metric == 0);
    CHECK_INT(rows->n, >=, m->n_prompt);
    m->n_runs++;
    if (m->fail) {
        return err_set(e, ERR_NO_MEMORY, "as the test asked");
    }
    size_t width = (size_t)rows->n_embd;
    for (int i = 2; m->make_equal && i < m->n_prompt - 1; i += 2) {
        memcpy(rows->x + (size_t)i * width, rows->x + (size_t)(i - 1) * width,
               width * sizeof *rows->x);
        rows->position[i] = rows->position[i - 1];
    }
    return m->keep_apart ? 0 : merge_pairs(m, rows, e);
}

static struct pair_merge pair_merge(int layer, int n_prompt)
{
    struct pair_merge m = {.layer = layer, .n_prompt = n_prompt};
    arena_init(&m.arena, (size_t)1 << 28);
    return m;
}

/* Logits behind ids[n] of which the first n_prompt are merged after `cutoff`, with a
 * fresh cache: everything from scratch. When kv is given, it is used and kept. */
static void run_merged(struct fixture *f, const token_id *ids, int n, int n_prompt, int cutoff,
                       struct kv_cache *kv, float *logits)
{
    struct err e = ERR_INIT;
    struct pair_merge m = pair_merge(cutoff, n_prompt);
    struct stage_hook hook = {pairs_wants, pairs_run, &m};
    struct kv_cache fresh = {0};
    if (!kv) {
        fresh = fixture_kv(f, &cutoff, 1, n);
        kv = &fresh;
    }
    struct rows rows = fixture_rows(f, ids, n, 0);
    if (cutoff < 0) {
        CHECK_OK(merge_pairs(&m, &rows, &e), e);
    }
    fixture_run(f, (struct decoder_slice){.kv = kv,
                                          .rows = &rows,
                                          .hook = cutoff < 0 ? NULL : &hook,
                                          .use_log_mass = true,
                                          .logits = logits});
    CHECK_INT(m.n_runs, ==, cutoff < 0 ? 0 : 1);
    CHECK_INT(rows.n, <, n);
    kv->n_positions = n;
    arena_clear(&m.arena);
    fixture_kv_clear(&fresh);
}

static void check_lengths(const struct kv_cache *kv, int cutoff, int n, int n_merged)
{
    for (int i = 0; i < kv->n_groups; i++) {
        bool above = kv->group[i].first_layer > cutoff;
        CHECK_INT(kv->group[i].n, ==, above ? n_merged : n);
    }
}

/* Largest |difference| of the logits over all decode steps. */
static double merged_decode_diff(struct fixture *f, const token_id *ids, int n_prompt, int n_decode,
                                 int cutoff)
{
    int n_vocab = f->info->n_vocab;
    int n_merged = n_prompt - (n_prompt - 2) / 2;
    float *got = fixture_logits(f, 1);
    float *want = fixture_logits(f, 1);
    struct kv_cache kv = fixture_kv(f, &cutoff, 1, n_prompt + n_decode);
    double worst = 0;
    run_merged(f, ids, n_prompt, n_prompt, cutoff, &kv, got);
    check_lengths(&kv, cutoff, n_prompt, n_merged);
    for (int i = 0; i < n_decode; i++) {
        struct rows row = fixture_rows(f, ids + n_prompt + i, 1, kv.n_positions);
        fixture_run(f, (struct decoder_slice){
                           .kv = &kv, .rows = &row, .use_log_mass = true, .logits = got});
        kv.n_positions++;
        check_lengths(&kv, cutoff, n_prompt + i + 1, n_merged + i + 1);
        run_merged(f, ids, n_prompt + i + 1, n_prompt, cutoff, NULL, want);
        double diff = test_max_diff(got, want, (size_t)n_vocab);
        worst = diff > worst || isnan(diff) ? diff : worst;
    }
    fixture_kv_clear(&kv);
    mem_free(got);
    mem_free(want);
    return worst;
}

/* fp32 caches are off by the order of additions alone: 1e-4 is the bar. Half-precision
 * ones by roundings that went the other way as well (see fixture_exact_kv): logits of
 * about 10 to 25 move by up to 0.01. */
static void check_cutoffs(struct fixture *f, double max_diff, const char *name, const token_id *ids,
                          int n_prompt, int n_decode)
{
    const int n_layer = f->info->n_layer;
    const int cutoffs[] = {-1, 0, n_layer / 2, n_layer - 1};
    for (int i = 0; i < 4; i++) {
        double diff = merged_decode_diff(f, ids, n_prompt, n_decode, cutoffs[i]);
        printf("      %-22s cutoff %2d: max |difference| %.2g\n", name, cutoffs[i], diff);
        CHECK_DOUBLE(diff, <=, max_diff);
    }
}

TEST(decoder_merged, "decode after a merged prefill = full recompute of the merged sequence")
{
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        tiny_open(&t, tiny_names[i], 2);
        check_cutoffs(&t.f, 0.01, tiny_names[i], t.ids, t.n_prompt, t.n_greedy);
        fixture_exact_kv(&t.f);
        check_cutoffs(&t.f, 1e-4, tiny_names[i], t.ids, t.n_prompt, t.n_greedy);
        tiny_close(&t);
    }
}

SLOW_TEST(decoder_merged_smollm, "the same on the real model")
{
    struct fixture f;
    token_id ids[44];
    for (int i = 0; i < 44; i++) {
        ids[i] = (i * 7919 + 13) % 49152;
    }
    fixture_open(&f, test_model_path(), 2);
    check_cutoffs(&f, 0.03, "SmolLM2", ids, 40, 4);
    fixture_exact_kv(&f);
    check_cutoffs(&f, 1e-4, "SmolLM2", ids, 40, 4);
    fixture_close(&f);
}

TEST(decoder_chunks, "a prompt in chunks and from the cache gives the logits of one pass")
{
    static const int chunks[] = {1, 7, 20, 3, 13, 16};
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        tiny_open(&t, tiny_names[i], 2);
        fixture_exact_kv(&t.f);
        size_t n_vocab = (size_t)t.f.info->n_vocab;
        int n = t.n_prompt + t.n_greedy;
        float *want = fixture_logits(&t.f, n);
        float *got = fixture_logits(&t.f, n);
        struct kv_cache whole = fixture_kv(&t.f, NULL, 0, n);
        struct kv_cache parts = fixture_kv(&t.f, NULL, 0, n);
        fixture_ids(&t.f, &whole, t.ids, n, true, want);
        for (int c = 0, at = 0; at < n; at += chunks[c++]) {
            fixture_ids(&t.f, &parts, t.ids + at, chunks[c], true, got + (size_t)at * n_vocab);
        }
        /* few and many rows take other paths through the products: 1e-5 of a logit */
        CHECK_DOUBLE(test_nmse(got, want, (size_t)n * n_vocab), <=, 1e-10);
        fixture_kv_clear(&whole);
        fixture_kv_clear(&parts);
        mem_free(want);
        mem_free(got);
        tiny_close(&t);
    }
}

TEST(decoder_last_row, "the logits of the last row alone are those of a pass with all rows")
{
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        tiny_open(&t, tiny_names[i], 1);
        size_t n_vocab = (size_t)t.f.info->n_vocab;
        float *all = fixture_logits(&t.f, t.n_prompt);
        float *last = fixture_logits(&t.f, 1);
        struct kv_cache a = fixture_kv(&t.f, NULL, 0, t.n_prompt);
        struct kv_cache b = fixture_kv(&t.f, NULL, 0, t.n_prompt);
        struct kv_cache c = fixture_kv(&t.f, NULL, 0, t.n_prompt);
        fixture_ids(&t.f, &a, t.ids, t.n_prompt, true, all);
        fixture_ids(&t.f, &b, t.ids, t.n_prompt, false, last);
        fixture_ids(&t.f, &c, t.ids, t.n_prompt, false, NULL);
        /* one row takes the row kernels instead of BLAS from the last block on */
        CHECK_DOUBLE(test_nmse(last, all + (size_t)(t.n_prompt - 1) * n_vocab, n_vocab), <=, 1e-10);
        CHECK(fixture_same_kv(&a, &b));
        CHECK(fixture_same_kv(&a, &c));
        fixture_kv_clear(&a);
        fixture_kv_clear(&b);
        fixture_kv_clear(&c);
        mem_free(all);
        mem_free(last);
        tiny_close(&t);
    }
}

/* All logits of a merged prompt with a given number of threads. */
static void run_threads(const char *name, int n_threads, float **logits, size_t *n)
{
    struct tiny t;
    tiny_open(&t, name, n_threads);
    int cutoff = 0;
    struct pair_merge m = pair_merge(cutoff, t.n_prompt);
    struct stage_hook hook = {pairs_wants, pairs_run, &m};
    struct kv_cache kv = fixture_kv(&t.f, &cutoff, 1, t.n_prompt);
    struct rows rows = fixture_rows(&t.f, t.ids, t.n_prompt, 0);
    *logits = fixture_logits(&t.f, t.n_prompt);
    fixture_run(&t.f, (struct decoder_slice){.kv = &kv,
                                             .rows = &rows,
                                             .hook = &hook,
                                             .use_log_mass = true,
                                             .all_logits = true,
                                             .logits = *logits});
    *n = (size_t)rows.n * (size_t)t.f.info->n_vocab;
    fixture_kv_clear(&kv);
    arena_clear(&m.arena);
    tiny_close(&t);
}

TEST(decoder_threads, "the number of threads changes no bit")
{
    for (int i = 0; tiny_names[i]; i++) {
        float *one;
        size_t n;
        run_threads(tiny_names[i], 1, &one, &n);
        for (int threads = 2; threads <= 3; threads++) {
            float *more;
            run_threads(tiny_names[i], threads, &more, &n);
            CHECK(memcmp(one, more, n * sizeof *one) == 0);
            mem_free(more);
        }
        mem_free(one);
    }
}

/* Before the last block the second row of each pair becomes a copy of the first: equal
 * keys and values there, so for what comes after they are one row of mass 2. */
static void run_equal_pairs(struct tiny *t, bool merge, bool use_log_mass, int from, float *logits)
{
    int n = 20;
    int cutoff = t->f.info->n_layer - 2;
    struct pair_merge m = pair_merge(cutoff, n);
    struct stage_hook hook = {pairs_wants, pairs_run, &m};
    struct kv_cache kv = fixture_kv(&t->f, &cutoff, 1, n);
    struct rows rows = fixture_rows(&t->f, t->ids, n, 0);
    m.make_equal = true;
    m.keep_apart = !merge;
    fixture_run(&t->f, (struct decoder_slice){.kv = &kv,
                                              .rows = &rows,
                                              .hook = &hook,
                                              .use_log_mass = use_log_mass,
                                              .log_mass_from = from,
                                              .logits = logits});
    fixture_kv_clear(&kv);
    arena_clear(&m.arena);
}

TEST(decoder_log_mass, "a row of mass 2 weighs as much as the two equal rows it stands for")
{
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        tiny_open(&t, tiny_names[i], 2);
        size_t n_vocab = (size_t)t.f.info->n_vocab;
        float *apart = fixture_logits(&t.f, 1);
        float *apart_mass = fixture_logits(&t.f, 1);
        float *merged = fixture_logits(&t.f, 1);
        float *merged_plain = fixture_logits(&t.f, 1);
        int n_layer = t.f.info->n_layer;
        run_equal_pairs(&t, false, false, 0, apart);
        run_equal_pairs(&t, false, true, 0, apart_mass);
        run_equal_pairs(&t, true, true, 0, merged);
        run_equal_pairs(&t, true, false, 0, merged_plain);
        CHECK(memcmp(apart, apart_mass, n_vocab * sizeof *apart) == 0);  /* log 1 is 0 */
        CHECK_DOUBLE(test_nmse(merged, apart, n_vocab), <=, 1e-10);      /* order of adding */
        CHECK_DOUBLE(test_nmse(merged_plain, apart, n_vocab), >=, 1e-6); /* it does count */
        /* from a block on: below the merge no row stands for several, behind the last is none */
        run_equal_pairs(&t, true, true, n_layer - 1, apart);
        CHECK(memcmp(apart, merged, n_vocab * sizeof *apart) == 0);
        run_equal_pairs(&t, true, true, n_layer, apart);
        CHECK(memcmp(apart, merged_plain, n_vocab * sizeof *apart) == 0);
        mem_free(apart);
        mem_free(apart_mass);
        mem_free(merged);
        mem_free(merged_plain);
        tiny_close(&t);
    }
}

/* ---- several slices ---- */

#define N_SLICES 4

/* Slices of 30, 9 (merged after block 0), 1 (decode) and 12 rows (no logits), each with
 * its own cache; together or one after the other. */
static void run_slices(struct tiny *t, bool together, float *logits[N_SLICES], int n_rows[N_SLICES])
{
    static const int lengths[N_SLICES] = {30, 9, 1, 12};
    struct err e = ERR_INIT;
    struct kv_cache kv[N_SLICES];
    struct rows rows[N_SLICES];
    struct decoder_slice slices[N_SLICES];
    int cutoff = 0;
    struct pair_merge m = pair_merge(0, lengths[1]);
    struct stage_hook hook = {pairs_wants, pairs_run, &m};
    for (int s = 0; s < N_SLICES; s++) {
        kv[s] = fixture_kv(&t->f, &cutoff, s == 1, 60);
        fixture_ids(&t->f, &kv[s], t->ids, 5 + s, false, NULL);
        rows[s] = fixture_rows(&t->f, t->ids + 6, lengths[s], 5 + s);
        logits[s] = s == 3 ? NULL : fixture_logits(&t->f, lengths[s]);
        slices[s] = (struct decoder_slice){.kv = &kv[s],
                                           .rows = &rows[s],
                                           .hook = s == 1 ? &hook : NULL,
                                           .all_logits = s < 2,
                                           .logits = logits[s]};
    }
    int step = together ? N_SLICES : 1;
    for (int s = 0; s < N_SLICES; s += step) {
        CHECK_OK(decoder_run(t->f.d, &slices[s], step, &t->f.compute, &t->f.scratch, &e), e);
    }
    for (int s = 0; s < N_SLICES; s++) {
        n_rows[s] = s == 3 ? 0 : s == 2 ? 1 : rows[s].n;
        CHECK_INT(kv[s].group[0].n, ==, 5 + s + lengths[s]);
        fixture_kv_clear(&kv[s]);
    }
    CHECK_INT(n_rows[1], ==, 6);
    arena_clear(&m.arena);
}

TEST(decoder_slices, "several slices in one pass give what each gives alone")
{
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        float *alone[N_SLICES];
        float *together[N_SLICES];
        int n_rows[N_SLICES];
        tiny_open(&t, tiny_names[i], 2);
        fixture_exact_kv(&t.f);
        run_slices(&t, false, alone, n_rows);
        run_slices(&t, true, together, n_rows);
        for (int s = 0; s < 3; s++) {
            size_t n = (size_t)n_rows[s] * (size_t)t.f.info->n_vocab;
            /* other paths of the products, as in decoder_chunks */
            CHECK_DOUBLE(test_nmse(together[s], alone[s], n), <=, 1e-10);
            mem_free(alone[s]);
            mem_free(together[s]);
        }
        tiny_close(&t);
    }
}

/* ---- failures ---- */

struct lengths {
    int n[KV_MAX_GROUPS];
};

static struct lengths lengths_of(const struct kv_cache *kv)
{
    struct lengths l = {{0}};
    for (int i = 0; i < kv->n_groups; i++) {
        l.n[i] = kv->group[i].n;
    }
    return l;
}

static bool same_lengths(struct lengths a, struct lengths b)
{
    return memcmp(a.n, b.n, sizeof a.n) == 0;
}

TEST(decoder_out_of_memory, "every failing allocation of a pass is an error and leaves the cache")
{
    struct tiny t;
    tiny_open(&t, "gemma3", 2);
    int cutoff = 1;
    struct kv_cache kv = fixture_kv(&t.f, &cutoff, 1, 64);
    float *want = fixture_logits(&t.f, 1);
    float *got = fixture_logits(&t.f, 1);
    fixture_ids(&t.f, &kv, t.ids, 10, false, NULL);
    struct lengths before = lengths_of(&kv);
    bool failed = true;
    int n_failed = 0;
    for (long n = 1; failed; n++) {
        struct err e = ERR_INIT;
        struct rows rows = fixture_rows(&t.f, t.ids + 10, 40, 10);
        struct decoder_slice slice = {.kv = &kv, .rows = &rows, .is_prompt = true, .logits = got};
        alloc_fail_at(n);
        failed = decoder_run(t.f.d, &slice, 1, &t.f.compute, &t.f.scratch, &e) != 0;
        alloc_fail_at(0);
        n_failed += failed;
        if (failed) {
            CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            CHECK(same_lengths(before, lengths_of(&kv)));
            CHECK_INT(t.f.scratch.used_bytes, ==, 0);
        }
    }
    CHECK_INT(n_failed, >, 5);
    /* what was left half-written must not show */
    struct kv_cache fresh = fixture_kv(&t.f, &cutoff, 1, 64);
    fixture_ids(&t.f, &fresh, t.ids, 10, false, NULL);
    fixture_ids(&t.f, &fresh, t.ids + 10, 40, false, want);
    CHECK(memcmp(got, want, (size_t)t.f.info->n_vocab * sizeof *got) == 0);
    fixture_kv_clear(&kv);
    fixture_kv_clear(&fresh);
    mem_free(got);
    mem_free(want);
    tiny_close(&t);
}

TEST(decoder_small_arena, "a ceiling on scratch memory is an error that says so")
{
    struct err e = ERR_INIT;
    struct tiny t;
    tiny_open(&t, "qwen3", 1);
    struct kv_cache kv = fixture_kv(&t.f, NULL, 0, 64);
    struct rows rows = fixture_rows(&t.f, t.ids, 40, 0);
    struct decoder_slice slice = {.kv = &kv, .rows = &rows};
    struct arena small;
    arena_init(&small, 60000);
    CHECK(decoder_run(t.f.d, &slice, 1, &t.f.compute, &small, &e));
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    CHECK_INT(kv.group[0].n, ==, 0);
    arena_clear(&small);
    fixture_kv_clear(&kv);
    tiny_close(&t);
}

/* One failing pass of 9 rows behind 5; the lengths must stay. */
static void check_refused(struct tiny *t, struct kv_cache *kv, struct rows *rows,
                          const struct stage_hook *hook, enum err_code code)
{
    struct err e = ERR_INIT;
    struct lengths before = lengths_of(kv);
    float *logits = fixture_logits(&t->f, 1);
    struct decoder_slice slice = {.kv = kv, .rows = rows, .hook = hook, .logits = logits};
    CHECK(decoder_run(t->f.d, &slice, 1, &t->f.compute, &t->f.scratch, &e));
    CHECK_INT(e.code, ==, code);
    CHECK(same_lengths(before, lengths_of(kv)));
    mem_free(logits);
}

TEST(decoder_refuses, "no room, numbers that are not finite, failing and unexpected hooks")
{
    struct tiny t;
    tiny_open(&t, "llama-bpe", 2);
    int cutoff = 1;
    struct pair_merge m = pair_merge(1, 9);
    struct stage_hook hook = {pairs_wants, pairs_run, &m};
    struct kv_cache kv = fixture_kv(&t.f, &cutoff, 1, 16);
    fixture_ids(&t.f, &kv, t.ids, 5, false, NULL);

    struct rows rows = fixture_rows(&t.f, t.ids, 12, 5);
    check_refused(&t, &kv, &rows, NULL, ERR_CONTEXT_LENGTH);
    rows = fixture_rows(&t.f, t.ids, 9, 5);
    rows.x[3] = NAN;
    rows.x[8 * rows.n_embd] = INFINITY;
    check_refused(&t, &kv, &rows, NULL, ERR_NUMERICAL);
    rows = fixture_rows(&t.f, t.ids, 9, 5);
    m.fail = true;
    check_refused(&t, &kv, &rows, &hook, ERR_NO_MEMORY);
    CHECK_INT(m.n_runs, ==, 1);
    rows = fixture_rows(&t.f, t.ids, 9, 5);
    m.fail = false;
    m.layer = 0; /* it merges, but the cache has no cutoff there */
    check_refused(&t, &kv, &rows, &hook, ERR_INTERNAL);
    CHECK_INT(m.n_runs, ==, 2);

    arena_clear(&m.arena);
    fixture_kv_clear(&kv);
    tiny_close(&t);
}
