/* engine/draft.c, batch.c: with drafts every answer has the same tokens, the same
 * log-probabilities and the same end as without. A model with random weights repeats
 * itself soon when greedy, and so does one whose logit_bias leaves it few tokens: both
 * give drafts that are right, wrong and half right. */
#include "base/alloc.h"
#include "engine/lookup.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <string.h>

#define PROMPT                                                                                     \
    "order 12, order 13, order 12, order 13: a red jacket and a blue jacket, a red jacket and a "  \
    "blue jacket. hello hello hello world"

/* Everything that a client can see of an answer, its bits included. */
static void write_events(struct job *j, struct buf *out)
{
    buf_init(out, 1 << 22);
    for (;;) {
        struct job_event ev;
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        if (ev.type == JOB_EVENT_TEXT) {
            buf_puts(out, "\n+");
            for (size_t i = 0; i < ev.text_len; i++) {
                buf_printf(out, "%02x", (unsigned char)ev.text[i]);
            }
            for (int i = 0; i < ev.n_tokens; i++) {
                const struct token_info *t = &ev.tokens[i];
                buf_printf(out, " %d:%a", t->token, (double)t->logprob);
                for (int k = 0; k < t->n_top; k++) {
                    buf_printf(out, ",%d:%a", t->top[k].token, (double)t->top[k].logprob);
                }
            }
        } else if (ev.type == JOB_EVENT_DONE) {
            buf_printf(out, "\nchoice %d ends with %d", ev.choice, (int)ev.finish);
        } else if (ev.type == JOB_EVENT_ERROR) {
            FAIL("job failed: %s", job_error(j)->msg);
        } else if (ev.type == JOB_EVENT_END) {
            buf_printf(out, "\n%d tokens, %zu bytes of KV", job_result(j)->completion_tokens,
                       job_result(j)->kv_bytes);
            return;
        }
    }
}

struct counts {
    int drafted, accepted;
};

/* The transcripts of n questions asked together. */
static void ask_all(struct engine *en, const struct question *q, int n, int max_draft,
                    struct buf *transcripts, struct counts *c)
{
    struct job *jobs[8];
    for (int i = 0; i < n; i++) {
        struct question one = q[i];
        one.message.parts = &one.part;
        one.request.chat.messages = &one.message;
        one.request.gen.max_draft = max_draft;
        jobs[i] = submit(en, &one);
    }
    for (int i = 0; i < n; i++) {
        write_events(jobs[i], &transcripts[i]);
        c->drafted += job_result(jobs[i])->draft_tokens;
        c->accepted += job_result(jobs[i])->draft_tokens_accepted;
        CHECK_INT(job_result(jobs[i])->draft_tokens_accepted, <=,
                  job_result(jobs[i])->draft_tokens);
        job_free(jobs[i]);
    }
}

/* Ask without and with drafts; *c counts the latter. */
static void compare(struct engine *en, const struct question *q, int n, struct counts *c)
{
    struct buf plain[8];
    struct buf drafted[8];
    struct counts none = {0};
    ask_all(en, q, n, 0, plain, &none);
    CHECK_INT(none.drafted, ==, 0);
    ask_all(en, q, n, LOOKUP_MAX_DRAFT, drafted, c);
    for (int i = 0; i < n; i++) {
        CHECK_STR(buf_str(&drafted[i]), buf_str(&plain[i]));
        buf_free(&plain[i]);
        buf_free(&drafted[i]);
    }
}

/* Only these tokens are ever chosen. */
static struct logit_bias_entry few_tokens[4];

static void choose_few(struct question *q, int n)
{
    for (int i = 0; i < n; i++) {
        few_tokens[i] = (struct logit_bias_entry){.token = 40 + i, .bias = 100};
    }
    q->request.gen.logit_bias = few_tokens;
    q->request.gen.n_logit_bias = n;
}

