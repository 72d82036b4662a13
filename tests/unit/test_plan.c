/* Profiles, overrides with their messages, what detail and size change, print and id. */
#include "base/buf.h"
#include "compress/calibration.h"
#include "compress/plan.h"
#include "compress/plan_impl.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct plan profile(const char *name)
{
    struct plan p;
    struct err e = ERR_INIT;
    CHECK_OK(plan_from_profile(&p, name, &e), e);
    return p;
}

static void check_print(const struct plan *p, const char *want)
{
    struct buf b;
    buf_init(&b, 4096);
    CHECK_INT(plan_print(p, &b), ==, 0);
    CHECK_STR(buf_str(&b), want);
    buf_free(&b);
}

static double option(const struct plan_step *s, const char *name)
{
    int i = compressor_option_index(s->method, name);
    CHECK_INT(i, >=, 0);
    return s->options[i];
}

/* The call must fail with this code, param, and a message with these words. */
static void check_refused(int rc, const struct err *e, enum err_code code, const char *param,
                          const char *words)
{
    CHECK_INT(rc, ==, -1);
    CHECK_STR(err_code_name(e->code), err_code_name(code));
    CHECK_STR(e->param, param);
    if (!strstr(e->msg, words)) {
        FAIL("\"%s\" is not in \"%s\"", words, e->msg);
    }
}

TEST(plan_profiles, "the four built-in profiles, printed")
{
    struct plan p = profile("off");
    check_print(&p, "off");
    p = profile("balanced");
    check_print(
        &p,
        "image tome ratio=4 schedule=constant counts=fixed; text cosine threshold=0.85 max_group=4 "
        "norm=direction; protect_system=true protect_tail=32 min_text_rows=64");
    CHECK_STR(p.profile, "balanced");
    CHECK_INT(p.step[MODALITY_IMAGE].stage, ==, STAGE_VIT_LAYER);
    CHECK_INT(p.step[MODALITY_TEXT].stage, ==, STAGE_TEXT_ROWS);
    CHECK_INT(p.step[MODALITY_LM].stage, ==, STAGE_LM_LAYER);
    p = profile("product_search");
    check_print(&p, "image tome ratio=2 schedule=constant counts=fixed");
    p = profile("customer_service");
    check_print(
        &p, "image tome ratio=8 schedule=constant counts=fixed; lm cosine ratio=1.5 max_group=4 "
            "norm=direction cutoff=14; protect_system=false protect_tail=32 min_text_rows=64");
    for (int i = 0; i < 4; i++) {
        CHECK(plan_profile_name(i) && plan_profile_summary(i));
    }
    CHECK(!plan_profile_name(4) && !plan_profile_name(-1) && !plan_profile_summary(4));
    struct err e = ERR_INIT;
    check_refused(plan_from_profile(&p, "ballanced", &e), &e, ERR_INVALID, "compression",
                  "did you mean \"balanced\"?; there are: off, balanced, product_search, "
                  "customer_service");
    check_refused(plan_from_profile(&p, "", &e), &e, ERR_INVALID, "compression", "there are: off");
}

TEST(plan_added_profiles, "profiles of the operator are found, listed, replaced and bounded")
{
    struct err e = ERR_INIT;
    struct plan p = profile("balanced");
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "ratio", 3, &e), e);
    CHECK_OK(plan_add_profile("archive", &p, &e), e);
    CHECK_STR(plan_profile_name(4), "archive");
    CHECK_STR(plan_profile_summary(4), "from the configuration");
    struct plan q = profile("archive");
    CHECK_STR(q.profile, "archive");
    CHECK_DOUBLE(option(&q.step[MODALITY_IMAGE], "ratio"), ==, 3);
    CHECK_OK(plan_add_profile("balanced", &p, &e), e);
    q = profile("balanced");
    CHECK_DOUBLE(option(&q.step[MODALITY_IMAGE], "ratio"), ==, 3);
    CHECK(!plan_profile_name(5));
    CHECK(plan_add_profile("Bad Name", &p, &e));
    CHECK(plan_add_profile("", &p, &e));
    CHECK(plan_add_profile("a_name_of_more_than_thirty_one_bytes", &p, &e));
    int n = 0;
    for (; n < 100; n++) {
        char name[32];
        snprintf(name, sizeof name, "p%d", n);
        if (plan_add_profile(name, &p, &e)) {
            break;
        }
    }
    CHECK_INT(e.code, ==, ERR_TOO_LARGE);
    CHECK_INT(n, ==, PLAN_MAX_PROFILES - 4 - 2);
}

