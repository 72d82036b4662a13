/* engine/attempt.c: cascades and the guard. What is sent after a doubt has the bits of the
 * request without compression; what is not doubted has those of the request without guard;
 * nothing is encoded twice; the bill has every row that was run. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tests/test.h"
#include "tests/unit/album_fixture.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static void set_guard(struct plan *p, const char *option, double value)
{
    struct err e = ERR_INIT;
    CHECK_OK(plan_set_guard(p, option, value, &e), e);
}

static void set_image(struct plan *p, const char *option, double value)
{
    struct err e = ERR_INIT;
    CHECK_OK(plan_set_number(p, MODALITY_IMAGE, option, value, &e), e);
}

/* Pictures, and text that merges, sampled, with the bits of the log-probabilities. */
static void ask_all(struct album *a, const char *method, bool text)
{
    struct err e = ERR_INIT;
    album_ask(a, method);
    struct plan *p = &a->q.request.plan;
    p->protect_tail = 0;
    p->min_text_rows = 1;
    if (text) {
        CHECK_OK(plan_set_method(p, MODALITY_TEXT, "cosine", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_TEXT, "threshold", -1, &e), e);
    }
    a->parts[ALBUM_MOST].text = "what are these, and who would buy three of them at once?";
    a->parts[ALBUM_MOST].text_len = strlen(a->parts[ALBUM_MOST].text);
    a->q.request.gen.temperature = 0.8f;
    a->q.request.gen.seed = 7;
    a->q.request.gen.n_choices = 2;
    a->q.request.gen.n_top_logprobs = 3;
    a->q.request.gen.max_tokens = 8;
}

/* Every event of the answer with its bits. *margin: least lead of the first n tokens. */
static char *transcript(struct job *j, int n, double *margin)
{
    struct buf out;
    struct job_event ev;
    int seen = 0;
    buf_init(&out, 1 << 20);
    *margin = 2;
    do {
        CHECK(job_wait(j, 120000));
        job_next(j, &ev);
        CHECK(ev.type != JOB_EVENT_ERROR);
        for (int i = 0; i < ev.n_tokens; i++) {
            const struct token_info *t = &ev.tokens[i];
            buf_printf(&out, "%d %d %a;", ev.choice, t->token, (double)t->logprob);
            double lead = exp((double)t->top[0].logprob) - exp((double)t->top[1].logprob);
            *margin = ev.choice == 0 && seen++ < n && lead < *margin ? lead : *margin;
        }
    } while (ev.type != JOB_EVENT_END);
    return buf_take(&out, NULL);
}

static char *bits(struct album *a, struct job **j)
{
    double unused;
    *j = submit(a->en, &a->q);
    return transcript(*j, 0, &unused);
}

static char *bits_only(struct album *a)
{
    struct job *j;
    char *text = bits(a, &j);
    job_free(j);
    return text;
}

static void check_bill(const struct job_result *r)
{
    int rows = 0;
    for (int i = 0; i < r->n_attempts; i++) {
        rows += r->attempts[i].rows;
        CHECK((r->attempts[i].doubt == NULL) == (i == r->n_attempts - 1));
    }
    CHECK_INT(r->prompt_rows, ==, rows);
    CHECK_INT(r->report.compressed_rows, ==, rows);
    CHECK_INT(r->rerun_rows, ==, rows - r->attempts[r->n_attempts - 1].rows);
}

TEST(attempts_guard_redone, "a doubtful answer is to the bit the one without compression")
{
    static const char *const methods[] = {"tome", "downscale", "pool", "prune", "dedup"};
    struct album a;
    struct job *j;
    for (int caches = 0; caches < 2; caches++) {
        album_open(&a, caches ? ALBUM_MB : 0, 2, 0);
        ask_all(&a, "off", false);
        a.q.request.cache_prompt = caches;
        char *plain = bits_only(&a);
        for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
            for (int tokens = 1; tokens <= 3; tokens += 2) {
                ask_all(&a, methods[i], true);
                a.q.request.cache_prompt = caches;
                set_guard(&a.q.request.plan, "margin", 1);
                set_guard(&a.q.request.plan, "tokens", tokens);
                char *got = bits(&a, &j);
                const struct job_result *r = job_result(j);
                CHECK_STR(got, plain);
                CHECK_INT(r->n_attempts, ==, 2);
                CHECK_STR(r->attempts[0].doubt, "narrow_margin");
                CHECK(!r->attempts[0].plain && r->attempts[1].plain);
                CHECK_INT(r->attempts[1].rows, ==, r->report.original_rows);
                CHECK_INT(r->attempts[0].rows, <, r->report.original_rows);
                CHECK_INT(r->completion_tokens, ==, 16);
                check_bill(r);
                mem_free(got);
                job_free(j);
            }
        }
        mem_free(plain);
        album_close(&a);
    }
}

