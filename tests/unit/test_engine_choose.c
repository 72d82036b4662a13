/* engine/choose.c: rows chosen by the question, through the worker thread on a small model.
 * Which rows is tested with the method; here it is that two rounds through the decoder give
 * what one gives, that nobody beside it changes anything, and that the bill is right. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <stdlib.h>
#include <string.h>

#define POLICY                                                                                     \
    "Returns are free within thirty days. Orders of more than 50 are sent for nothing. All "       \
    "others cost 4.90 to send. We are a small family business near the river. Ask for the "        \
    "number of the order before you promise anything. Never give an address to anybody who asks "  \
    "for one. The hotline is open until eight. Shoes must come back in their box. Which orders "   \
    "are sent for nothing, and what do the others cost to send to me at home?"

static void choose_rows(struct question *q, double ratio, const char *dropped)
{
    struct err e = ERR_INIT;
    struct plan *p = &q->request.plan;
    p->protect_tail = 16;
    CHECK_OK(plan_set_method(p, MODALITY_LM, "query", &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "cutoff", 1, &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "ratio", ratio, &e), e);
    CHECK_OK(plan_set_text(p, MODALITY_LM, "dropped", dropped, &e), e);
}

static struct job_result bill_of(struct engine *en, const struct question *q)
{
    struct buf text;
    struct job *j = submit(en, q);
    CHECK_INT(read_all(j, &text), ==, JOB_EVENT_END);
    struct job_result r = *job_result(j);
    buf_free(&text);
    job_free(j);
    return r;
}

TEST(engine_choose_nothing, "at ratio 1 the answer is that of no compression, over several chunks")
{
    struct engine *en = open_tiny_engine(1, 4, 2);
    struct question off;
    struct question one;
    ask(&off, POLICY, "off", 20);
    ask(&one, POLICY, "off", 20);
    choose_rows(&one, 1, "gather");
    char *want = answer_of(en, &off);
    char *got = answer_of(en, &one);
    CHECK_STR(got, want);
    mem_free(want);
    mem_free(got);
    engine_close(en);
}

TEST(engine_choose_bill, "rows per stage and layer are those counted; why not is said")
{
    static const char *const fates[] = {"merge", "gather", "drop"};
    struct engine *en = open_tiny_engine(1, 4, 2);
    struct question q;
    for (int i = 0; i < 3; i++) {
        ask(&q, POLICY, "off", 5);
        choose_rows(&q, 3, fates[i]);
        struct job_result r = bill_of(en, &q);
        const struct report_stage *lm = &r.report.modality[MODALITY_LM];
        int n_layer = engine_info(en)->n_layer;
        CHECK_STR(lm->method, "query");
        CHECK_INT(lm->rows_in, ==, r.text_rows);
        CHECK_INT(lm->rows_out, <, lm->rows_in * 2 / 3);
        CHECK_INT(r.prompt_rows, ==, r.text_rows);
        CHECK_DOUBLE(r.report.mean_rows_per_layer, ==,
                     (2.0 * lm->rows_in + (n_layer - 2.0) * lm->rows_out) / n_layer);
        CHECK_INT(r.report.n_skipped, ==, 0);
        CHECK_INT(r.looked_up_rows, ==, 0);
        CHECK_DOUBLE(r.compress_ms, >=, lm->ms);
    }
    struct err e = ERR_INIT;
    CHECK_OK(plan_set_number(&q.request.plan, MODALITY_LM, "cutoff", 500, &e), e);
    struct job_result r = bill_of(en, &q);
    CHECK_INT(r.report.n_skipped, ==, 1);
    CHECK_STR(r.report.skipped[0].reason, "cutoff_out_of_range");
    ask(&q, "Too short?", "off", 5);
    choose_rows(&q, 3, "drop");
    r = bill_of(en, &q);
    CHECK_STR(r.report.skipped[0].reason, "too_short");
    engine_close(en);
}

TEST(engine_choose_steps, "progressive: fewer rows with each step, the bill says how many")
{
    struct engine *en = open_tiny_engine(1, 4, 2);
    struct question q;
    int n_layer = engine_info(en)->n_layer;
    struct err e = ERR_INIT;
    ask(&q, POLICY, "off", 5);
    choose_rows(&q, 4, "drop");
    struct job_result once = bill_of(en, &q);
    CHECK_OK(plan_set_number(&q.request.plan, MODALITY_LM, "steps", 2, &e), e);
    struct job_result twice = bill_of(en, &q);
    const struct report_stage *lm = &twice.report.modality[MODALITY_LM];
    CHECK_INT(lm->rows_in, ==, twice.text_rows);
    CHECK_INT(abs(lm->rows_out - once.report.modality[MODALITY_LM].rows_out), <=, 2);
    /* cutoff 1, then half-way to the last block */
    int second = 1 + (n_layer - 2) / 2;
    double between = (twice.report.mean_rows_per_layer * n_layer - 2.0 * lm->rows_in -
                      (n_layer - second - 1.0) * lm->rows_out) /
                     (second - 1);
    CHECK_DOUBLE(between, >, lm->rows_out + 4);
    CHECK_DOUBLE(between, <, lm->rows_in - 4);
    CHECK_INT(twice.report.n_skipped, ==, 0);
    engine_close(en);
}

