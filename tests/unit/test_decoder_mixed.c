/* model/decoder.c: answers and prompts in one pass. What a row becomes depends on what it is,
 * a row of an answer or of a prompt, and never on what is beside it: the same bits alone. */
#include "base/alloc.h"
#include "tensor/kernels.h"
#include "tests/test.h"
#include "tests/unit/decoder_fixture.h"

#include <string.h>

#define N_ANSWERS 3
#define N_SLICES  5

/* Rows known before, and rows of the pass; drafts make an answer's slice longer. */
static const int known[N_SLICES] = {17, 9, 40, 0, 21};
static const int lengths[N_SLICES] = {1, 3, 8, 33, 47};

struct outcome {
    struct kv_cache kv[N_SLICES];
    float *logits[N_SLICES];
};

static int rows_with_logits(int s)
{
    return s < N_ANSWERS ? lengths[s] : 1;
}

static struct decoder_slice make_slice(struct tiny *t, struct outcome *o, int s, struct rows *rows)
{
    const token_id *ids = t->ids + s;
    o->kv[s] = fixture_kv(&t->f, NULL, 0, 128);
    if (known[s] > 0) {
        fixture_ids(&t->f, &o->kv[s], ids, known[s], false, NULL);
    }
    *rows = fixture_rows(&t->f, ids + 2, lengths[s], known[s]);
    o->logits[s] = fixture_logits(&t->f, rows_with_logits(s));
    return (struct decoder_slice){.kv = &o->kv[s],
                                  .rows = rows,
                                  .is_prompt = s >= N_ANSWERS,
                                  .all_logits = s < N_ANSWERS,
                                  .logits = o->logits[s]};
}

/* The first n slices in passes of at most `step`. */
static void run(struct tiny *t, int n, int step, struct outcome *o)
{
    struct err e = ERR_INIT;
    struct rows rows[N_SLICES];
    struct decoder_slice slices[N_SLICES];
    for (int s = 0; s < n; s++) {
        slices[s] = make_slice(t, o, s, &rows[s]);
    }
    for (int s = 0; s < n; s += step) {
        int now = n - s < step ? n - s : step;
        CHECK_OK(decoder_run(t->f.d, slices + s, now, &t->f.compute, &t->f.scratch, &e), e);
    }
}

static void outcome_clear(struct outcome *o, int n)
{
    for (int s = 0; s < n; s++) {
        mem_free(o->logits[s]);
        fixture_kv_clear(&o->kv[s]);
    }
}

static void compare(struct tiny *t, const char *what, const struct outcome *alone,
                    const struct outcome *mixed, int n)
{
    for (int s = 0; s < n; s++) {
        size_t floats = (size_t)rows_with_logits(s) * (size_t)t->f.info->n_vocab;
        if (!test_same_bits(alone->logits[s], mixed->logits[s], floats) ||
            !fixture_same_kv(&alone->kv[s], &mixed->kv[s])) {
            FAIL("%s, %s: slice %d differs in a pass of %d", t->f.info->family, what, s, n);
        }
    }
}

/* Without independent rows one prompt may be beside the answers, no second one. */
static void check_mixed(struct tiny *t, const char *what)
{
    int n = decoder_rows_independent(t->f.d) ? N_SLICES : N_ANSWERS + 1;
    struct outcome alone;
    struct outcome mixed;
    run(t, n, 1, &alone);
    run(t, n, n, &mixed);
    compare(t, what, &alone, &mixed, n);
    outcome_clear(&alone, n);
    outcome_clear(&mixed, n);
}

TEST(decoder_mixed, "answers and prompts in one pass have the bits that each has alone")
{
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        struct err e = ERR_INIT;
        tiny_open(&t, tiny_names[i], 2);
        check_mixed(&t, "as in the file");
        CHECK(!decoder_rows_independent(t.f.d));
        CHECK_OK(decoder_pack(t.f.d, &t.f.compute, &e), e);
        for (const char *const *name = kernels_names() + 1; *name; name++) {
            t.f.compute.kernels = kernels_choose(*name, &e);
            if (t.f.compute.kernels) {
                check_mixed(&t, *name);
            }
        }
        tiny_close(&t);
    }
}

/* ids[n] in passes of `piece` rows beside an answer of three rows, which is thrown away. */
static void run_pieces(struct tiny *t, int n, int piece, struct kv_cache *kv, float *logits)
{
    struct err e = ERR_INIT;
    for (int begin = 0; begin < n; begin += piece) {
        int now = n - begin < piece ? n - begin : piece;
        struct kv_cache other = fixture_kv(&t->f, NULL, 0, 32);
        struct rows rows[2] = {fixture_rows(&t->f, t->ids + 3, 3, 0),
                               fixture_rows(&t->f, t->ids + begin, now, begin)};
        struct decoder_slice slices[2] = {
            {.kv = &other, .rows = &rows[0]},
            {.kv = kv,
             .rows = &rows[1],
             .is_prompt = true,
             .logits = begin + now == n ? logits : NULL},
        };
        CHECK_OK(decoder_run(t->f.d, slices, 2, &t->f.compute, &t->f.scratch, &e), e);
        fixture_kv_clear(&other);
    }
}

TEST(decoder_pieces, "packed: wherever a prompt is cut, its rows have the same bits")
{
    static const int pieces[] = {1, 5, 16, 37};
    enum { N_IDS = 60 };
    for (int i = 0; tiny_names[i]; i++) {
        struct tiny t;
        struct err e = ERR_INIT;
        tiny_open(&t, tiny_names[i], 2);
        CHECK_OK(decoder_pack(t.f.d, &t.f.compute, &e), e);
        struct kv_cache whole = fixture_kv(&t.f, NULL, 0, N_IDS);
        float *want = fixture_logits(&t.f, 1);
        float *got = fixture_logits(&t.f, 1);
        run_pieces(&t, N_IDS, N_IDS, &whole, want);
        for (size_t k = 0; decoder_rows_independent(t.f.d) && k < sizeof pieces / sizeof *pieces;
             k++) {
            struct kv_cache cut = fixture_kv(&t.f, NULL, 0, N_IDS);
            run_pieces(&t, N_IDS, pieces[k], &cut, got);
            CHECK(test_same_bits(got, want, (size_t)t.f.info->n_vocab));
            CHECK(fixture_same_kv(&cut, &whole));
            fixture_kv_clear(&cut);
        }
        fixture_kv_clear(&whole);
        mem_free(want);
        mem_free(got);
        tiny_close(&t);
    }
}

TEST(decoder_order, "an answer behind a prompt is refused, and the caches stay")
{
    struct tiny t;
    struct err e = ERR_INIT;
    struct outcome o;
    struct rows rows[2];
    tiny_open(&t, tiny_names[0], 1);
    struct decoder_slice slices[2] = {make_slice(&t, &o, 4, &rows[0]),
                                      make_slice(&t, &o, 0, &rows[1])};
    CHECK_INT(decoder_run(t.f.d, slices, 2, &t.f.compute, &t.f.scratch, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_INTERNAL);
    CHECK_INT(o.kv[4].group[0].n, ==, known[4]);
    for (int s = 0; s <= 4; s += 4) {
        mem_free(o.logits[s]);
        fixture_kv_clear(&o.kv[s]);
    }
    tiny_close(&t);
}
