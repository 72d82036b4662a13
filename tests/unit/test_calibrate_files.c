/* What `tamp calibrate` reads and writes: requests, the answers so far, the judgement, the
 * report and the profile. */
#include "base/alloc.h"
#include "cmd/calibrate_data.h"
#include "cmd/calibrate_judge.h"
#include "cmd/calibrate_pairs.h"
#include "cmd/calibrate_report.h"
#include "cmd/plan_text.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err e;

/* A folder of this test; the harness' process leaves it to the system. */
static const char *folder(void)
{
    static char path[] = "/tmp/tamp-calibrate-XXXXXX";
    static bool made;
    if (!made && !mkdtemp(path)) {
        FAIL("no temporary folder");
    }
    made = true;
    return path;
}

static const char *in_folder(const char *name)
{
    static char path[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder(), name);
    return path[turn];
}

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite(text, 1, n, f) == n && fclose(f) == 0);
}

/* ---- judgement ------------------------------------------------------------------------ */

TEST(calibrate_judge_finds_whole_words, "the expected answer stands there, not a part of another")
{
    static const struct {
        const char *want, *text;
        bool found;
    } cases[] = {
        {"July 3", "It is on july 3.", true},
        {"July 3", "It is on July 31.", false},
        {"27.25", "It costs $27.25.", true},
        {"27.25", "It costs $127.25.", false},
        {"27", "It costs $27.25.", false},
        {"25", "It costs $27.25.", false},
        {"14", "14 months, not 140", true},
        {"14", "140 months", false},
        {"Oslo", "oslo", true},
        {"Oslo", "Oslos", false},
        {"is a", "It is a hat", true},
        {"3", "in 3, 4 days", true},
        {"158",
         "\xe6\x98\xaf"
         "158"
         "\xe5\x85\x83",
         true},
        {"It is a hat.", "It is a hat.", true},
        {"It is a hat.", "It is a hat", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (calibrate_stands_in(cases[i].want, cases[i].text) != cases[i].found) {
            FAIL("\"%s\" in \"%s\"", cases[i].want, cases[i].text);
        }
    }
    CHECK(calibrate_alike(NULL, "a hat", "a hat"));
    CHECK(!calibrate_alike(NULL, "a hat", "a cap"));
    CHECK(calibrate_alike("hat", "a hat", "the hat"));
    CHECK(!calibrate_alike("hat", "a hat", "the cap"));
}

/* ---- answers so far --------------------------------------------------------------------- */

TEST(calibrate_pairs_go_on, "answers are there again, a line that was cut off is not")
{
    const char *path = in_folder("answers.jsonl");
    struct calibrate_pairs p;
    char text[] = "two\nlines \"quoted\" \xe6\x98\xaf";
    CHECK_OK(calibrate_pairs_open(&p, path, &e), e);
    CHECK(calibrate_pairs_find(&p, 7) == NULL);
    for (uint64_t key = 1; key <= 3000; key++) { /* so many that the table grows */
        const struct calibrate_answer a = {.text = text, .mean_rows = (double)key, .prompt_ms = 2};
        CHECK_OK(calibrate_pairs_add(&p, key * 0x9e3779b97f4a7c15u, 1, "off", &a, &e), e);
    }
    calibrate_pairs_close(&p);

    struct stat st;
    CHECK_INT(stat(path, &st), ==, 0);
    CHECK_INT(st.st_mode & 0777, ==, 0600);
    CHECK_INT(truncate(path, st.st_size - 5), ==, 0);
    CHECK_OK(calibrate_pairs_open(&p, path, &e), e);
    CHECK_INT(p.n_found, ==, 2999);
    for (uint64_t key = 1; key < 3000; key++) {
        const struct calibrate_answer *a = calibrate_pairs_find(&p, key * 0x9e3779b97f4a7c15u);
        CHECK(a != NULL);
        CHECK_STR(a->text, text);
        CHECK_DOUBLE(a->mean_rows, ==, (double)key);
    }
    CHECK(calibrate_pairs_find(&p, 3000 * 0x9e3779b97f4a7c15u) == NULL);
    const struct calibrate_answer last = {.text = text};
    CHECK_OK(calibrate_pairs_add(&p, 5, 1, "off", &last, &e), e);
    calibrate_pairs_close(&p);
    CHECK_OK(calibrate_pairs_open(&p, path, &e), e);
    CHECK_INT(p.n_found, ==, 3000);
    calibrate_pairs_close(&p);
}

TEST(calibrate_pairs_refuse_another_file, "a file that is not theirs is named, and left alone")
{
    static const char other[] = "{\"key\": \"12\", \"text\": 3}\n";
    const char *path = in_folder("other.jsonl");
    struct calibrate_pairs p;
    write_file(path, other, sizeof other - 1);
    CHECK_INT(calibrate_pairs_open(&p, path, &e), ==, -1);
    CHECK(strstr(e.msg, "other.jsonl") && strstr(e.msg, "line 1"));
    calibrate_pairs_close(&p);
    struct stat st;
    CHECK_INT(stat(path, &st), ==, 0);
    CHECK_INT(st.st_size, ==, sizeof other - 1);
}

/* ---- requests ------------------------------------------------------------------------------ */

static struct plan off;
static struct chat_request_limits limits = {
    .n_vocab = 1000, .max_images = 4, .max_image_bytes = 1 << 20, .default_plan = &off};

static void open_data(struct calibrate_data *d, const char *text)
{
    CHECK_OK(plan_from_profile(&off, "off", &e), e);
    write_file(in_folder("requests.jsonl"), text, strlen(text));
    CHECK_OK(calibrate_data_open(d, in_folder("requests.jsonl"), &limits, &e), e);
}

TEST(calibrate_data_reads_requests, "lines, blank ones, a picture by its path, what is expected")
{
    static const unsigned char picture[] = {0xff, 0xd8, 0xff, 0x00, 0x7f};
    struct calibrate_data d;
    struct chat_request r;
    write_file(in_folder("shoe.jpg"), (const char *)picture, sizeof picture);
    open_data(&d, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"temperature\":1.0,"
                  "\"stream\":true,\"n\":3}\n"
                  " \t\r\n"
                  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
                  "\"image_url\":{\"url\":\"shoe.jpg\"}}]}],\"expected\":\"a shoe\"}\n"
                  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
                  "\"image_url\":\"data:image/jpeg;base64,/9j/AH8=\"}]}]}"); /* no line break */
    CHECK_INT(d.n, ==, 3);
    CHECK_INT(d.n_with_images, ==, 2);
    CHECK_INT(d.n_with_expected, ==, 1);
    CHECK_INT(d.items[1].line, ==, 3);
    CHECK_STR(d.items[1].expected, "a shoe");
    CHECK_OK(calibrate_data_request(&d, 0, &limits, &r, &e), e);
    CHECK_DOUBLE(r.engine.gen.temperature, ==, 0);
    CHECK_INT(r.engine.gen.n_choices, ==, 1);
    chat_request_free(&r);
    for (int i = 1; i < 3; i++) { /* by path and as a data URL: the same bytes */
        CHECK_OK(calibrate_data_request(&d, i, &limits, &r, &e), e);
        CHECK_INT(r.engine.images[0].n, ==, sizeof picture);
        CHECK(memcmp(r.engine.images[0].data, picture, sizeof picture) == 0);
        chat_request_free(&r);
    }
    /* Another picture under the same name is another request. */
    uint8_t before[CALIBRATE_DIGEST_BYTES];
    memcpy(before, d.items[1].digest, sizeof before);
    calibrate_data_close(&d);
    write_file(in_folder("shoe.jpg"), "other", 5);
    CHECK_OK(calibrate_data_open(&d, in_folder("requests.jsonl"), &limits, &e), e);
    CHECK(memcmp(before, d.items[1].digest, sizeof before) != 0);
    calibrate_data_close(&d);
}

TEST(calibrate_data_names_the_bad_line, "what the server would refuse is refused before the start")
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"{}\n", "line 1"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n{\"messages\":\n", "line 2"},
        {"\n{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
         "\"image_url\":{\"url\":\"none.png\"}}]}]}\n",
         "none.png"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"expected\":3}\n", "'expected'"},
    };
    CHECK_OK(plan_from_profile(&off, "off", &e), e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct calibrate_data d;
        write_file(in_folder("bad.jsonl"), cases[i].text, strlen(cases[i].text));
        CHECK_INT(calibrate_data_open(&d, in_folder("bad.jsonl"), &limits, &e), ==, -1);
        if (!strstr(e.msg, cases[i].said) || !strstr(e.msg, "bad.jsonl")) {
            FAIL("case %zu says: %s", i, e.msg);
        }
        calibrate_data_close(&d);
    }
    struct calibrate_data d;
    CHECK_INT(calibrate_data_open(&d, in_folder("absent.jsonl"), &limits, &e), ==, -1);
    calibrate_data_close(&d);
    CHECK_INT(calibrate_data_open(&d, "/dev/null", &limits, &e), ==, -1);
    calibrate_data_close(&d);
}