TEST(engine_choose_truncates, "a baseline that acts on the whole prompt keeps both its ends")
{
    struct engine *en = open_tiny_engine(1, 4, 2);
    struct question q;
    struct err e = ERR_INIT;
    plan_allow_baselines(true);
    ask(&q, POLICY, "off", 5);
    CHECK_OK(plan_set_method(&q.request.plan, MODALITY_LM, "truncate", &e), e);
    CHECK_OK(plan_set_number(&q.request.plan, MODALITY_LM, "cutoff", 1, &e), e);
    struct job_result r = bill_of(en, &q);
    const struct report_stage *lm = &r.report.modality[MODALITY_LM];
    CHECK_STR(lm->method, "truncate");
    CHECK_INT(lm->dropped, ==, lm->rows_in - lm->rows_out);
    CHECK_INT(lm->dropped, >, lm->rows_in / 2);
    plan_allow_baselines(false);
    engine_close(en);
}

#define N_QUESTIONS 5

TEST(engine_choose_beside_others,
     "the same answer alone, beside others of all plans, again, cancelled")
{
    static const char *const texts[N_QUESTIONS] = {
        POLICY, POLICY, "Hello. " POLICY,
        "鞋子的价格是128元。外套可以在30天内退货。我们的商店在河边。请用礼貌的语气回答。"
        "耳机的保修期是24个月！背包的价格是66元。鞋子的价格是多少元？谢谢。😀👍"
        "🏽",
        "😀 hello 🎉🎉. Is this 👩‍👩‍👧 fine? Yes. " POLICY};
    struct engine *en = open_tiny_engine(4, 64, 2);
    struct question q[N_QUESTIONS];
    char *alone[N_QUESTIONS];
    struct rng rng;
    rng_init(&rng, test_seed());
    for (int i = 0; i < N_QUESTIONS; i++) {
        ask(&q[i], texts[i], "off", 10);
        q[i].request.plan.min_text_rows = 8;
        if (i != 2) {
            choose_rows(&q[i], 2 + i, i % 2 ? "gather" : "drop");
        }
        q[i].request.gen.n_choices = 1 + i % 2;
        alone[i] = answer_of(en, &q[i]);
    }
    uint64_t submitted = N_QUESTIONS;
    for (int round = 0; round < 10; round++) {
        struct job *jobs[N_QUESTIONS];
        for (int i = 0; i < N_QUESTIONS; i++) {
            jobs[i] = submit(en, &q[i]);
            submitted++;
        }
        for (int i = 0; i < N_QUESTIONS; i++) {
            struct buf text;
            if (rng_below(&rng, 3)) {
                CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
                CHECK_STR(buf_str(&text), alone[i]);
                buf_free(&text);
            }
            job_free(jobs[i]);
        }
    }
    check_idle(en, submitted);
    for (int i = 0; i < N_QUESTIONS; i++) {
        mem_free(alone[i]);
    }
    engine_close(en);
}

TEST(engine_choose_out_of_memory, "each failing allocation ends in an error or in an answer")
{
    struct engine *en = open_tiny_engine(1, 4, 2);
    struct question q;
    ask(&q, POLICY, "off", 2);
    choose_rows(&q, 3, "gather");
    bool all_used = false;
    int survived = 0;
    for (long n = 1; !all_used && n < 400; n++) {
        struct err e = ERR_INIT;
        alloc_fail_at(n);
        struct job *j = job_prepare(en, &q.request, &e);
        if (!j) {
            alloc_fail_at(0);
            CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            continue;
        }
        CHECK_OK(job_submit(j, &e), e);
        struct buf text;
        enum job_event_type end = read_all(j, &text);
        all_used = alloc_count() < n;
        alloc_fail_at(0);
        if (end == JOB_EVENT_ERROR) {
            CHECK_INT(job_error(j)->code, ==, ERR_NO_MEMORY);
        }
        survived += end == JOB_EVENT_END;
        buf_free(&text);
        job_free(j);
    }
    CHECK(all_used);
    CHECK_INT(survived, >, 0);
    engine_close(en);
}