TEST(attempts_guard_kept, "an answer that is not in doubt is the one without the guard")
{
    struct album a;
    struct job *j;
    album_open(&a, ALBUM_MB, 1, 0);
    ask_all(&a, "tome", true);
    char *want = bits_only(&a);
    for (int tokens = 1; tokens <= 16; tokens += 5) {
        ask_all(&a, "tome", true);
        set_guard(&a.q.request.plan, "margin", 0);
        set_guard(&a.q.request.plan, "tokens", tokens);
        char *got = bits(&a, &j);
        CHECK_STR(got, want);
        CHECK_INT(job_result(j)->n_attempts, ==, 1);
        CHECK(job_result(j)->attempts[0].looked);
        check_bill(job_result(j));
        mem_free(got);
        job_free(j);
    }
    mem_free(want);
    album_close(&a);
}

TEST(attempts_guard_later_token, "a doubt at a later token takes back what nobody saw")
{
    enum { TOKENS = 8 };
    struct album a;
    struct job *j;
    double first;
    double least;
    album_open(&a, 0, 1, 0);
    ask_all(&a, "off", false);
    char *plain = bits_only(&a);
    for (uint64_t seed = 0;; seed++) { /* an answer whose least sure token is not the first */
        CHECK(seed < 50);
        ask_all(&a, "tome", true);
        a.q.request.gen.seed = seed;
        j = submit(a.en, &a.q);
        mem_free(transcript(j, 1, &first));
        job_free(j);
        j = submit(a.en, &a.q);
        mem_free(transcript(j, TOKENS, &least));
        job_free(j);
        if (least < first * 0.9) {
            break;
        }
    }
    uint64_t seed = a.q.request.gen.seed;
    ask_all(&a, "off", false);
    a.q.request.gen.seed = seed;
    mem_free(plain);
    plain = bits_only(&a);
    ask_all(&a, "tome", true);
    a.q.request.gen.seed = seed;
    set_guard(&a.q.request.plan, "margin", (first + least) / 2);
    set_guard(&a.q.request.plan, "tokens", TOKENS);
    char *got = bits(&a, &j);
    CHECK_STR(got, plain);
    CHECK_INT(job_result(j)->n_attempts, ==, 2);
    CHECK_INT(job_result(j)->completion_tokens, ==, 16);
    CHECK_DOUBLE(job_result(j)->attempts[0].margin, <, (first + least) / 2);
    CHECK_DOUBLE(job_result(j)->attempts[0].margin, >, least - 1e-5);
    mem_free(got);
    mem_free(plain);
    job_free(j);
    album_close(&a);
}