TEST(calibrate_data_survives_no_memory, "every allocation may fail, and nothing is left")
{
    struct calibrate_data d;
    open_data(&d, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"expected\":\"Hi\"}\n");
    calibrate_data_close(&d);
    alloc_fail_at(0);
    CHECK_OK(calibrate_data_open(&d, in_folder("requests.jsonl"), &limits, &e), e);
    long n = alloc_count();
    calibrate_data_close(&d);
    for (long i = 1; i <= n; i++) {
        alloc_fail_at(i);
        int rc = calibrate_data_open(&d, in_folder("requests.jsonl"), &limits, &e);
        alloc_fail_at(0);
        CHECK_INT(rc, ==, -1);
        calibrate_data_close(&d);
    }
}

/* ---- profile and report ---------------------------------------------------------------------- */

TEST(plan_text_print_is_the_inverse, "the printed settings make the same plan out of off")
{
    static const char *const settings[] = {
        "image.method=prune,image.ratio=8,image.score=diversity,image.protect=text",
        "text.method=cosine,text.ratio=1.3,protect_system=false,protect_tail=5,min_text_rows=9",
        "image.method=dedup,image.threshold=0.95,lm.method=query,lm.ratio=2.5,lm.cutoff=6",
        "image.method=tome,image.ratio=auto,image.reweight=true,image.residual=0.1",
        "image.method=pool,guard.on=true",
        "image.method=cascade,image.ratio=16,guard.entropy=1.5",
    };
    enum { N = sizeof settings / sizeof *settings };
    struct plan p;
    struct plan again;
    struct buf text;
    buf_init(&text, 1 << 16);
    for (int i = 0; i < 64; i++) {
        if (i < N) {
            CHECK_OK(plan_from_profile(&p, "off", &e) || plan_text_apply(&p, settings[i], &e), e);
        } else if (plan_profile_name(i - N)) {
            CHECK_OK(plan_from_profile(&p, plan_profile_name(i - N), &e), e);
        } else {
            break;
        }
        buf_clear(&text);
        plan_text_print(&p, &text);
        CHECK(!buf_failed(&text));
        CHECK_OK(plan_from_profile(&again, "off", &e), e);
        CHECK_OK(plan_text_apply(&again, buf_str(&text), &e), e);
        if (plan_id(&again) != plan_id(&p)) {
            FAIL("\"%s\" is another plan than \"%s\"", buf_str(&text),
                 i < N ? settings[i] : p.profile);
        }
    }
    buf_free(&text);
}

