/* engine/prefix.c, prefix_cache.c: what a prompt has in common with earlier ones changes
 * how long its answer takes and nothing else, to the bit; nobody sees another's; and
 * nothing is left held, whoever leaves when. */
#include "base/alloc.h"
#include "base/rng.h"
#include "engine/chunk.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/vision_fixture.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MB ((size_t)1 << 20)
#define RULES                                                                                      \
    "You answer for a shop. Returns are free within thirty days, in the box they came in. Orders " \
    "of more than 50 are sent for nothing, all others for 4.90. Ask for the number of the order "  \
    "before you promise anything, and never give an address to anybody who asks for one. "

/* ---- asking ---------------------------------------------------------------------------- */

static struct engine *open_caching(size_t prefix_cache_bytes, bool q8)
{
    const struct engine_params p = {.model_path = TINY,
                                    .chat_template = "chatml",
                                    .n_parallel = 3,
                                    .max_queue = 64,
                                    .n_threads = 2,
                                    .cache_q8 = q8,
                                    .prefix_cache_bytes = prefix_cache_bytes};
    return open_engine(&p);
}

/* A system prompt, then a question. */
struct talk {
    struct question q;
    struct chat_part system;
    struct chat_message messages[2];
};

static void talk_init(struct talk *t, const char *system, const char *question, const char *profile)
{
    ask(&t->q, question, profile, 5);
    t->system =
        (struct chat_part){.type = CHAT_PART_TEXT, .text = system, .text_len = strlen(system)};
    t->messages[0] = (struct chat_message){.role = CHAT_SYSTEM, .parts = &t->system, .n_parts = 1};
    t->messages[1] = t->q.message;
    t->messages[1].parts = &t->q.part;
    t->q.request.chat.messages = t->messages;
    t->q.request.chat.n_messages = 2;
    t->q.request.cache_prompt = true;
    t->q.request.gen.n_top_logprobs = 5;
}

/* Tokens with the bits of their log-probabilities. */
static char *transcript(struct job *j)
{
    struct buf out;
    struct job_event ev;
    buf_init(&out, 1 << 20);
    do {
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        for (int i = 0; i < ev.n_tokens; i++) {
            const struct token_info *t = &ev.tokens[i];
            buf_printf(&out, "\n%d:%a", t->token, (double)t->logprob);
            for (int k = 0; k < t->n_top; k++) {
                buf_printf(&out, " %d:%a", t->top[k].token, (double)t->top[k].logprob);
            }
        }
        if (ev.type == JOB_EVENT_ERROR) {
            FAIL("job failed: %s", job_error(j)->msg);
        }
    } while (ev.type != JOB_EVENT_END);
    const struct job_result *r = job_result(j);
    buf_printf(&out, "\n%d rows, %zu bytes", r->prompt_rows, r->kv_bytes);
    for (int m = 0; m < MODALITY_COUNT; m++) {
        buf_printf(&out, ", %d -> %d", r->report.modality[m].rows_in,
                   r->report.modality[m].rows_out);
    }
    for (int i = 0; i < r->report.n_skipped; i++) {
        buf_printf(&out, ", %s", r->report.skipped[i].reason);
    }
    return buf_take(&out, NULL);
}

static char *tell(struct engine *en, const struct question *q, struct job_result *r)
{
    struct job *j = submit(en, q);
    char *text = transcript(j);
    *r = *job_result(j);
    job_free(j);
    return text;
}

/* Without any cache: what every answer must be. */
static char *cold(struct engine *en, struct question *q)
{
    struct job_result r;
    q->request.cache_prompt = false;
    char *text = tell(en, q, &r);
    CHECK_INT(r.looked_up_rows + r.cached_rows, ==, 0);
    q->request.cache_prompt = true;
    return text;
}

/* Returns the rows that were found. */
static int expect(struct engine *en, const struct question *q, const char *want)
{
    struct job_result r;
    char *text = tell(en, q, &r);
    CHECK_STR(text, want);
    CHECK_INT(r.looked_up_rows, ==, r.prompt_rows);
    CHECK_INT(r.cached_rows, <, r.prompt_rows);
    mem_free(text);
    return r.cached_rows;
}

static size_t cached_bytes(struct engine *en)
{
    struct engine_stats s;
    engine_stats(en, &s);
    return s.prefix_cache_bytes;
}

/* ---- the same answers -------------------------------------------------------------------- */

static void merge_text(struct plan *p)
{
    struct err e = ERR_INIT;
    p->protect_system = false;
    p->protect_tail = 8;
    CHECK_OK(plan_set_method(p, MODALITY_TEXT, "cosine", &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_TEXT, "threshold", 0.05, &e), e);
}

