/* engine/shadow.c: what shadows say, against answers with and without compression; the ladder
 * they move plans on; and that nobody notices them. */
#include "base/alloc.h"
#include "tests/test.h"
#include "tests/unit/album_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct engine_shadow shadows(struct engine *en, uint64_t n)
{
    struct engine_stats s;
    for (int i = 0; i < 60000; i++) { /* they run when nothing else does, also slowly */
        engine_stats(en, &s);
        if (s.shadow.n_done + s.shadow.n_abandoned >= n) {
            break;
        }
        usleep(1000);
    }
    return s.shadow;
}

static void ask_one(struct album *a, const char *method, int number, int max_tokens)
{
    static char text[96];
    album_ask(a, method);
    snprintf(text, sizeof text, "question %d about these pictures: which would you take", number);
    a->parts[ALBUM_MOST].text = text;
    a->parts[ALBUM_MOST].text_len = strlen(text);
    a->q.request.gen.max_tokens = max_tokens;
}

/* Pictures alone change few answers. */
static void merge_text(struct album *a)
{
    struct err e = ERR_INIT;
    struct plan *p = &a->q.request.plan;
    p->protect_tail = p->min_text_rows = 0;
    CHECK_OK(plan_set_method(p, MODALITY_TEXT, "cosine", &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_TEXT, "threshold", -1, &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_TEXT, "max_group", 8, &e), e);
}

static char *answer(struct album *a, const char **rollout)
{
    struct job *j;
    char *text = album_run(a, &j);
    if (rollout) {
        *rollout = job_result(j)->report.rollout;
    }
    job_free(j);
    return text;
}

TEST(shadow_agreement, "one token: agreed where compressed and uncompressed answers are the same")
{
    enum { N = 24 };
    struct album plain;
    struct album a;
    const char *rollout;
    int same = 0;
    album_open(&plain, 0, 1, 0);
    album_open_shadow(&a, 1, 0, false);
    for (int i = 0; i < N; i++) {
        static const char *const methods[] = {"tome", "downscale", "pool", "prune"};
        ask_one(&a, methods[i % 4], i, 1);
        if (i % 2) {
            merge_text(&a);
        }
        char *got = answer(&a, &rollout);
        CHECK_STR(rollout, "full");
        ask_one(&plain, methods[i % 4], i, 1);
        if (i % 2) {
            merge_text(&plain);
        }
        char *unobserved = answer(&plain, NULL);
        ask_one(&plain, "off", i, 1);
        char *want = answer(&plain, &rollout);
        CHECK(!rollout);
        CHECK_STR(got, unobserved);
        same += strcmp(got, want) == 0;
        mem_free(got);
        mem_free(unobserved);
        mem_free(want);
        CHECK_INT(shadows(a.en, (uint64_t)i + 1).n_done, ==, i + 1);
    }
    struct engine_shadow s = shadows(a.en, N);
    CHECK_INT(s.n_tokens, ==, N);
    CHECK_INT(s.n_agreed, ==, same);
    CHECK(s.divergence > 0 && isfinite(s.divergence));
    CHECK(same > 0 && same < N); /* or this test says nothing */
    check_idle(a.en, N);
    album_close(&a);
    album_close(&plain);
}

TEST(shadow_whole_answers, "longer answers: all agree where the answers are the same")
{
    enum { N = 12, TOKENS = 10 };
    struct album a;
    uint64_t least = 0;
    uint64_t most = 0;
    album_open_shadow(&a, 1, 0, false);
    for (int i = 0; i < N; i++) {
        ask_one(&a, i % 2 ? "tome" : "pool", i, TOKENS);
        a.q.request.gen.n_top_logprobs = 0;
        int tokens[2][TOKENS];
        for (int k = 0; k < 2; k++) {
            struct job_event ev;
            int n = 0;
            if (k == 1) {
                ask_one(&a, "off", i, TOKENS);
                a.q.request.gen.n_top_logprobs = 0;
            }
            struct job *j = submit(a.en, &a.q);
            do {
                CHECK(job_wait(j, 60000));
                job_next(j, &ev);
                for (int t = 0; t < ev.n_tokens; t++) {
                    tokens[k][n++] = ev.tokens[t].token;
                }
            } while (ev.type != JOB_EVENT_END);
            CHECK_INT(n, ==, TOKENS);
            job_free(j);
            shadows(a.en, (uint64_t)i + 1);
        }
        int common = 0;
        while (common < TOKENS && tokens[0][common] == tokens[1][common]) {
            common++;
        }
        least += (uint64_t)common;
        most += common < TOKENS ? TOKENS - 1 : TOKENS; /* the first that differs does */
    }
    struct engine_shadow s = shadows(a.en, N);
    CHECK_INT(s.n_done, ==, N);
    CHECK_INT(s.n_tokens, ==, N * TOKENS);
    CHECK_INT(s.n_agreed, >=, least);
    CHECK_INT(s.n_agreed, <=, most);
    album_close(&a);
}