TEST(attempts_cascade,
     "a cascade climbs rung by rung, encodes nothing twice and ends with all rows")
{
    struct album a;
    struct job *j;
    struct engine_stats s;
    for (int cache = 0; cache < 2; cache++) {
        album_open(&a, cache ? ALBUM_MB : 0, 2, 0);
        ask_all(&a, "off", false);
        char *plain = bits_only(&a);
        ask_all(&a, "pool", false);
        set_image(&a.q.request.plan, "ratio", 16);
        char *pooled = bits_only(&a);
        engine_stats(a.en, &s);
        uint64_t before = s.n_pictures_encoded;

        ask_all(&a, "cascade", false);
        a.q.request.cache_prompt = cache;
        set_image(&a.q.request.plan, "margin", 1);
        char *got = bits(&a, &j);
        const struct job_result *r = job_result(j);
        CHECK_STR(got, plain);
        CHECK_INT(r->n_attempts, ==, 3);
        for (int k = 0; k < 3; k++) {
            static const int left[] = {4, 16, 64};
            CHECK_INT(r->attempts[k].rung, ==, k);
            CHECK_INT(r->attempts[k].rows, ==, r->text_rows + ALBUM_MOST * left[k]);
        }
        const struct report_stage *image = &r->report.modality[MODALITY_IMAGE];
        CHECK_STR(image->method, "cascade");
        CHECK_INT(image->rung, ==, 2);
        CHECK_INT(image->n_rungs, ==, 3);
        CHECK_INT(r->rerun_image_rows, ==, ALBUM_MOST * (4 + 16));
        CHECK_DOUBLE(fabs(r->cascade_ratio - 64.0 / (4 + 16 + 64)), <, 1e-9);
        check_bill(r);
        engine_stats(a.en, &s);
        CHECK_INT(s.n_pictures_encoded - before, ==, cache ? 2 : ALBUM_MOST);
        mem_free(got);
        job_free(j);

        set_image(&a.q.request.plan, "margin", 0);
        got = bits(&a, &j);
        CHECK_STR(got, pooled);
        CHECK_INT(job_result(j)->n_attempts, ==, 1);
        CHECK_INT(job_result(j)->report.modality[MODALITY_IMAGE].rung, ==, 0);
        mem_free(got);
        job_free(j);
        mem_free(pooled);
        mem_free(plain);
        album_close(&a);
    }
}

TEST(attempts_before, "what gains too little stays as it is, and says so")
{
    struct album a;
    struct job *j;
    album_open(&a, ALBUM_MB, 1, 0);
    ask_all(&a, "tome", true);
    set_guard(&a.q.request.plan, "margin", 1);
    set_guard(&a.q.request.plan, "min_ratio", 16);
    mem_free(bits(&a, &j));
    const struct job_result *r = job_result(j);
    CHECK_INT(r->report.n_skipped, ==, 2); /* pictures and text */
    for (int i = 0; i < r->report.n_skipped; i++) {
        CHECK_STR(r->report.skipped[i].reason, "too_little_gain");
    }
    CHECK_INT(r->prompt_rows, ==, r->report.original_rows);
    CHECK_INT(r->n_attempts, ==, 1); /* nothing merged, nothing to doubt */
    CHECK(!r->attempts[0].looked);
    job_free(j);
    album_close(&a);
}

TEST(attempts_no_room, "a doubt that the context cannot follow is sent as it is, and says so")
{
    struct album a;
    struct job *j;
    album_open(&a, 0, 1, 160); /* three pictures have 192 rows */
    ask_all(&a, "pool", false);
    set_image(&a.q.request.plan, "ratio", 4);
    char *want = bits_only(&a);
    set_guard(&a.q.request.plan, "margin", 1);
    char *got = bits(&a, &j);
    CHECK_STR(got, want);
    CHECK_INT(job_result(j)->n_attempts, ==, 1);
    CHECK_INT(job_result(j)->report.n_skipped, ==, 1);
    CHECK_STR(job_result(j)->report.skipped[0].reason, "no_room_to_redo");
    mem_free(want);
    mem_free(got);
    job_free(j);
    album_close(&a);
}

TEST(attempts_left, "clients that leave between two attempts leave nothing behind")
{
    struct album a;
    struct rng g;
    struct job *jobs[4];
    uint64_t n = 0;
    rng_init(&g, test_seed());
    album_open(&a, ALBUM_MB, 2, 0);
    for (int round = 0; round < 25; round++) {
        for (int i = 0; i < 4; i++, n++) {
            ask_all(&a, i % 2 ? "cascade" : "tome", true);
            set_guard(&a.q.request.plan, "margin", 1);
            set_guard(&a.q.request.plan, "tokens", 1 + round % 4);
            a.q.request.cache_prompt = i > 1;
            jobs[i] = submit(a.en, &a.q);
        }
        usleep((useconds_t)rng_below(&g, 8000));
        for (int i = 0; i < 4; i++) {
            job_free(jobs[i]);
        }
    }
    check_idle(a.en, n);
    album_close(&a);
}
