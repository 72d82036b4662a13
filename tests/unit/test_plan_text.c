/* The operator's plan from text: --profile, --compression, `profiles:` of the file. */
#include "cmd/plan_text.h"
#include "tests/test.h"

#include <string.h>

static struct err e;

static double option(const struct plan *p, enum modality m, const char *name)
{
    int i = compressor_option_index(p->step[m].method, name);
    CHECK_INT(i, >=, 0);
    return p->step[m].options[i];
}

/* The plan for these two values, with one profile of the operator's own. */
static int make(struct plan *p, const char *profile, const char *compression)
{
    char name[] = "shoes";
    char from[] = "product_search";
    char set[] = "image.ratio=8 text.method=off, protect_tail=5";
    char profile_copy[64];
    char compression_copy[128];
    static char prefix[] = "Be kind."; /* profiles stay, and it with them */
    struct config_profile own = {.name = name, .from = from, .set = set, .static_prefix = prefix};
    snprintf(profile_copy, sizeof profile_copy, "%s", profile);
    snprintf(compression_copy, sizeof compression_copy, "%s", compression);
    const struct config c = {.profile = profile_copy,
                             .compression = compression_copy,
                             .profiles = &own,
                             .n_profiles = 1};
    e = (struct err){0};
    return plan_text_from_config(p, &c, &e);
}

TEST(plan_text_on_is_the_profile, "on, or nothing, leaves the profile as it is")
{
    struct plan want;
    struct plan p;
    CHECK_OK(plan_from_profile(&want, "balanced", &e), e);
    CHECK_OK(make(&p, "balanced", "on"), e);
    CHECK(plan_id(&p) == plan_id(&want));
    CHECK_OK(make(&p, "balanced", ""), e);
    CHECK(plan_id(&p) == plan_id(&want));
}

TEST(plan_text_off_and_names, "off merges nothing; a name replaces the profile")
{
    struct plan p;
    CHECK_OK(make(&p, "balanced", "off"), e);
    for (int m = 0; m < MODALITY_COUNT; m++) {
        CHECK_STR(p.step[m].method->info.name, "off");
    }
    CHECK_OK(make(&p, "off", "customer_service"), e);
    CHECK_STR(p.profile, "customer_service");
}

TEST(plan_text_guard, "guard.* switches the guard on; bad values are named")
{
    struct plan p;
    CHECK_OK(make(&p, "balanced", "guard.margin=0.25,guard.tokens=4"), e);
    CHECK(p.guard.on);
    CHECK_DOUBLE(p.guard.value[GUARD_MARGIN], ==, 0.25);
    CHECK_DOUBLE(p.guard.value[GUARD_TOKENS], ==, 4);
    CHECK_INT(make(&p, "balanced", "guard.margin=much"), ==, -1);
    CHECK(strstr(e.msg, "guard.margin"));
    CHECK_INT(make(&p, "balanced", "guard.marge=0.1"), ==, -1);
    CHECK(strstr(e.msg, "margin"));
}

TEST(plan_text_settings_change_the_profile, "methods first, wherever they stand; the rest stays")
{
    struct plan p;
    struct plan before;
    CHECK_OK(make(&before, "balanced", "on"), e);
    CHECK_OK(make(&p, "balanced", "image.ratio=2,text.threshold=0.9"), e);
    CHECK_DOUBLE(option(&p, MODALITY_IMAGE, "ratio"), ==, 2);
    CHECK_DOUBLE(option(&p, MODALITY_TEXT, "threshold"), ==, 0.9);
    CHECK(p.step[MODALITY_LM].method == before.step[MODALITY_LM].method);
    CHECK_OK(make(&p, "off", "image.ratio=3, image.method=tome protect_system=false"), e);
    CHECK_DOUBLE(option(&p, MODALITY_IMAGE, "ratio"), ==, 3);
    CHECK(!p.protect_system);
    CHECK_OK(make(&p, "balanced", "image.schedule=decreasing"), e);
    CHECK_DOUBLE(option(&p, MODALITY_IMAGE, "schedule"), ==, 2);
}

TEST(plan_text_own_profiles, "a profile of the file: from another, with settings on top")
{
    struct plan p;
    CHECK_OK(make(&p, "shoes", "on"), e);
    CHECK_STR(p.profile, "shoes");
    CHECK_DOUBLE(option(&p, MODALITY_IMAGE, "ratio"), ==, 8);
    CHECK_STR(p.step[MODALITY_TEXT].method->info.name, "off");
    CHECK_INT(p.protect_tail, ==, 5);
    CHECK_STR(p.static_prefix, "Be kind.");
    CHECK_OK(make(&p, "shoes", "off"), e);
    CHECK_STR(p.step[MODALITY_IMAGE].method->info.name, "off");
    CHECK_STR(p.static_prefix, "Be kind.");
    CHECK_OK(make(&p, "shoes", "image.ratio=3"), e);
    CHECK_STR(p.static_prefix, "Be kind.");
    CHECK_OK(make(&p, "balanced", "on"), e);
    CHECK(!p.static_prefix);
}

TEST(plan_text_mistakes, "each names what was wrong and leaves the plan alone")
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"shoos", "shoos"},
        {"image.ratio=99", "ratio"},
        {"image.raito=2", "raito"},
        {"picture.ratio=2", "'picture' is no part of a plan"},
        {"protect=1", "no setting is called 'protect'"},
        {"protect_tail=many", "not a number"},
        {"protect_tail=-1", "not a number"},
        {"image.ratio=", "is no setting"},
        {"=2", "is no setting"},
        {"image.method=magic", "magic"},
    };
    struct plan p;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (make(&p, "balanced", cases[i].text) == 0) {
            FAIL("accepted: %s", cases[i].text);
        }
        if (!strstr(e.msg, cases[i].says)) {
            FAIL("%s: \"%s\" lacks \"%s\"", cases[i].text, e.msg, cases[i].says);
        }
    }
    CHECK_OK(plan_from_profile(&p, "balanced", &e), e);
    unsigned long long id = plan_id(&p);
    CHECK_INT(plan_text_apply(&p, "image.ratio=2,image.raito=3", &e), ==, -1);
    CHECK(plan_id(&p) == id);
    char long_setting[300];
    memset(long_setting, 'x', sizeof long_setting - 1);
    long_setting[sizeof long_setting - 1] = '\0';
    CHECK_INT(plan_text_apply(&p, long_setting, &e), ==, -1);
}

TEST(plan_text_help_names_every_profile, "the help of --profile lists what is built in")
{
    const struct schema *s = config_schema();
    const char *help = s->options[schema_find(s, "profile", 7)].help;
    for (int i = 0; plan_profile_name(i); i++) {
        if (!strstr(help, plan_profile_name(i))) {
            FAIL("--profile does not name %s", plan_profile_name(i));
        }
    }
}