TEST(shadow_falls,
     "a plan that disagrees is served milder by itself, at last uncompressed, and says so")
{
    struct album a;
    struct album plain;
    struct engine_rollout level;
    const char *rollout = "";
    int i = 0;
    album_open(&plain, 0, 1, 0);
    album_open_shadow(&a, 1, 1, false);
    while (strcmp(rollout, "shadow") != 0) {
        CHECK(i < 200);
        ask_one(&a, "tome", i, 6);
        merge_text(&a);
        mem_free(answer(&a, &rollout));
        shadows(a.en, (uint64_t)++i);
    }
    CHECK_INT(engine_rollout(a.en, &level, 1), ==, 1);
    CHECK_STR(level.profile, "off"); /* what the fixture's plans are called */
    CHECK_INT(level.level, ==, 0);
    CHECK_INT(shadows(a.en, (uint64_t)i).n_falls, ==, 4);
    for (int k = 0; k < 4; k++) {
        ask_one(&a, "tome", k, 6);
        merge_text(&a);
        char *got = answer(&a, &rollout);
        ask_one(&plain, "off", k, 6);
        char *want = answer(&plain, NULL);
        CHECK_STR(got, want);
        CHECK_STR(rollout, "shadow");
        mem_free(got);
        mem_free(want);
    }
    album_close(&a);
    album_close(&plain);
}

TEST(shadow_climbs, "a progressive roll-out goes from shadows to the plan while answers agree")
{
    static const char *const names[] = {"shadow", "1.3x", "2x", "4x", "full"};
    struct album a;
    int reached = 0;
    album_open_shadow(&a, 1, 0, true);
    for (int i = 0; reached < 4; i++) {
        struct job *j;
        CHECK(i < 400);
        ask_one(&a, "pool", i, 2);
        struct err e = ERR_INIT;
        CHECK_OK(plan_set_number(&a.q.request.plan, MODALITY_IMAGE, "ratio", 16, &e), e);
        mem_free(album_run(&a, &j));
        const struct report *r = &job_result(j)->report;
        while (strcmp(r->rollout, names[reached]) != 0) {
            CHECK_INT(++reached, <=, 4);
        }
        static const int rows[] = {64, 49, 36, 16, 4}; /* of 64: nearest grids, 1.3x leaves 49 */
        int left = r->modality[MODALITY_IMAGE].rows_out / ALBUM_MOST;
        CHECK_INT(left, <=, rows[reached]);
        CHECK_INT(left, >=, reached < 4 ? rows[reached + 1] : rows[4]);
        job_free(j);
        shadows(a.en, (uint64_t)i + 1);
    }
    CHECK_INT(shadows(a.en, 1).n_climbs, ==, 4);
    album_close(&a);
}

TEST(shadow_gives_way, "while anything runs no shadow does; two wait, the others are given up")
{
    enum { N = 6 };
    struct album a;
    struct job *jobs[N];
    struct engine_stats s;
    album_open_shadow(&a, 1, 0, false);
    ask_one(&a, "tome", 0, 0);
    a.q.request.gen.n_choices = 128; /* until it is told to go */
    struct job *busy = submit(a.en, &a.q);
    for (int i = 0; i < N; i++) {
        ask_one(&a, i % 2 ? "tome" : "prune", i, 3);
        jobs[i] = submit(a.en, &a.q);
    }
    for (int i = 0; i < N; i++) {
        struct buf text;
        CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
        buf_free(&text);
        job_free(jobs[i]);
    }
    engine_stats(a.en, &s);
    CHECK_INT(s.shadow.n_done, ==, 0);
    job_free(busy);
    CHECK_INT(shadows(a.en, N).n_done, ==, 2);
    CHECK_INT(shadows(a.en, N).n_abandoned, ==, N - 2);
    check_idle(a.en, N + 1);
    album_close(&a);
}

TEST(shadow_in_any_mood,
     "requests that come at any moment: all are answered, every shadow ends once")
{
    enum { N = 60 };
    struct album a;
    struct job *jobs[3];
    album_open_shadow(&a, 1, 0, false);
    for (int i = 0; i < N; i++) {
        ask_one(&a, i % 2 ? "tome" : "prune", i % 5, 3);
        jobs[i % 3] = submit(a.en, &a.q);
        for (int k = 0; i % 3 == 2 && k < 3; k++) {
            struct buf text;
            CHECK_INT(read_all(jobs[k], &text), ==, JOB_EVENT_END);
            buf_free(&text);
            job_free(jobs[k]);
        }
        usleep((useconds_t)(i % 7) * 300);
    }
    struct engine_shadow s = shadows(a.en, N);
    CHECK_INT(s.n_done + s.n_abandoned, ==, N);
    CHECK_INT(s.n_done, >, 0);
    check_idle(a.en, N);
    ask_one(&a, "tome", 1, 3);
    mem_free(answer(&a, NULL)); /* closed with one that waits */
    album_close(&a);
}

TEST(shadow_share, "every fourth request has a shadow when a quarter shall have one")
{
    struct album a;
    album_open_shadow(&a, 0.25, 0, false);
    for (int i = 0; i < 16; i++) {
        ask_one(&a, "pool", i, 2);
        mem_free(answer(&a, NULL));
        shadows(a.en, (uint64_t)(i + 1) / 4);
    }
    CHECK_INT(shadows(a.en, 4).n_done, ==, 4);
    album_close(&a);
}
