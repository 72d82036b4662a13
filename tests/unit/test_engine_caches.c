/* engine/: what one request leaves for the next changes how long an answer takes, never
 * what it says, and is seen by nobody else. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/vision_fixture.h"

#include <string.h>
#include <unistd.h>

#define MB ((size_t)1 << 20)

/* ---- pictures ------------------------------------------------------------------------ */

struct gallery {
    struct engine *en;
    char mmproj[64];
    char *files[2];
    struct image_bytes pictures[2];
};

static void gallery_open(struct gallery *g, size_t image_cache_bytes, int n_parallel)
{
    static const char *const names[] = {"picture_224.png", "picture_448.png"};
    struct tiny_clip clip = tiny_clip_default;
    clip.n_out = 64; /* the tiny language model's width */
    tiny_clip_write(&clip, g->mmproj);
    for (int i = 0; i < 2; i++) {
        char *path = test_golden_path(names[i]);
        g->files[i] = test_read_file(path, &g->pictures[i].n);
        g->pictures[i].data = (const uint8_t *)g->files[i];
        mem_free(path);
    }
    const struct engine_params p = {.model_path = TINY,
                                    .mmproj_path = g->mmproj,
                                    .chat_template = "chatml",
                                    .n_parallel = n_parallel,
                                    .max_queue = 64,
                                    .max_images = 6,
                                    .n_threads = 2,
                                    .image_cache_bytes = image_cache_bytes};
    g->en = open_engine(&p);
    unlink(g->mmproj);
}

static void gallery_close(struct gallery *g)
{
    engine_close(g->en);
    mem_free(g->files[0]);
    mem_free(g->files[1]);
}

/* One picture and a question. */
struct picture_question {
    struct question q;
    struct chat_part parts[2];
};

static void ask_about(struct picture_question *p, const struct image_bytes *picture,
                      const char *profile)
{
    ask(&p->q, "what is this?", profile, 6);
    p->parts[0] = (struct chat_part){.type = CHAT_PART_IMAGE, .image = 0};
    p->parts[1] = p->q.part;
    p->q.message.parts = p->parts;
    p->q.message.n_parts = 2;
    p->q.request.chat.n_images = 1;
    p->q.request.images = picture;
    p->q.request.cache_prompt = true;
}

/* The answer; *r is the bill. */
static char *bill_of(struct engine *en, const struct question *q, struct job_result *r)
{
    struct buf text;
    struct job *j = submit(en, q);
    if (read_all(j, &text) != JOB_EVENT_END) {
        FAIL("job failed: %s", job_error(j)->msg);
    }
    *r = *job_result(j);
    job_free(j);
    buf_append(&text, "", 0);
    return buf_take(&text, NULL);
}

static void expect(struct gallery *g, const struct picture_question *p, int cached,
                   const char *want)
{
    struct job_result r;
    char *text = bill_of(g->en, &p->q, &r);
    CHECK_INT(r.images_queried, ==, 1);
    CHECK_INT(r.images_cached, ==, cached);
    CHECK((r.vision_ms == 0) == (cached == 1));
    if (want) {
        CHECK_STR(text, want);
    }
    mem_free(text);
}

TEST(engine_image_cache, "a picture that comes again skips the tower and gives the same answer")
{
    struct gallery g;
    struct picture_question p;
    struct job_result r;
    gallery_open(&g, MB, 3);
    for (int i = 0; i < 2; i++) {
        ask_about(&p, &g.pictures[0], i ? "product_search" : "off");
        p.q.request.cache_prompt = false;
        char *want = bill_of(g.en, &p.q, &r);
        CHECK_INT(r.images_queried, ==, 0);
        struct report uncached = r.report;
        p.q.request.cache_prompt = true;
        expect(&g, &p, 0, want); /* what did not want the cache left nothing there */
        expect(&g, &p, 1, want);
        char *again = bill_of(g.en, &p.q, &r);
        CHECK_STR(again, want);
        CHECK_INT(r.report.modality[MODALITY_IMAGE].rows_in, ==,
                  uncached.modality[MODALITY_IMAGE].rows_in);
        CHECK_INT(r.report.modality[MODALITY_IMAGE].rows_out, ==,
                  uncached.modality[MODALITY_IMAGE].rows_out);
        CHECK_INT(r.report.n_skipped, ==, uncached.n_skipped);
        mem_free(want);
        mem_free(again);
    }
    struct engine_stats s;
    engine_stats(g.en, &s);
    CHECK_INT(s.image_cache_bytes, >, 0);
    CHECK_INT(s.image_cache_bytes, <=, MB);
    gallery_close(&g);
}

TEST(engine_image_cache_apart, "another picture, plan or scope finds nothing")
{
    struct gallery g;
    struct picture_question p;
    gallery_open(&g, MB, 3);
    ask_about(&p, &g.pictures[0], "off");
    expect(&g, &p, 0, NULL);
    ask_about(&p, &g.pictures[1], "off");
    expect(&g, &p, 0, NULL);
    ask_about(&p, &g.pictures[0], "product_search");
    expect(&g, &p, 0, NULL);
    ask_about(&p, &g.pictures[0], "off");
    p.q.request.scope[0] = 1;
    expect(&g, &p, 0, NULL);
    expect(&g, &p, 1, NULL);
    p.q.request.scope[0] = 0;
    expect(&g, &p, 1, NULL);
    gallery_close(&g);
}