static struct sequence_tally tally[3][HALF_COUNT] = {
    {{.good = 300, .complete = true, .bound = 0.990, .holds = true}},
    {{.good = 299, .bad = 1, .complete = true, .bound = 0.984, .holds = true},
     {.good = 300, .complete = true, .bound = 0.990, .holds = true}},
    {{.good = 100, .bad = 3, .bound = 0.926}},
};
static const char *const steps[] = {"image.ratio=2", "image.ratio=4", "image.ratio=8"};
static const double rows[] = {0.6, 0.4, 0.25};
static const struct calibrate_difference different = {
    .step = 2, .line = 17, .without = "a <hat> | cap", .with = "a\ncap & more"};
static struct sequence sequence = {
    .n_steps = 3, .n_items = {300, 300}, .target = 0.983, .tally = tally, .chosen = 1, .kept = 1};
static struct calibrate_summary summary = {.sequence = &sequence,
                                           .steps = steps,
                                           .rows = rows,
                                           .prompt = rows,
                                           .differences = &different,
                                           .n_differences = 1,
                                           .n_requests = 600,
                                           .n_judged = 600,
                                           .max_tokens = 16,
                                           .data = "my_requests.jsonl",
                                           .model = "model.gguf",
                                           .name = "calibrated",
                                           .set = "image.method=tome,image.ratio=4"};

static const char *printed(void (*print)(const struct calibrate_summary *s, struct buf *out))
{
    static struct buf text;
    buf_free(&text);
    buf_init(&text, 1 << 20);
    print(&summary, &text);
    CHECK(!buf_failed(&text));
    return buf_str(&text);
}

TEST(calibrate_report_says_what_was_found, "promise, verdicts, and users' text that stays text")
{
    const char *text = printed(calibrate_print_markdown);
    CHECK(strstr(text, "With \"image.ratio=4\" at least 98.3 % of such requests"));
    CHECK(strstr(text, "| image.ratio=2 | 60.0 % | 60.0 % | 300 of 300 | 0.9900 |  |  | holds |"));
    CHECK(strstr(text, "| 0.9900 | kept |"));
    CHECK(strstr(text, "100 of 103, then left | 0.9260 |  |  | does not hold |"));
    CHECK(strstr(text, "a \\<hat\\> \\| cap | a cap & more |"));
    CHECK(strstr(text, "my\\_requests.jsonl"));
    text = printed(calibrate_print_html);
    CHECK(strstr(text, "a &#60;hat&#62; | cap</td><td>a cap &#38; more</td>"));
    CHECK(strstr(text, "<svg "));
    text = printed(calibrate_print_svg);
    size_t circles = 0;
    for (const char *at = text; (at = strstr(at, "<circle")); at++) {
        circles++;
    }
    CHECK_INT(circles, ==, 3);
}

TEST(calibrate_profile_is_a_configuration, "what it writes can be read, and off when nothing holds")
{
    struct config c = {0};
    const char *text = printed(calibrate_print_profile);
    CHECK_OK(config_read_text(&c, "profile.yaml", text, strlen(text), &e), e);
    CHECK_INT(c.n_profiles, ==, 1);
    CHECK_STR(c.profiles[0].name, "calibrated");
    CHECK_STR(c.profiles[0].from, "off");
    CHECK_STR(c.profiles[0].set, "image.method=tome,image.ratio=4");
    CHECK_STR(c.profile, "calibrated");
    config_clear(&c);

    sequence.kept = -1;
    summary.set = "";
    text = printed(calibrate_print_profile);
    c = (struct config){0};
    CHECK_OK(config_read_text(&c, "profile.yaml", text, strlen(text), &e), e);
    CHECK(c.profiles[0].set == NULL);
    CHECK(strstr(text, "merges nothing"));
    config_clear(&c);
}