TEST(plan_overrides, "methods and options are set, and what excludes each other gives way")
{
    struct err e = ERR_INIT;
    struct plan p = profile("balanced");
    CHECK_OK(plan_set_number(&p, MODALITY_TEXT, "ratio", 1.6, &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "rows", 48, &e), e);
    CHECK_OK(plan_set_text(&p, MODALITY_IMAGE, "schedule", "decreasing", &e), e);
    check_print(
        &p,
        "image tome rows=48 schedule=decreasing counts=fixed; text cosine ratio=1.6 max_group=4 "
        "norm=direction; protect_system=true protect_tail=32 min_text_rows=64");
    CHECK_OK(plan_set_number(&p, MODALITY_TEXT, "threshold", 0.7, &e), e);
    CHECK_OK(plan_set_text(&p, MODALITY_IMAGE, "ratio", "auto", &e), e);
    CHECK_OK(plan_set_method(&p, MODALITY_LM, "cosine", &e), e);
    check_print(&p,
                "image tome ratio=auto schedule=decreasing counts=fixed; text cosine threshold=0.7 "
                "max_group=4 norm=direction; lm cosine threshold=0.85 max_group=4 "
                "norm=direction cutoff=19; protect_system=true protect_tail=32 "
                "min_text_rows=64");
    CHECK_OK(plan_set_method(&p, MODALITY_IMAGE, "off", &e), e);
    CHECK_OK(plan_set_method(&p, MODALITY_TEXT, "off", &e), e);
    CHECK_OK(plan_set_method(&p, MODALITY_LM, "off", &e), e);
    check_print(&p, "off");
}

TEST(plan_modifiers, "every method takes the modifiers of its slot, printed when they do something")
{
    struct plan p = profile("off");
    struct err e = ERR_INIT;
    CHECK_OK(plan_set_method(&p, MODALITY_IMAGE, "pool", &e), e);
    check_print(&p, "image pool ratio=4");
    unsigned long long plain = plan_id(&p);
    CHECK_OK(plan_set_text(&p, MODALITY_IMAGE, "norm", "direction", &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "reweight", 1, &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "residual", 0.1, &e), e);
    CHECK_OK(plan_set_text(&p, MODALITY_IMAGE, "protect", "text", &e), e);
    check_print(&p, "image pool ratio=4 norm=direction reweight=true residual=0.1 protect=text");
    CHECK(plan_id(&p) != plain);
    struct plan_step step;
    const char *skipped;
    plan_image_step(&p, DETAIL_LOW, 100, 100, 256, &step, &skipped);
    CHECK_STR(step.method->info.name, "tome"); /* low detail, but print stays protected */
    CHECK_DOUBLE(step.options[compressor_option_index(step.method, "protect")], ==, 1);
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "residual", 2, &e), &e, ERR_RANGE,
                  "compression.image.residual", "from 0.01 to 1");
    p = profile("off");
    CHECK_OK(plan_set_method(&p, MODALITY_LM, "slerp", &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_LM, "steps", 2, &e), e);
    CHECK_OK(plan_set_text(&p, MODALITY_LM, "log_mass", "true", &e), e);
    check_print(&p, "lm slerp start=0 end=0 positions=original compat=false cutoff=19 "
                    "log_mass=true steps=2; protect_system=true protect_tail=32 min_text_rows=64");
    check_refused(plan_set_text(&p, MODALITY_LM, "protect", "text", &e), &e, ERR_INVALID,
                  "compression.lm.protect", "there are");
    CHECK_OK(plan_set_method(&p, MODALITY_TEXT, "slerp", &e), e);
    check_refused(plan_set_number(&p, MODALITY_TEXT, "steps", 2, &e), &e, ERR_INVALID,
                  "compression.text.steps", "there are");
}

