/* engine/: requests through the worker thread on a small model with random weights.
 * What the numbers are is tested elsewhere; here it is that every job ends, exactly once,
 * with what was asked for, whoever runs beside it or leaves in between. */
#include "base/alloc.h"
#include "base/rng.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <ctype.h>
#include <string.h>
#include <unistd.h>

TEST(engine_answers, "a request ends with END, its counts and a complete bill")
{
    struct engine *en = open_tiny_engine(2, 4, 2);
    struct question q;
    struct buf text;
    ask(&q, "hello world, where is my order?", "balanced", 9);
    struct job *j = submit(en, &q);
    CHECK_INT(read_all(j, &text), ==, JOB_EVENT_END);
    const struct job_result *r = job_result(j);
    CHECK_INT(r->completion_tokens, ==, 9);
    CHECK_INT(r->prompt_rows, >, 0);
    CHECK_INT(r->report.original_rows, ==, r->text_rows);
    CHECK_INT(r->report.compressed_rows, ==, r->prompt_rows);
    CHECK_DOUBLE(r->report.mean_rows_per_layer, ==, r->prompt_rows);
    CHECK_INT(r->kv_bytes, >, 0);
    CHECK_INT(r->peak_bytes, >=, r->kv_bytes);
    CHECK_DOUBLE(r->total_ms, >=, r->first_token_ms);
    struct job_event again;
    job_next(j, &again);
    CHECK_INT(again.type, ==, JOB_EVENT_END);
    job_free(j);
    buf_free(&text);
    engine_close(en);
}

TEST(engine_same_beside_others, "greedy text is the same alone and beside three others")
{
    struct engine *en = open_tiny_engine(4, 8, 2);
    struct question q[4];
    const char *texts[] = {"hello world", "the shop", "a red jacket, size 42", "12345"};
    char *alone[4];
    for (int i = 0; i < 4; i++) {
        ask(&q[i], texts[i], "off", 12);
        alone[i] = answer_of(en, &q[i]);
    }
    struct job *jobs[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = submit(en, &q[i]);
    }
    for (int i = 0; i < 4; i++) {
        struct buf text;
        CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
        CHECK_STR(buf_str(&text), alone[i]);
        buf_free(&text);
        job_free(jobs[i]);
        mem_free(alone[i]);
    }
    engine_close(en);
}

/* Rows that the longest step of a prompt took while an answer was running beside it. */
static int longest_step(double itl_target_ms, const char *plan_method)
{
    const struct engine_params p = {.model_path = TINY,
                                    .chat_template = "chatml",
                                    .n_parallel = 2,
                                    .max_queue = 4,
                                    .n_threads = 1,
                                    .itl_target_ms = itl_target_ms};
    struct engine *en = open_engine(&p);
    struct question answer;
    struct question prompt;
    struct err e = ERR_INIT;
    struct job_event ev;
    char text[400];
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < sizeof text; i += 7) {
        text[i] = ' ';
    }
    text[sizeof text - 1] = '\0';
    ask(&answer, "hello", "off", 450);
    answer.request.gen.n_choices = 16; /* outlives the prompt */
    ask(&prompt, text, "off", 1);
    if (plan_method) {
        CHECK_OK(plan_set_method(&prompt.request.plan, MODALITY_LM, plan_method, &e), e);
        CHECK_OK(plan_set_number(&prompt.request.plan, MODALITY_LM, "cutoff", 1, &e), e);
    }
    struct job *a = submit(en, &answer);
    do { /* its first token */
        CHECK(job_wait(a, 60000));
        job_next(a, &ev);
    } while (ev.type != JOB_EVENT_TEXT);
    struct job *j = submit(en, &prompt);
    int done = 0;
    int longest = 0;
    do {
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        if (ev.type == JOB_EVENT_PROGRESS) {
            longest = ev.prompt_done - done > longest ? ev.prompt_done - done : longest;
            done = ev.prompt_done;
        }
    } while (ev.type != JOB_EVENT_END);
    CHECK_INT(done, >, 200);
    CHECK_INT(done, ==, job_result(j)->prompt_rows);
    job_free(a);
    job_free(j);
    engine_close(en);
    return longest;
}

TEST(engine_inter_token_target,
     "beside an answer a prompt takes small steps, unless there is no target or no place to cut")
{
    CHECK_INT(longest_step(1e-6, NULL), ==, 16);
    CHECK_INT(longest_step(60000, NULL), >, 200);
    CHECK_INT(longest_step(0, NULL), >, 200);
    CHECK_INT(longest_step(1e-6, "cosine"), >, 200); /* merges chunk by chunk */
}

