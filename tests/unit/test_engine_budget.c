/* engine/budget.c: with speeds that the test sets, the mildest cap that is expected in time;
 * no budget, or one that nothing meets, leaves the plan as it is. */
#include "base/alloc.h"
#include "engine/engine_impl.h"
#include "tests/test.h"
#include "tests/unit/album_fixture.h"

#include <string.h>

/* So slow that a busy machine's queue is nothing beside it. */
#define MS_PER_ROW 1000.0

/* The engine is idle: nobody else looks at these now. */
static void set_speed(struct engine *en, double tower_ms)
{
    en->pace = (struct pace){.large = {.rows = 100, .ms = 100 * MS_PER_ROW}};
    en->tower_ms_per_row = tower_ms;
}

static void idle(struct engine *en)
{
    struct engine_stats s;
    do {
        engine_stats(en, &s);
    } while (s.n_running > 0 || s.kv_used_bytes > 0);
}

/* The answer with a plan of 16x pooling and this budget. */
static char *ask_budget(struct album *a, double budget_ms, double tower_ms, struct job_result *r)
{
    struct err e = ERR_INIT;
    struct job *j;
    album_ask(a, "pool");
    CHECK_OK(plan_set_number(&a->q.request.plan, MODALITY_IMAGE, "ratio", 16, &e), e);
    CHECK_OK(plan_set_budget(&a->q.request.plan, budget_ms, &e), e);
    idle(a->en);
    set_speed(a->en, tower_ms);
    char *text = album_run(a, &j);
    *r = *job_result(j);
    job_free(j);
    return text;
}

static char *ask_ratio(struct album *a, double ratio)
{
    struct err e = ERR_INIT;
    struct job *j;
    album_ask(a, "pool");
    CHECK_OK(plan_set_number(&a->q.request.plan, MODALITY_IMAGE, "ratio", ratio, &e), e);
    char *text = album_run(a, &j);
    job_free(j);
    return text;
}

TEST(budget_picks_the_mildest, "rows that fit the milliseconds, in the tower and in the decoder")
{
    static const struct {
        double rows, cap; /* of the pictures that the budget allows, and the cap that follows */
    } cases[] = {{ALBUM_MOST * 64 + 6, 1},
                 {ALBUM_MOST * 64 - 6, 1.5},
                 {ALBUM_MOST * 16 + 6, 4},
                 {ALBUM_MOST * 4 + 3, 16},
                 {ALBUM_MOST * 4 - 3, 0}};
    struct album a;
    struct job_result r;
    album_open(&a, 0, 1, 0);
    for (int tower = 0; tower < 2; tower++) {
        double tower_ms = tower ? MS_PER_ROW / 8 : 1e-6;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            album_ask(&a, "off");
            struct err e = ERR_INIT;
            struct job *j = job_prepare(a.en, &a.q.request, &e);
            int text = 0;
            job_prompt_rows(j, &text, NULL);
            job_free(j);
            double ms = (text + cases[i].rows) * MS_PER_ROW + ALBUM_MOST * 64 * tower_ms;
            char *got = ask_budget(&a, ms, tower_ms, &r);
            CHECK_DOUBLE(r.budget_ms, ==, ms);
            CHECK_DOUBLE(r.budget_cap, ==, cases[i].cap);
            CHECK((r.budget_expected_ms <= ms) == (cases[i].cap > 0));
            char *want = ask_ratio(&a, cases[i].cap > 0 ? cases[i].cap : 16);
            CHECK_STR(got, want);
            mem_free(got);
            mem_free(want);
        }
    }
    album_close(&a);
}

TEST(budget_waits_for_a_first_picture,
     "while nothing was encoded yet the plan's own rates are used")
{
    struct album a;
    struct job_result r;
    album_open(&a, 0, 1, 0);
    mem_free(ask_budget(&a, 600000, 0, &r));
    CHECK_DOUBLE(r.budget_cap, ==, 0);
    CHECK_INT(r.report.modality[MODALITY_IMAGE].rows_out, ==, ALBUM_MOST * 4);
    album_close(&a);
}

TEST(budget_is_part_of_the_plan, "it is printed, and what it may be is checked")
{
    struct err e = ERR_INIT;
    struct plan p;
    struct buf out;
    CHECK_OK(plan_from_profile(&p, "balanced", &e), e);
    unsigned long long before = plan_id(&p);
    CHECK_OK(plan_set_budget(&p, 400, &e), e);
    CHECK(plan_id(&p) != before);
    buf_init(&out, 4096);
    CHECK_INT(plan_print(&p, &out), ==, 0);
    CHECK(strstr(buf_str(&out), "; budget_ms=400"));
    buf_free(&out);
    CHECK_INT(plan_set_budget(&p, -1, &e), ==, -1);
    CHECK_STR(e.param, "compression.budget_ms");
    CHECK_INT(plan_set_budget(&p, 1e9, &e), ==, -1);
    CHECK_OK(plan_set_budget(&p, 0, &e), e);
    CHECK(plan_id(&p) == before);
}