TEST(speculation_greedy, "greedy answers keep their tokens, and drafts are found and accepted")
{
    struct engine *en = open_tiny_engine(1, 8, 2);
    struct question q;
    struct counts c = {0};
    ask(&q, PROMPT, "off", 120);
    q.request.gen.n_top_logprobs = 2;
    compare(en, &q, 1, &c);
    for (int n = 2; n <= 4; n++) {
        choose_few(&q, n);
        compare(en, &q, 1, &c);
    }
    CHECK_INT(c.accepted, >, 20);
    engine_close(en);
}

TEST(speculation_sampled, "seeds, temperatures, penalties and logit_bias: the same draws")
{
    struct engine *en = open_tiny_engine(1, 8, 2);
    struct counts c = {0};
    for (int seed = 0; seed < 24; seed++) {
        struct question q;
        ask(&q, PROMPT, "off", 50);
        struct generation_params *g = &q.request.gen;
        g->seed = (uint64_t)seed;
        g->temperature = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 0.3f : 1.5f;
        g->top_k = seed % 5 == 0 ? 3 : 0;
        g->top_p = seed % 4 == 1 ? 0.9f : 1;
        g->repeat_penalty = seed % 4 == 2 ? 1.3f : 1;
        g->frequency_penalty = seed % 4 == 3 ? 0.5f : 0;
        g->presence_penalty = seed % 8 == 3 ? -0.5f : 0;
        g->penalty_last_n = seed & 1 ? 8 : -1;
        g->n_top_logprobs = seed & 2 ? 1 : -1;
        if (seed & 4) {
            choose_few(&q, 2 + seed % 3);
        }
        compare(en, &q, 1, &c);
    }
    CHECK_INT(c.accepted, >, 100);
    CHECK_INT(c.drafted - c.accepted, >, 100); /* wrong ones came, too */
    engine_close(en);
}

TEST(speculation_ends,
     "end of text, stop strings and max_tokens inside a draft end the answer there")
{
    struct engine *en = open_tiny_engine(1, 8, 2);
    struct counts c = {0};
    const char *stops[1];
    for (int max_tokens = 1; max_tokens <= 24; max_tokens++) {
        struct question q;
        ask(&q, PROMPT, "off", max_tokens);
        choose_few(&q, 2);
        compare(en, &q, 1, &c);
    }
    CHECK_INT(c.accepted, >, 50);
    struct question whole;
    ask(&whole, PROMPT, "off", 40);
    choose_few(&whole, 4);
    char *text = answer_of(en, &whole);
    size_t len = strlen(text);
    int n_stops = 0;
    for (size_t at = 8; at + 4 < len; at++) {
        char stop[3];
        memcpy(stop, text + at, 2);
        stop[2] = '\0';
        if (stop[0] <= ' ' || stop[0] > '~' || stop[1] <= ' ' || stop[1] > '~' ||
            strcspn(stop, "?|") != 2) { /* what read_all writes for others */
            continue;
        }
        struct question q = whole;
        stops[0] = stop;
        q.request.gen.stop = stops;
        q.request.gen.n_stop = 1;
        compare(en, &q, 1, &c);
        n_stops++;
    }
    CHECK_INT(n_stops, >=, 3);
    mem_free(text);
    engine_close(en);
}

/* The token that ends a text, by asking for one after the other. */
static int32_t find_eog(struct engine *en)
{
    for (int32_t id = 0; id < engine_info(en)->n_vocab; id++) {
        struct question q;
        struct logit_bias_entry only = {.token = id, .bias = 100};
        ask(&q, "x", "off", 2);
        q.request.gen.ignore_eos = false;
        q.request.gen.logit_bias = &only;
        q.request.gen.n_logit_bias = 1;
        struct job *j = submit(en, &q);
        struct buf text;
        CHECK_INT(read_all(j, &text), ==, JOB_EVENT_END);
        int n = job_result(j)->completion_tokens;
        buf_free(&text);
        job_free(j);
        if (n == 1) {
            return id;
        }
    }
    FAIL("no token ends a text");
}