static void merge_inside(struct plan *p)
{
    struct err e = ERR_INIT;
    p->protect_system = false;
    CHECK_OK(plan_set_method(p, MODALITY_LM, "cosine", &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "threshold", 0.3, &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "cutoff", 1, &e), e);
}

/* Merging of text needs a slot that is not off for its tokens to be free. */
static void merge_both(struct plan *p)
{
    merge_text(p);
    merge_inside(p);
}

static void choose(struct plan *p)
{
    struct err e = ERR_INIT;
    p->protect_system = false;
    p->protect_tail = 16;
    CHECK_OK(plan_set_method(p, MODALITY_LM, "query", &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "cutoff", 1, &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "ratio", 3, &e), e);
}

/* Two choices, behind text that merged. */
static void merge_and_choose(struct plan *p)
{
    struct err e = ERR_INIT;
    merge_text(p);
    choose(p);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "steps", 2, &e), e);
    CHECK_OK(plan_set_number(p, MODALITY_LM, "log_mass", 1, &e), e);
}

static void merge_nothing(struct plan *p)
{
    (void)p;
}

static void (*const plans[])(struct plan *p) = {merge_nothing, merge_text, merge_both, choose,
                                                merge_and_choose};
#define N_PLANS (sizeof plans / sizeof *plans)

static void known_beginnings(struct engine *en)
{
    for (size_t i = 0; i < N_PLANS; i++) {
        struct talk first;
        struct talk second;
        talk_init(&first, RULES, "Where is order 5512?", "off");
        talk_init(&second, RULES, "Can I send the shoes back without their box?", "off");
        plans[i](&first.q.request.plan);
        plans[i](&second.q.request.plan);
        char *want[2] = {cold(en, &first.q), cold(en, &second.q)};
        CHECK_INT(expect(en, &first.q, want[0]), ==, 0);
        CHECK_INT(expect(en, &second.q, want[1]), >=, CHUNK_MIN_ROWS);
        CHECK_INT(expect(en, &first.q, want[0]), >=, CHUNK_MIN_ROWS);
        CHECK_INT(expect(en, &second.q, want[1]), >=, CHUNK_MIN_ROWS);
        mem_free(want[0]);
        mem_free(want[1]);
    }
    CHECK_INT(cached_bytes(en), >, 0);
    CHECK_INT(cached_bytes(en), <=, 4 * MB);
    engine_close(en);
}

TEST(engine_prefix_hit, "a known beginning gives the same bits, whatever the plan merges")
{
    known_beginnings(open_caching(4 * MB, false));
}

TEST(engine_prefix_hit_q8, "the same with keys and values in 8 bits")
{
    known_beginnings(open_caching(4 * MB, true));
}

/* The first n letters of a text without end. */
static char *letters(int n)
{
    char *s = mem_alloc((size_t)n + 1, 1);
    CHECK(s);
    for (int i = 0; i < n; i++) {
        s[i] = (char)(i % 6 == 5 ? ' ' : 'a' + i * i % 23);
    }
    s[n] = '\0';
    return s;
}

TEST(engine_prefix_question, "a question that reaches into a known chunk is read all the same")
{
    struct engine *en = open_caching(4 * MB, false);
    struct question q;
    char *longest = letters(360);
    struct job_result r;
    int reached = 0;
    ask(&q, longest, "off", 5);
    choose(&q.request.plan);
    q.request.cache_prompt = true;
    q.request.gen.n_top_logprobs = 5;
    mem_free(tell(en, &q, &r));
    CHECK_INT(r.prompt_rows, >, CHUNK_MAX_ROWS + 32);
    /* shorter and shorter, until the first chunk is not whole any more */
    for (int n = 360; r.prompt_rows > CHUNK_MAX_ROWS; n -= 5) {
        char *text = letters(n);
        ask(&q, text, "off", 5);
        choose(&q.request.plan);
        q.request.gen.n_top_logprobs = 5;
        char *want = cold(en, &q);
        reached += expect(en, &q, want) == 0;
        mem_free(tell(en, &q, &r));
        mem_free(want);
        mem_free(text);
    }
    CHECK_INT(reached, >, 1);
    mem_free(longest);
    engine_close(en);
}

TEST(engine_prefix_merges, "the plans of these tests do merge, in the text and inside")
{
    struct engine *en = open_caching(MB, false);
    struct talk t;
    struct job_result r;
    talk_init(&t, RULES, "Where is order 5512?", "off");
    merge_both(&t.q.request.plan);
    mem_free(tell(en, &t.q, &r));
    const struct report_stage *m = r.report.modality;
    CHECK_INT(m[MODALITY_TEXT].rows_out, <, m[MODALITY_TEXT].rows_in);
    CHECK_INT(m[MODALITY_LM].rows_out, <, m[MODALITY_LM].rows_in);
    engine_close(en);
}

