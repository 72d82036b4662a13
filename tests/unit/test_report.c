/* Counting, skipping and failing open. */
#include "base/alloc.h"
#include "compress/report.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"

#define ARENA_MAX ((size_t)64 << 20)

static struct plan balanced(void)
{
    struct plan p;
    struct err e = ERR_INIT;
    CHECK_OK(plan_from_profile(&p, "balanced", &e), e);
    return p;
}

TEST(report_counts_tower, "rows in before block 0, rows out after the last, for two pictures")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rng g;
    struct plan p = balanced();
    struct report r;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    report_init(&r, &p);
    CHECK_STR(r.profile, "balanced");
    CHECK(!r.modality[MODALITY_IMAGE].method);
    for (int picture = 0; picture < 2; picture++) {
        struct rows rows;
        random_rows(&rows, &a, 64, 8, SHAPE_UNIFORM, &g);
        for (int l = 0; l < 12; l++) {
            CHECK_OK(compress_apply(&p.step[MODALITY_IMAGE], MODALITY_IMAGE, l, 12, &rows, NULL, 0,
                                    &a, &r, &e),
                     e);
        }
        CHECK_INT(rows.n, ==, 16);
    }
    const struct report_stage *s = &r.modality[MODALITY_IMAGE];
    CHECK_STR(s->method, "tome");
    CHECK_INT(s->stage, ==, STAGE_VIT_LAYER);
    CHECK_INT(s->rows_in, ==, 128);
    CHECK_INT(s->rows_out, ==, 32);
    CHECK_DOUBLE(s->ms, >, 0);
    CHECK_INT(r.n_skipped, ==, 0);
    arena_clear(&a);
}

TEST(report_counts_parts, "parts add up; a part left alone counts but does not rename")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct rng g;
    struct plan p = balanced();
    struct plan_step off = p.step[MODALITY_LM];
    struct report r;
    struct rows rows;
    struct rows before;
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    report_init(&r, &p);
    off.stage = STAGE_TEXT_ROWS;
    random_rows(&rows, &a, 10, 8, SHAPE_UNIFORM, &g);
    copy_rows(&before, &a, &rows);
    CHECK_OK(compress_apply(&off, MODALITY_TEXT, -1, 1, &rows, NULL, 0, &a, &r, &e), e);
    CHECK(same_rows(&rows, &before));
    CHECK_STR(r.modality[MODALITY_TEXT].method, "off");
    const struct plan_step *step = &p.step[MODALITY_TEXT];
    CHECK_OK(compress_apply(step, MODALITY_TEXT, -1, 1, &rows, NULL, 0, &a, &r, &e), e);
    for (int i = 0; i < 10 * 8; i++) {
        rows.x[i] = 1;
    }
    CHECK_OK(compress_apply(step, MODALITY_TEXT, -1, 1, &rows, NULL, 0, &a, &r, &e), e);
    CHECK_OK(compress_apply(&off, MODALITY_TEXT, -1, 1, &rows, NULL, 0, &a, &r, &e), e);
    const struct report_stage *s = &r.modality[MODALITY_TEXT];
    CHECK_STR(s->method, "cosine");
    CHECK_INT(s->rows_in, ==, 10 + 10 + 10 + 3);
    CHECK_INT(s->rows_out, ==, 10 + 10 + 3 + 3);
    CHECK_INT(r.n_skipped, ==, 1);
    CHECK_STR(r.skipped[0].reason, "nothing_similar");
    CHECK_INT(r.skipped[0].stage, ==, STAGE_TEXT_ROWS);
    arena_clear(&a);
}

TEST(report_skips, "each stage and reason once, and no more than there is room for")
{
    static const char *const words[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
    struct plan p = balanced();
    struct report r;
    report_init(&r, &p);
    report_skip(&r, STAGE_TEXT_ROWS, "too_short");
    report_skip(&r, STAGE_TEXT_ROWS, "too_short");
    report_skip(&r, STAGE_LM_LAYER, "too_short");
    CHECK_INT(r.n_skipped, ==, 2);
    for (int i = 0; i < 9; i++) {
        report_skip(&r, STAGE_PIXELS, words[i]);
    }
    CHECK_INT(r.n_skipped, ==, REPORT_MAX_SKIPPED);
}

TEST(report_ratio_empty, "original / compressed, 1 when there is nothing")
{
    struct plan p = balanced();
    struct report r;
    report_init(&r, &p);
    CHECK_DOUBLE(report_ratio(&r), ==, 1);
    r.original_rows = 300;
    r.compressed_rows = 120;
    CHECK_DOUBLE(report_ratio(&r), ==, 2.5);
}

TEST(report_fails_open, "out of memory leaves the rows alone, is reported, and scratch is free")
{
    struct arena a;
    struct arena scratch;
    struct err e = ERR_INIT;
    struct rng g;
    struct plan p = balanced();
    struct report r;
    struct rows rows;
    struct rows before;
    arena_init(&a, ARENA_MAX);
    arena_init(&scratch, 4096);
    rng_init(&g, test_seed());
    report_init(&r, &p);
    random_rows(&rows, &a, 64, 64, SHAPE_UNIFORM, &g);
    copy_rows(&before, &a, &rows);
    CHECK_INT(compress_apply(&p.step[MODALITY_IMAGE], MODALITY_IMAGE, 0, 2, &rows, NULL, 0,
                             &scratch, &r, &e),
              ==, 0);
    CHECK_INT(e.code, ==, ERR_NONE);
    CHECK(same_rows(&rows, &before));
    CHECK_INT(r.n_skipped, ==, 1);
    CHECK_STR(r.skipped[0].reason, "out_of_memory");
    CHECK_INT(r.modality[MODALITY_IMAGE].rows_out, ==, 64);
    CHECK_INT(scratch.used_bytes, ==, 0);

    struct plan_step wrong = p.step[MODALITY_IMAGE];
    wrong.stage = STAGE_TEXT_ROWS;
    CHECK_INT(compress_apply(&wrong, MODALITY_TEXT, -1, 2, &rows, NULL, 0, &scratch, &r, &e), ==,
              -1);
    CHECK_INT(e.code, ==, ERR_INTERNAL);
    arena_clear(&scratch);
    arena_clear(&a);
}
