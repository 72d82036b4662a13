/* engine/: every method of pictures through the whole engine. What the caches know changes
 * the time and not the answer; what must not merge is still there; drawings add up. */
#include "base/alloc.h"
#include "tests/test.h"
#include "tests/unit/album_fixture.h"
#include "vision/image.h"

#include <string.h>

static void check_same_bill(const struct job_result *r, const struct job_result *first)
{
    const struct report_stage *now = &r->report.modality[MODALITY_IMAGE];
    const struct report_stage *then = &first->report.modality[MODALITY_IMAGE];
    CHECK_STR(now->method, then->method);
    CHECK_INT(now->rows_in, ==, then->rows_in);
    CHECK_INT(now->rows_out, ==, then->rows_out);
    CHECK_INT(now->dropped, ==, then->dropped);
    CHECK_INT(r->report.n_skipped, ==, first->report.n_skipped);
    CHECK_INT(r->prompt_rows, ==, first->prompt_rows);
}

static const char *nth_method(int i)
{
    return compressors[i] && compressors[i]->info.modalities & 1u << MODALITY_IMAGE
               ? compressors[i]->info.name
               : NULL;
}

TEST(engine_picture_methods, "every method: same answer from cold and warm caches, any threads")
{
    struct album a;
    struct album alone;
    plan_allow_baselines(true);
    album_open(&a, ALBUM_MB, 2, 0);
    album_open(&alone, 0, 1, 0);
    for (int i = 0; compressors[i]; i++) {
        struct job *first;
        struct job *again;
        if (!nth_method(i)) {
            continue;
        }
        album_ask(&alone, nth_method(i));
        char *want = album_run(&alone, &first);
        const struct report_stage *s = &job_result(first)->report.modality[MODALITY_IMAGE];
        CHECK_INT(s->rows_in, ==, ALBUM_MOST * ALBUM_SIDE * ALBUM_SIDE);
        const struct job_result *r = job_result(first);
        CHECK(i == 0 || s->rows_out < s->rows_in || r->report.n_skipped > 0 || r->n_attempts > 1);
        for (int round = 0; round < 3; round++) {
            album_ask(&a, nth_method(i));
            a.q.request.cache_prompt = round > 0;
            char *got = album_run(&a, &again);
            CHECK_STR(got, want);
            check_same_bill(job_result(again), job_result(first));
            mem_free(got);
            job_free(again);
        }
        mem_free(want);
        job_free(first);
    }
    album_close(&a);
    album_close(&alone);
}

TEST(engine_picture_passes, "passes of the tower and pictures in them are counted, hits are not")
{
    struct album a;
    struct job *j;
    struct engine_stats s;
    album_open(&a, ALBUM_MB, 1, 0);
    album_ask(&a, "pool");
    a.q.request.cache_prompt = true;
    for (int round = 0; round < 2; round++) {
        mem_free(album_run(&a, &j));
        job_free(j);
        engine_stats(a.en, &s);
        CHECK_INT(s.n_pictures_encoded, ==, 2); /* of three, two are the same */
        CHECK_INT(s.n_picture_passes, >=, 1);
        CHECK_INT(s.n_picture_passes, <=, s.n_pictures_encoded);
    }
    album_close(&a);
}

TEST(engine_picture_prefix, "a picture behind a known prompt is compared with those in it")
{
    struct album a;
    struct job *first;
    struct job *again;
    album_open(&a, ALBUM_MB, 2, 0);
    album_ask(&a, "dedup");
    a.q.request.cache_prompt = false;
    char *want = album_run(&a, &first);
    CHECK_INT(job_result(first)->report.modality[MODALITY_IMAGE].dropped, >, ALBUM_SIDE);
    /* leave the first two pictures, then ask about three */
    a.q.request.cache_prompt = true;
    a.parts[2] = a.q.part;
    a.q.message.n_parts = 3;
    a.q.request.chat.n_images = 2;
    char *two = album_run(&a, &again);
    job_free(again);
    album_ask(&a, "dedup");
    a.q.request.cache_prompt = true;
    char *got = album_run(&a, &again);
    CHECK_STR(got, want);
    check_same_bill(job_result(again), job_result(first));
    job_free(first);
    job_free(again);
    mem_free(want);
    mem_free(two);
    mem_free(got);
    album_close(&a);
}