TEST(engine_prefix_apart, "another plan, scope or text finds nothing; some want no cache")
{
    struct engine *en = open_caching(4 * MB, false);
    struct talk t;
    talk_init(&t, RULES, "Where is order 5512?", "off");
    char *want = cold(en, &t.q);
    CHECK_INT(cached_bytes(en), ==, 0);
    CHECK_INT(expect(en, &t.q, want), ==, 0);
    CHECK_INT(expect(en, &t.q, want), >, 0);
    t.q.request.scope[31] = 1;
    CHECK_INT(expect(en, &t.q, want), ==, 0);
    CHECK_INT(expect(en, &t.q, want), >, 0);
    t.q.request.scope[31] = 0;
    merge_inside(&t.q.request.plan);
    char *merged = cold(en, &t.q);
    CHECK_INT(expect(en, &t.q, merged), ==, 0);
    CHECK_INT(expect(en, &t.q, merged), >, 0);
    struct talk other;
    talk_init(&other, "Y" RULES, "Where is order 5512?", "off");
    char *third = cold(en, &other.q);
    CHECK_INT(expect(en, &other.q, third), ==, 0);
    mem_free(want);
    mem_free(merged);
    mem_free(third);
    engine_close(en);
}

TEST(engine_prefix_choices, "several answers to a prompt that is known are those of an unknown one")
{
    struct engine *en = open_caching(4 * MB, false);
    struct talk t;
    talk_init(&t, RULES, "Where is order 5512?", "off");
    t.q.request.gen.n_choices = 3;
    t.q.request.gen.temperature = 1;
    t.q.request.gen.seed = 7;
    char *want = cold(en, &t.q);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(expect(en, &t.q, want) > 0, ==, i > 0);
    }
    mem_free(want);
    engine_close(en);
}

/* ---- many at once ------------------------------------------------------------------------- */

#define N_TALKS 9

static void talks_init(struct engine *en, struct talk *t, char **want)
{
    static const char *const questions[] = {"Where is order 5512?", "Is it red?",
                                            "Do you sell shoes, and in which sizes?"};
    for (int i = 0; i < N_TALKS; i++) {
        talk_init(&t[i], i % 2 ? RULES : RULES "Be kind.", questions[i % 3], "off");
        plans[i / 3](&t[i].q.request.plan);
        t[i].q.request.gen.n_choices = 1 + i % 2;
        want[i] = cold(en, &t[i].q);
        t[i].q.request.scope[0] = (uint8_t)(i % 2);
    }
}

static void crowd(struct engine *en, int rounds)
{
    struct talk t[N_TALKS];
    char *want[N_TALKS];
    struct rng rng;
    rng_init(&rng, test_seed());
    talks_init(en, t, want);
    uint64_t submitted = N_TALKS;
    for (int round = 0; round < rounds; round++) {
        struct job *jobs[8];
        int which[8];
        for (int i = 0; i < 8; i++) {
            which[i] = (int)rng_below(&rng, N_TALKS);
            jobs[i] = submit(en, &t[which[i]].q);
            submitted++;
        }
        for (int i = 0; i < 8; i++) {
            if (rng_below(&rng, 3)) {
                char *text = transcript(jobs[i]);
                CHECK_STR(text, want[which[i]]);
                mem_free(text);
            } else {
                usleep((useconds_t)rng_below(&rng, 3000));
            }
            job_free(jobs[i]); /* at whatever state it is in */
        }
    }
    check_idle(en, submitted);
    for (int i = 0; i < N_TALKS; i++) {
        mem_free(want[i]);
    }
    engine_close(en);
}

TEST(engine_prefix_crowd, "prompts that share, run together and leave: each has its own answer")
{
    crowd(open_caching(4 * MB, false), 20);
}

TEST(engine_prefix_crowd_q8, "the same with keys and values in 8 bits")
{
    crowd(open_caching(4 * MB, true), 20);
}

TEST(engine_prefix_tight, "the same with room for hardly one beginning")
{
    crowd(open_caching(MB / 4, false), 20);
}