TEST(plan_lm_steps_by_hand, "blocks at even distances, the ratio in equal parts, why not")
{
    struct plan p = profile("off");
    struct err e = ERR_INIT;
    struct plan_step step[PLAN_MAX_LM_STEPS];
    const char *skipped;
    CHECK_INT(plan_lm_steps(&p, 30, 500, NULL, step, &skipped), ==, 0);
    CHECK(!skipped);
    CHECK_OK(plan_set_method(&p, MODALITY_LM, "query", &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_LM, "ratio", 8, &e), e);
    int cutoff = compressor_option_index(p.step[MODALITY_LM].method, "cutoff");
    int ratio = compressor_option_index(p.step[MODALITY_LM].method, "ratio");
    static const int want[3][3] = {{8}, {8, 18}, {8, 15, 22}}; /* 21 blocks behind block 8 */
    for (int n = 1; n <= 3; n++) {
        CHECK_OK(plan_set_number(&p, MODALITY_LM, "steps", n, &e), e);
        CHECK_INT(plan_lm_steps(&p, 30, 500, NULL, step, &skipped), ==, n);
        for (int i = 0; i < n; i++) {
            CHECK_DOUBLE(step[i].options[cutoff], ==, want[n - 1][i]);
            CHECK_DOUBLE(fabs(pow(step[i].options[ratio], n) - 8), <, 1e-9);
        }
    }
    CHECK_INT(plan_lm_steps(&p, 10, 500, NULL, step, &skipped), ==, 1); /* one block is left */
    CHECK_INT(plan_lm_steps(&p, 9, 500, NULL, step, &skipped), ==, 0);
    CHECK_STR(skipped, "cutoff_out_of_range");
    CHECK_INT(plan_lm_steps(&p, 30, 63, NULL, step, &skipped), ==, 0);
    CHECK_STR(skipped, "too_short");
}

TEST(plan_baselines, "methods for comparisons only are refused until they are allowed")
{
    struct plan p = profile("off");
    struct err e = ERR_INIT;
    check_refused(plan_set_method(&p, MODALITY_IMAGE, "random", &e), &e, ERR_UNSUPPORTED,
                  "compression.image.method", "--baselines");
    plan_allow_baselines(true);
    e = (struct err)ERR_INIT;
    CHECK_OK(plan_set_method(&p, MODALITY_IMAGE, "random", &e), e);
    check_print(&p, "image random ratio=4 seed=0");
}