TEST(engine_image_cache_crowd, "requests that run, leave and share pictures get their own answers")
{
    struct gallery g;
    struct rng rng;
    struct picture_question p[4];
    char *want[4];
    struct job_result r;
    gallery_open(&g, 8192, 3); /* room for one or two pictures: entries come and go */
    rng_init(&rng, test_seed());
    for (int i = 0; i < 4; i++) {
        ask_about(&p[i], &g.pictures[i % 2], i / 2 ? "product_search" : "off");
        p[i].q.request.cache_prompt = false;
        want[i] = bill_of(g.en, &p[i].q, &r);
        p[i].q.request.cache_prompt = true;
    }
    uint64_t submitted = 4;
    for (int round = 0; round < 20; round++) {
        struct job *jobs[8];
        for (int i = 0; i < 8; i++) {
            jobs[i] = submit(g.en, &p[i % 4].q);
            submitted++;
        }
        for (int i = 0; i < 8; i++) {
            struct buf text;
            if (rng_below(&rng, 3)) {
                CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
                CHECK_STR(buf_str(&text), want[i % 4]);
                buf_free(&text);
            }
            job_free(jobs[i]);
        }
    }
    check_idle(g.en, submitted);
    for (int i = 0; i < 4; i++) {
        mem_free(want[i]);
    }
    gallery_close(&g);
}

/* ---- several pictures in one pass ------------------------------------------------------ */

/* Some pictures and a question: which[i] is a picture of the gallery. */
struct album_question {
    struct question q;
    struct chat_part parts[7];
    struct image_bytes pictures[6];
};

static void ask_about_album(struct album_question *p, const struct gallery *g, const int *which,
                            int n, const char *profile)
{
    ask(&p->q, "what are these?", profile, 6);
    for (int i = 0; i < n; i++) {
        p->pictures[i] = g->pictures[which[i]];
        p->parts[i] = (struct chat_part){.type = CHAT_PART_IMAGE, .image = i};
    }
    p->parts[n] = p->q.part;
    p->q.message.parts = p->parts;
    p->q.message.n_parts = n + 1;
    p->q.request.chat.n_images = n;
    p->q.request.images = p->pictures;
}

TEST(engine_album, "pictures of a request share a pass; equal ones go through the tower once")
{
    static const int which[6] = {0, 1, 0, 1, 1, 0};
    struct gallery g;
    struct album_question p;
    struct job_result r;
    struct engine_stats s;
    gallery_open(&g, MB, 1);
    ask_about_album(&p, &g, which, 6, "product_search");
    char *want = bill_of(g.en, &p.q, &r); /* without a cache: six in one pass */
    CHECK_INT(r.images_queried, ==, 0);
    engine_stats(g.en, &s);
    CHECK_INT(s.n_picture_passes, ==, 1);
    CHECK_INT(s.n_pictures_encoded, ==, 6);
    struct report uncached = r.report;
    p.q.request.cache_prompt = true;
    for (int round = 0; round < 2; round++) {
        char *got = bill_of(g.en, &p.q, &r);
        CHECK_STR(got, want);
        CHECK_INT(r.images_queried, ==, 6);
        CHECK_INT(r.images_cached, ==, round == 0 ? 4 : 6);
        CHECK((r.vision_ms > 0) == (round == 0));
        CHECK_INT(r.report.modality[MODALITY_IMAGE].rows_in, ==,
                  uncached.modality[MODALITY_IMAGE].rows_in);
        CHECK_INT(r.report.modality[MODALITY_IMAGE].rows_out, ==,
                  uncached.modality[MODALITY_IMAGE].rows_out);
        CHECK_INT(r.report.n_skipped, ==, uncached.n_skipped);
        mem_free(got);
    }
    engine_stats(g.en, &s);
    CHECK_INT(s.n_picture_passes, ==, 2);
    CHECK_INT(s.n_pictures_encoded, ==, 8);
    mem_free(want);
    gallery_close(&g);
}

TEST(engine_albums_together,
     "requests share passes: other plans beside them, some leave, same text")
{
    static const int which[3][3] = {{0, 1, 1}, {1, 0, 0}, {1, 1, 0}};
    static const char *const plans[3] = {"off", "product_search", "balanced"};
    struct gallery g;
    struct rng rng;
    struct album_question p[9];
    char *want[9];
    struct job_result r;
    struct engine_stats s;
    rng_init(&rng, test_seed());
    gallery_open(&g, 0, 4);
    for (int i = 0; i < 9; i++) {
        ask_about_album(&p[i], &g, which[i / 3], 1 + i % 3, plans[i / 3]);
        want[i] = bill_of(g.en, &p[i].q, &r);
    }
    engine_stats(g.en, &s);
    CHECK_INT(s.n_picture_passes, ==, 9);
    CHECK_INT(s.n_pictures_encoded, ==, 18);
    uint64_t submitted = 9;
    for (int round = 0; round < 12; round++) {
        struct job *jobs[9];
        for (int i = 0; i < 9; i++) {
            jobs[i] = submit(g.en, &p[i].q);
            submitted++;
        }
        for (int i = 0; i < 9; i++) {
            struct buf text;
            if (rng_below(&rng, 4)) {
                CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
                CHECK_STR(buf_str(&text), want[i]);
                buf_free(&text);
            }
            job_free(jobs[i]);
        }
    }
    check_idle(g.en, submitted);
    for (int i = 0; i < 9; i++) {
        mem_free(want[i]);
    }
    gallery_close(&g);
}