TEST(engine_choices_and_seed, "n answers end one by one; the same seed gives the same text")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct question q;
    ask(&q, "hello", "off", 6);
    q.request.gen.temperature = 1;
    q.request.gen.n_choices = 3;
    q.request.gen.seed = 42;
    char *first = answer_of(en, &q);
    char *second = answer_of(en, &q);
    CHECK_STR(second, first);
    int bars = 0;
    for (const char *p = first; *p; p++) {
        bars += *p == '|';
    }
    CHECK_INT(bars, >=, 3); /* one ends each answer */
    q.request.gen.temperature = 0;
    q.request.gen.n_choices = 2;
    char *greedy = answer_of(en, &q);
    size_t half = strlen(greedy) / 2;
    CHECK_INT(memcmp(greedy, greedy + half, half), ==, 0);
    mem_free(first);
    mem_free(second);
    mem_free(greedy);
    engine_close(en);
}

TEST(engine_stop_string, "a stop string ends the answer before itself")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct question q;
    ask(&q, "hello world", "off", 24);
    char *whole = answer_of(en, &q);
    const char *found = whole + 4;
    while (*found && !(isalpha((unsigned char)found[0]) && isalpha((unsigned char)found[1]))) {
        found++;
    }
    CHECK(*found);
    char stop[3] = {found[0], found[1], 0};
    const char *stops[] = {stop};
    q.request.gen.stop = stops;
    q.request.gen.n_stop = 1;
    char *cut = answer_of(en, &q);
    const char *at = strstr(whole, stop);
    CHECK_INT(strlen(cut), ==, (size_t)(at - whole) + 1);
    CHECK_INT(strncmp(cut, whole, strlen(cut) - 1), ==, 0);
    mem_free(whole);
    mem_free(cut);
    engine_close(en);
}

TEST(engine_logprobs, "every token has a logprob, and the chosen one leads the list when greedy")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct question q;
    ask(&q, "hello", "off", 5);
    q.request.gen.n_top_logprobs = 3;
    struct job *j = submit(en, &q);
    int tokens = 0;
    struct job_event ev;
    do {
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        for (int i = 0; i < ev.n_tokens; i++) {
            const struct token_info *t = &ev.tokens[i];
            CHECK_INT(t->n_top, ==, 3);
            CHECK_INT(t->top[0].token, ==, t->token);
            CHECK_DOUBLE(t->logprob, <=, 0);
            CHECK_DOUBLE(t->top[1].logprob, <=, t->top[0].logprob);
            tokens++;
        }
    } while (ev.type != JOB_EVENT_END);
    CHECK_INT(tokens, ==, 5);
    job_free(j);
    engine_close(en);
}

TEST(engine_context_length, "a prompt longer than the context is refused with both numbers")
{
    struct engine_params p = {
        .model_path = TINY, .chat_template = "chatml", .n_parallel = 1, .ctx_size = 16};
    struct err e = ERR_INIT;
    struct engine *en = engine_open(&p, &e);
    CHECK(en);
    struct question q;
    ask(&q, "one two three four five six seven eight nine ten eleven twelve", "off", 4);
    struct job *j = job_prepare(en, &q.request, &e);
    CHECK(!j);
    CHECK_INT(e.code, ==, ERR_CONTEXT_LENGTH);
    CHECK_STR(e.reason, "context_length_exceeded");
    CHECK(strstr(e.msg, "16"));
    engine_close(en);
}

TEST(engine_pictures_without_tower, "a picture sent to a text model is refused by name")
{
    struct engine *en = open_tiny_engine(1, 1, 1);
    struct question q;
    ask(&q, "", "off", 4);
    q.part = (struct chat_part){.type = CHAT_PART_IMAGE};
    q.request.chat.n_images = 1;
    struct image_bytes image = {(const uint8_t *)"x", 1};
    q.request.images = &image;
    struct err e = ERR_INIT;
    CHECK(!job_prepare(en, &q.request, &e));
    CHECK_STR(e.reason, "image_input_unsupported");
    engine_close(en);
}

TEST(engine_queue_full, "beyond the slots and the queue a request is told to come back")
{
    /* One runs and one waits; some of the others may find those done, never all of them. */
    enum { N_JOBS = 16 };
    struct engine *en = open_tiny_engine(1, 1, 1);
    struct question q;
    ask(&q, "hello world", "off", 200);
    struct job *jobs[N_JOBS];
    int refused = 0;
    for (int i = 0; i < N_JOBS; i++) {
        struct err e = ERR_INIT;
        jobs[i] = job_prepare(en, &q.request, &e);
        CHECK(jobs[i]);
    }
    for (int i = 0; i < N_JOBS; i++) {
        struct err e = ERR_INIT;
        if (job_submit(jobs[i], &e)) {
            CHECK(i >= 2);
            CHECK_INT(e.code, ==, ERR_BUSY);
            CHECK_STR(e.reason, "queue_full");
            refused++;
        }
    }
    CHECK_INT(refused, >=, 1);
    CHECK_INT(engine_retry_after(en), >=, 1);
    for (int i = 0; i < N_JOBS; i++) {
        job_free(jobs[i]);
    }
    engine_close(en);
}