TEST(speculation_end_of_text, "an end of text among the few likely tokens ends each choice alike")
{
    struct engine *en = open_tiny_engine(1, 8, 2);
    struct counts c = {0};
    int32_t eog = find_eog(en);
    for (int seed = 0; seed < 20; seed++) {
        struct question q;
        ask(&q, PROMPT, "off", 60);
        choose_few(&q, 3);
        few_tokens[2] = (struct logit_bias_entry){.token = eog, .bias = 97.5f};
        q.request.gen.ignore_eos = false;
        q.request.gen.temperature = 1;
        q.request.gen.seed = 1000 + (uint64_t)seed;
        q.request.gen.n_choices = 3;
        compare(en, &q, 1, &c);
    }
    CHECK_INT(c.accepted, >, 20);
    engine_close(en);
}

TEST(speculation_together,
     "several at once, greedy and sampled, choices and merged prompts: as alone")
{
    struct engine *en = open_tiny_engine(8, 16, 2);
    struct counts c = {0};
    struct err e = ERR_INIT;
    for (int n = 1; n <= 8; n += n < 3 ? 1 : 5) {
        struct question q[8];
        for (int i = 0; i < n; i++) {
            ask(&q[i], PROMPT PROMPT PROMPT, i % 3 == 1 ? "customer_service" : "off", 30 + 3 * i);
            struct generation_params *g = &q[i].request.gen;
            struct plan *plan = &q[i].request.plan;
            if (i % 3 == 1) {
                CHECK_OK(plan_set_method(plan, MODALITY_TEXT, "cosine", &e), e);
                CHECK_OK(plan_set_number(plan, MODALITY_TEXT, "ratio", 1.3, &e), e);
            }
            g->seed = (uint64_t)i;
            g->temperature = i & 1 ? 0.7f : 0;
            g->n_choices = i == 2 ? 3 : 1;
            if (i & 2) {
                choose_few(&q[i], 3);
            }
            if (i % 3 == 2 || n == 1) { /* groups of layers with lengths of their own */
                CHECK_OK(plan_set_method(plan, MODALITY_LM, "cosine", &e), e);
                CHECK_OK(plan_set_number(plan, MODALITY_LM, "threshold", 0.2, &e), e);
                CHECK_OK(plan_set_number(plan, MODALITY_LM, "cutoff", 0, &e), e);
            }
        }
        compare(en, q, n, &c);
    }
    CHECK_INT(c.accepted, >, 50);
    engine_close(en);
}

TEST(speculation_off, "an engine without speculation drafts nothing, whatever a request says")
{
    struct engine_params p = {.model_path = TINY, .chat_template = "chatml", .n_parallel = 1};
    struct engine *en = open_engine(&p);
    struct question q;
    struct buf text;
    struct counts c = {0};
    ask(&q, PROMPT, "off", 60);
    ask_all(en, &q, 1, LOOKUP_MAX_DRAFT, &text, &c);
    CHECK_INT(c.drafted, ==, 0);
    buf_free(&text);
    engine_close(en);
}

TEST(speculation_no_memory, "whichever allocation fails, an answer that comes is the right one")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct question q;
    ask(&q, PROMPT, "off", 12);
    char *want = answer_of(en, &q);
    int survived = 0;
    for (long n = 1; n < 600; n += 3) {
        alloc_fail_at(n);
        struct err e = ERR_INIT;
        struct job *j = job_prepare(en, &q.request, &e);
        if (!j || job_submit(j, &e)) {
            alloc_fail_at(0);
            job_free(j);
            continue;
        }
        struct buf text;
        enum job_event_type end = read_all(j, &text);
        alloc_fail_at(0);
        /* the allocation that fails may be the test's own */
        if (end == JOB_EVENT_END && !buf_failed(&text)) {
            CHECK_STR(buf_str(&text), want);
            survived++;
        }
        buf_free(&text);
        job_free(j);
    }
    CHECK_INT(survived, >, 0);
    mem_free(want);
    engine_close(en);
}