TEST(engine_prefix_out_of_memory, "each failing allocation ends in an error or the right answer")
{
    struct engine *en = open_caching(4 * MB, false);
    struct talk t;
    talk_init(&t, RULES, "Is it red?", "off");
    t.q.request.gen.max_tokens = 2;
    char *want = cold(en, &t.q);
    int survived = 0;
    for (long n = 1; n < 600; n++) {
        struct talk other; /* every second time a beginning that is not known yet */
        char system[sizeof RULES + 16];
        snprintf(system, sizeof system, "%ld " RULES, n);
        talk_init(&other, system, "Is it red?", "off");
        other.q.request.gen.max_tokens = 2;
        const struct question *q = n % 2 ? &t.q : &other.q;
        alloc_fail_at(n);
        struct err e = ERR_INIT;
        struct job *j = job_prepare(en, &q->request, &e);
        if (!j) {
            alloc_fail_at(0);
            CHECK_INT(e.code, ==, ERR_NO_MEMORY);
            continue;
        }
        CHECK_OK(job_submit(j, &e), e);
        struct buf text;
        enum job_event_type end = read_all(j, &text);
        bool all_used = alloc_count() < n;
        alloc_fail_at(0);
        if (end == JOB_EVENT_ERROR) {
            CHECK_INT(job_error(j)->code, ==, ERR_NO_MEMORY);
        } else {
            survived++;
        }
        buf_free(&text);
        job_free(j);
        if (all_used && n % 2 == 0) {
            break;
        }
    }
    CHECK_INT(survived, >, 0);
    CHECK_INT(expect(en, &t.q, want), >, 0);
    mem_free(want);
    engine_close(en);
}

/* ---- pictures ------------------------------------------------------------------------------ */

#define N_PICTURES 3

struct album {
    struct engine *en;
    struct question q;
    struct chat_part parts[N_PICTURES + 1];
    struct image_bytes pictures[N_PICTURES];
    char *files[2];
};

static void album_open(struct album *a)
{
    static const char *const names[] = {"picture_224.png", "picture_448.png"};
    char mmproj[64];
    struct tiny_clip clip = tiny_clip_default;
    clip.n_out = 64; /* the tiny language model's width */
    clip.image_size = 16;
    tiny_clip_write(&clip, mmproj);
    for (int i = 0; i < N_PICTURES; i++) {
        if (i < 2) {
            char *path = test_golden_path(names[i]);
            a->files[i] = test_read_file(path, &a->pictures[i].n);
            a->pictures[i].data = (const uint8_t *)a->files[i];
            mem_free(path);
        } else {
            a->pictures[i] = a->pictures[0];
        }
    }
    const struct engine_params p = {.model_path = TINY,
                                    .mmproj_path = mmproj,
                                    .chat_template = "chatml",
                                    .n_parallel = 3,
                                    .max_queue = 64,
                                    .max_images = N_PICTURES,
                                    .n_threads = 2,
                                    .prefix_cache_bytes = 4 * MB};
    a->en = open_engine(&p);
    unlink(mmproj);
}

static void album_ask(struct album *a, const char *question, const char *profile)
{
    ask(&a->q, question, profile, 5);
    for (int i = 0; i < N_PICTURES; i++) {
        a->parts[i] = (struct chat_part){.type = CHAT_PART_IMAGE, .image = i};
    }
    a->parts[N_PICTURES] = a->q.part;
    a->q.message.parts = a->parts;
    a->q.message.n_parts = N_PICTURES + 1;
    a->q.request.chat.n_images = N_PICTURES;
    a->q.request.images = a->pictures;
    a->q.request.cache_prompt = true;
    a->q.request.gen.n_top_logprobs = 5;
}

TEST(engine_prefix_pictures, "a second question about the same pictures does without the tower")
{
    static const char *const profiles[] = {"off", "product_search"};
    struct album a;
    album_open(&a);
    for (int i = 0; i < 2; i++) {
        struct job_result r;
        album_ask(&a, "what is this?", profiles[i]);
        char *want = cold(a.en, &a.q);
        CHECK_INT(expect(a.en, &a.q, want), ==, 0);
        mem_free(want);
        album_ask(&a, "which of the three costs less, and why?", profiles[i]);
        want = cold(a.en, &a.q);
        char *text = tell(a.en, &a.q, &r);
        CHECK_STR(text, want);
        CHECK(i > 0 || r.vision_ms == 0); /* chunks end behind each whole picture */
        CHECK_INT(r.cached_rows, >=, CHUNK_MIN_ROWS);
        mem_free(text);
        /* the same bytes in another order are other pictures in their places */
        struct image_bytes first = a.pictures[0];
        a.pictures[0] = a.pictures[1];
        a.pictures[1] = first;
        char *swapped = cold(a.en, &a.q);
        CHECK_INT(expect(a.en, &a.q, swapped), ==, 0);
        a.pictures[1] = a.pictures[0];
        a.pictures[0] = first;
        mem_free(want);
        mem_free(swapped);
    }
    engine_close(a.en);
    mem_free(a.files[0]);
    mem_free(a.files[1]);
}