TEST(engine_queue_shares,
     "a full queue takes another key's request and ends the newest of the longest")
{
    /* One that runs holds the slot throughout: its answer is longer than the test. */
    enum { PLACES = 4 };
    struct engine *en = open_tiny_engine(1, PLACES, 1);
    struct question q;
    struct job *jobs[2 + 2 * PLACES];
    struct engine_stats s;
    struct err e = ERR_INIT;
    int n = 0;
    ask(&q, "hello world", "off", 0);
    q.request.gen.n_choices = 128;
    jobs[n++] = submit(en, &q);
    do {
        usleep(100);
        engine_stats(en, &s);
    } while (s.n_running == 0);
    ask(&q, "hello world", "off", 1);
    for (int i = 0; i < PLACES; i++) {
        jobs[n++] = submit(en, &q);
    }
    CHECK(engine_is_full_for(en, q.request.scope));
    /* its own key's newest leave, one for each, until both have two */
    q.request.scope[0] = 1;
    for (int i = 0; i < PLACES / 2; i++) {
        CHECK(!engine_is_full_for(en, q.request.scope));
        jobs[n++] = submit(en, &q);
        struct job *gone = jobs[PLACES - i];
        struct job_event ev;
        CHECK(job_wait(gone, 60000));
        job_next(gone, &ev);
        CHECK_INT(ev.type, ==, JOB_EVENT_ERROR);
        CHECK_INT(job_error(gone)->code, ==, ERR_BUSY);
        CHECK_STR(job_error(gone)->reason, "queue_share");
    }
    CHECK(engine_is_full_for(en, q.request.scope));
    jobs[n] = job_prepare(en, &q.request, &e);
    CHECK_INT(job_submit(jobs[n++], &e), ==, -1);
    CHECK_STR(e.reason, "queue_full");
    engine_stats(en, &s);
    CHECK_INT(s.n_waiting, ==, PLACES);
    CHECK_INT(s.n_displaced, ==, PLACES / 2);
    for (int i = 0; i < n; i++) {
        job_free(jobs[i]);
    }
    engine_close(en);
}

TEST(engine_cancel_anywhere, "jobs cancelled or freed at any moment leave nothing behind")
{
    struct engine *en = open_tiny_engine(3, 16, 2);
    struct question q;
    ask(&q, "hello world, this is a question about an order", "balanced", 40);
    struct rng r;
    rng_init(&r, test_seed());
    uint64_t submitted = 0;
    for (int round = 0; round < 60; round++) {
        struct job *jobs[6];
        for (int i = 0; i < 6; i++) {
            jobs[i] = submit(en, &q);
            submitted++;
        }
        for (int i = 0; i < 6; i++) {
            usleep((useconds_t)rng_below(&r, 3000));
            if (rng_below(&r, 4) == 0) {
                struct buf text;
                CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
                buf_free(&text);
            } else if (rng_below(&r, 2)) {
                job_cancel(jobs[i]);
            }
            job_free(jobs[i]);
        }
    }
    check_idle(en, submitted);
    char *after = answer_of(en, &q);
    CHECK(after[0]);
    mem_free(after);
    engine_close(en);
}

TEST(engine_close_ends_jobs, "closing the engine ends every job with an error, none hangs")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct question q;
    ask(&q, "hello world", "off", 2000);
    struct job *jobs[3];
    for (int i = 0; i < 3; i++) {
        jobs[i] = submit(en, &q);
    }
    engine_stop_accepting(en);
    struct err e = ERR_INIT;
    struct job *late = job_prepare(en, &q.request, &e);
    CHECK(late);
    CHECK_INT(job_submit(late, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_UNAVAILABLE);
    job_free(late);
    for (int i = 0; i < 3; i++) {
        job_cancel(jobs[i]);
        struct buf text;
        CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_ERROR);
        CHECK_INT(job_error(jobs[i])->code, ==, ERR_CANCELLED);
        buf_free(&text);
        job_free(jobs[i]);
    }
    engine_close(en);
}

TEST(engine_out_of_memory, "each failing allocation of a request ends in an error or an answer")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct question q;
    ask(&q, "hello world", "balanced", 3);
    char *want = answer_of(en, &q);
    int survived = 0;
    for (long n = 1; n < 400; n++) {
        alloc_fail_at(n);
        struct err e = ERR_INIT;
        struct job *j = job_prepare(en, &q.request, &e);
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
        if (all_used) {
            break;
        }
    }
    CHECK_INT(survived, >, 0);
    char *again = answer_of(en, &q);
    CHECK_STR(again, want);
    mem_free(want);
    mem_free(again);
    engine_close(en);
}