TEST(plan_refusals, "every refusal names the option, the rule and the nearest name")
{
    struct err e = ERR_INIT;
    struct plan p = profile("balanced");
    const struct plan before = p;
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "ratio", 40, &e), &e, ERR_RANGE,
                  "compression.image.ratio",
                  "compression.image.ratio is 40; it must be a number from 1 to 16 or \"auto\"");
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "ratio", NAN, &e), &e, ERR_RANGE,
                  "compression.image.ratio", "is nan");
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "rows", 1.5, &e), &e, ERR_TYPE,
                  "compression.image.rows", "a whole number from 1 to 65536");
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "rows", 0, &e), &e, ERR_RANGE,
                  "compression.image.rows", "from 1");
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "schedule", 1, &e), &e, ERR_TYPE,
                  "compression.image.schedule", "one of constant, increasing, decreasing");
    check_refused(plan_set_text(&p, MODALITY_IMAGE, "schedule", "constnat", &e), &e, ERR_INVALID,
                  "compression.image.schedule", "is \"constnat\"; it must be one of constant");
    check_refused(plan_set_text(&p, MODALITY_TEXT, "threshold", "auto", &e), &e, ERR_TYPE,
                  "compression.text.threshold", "a number from -1 to 1");
    check_refused(plan_set_number(&p, MODALITY_IMAGE, "ration", 2, &e), &e, ERR_INVALID,
                  "compression.image.ration", "did you mean \"ratio\"?");
    check_refused(plan_set_number(&p, MODALITY_TEXT, "cutoff", 2, &e), &e, ERR_INVALID,
                  "compression.text.cutoff", "there are: threshold, ratio, max_group, norm");
    check_refused(plan_set_number(&p, MODALITY_LM, "cutoff", 2, &e), &e, ERR_INVALID,
                  "compression.lm.cutoff", "set compression.lm.method first");
    check_refused(plan_set_method(&p, MODALITY_IMAGE, "tom", &e), &e, ERR_INVALID,
                  "compression.image.method",
                  "did you mean \"tome\"?; there are: off, downscale, tome, pool, prune, dedup");
    check_refused(plan_set_method(&p, MODALITY_TEXT, "tome", &e), &e, ERR_INVALID,
                  "compression.text.method", "there are: off, cosine");
    CHECK_INT(plan_id(&p), ==, plan_id(&before));

    char name[5000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    CHECK(plan_set_method(&p, MODALITY_IMAGE, name, &e));
    CHECK(plan_set_number(&p, MODALITY_IMAGE, name, 1, &e));
    CHECK(plan_set_text(&p, MODALITY_IMAGE, "schedule", name, &e));
    CHECK(plan_from_profile(&p, name, &e));
}

static struct plan_step image_step(const struct plan *p, enum image_detail d, int width, int height,
                                   int n_rows, const char *want_skipped)
{
    struct plan_step s;
    const char *skipped = "untouched";
    plan_image_step(p, d, width, height, n_rows, &s, &skipped);
    CHECK((skipped == NULL) == (want_skipped == NULL));
    if (skipped) {
        CHECK_STR(skipped, want_skipped);
        CHECK(s.method == compressors[0]);
    }
    return s;
}

TEST(plan_image_detail, "high = none, low = the strongest, auto = the plan; off stays off")
{
    struct err e = ERR_INIT;
    struct plan p = profile("balanced");
    struct plan_step s = image_step(&p, DETAIL_AUTO, 4000, 3000, 256, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 4);
    s = image_step(&p, DETAIL_LOW, 4000, 3000, 256, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 8);
    s = image_step(&p, DETAIL_HIGH, 4000, 3000, 256, "detail_high");
    CHECK_OK(plan_set_number(&p, MODALITY_IMAGE, "rows", 10, &e), e);
    s = image_step(&p, DETAIL_LOW, 4000, 3000, 256, NULL);
    CHECK_DOUBLE(option(&s, "rows"), ==, 10); /* already stronger than 8x = 32 rows */
    p = profile("off");
    s = image_step(&p, DETAIL_LOW, 4000, 3000, 256, NULL);
    CHECK(s.method == compressors[0]);
    s = image_step(&p, DETAIL_HIGH, 4000, 3000, 256, NULL);
    CHECK(s.method == compressors[0]);
}

TEST(plan_image_auto, "auto: 4 above 512 pixels, 2 up to that, nothing up to 64 rows")
{
    struct err e = ERR_INIT;
    struct plan p = profile("balanced");
    CHECK_OK(plan_set_text(&p, MODALITY_IMAGE, "ratio", "auto", &e), e);
    struct plan_step s = image_step(&p, DETAIL_AUTO, 513, 100, 256, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 4);
    s = image_step(&p, DETAIL_AUTO, 100, 513, 65, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 4);
    s = image_step(&p, DETAIL_AUTO, 512, 512, 256, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 2);
    image_step(&p, DETAIL_AUTO, 1000, 1000, 64, "too_few_rows");
    image_step(&p, DETAIL_HIGH, 1000, 1000, 64, "detail_high");
    s = image_step(&p, DETAIL_LOW, 1000, 1000, 64, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 8);
}

