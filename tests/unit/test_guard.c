/* compress/guard.c: what logits say, against the definitions; what is in doubt; cascades. */
#include "base/buf.h"
#include "base/rng.h"
#include "compress/plan.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

TEST(guard_measures, "margin and entropy are those of the softmax, also of large logits and ties")
{
    enum { N = 300 };
    struct rng g;
    rng_init(&g, test_seed());
    for (int round = 0; round < 200; round++) {
        float logits[N];
        double p[N];
        double sum = 0;
        double entropy = 0;
        struct guard_signal s;
        float scale = (float)(1 + rng_below(&g, 30));
        for (int i = 0; i < N; i++) {
            logits[i] = round % 7 == 0 ? 80.0f : scale * ((float)rng_below(&g, 2000) / 1000 - 1);
        }
        for (int i = 0; i < N; i++) {
            p[i] = exp((double)logits[i] - 80);
            sum += p[i];
        }
        for (int i = 0; i < N; i++) {
            p[i] /= sum;
            entropy -= p[i] * log(p[i]);
        }
        qsort(p, N, sizeof *p, descending);
        guard_measure(logits, N, &s);
        CHECK_DOUBLE(fabs(s.margin - (p[0] - p[1])), <, 1e-9);
        CHECK_DOUBLE(fabs(s.entropy - entropy), <, 1e-7);
    }
    const float one[] = {3};
    struct guard_signal s;
    guard_measure(one, 1, &s);
    CHECK_DOUBLE(s.margin, ==, 1);
    CHECK_DOUBLE(s.entropy, ==, 0);
}

TEST(guard_doubts_outside_the_band, "a doubt has its reason, and none without the guard")
{
    struct err e = ERR_INIT;
    struct plan p;
    const struct guard_signal s = {.margin = 0.4, .entropy = 2};
    CHECK_OK(plan_from_profile(&p, "balanced", &e), e);
    CHECK(!p.guard.on);
    CHECK_OK(plan_set_guard(&p, "margin", 0.5, &e), e);
    CHECK_STR(guard_doubts(&p.guard, &s), "narrow_margin");
    CHECK_OK(plan_set_guard(&p, "margin", 0.4, &e), e);
    CHECK(!guard_doubts(&p.guard, &s));
    CHECK_OK(plan_set_guard(&p, "entropy", 1.5, &e), e);
    CHECK_STR(guard_doubts(&p.guard, &s), "high_entropy");
    CHECK_OK(plan_set_guard(&p, "entropy", 2, &e), e);
    CHECK(!guard_doubts(&p.guard, &s));
    CHECK_OK(plan_set_guard(&p, "margin", 1, &e), e);
    CHECK_OK(plan_set_guard(&p, "on", 0, &e), e);
    CHECK(!guard_doubts(&p.guard, &s));
}

TEST(guard_is_part_of_the_plan, "it is printed and makes another id; bad options are named")
{
    struct err e = ERR_INIT;
    struct plan p;
    struct buf out;
    CHECK_OK(plan_from_profile(&p, "balanced", &e), e);
    unsigned long long before = plan_id(&p);
    CHECK_OK(plan_set_guard(&p, "tokens", 4, &e), e);
    CHECK(plan_id(&p) != before);
    buf_init(&out, 4096);
    CHECK_INT(plan_print(&p, &out), ==, 0);
    CHECK(strstr(buf_str(&out), "; guard margin=0.15 tokens=4 min_ratio=1.1"));
    buf_free(&out);
    CHECK_INT(plan_set_guard(&p, "tokens", 0, &e), ==, -1);
    CHECK_STR(e.param, "compression.guard.tokens");
    CHECK_INT(plan_set_guard(&p, "tokens", 1.5, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_TYPE);
    CHECK_INT(plan_set_guard(&p, "token", 1, &e), ==, -1);
    CHECK_STR(e.param, "compression.guard.token");
    CHECK(strstr(e.msg, "did you mean \"tokens\""));
}

TEST(plan_caps,
     "no step compresses more than the cap, milder ones stay, and the id does not change")
{
    struct err e = ERR_INIT;
    struct plan p;
    struct plan_step s;
    const char *skipped;
    CHECK_OK(plan_from_profile(&p, "balanced", &e), e);
    unsigned long long id = plan_id(&p);
    p.cap = 2;
    CHECK(plan_id(&p) == id);
    plan_image_step(&p, DETAIL_AUTO, 448, 448, 256, &s, &skipped);
    CHECK_INT(s.method->ops.predict(s.options, 256), ==, 128);
    plan_image_step(&p, DETAIL_LOW, 448, 448, 256, &s, &skipped);
    CHECK_INT(s.method->ops.predict(s.options, 256), ==, 128);
    p.cap = 8;
    plan_image_step(&p, DETAIL_AUTO, 448, 448, 256, &s, &skipped);
    CHECK_INT(s.method->ops.predict(s.options, 256), ==, 64);
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "rows", 8, &e), e);
    plan_image_step(&p, DETAIL_AUTO, 448, 448, 256, &s, &skipped);
    CHECK_INT(s.method->ops.predict(s.options, 256), ==, 32);
    /* by a threshold: about half at most, so off below 2x */
    plan_text_step(&p, MODALITY_TEXT, 300, NULL, &s, &skipped);
    CHECK_STR(s.method->info.name, "cosine");
    p.cap = 1.3;
    plan_text_step(&p, MODALITY_TEXT, 300, NULL, &s, &skipped);
    CHECK_STR(s.method->info.name, "off");
    CHECK_STR(skipped, "capped");
    CHECK_OK(plan_set_method(&p, MODALITY_IMAGE, "dedup", &e), e);
    plan_image_step(&p, DETAIL_AUTO, 448, 448, 256, &s, &skipped);
    CHECK_STR(skipped, "capped");
    CHECK_OK(plan_set_method(&p, MODALITY_LM, "query", &e), e);
    plan_text_step(&p, MODALITY_LM, 300, NULL, &s, &skipped);
    CHECK_DOUBLE(s.options[compressor_option_index(s.method, "ratio")], ==, 1.3);
}

TEST(cascade_rungs, "each rung has more rows by the same factor, up to the last ratio")
{
    struct err e = ERR_INIT;
    struct plan p;
    static const double want[] = {64, 16, 4, 1};
    CHECK_OK(plan_from_profile(&p, "off", &e), e);
    CHECK_OK(plan_set_method(&p, MODALITY_IMAGE, "cascade", &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "ratio", 64, &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "rungs", 4, &e), e);
    const struct plan_step *planned = &p.step[MODALITY_IMAGE];
    CHECK_INT(plan_step_rungs(planned), ==, 4);
    int ratio = compressor_option_index(planned->method, "ratio");
    for (int k = 0; k < 4; k++) {
        struct plan_step s;
        plan_step_set_rung(&s, planned, k);
        CHECK_DOUBLE(fabs(s.options[ratio] - want[k]), <, 1e-9);
        CHECK_INT(s.rung, ==, k);
        CHECK_INT(s.method->ops.predict(s.options, 256), ==, (int)lround(256 / want[k]));
    }
    CHECK_OK(plan_set_method(&p, MODALITY_IMAGE, "tome", &e), e);
    CHECK_INT(plan_step_rungs(planned), ==, 1);
    CHECK_DOUBLE(plan_step_margin(planned), ==, 0);
}