/* The drawing is a PNG of the size that the tower sees. */
static void check_png(const struct picture_overlay *o)
{
    struct image im = {0};
    struct err e = ERR_INIT;
    CHECK_OK(image_decode(o->png, o->png_bytes, &image_limits_default, &im, &e), e);
    CHECK_INT(im.width, ==, 2 * ALBUM_SIDE);
    CHECK_INT(im.height, ==, 2 * ALBUM_SIDE);
    image_free(&im);
}

TEST(engine_picture_overlay, "drawn pictures: every cell has its row, or is dropped and counted")
{
    struct album a;
    plan_allow_baselines(true);
    album_open(&a, ALBUM_MB, 2, 0);
    for (int i = 0; compressors[i]; i++) {
        for (int round = 0; nth_method(i) && round < 2; round++) { /* then from the caches */
            struct job *j;
            int rows = 0;
            int dropped = 0;
            album_ask(&a, nth_method(i));
            a.q.request.overlay = true;
            a.q.request.cache_prompt = true;
            mem_free(album_run(&a, &j));
            const struct job_result *r = job_result(j);
            CHECK_INT(r->n_overlays, ==, ALBUM_MOST);
            for (int k = 0; k < ALBUM_MOST; k++) {
                const struct picture_overlay *o = &r->overlays[k];
                CHECK_INT(o->side, ==, ALBUM_SIDE);
                CHECK_STR(o->method, nth_method(i));
                for (int c = 0; c < ALBUM_SIDE * ALBUM_SIDE; c++) {
                    CHECK_INT(o->owner[c], <, o->n_rows);
                    dropped += o->owner[c] < 0;
                }
                rows += o->n_rows;
                check_png(o);
            }
            CHECK_INT(rows, ==, r->report.modality[MODALITY_IMAGE].rows_out);
            CHECK_INT(dropped, ==, r->report.modality[MODALITY_IMAGE].dropped);
            job_free(j);
        }
    }
    album_ask(&a, "pool");
    struct job *j;
    mem_free(album_run(&a, &j));
    CHECK_INT(job_result(j)->n_overlays, ==, 0);
    job_free(j);
    album_close(&a);
}

TEST(engine_picture_regions, "cells of a region keep rows of their own, and make other cache keys")
{
    static const struct chat_region box = {0.0f, 0.0f, 0.25f, 0.125f};
    static const char *const methods[] = {"tome", "pool", "prune", "dedup"};
    struct album a;
    album_open(&a, ALBUM_MB, 2, 0);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct job *plain;
        struct job *marked;
        album_ask(&a, methods[i]);
        a.q.request.cache_prompt = true;
        a.q.request.overlay = true;
        mem_free(album_run(&a, &plain));
        a.parts[1].regions = &box;
        a.parts[1].n_regions = 1;
        mem_free(album_run(&a, &marked));
        const struct picture_overlay *o = &job_result(marked)->overlays[1];
        CHECK(!job_result(plain)->overlays[1].protect ||
              !job_result(plain)->overlays[1].protect[0]);
        for (int c = 0; c < ALBUM_SIDE * ALBUM_SIDE; c++) {
            CHECK_INT(o->protect[c], ==, c < 2);
            CHECK((o->owner[c] == o->owner[0]) == (c == 0));
            CHECK((o->owner[c] == o->owner[1]) == (c == 1));
        }
        job_free(plain);
        job_free(marked);
    }
    album_ask(&a, "downscale");
    a.parts[1].regions = &box;
    a.parts[1].n_regions = 1;
    struct job *j;
    mem_free(album_run(&a, &j));
    const struct report *r = &job_result(j)->report;
    CHECK_INT(r->n_skipped, ==, 1);
    CHECK_STR(r->skipped[0].reason, "protected_area");
    CHECK_INT(r->modality[MODALITY_IMAGE].rows_out, ==,
              2 * ALBUM_SIDE * ALBUM_SIDE / 4 + ALBUM_SIDE * ALBUM_SIDE);
    job_free(j);
    album_close(&a);
}