static struct plan_step text_step(const struct plan *p, enum modality m, int n,
                                  const struct calibration *cal, const char *want_skipped)
{
    struct plan_step s;
    const char *skipped = "untouched";
    plan_text_step(p, m, n, cal, &s, &skipped);
    CHECK((skipped == NULL) == (want_skipped == NULL));
    if (skipped) {
        CHECK_STR(skipped, want_skipped);
        CHECK(s.method == compressors[0]);
    }
    CHECK_INT(s.stage, ==, m == MODALITY_TEXT ? STAGE_TEXT_ROWS : STAGE_LM_LAYER);
    return s;
}

TEST(plan_text_ratio, "a ratio becomes the threshold of its layer, or says why not")
{
    struct err e = ERR_INIT;
    struct calibration cal;
    CHECK_OK(calibration_init(&cal, 4, &e), e);
    float at_embedding[] = {0, 1};
    float at_layer_2[] = {0.5f, 1};
    calibration_set(&cal, -1, at_embedding, 2);
    calibration_set(&cal, 2, at_layer_2, 2);

    struct plan p = profile("balanced");
    struct plan_step s = text_step(&p, MODALITY_TEXT, 64, NULL, NULL);
    CHECK_DOUBLE(option(&s, "threshold"), ==, 0.85);
    text_step(&p, MODALITY_TEXT, 63, NULL, "too_short");
    text_step(&p, MODALITY_LM, 3, NULL, NULL);

    CHECK_OK(plan_set_number(&p, MODALITY_TEXT, "ratio", 1.6, &e), e);
    text_step(&p, MODALITY_TEXT, 300, NULL, "not_calibrated");
    s = text_step(&p, MODALITY_TEXT, 300, &cal, NULL);
    CHECK_DOUBLE(fabs(option(&s, "threshold") - 0.625), <, 1e-6); /* 1 - 1/1.6 = 0.375 above */
    struct calibration none = {0};
    text_step(&p, MODALITY_TEXT, 300, &none, "not_calibrated");

    CHECK_OK(plan_set_text(&p, MODALITY_TEXT, "ratio", "auto", &e), e);
    text_step(&p, MODALITY_TEXT, 512, &cal, "too_short");
    s = text_step(&p, MODALITY_TEXT, 768, &cal, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 1.5);
    s = text_step(&p, MODALITY_TEXT, 9000, &cal, NULL);
    CHECK_DOUBLE(option(&s, "ratio"), ==, 2);
    CHECK_DOUBLE(fabs(option(&s, "threshold") - 0.5), <, 1e-6);

    CHECK_OK(plan_set_method(&p, MODALITY_LM, "cosine", &e), e);
    CHECK_OK(plan_set_number(&p, MODALITY_LM, "ratio", 2, &e), e);
    text_step(&p, MODALITY_LM, 300, &cal, "not_calibrated"); /* layer 19 of 4 */
    CHECK_OK(plan_set_number(&p, MODALITY_LM, "cutoff", 2, &e), e);
    s = text_step(&p, MODALITY_LM, 300, &cal, NULL);
    CHECK_DOUBLE(fabs(option(&s, "threshold") - 0.75), <, 1e-6);
    calibration_clear(&cal);
}

TEST(plan_ids, "the id follows what will be done, not the name, and survives restarts")
{
    struct err e = ERR_INIT;
    struct plan p = profile("balanced");
    struct plan q = profile("balanced");
    snprintf(q.profile, sizeof q.profile, "other");
    CHECK(plan_id(&p) == plan_id(&q));
    CHECK_OK(plan_set_number(&q, MODALITY_TEXT, "threshold", 0.86, &e), e);
    CHECK(plan_id(&p) != plan_id(&q));
    q = profile("balanced");
    q.protect_tail = 0;
    CHECK(plan_id(&p) != plan_id(&q));
    q = profile("off");
    CHECK(plan_id(&p) != plan_id(&q));
    /* first 8 bytes of SHA-256("off") */
    CHECK(plan_id(&q) == 0xb4dc66dde806261bULL);
}
