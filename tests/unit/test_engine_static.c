/* Static prefixes: paid once, by whoever comes first; the same for all keys, whose own words
 * stay apart; and no answer is another because of them. */
#include "base/alloc.h"
#include "base/rng.h"
#include "engine/chunk.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <string.h>

#define POLICY                                                                                     \
    "You answer for a shop. Returns are free within thirty days, in the box they came in. Orders " \
    "of more than 50 are sent for nothing, all others for 4.90. Ask for the number of the order "  \
    "before you promise anything, and never give an address to anybody who asks for one. "
#define LONG_QUESTION                                                                              \
    "I bought shoes last week, and they do not fit. May I send them back without their box, and "  \
    "what does it cost me when I do so from abroad?"

static struct engine *open_caching(size_t bytes)
{
    const struct engine_params p = {.model_path = TINY,
                                    .chat_template = "chatml",
                                    .n_parallel = 3,
                                    .max_queue = 64,
                                    .n_threads = 2,
                                    .prefix_cache_bytes = bytes};
    return open_engine(&p);
}

static void ask_with_policy(struct question *q, const char *text, uint8_t scope, bool merge)
{
    struct err e = ERR_INIT;
    ask(q, text, "off", 12);
    q->request.plan.static_prefix = POLICY;
    q->request.plan.min_text_rows = 1;
    q->request.plan.protect_tail = 8;
    q->request.cache_prompt = true;
    q->request.scope[0] = scope;
    if (merge) {
        struct plan *p = &q->request.plan;
        CHECK_OK(plan_set_method(p, MODALITY_LM, "static_prefix", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "cutoff", 1, &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "ratio", 2, &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "log_mass", 1, &e), e);
    }
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

/* Rows that are computed for a question when the prefix has been paid. */
static int rows_left(struct engine *en, const char *prefix, bool merge)
{
    struct question q;
    ask_with_policy(&q, "Hello?", 0, merge);
    q.request.plan.static_prefix = prefix;
    struct job_result first = bill_of(en, &q);
    ask_with_policy(&q, "May I send shoes back?", 1, merge); /* another key, other words */
    q.request.plan.static_prefix = prefix;
    struct job_result second = bill_of(en, &q);
    CHECK_INT(first.cached_rows, ==, 0);
    CHECK_INT(second.cached_rows, >, CHUNK_MIN_ROWS);
    const struct report_stage *before = &first.report.modality[MODALITY_LM];
    const struct report_stage *lm = &second.report.modality[MODALITY_LM];
    if (merge) {
        CHECK_STR(lm->method, "static_prefix");
        CHECK_INT(lm->rows_in - lm->rows_out, >, second.cached_rows / 4);
        CHECK_INT(lm->rows_in - lm->rows_out, ==, before->rows_in - before->rows_out);
    }
    return second.report.original_rows - second.cached_rows;
}

TEST(engine_static_paid_once, "from the second request on no row of the prefix is computed")
{
    for (int merge = 0; merge < 2; merge++) {
        struct engine *en = open_caching((size_t)8 << 20);
        int left = rows_left(en, POLICY, merge);
        CHECK_INT(left, <, CHUNK_MIN_ROWS + 16); /* the question and what the template writes */
        CHECK_INT(rows_left(en, "Be kind. " POLICY " Be brief.", merge), ==, left);
        engine_close(en);
    }
}

TEST(engine_static_own_messages, "without the operator's text the system messages are the prefix")
{
    struct engine *en = open_caching((size_t)8 << 20);
    struct question q;
    struct chat_part system = {.type = CHAT_PART_TEXT, .text = POLICY, .text_len = strlen(POLICY)};
    struct job_result r[3];
    for (int i = 0; i < 3; i++) { /* the same key twice, then another */
        ask_with_policy(&q, i == 0 ? "Hello?" : "Is it far?", i / 2, true);
        struct chat_message messages[2] = {{.role = CHAT_SYSTEM, .parts = &system, .n_parts = 1},
                                           q.message};
        q.request.plan.static_prefix = NULL;
        q.request.chat.messages = messages;
        q.request.chat.n_messages = 2;
        r[i] = bill_of(en, &q);
        CHECK_INT(r[i].report.modality[MODALITY_LM].rows_out, <,
                  r[i].report.modality[MODALITY_LM].rows_in);
    }
    CHECK_INT(r[1].cached_rows, >, CHUNK_MIN_ROWS);
    CHECK_INT(r[2].cached_rows, ==, 0);
    engine_close(en);
}

TEST(engine_static_keys, "the prefix is for all keys, what one of them said behind it is not")
{
    struct engine *en = open_caching((size_t)8 << 20);
    struct question q;
    ask_with_policy(&q, LONG_QUESTION, 1, false);
    struct chat_message twice[2] = {q.message, q.message}; /* a message ends a chunk */
    q.request.chat.messages = twice;
    q.request.chat.n_messages = 2;
    CHECK_INT(bill_of(en, &q).cached_rows, ==, 0);
    int mine = bill_of(en, &q).cached_rows;
    q.request.scope[0] = 2;
    int theirs = bill_of(en, &q).cached_rows;
    CHECK_INT(theirs, >, CHUNK_MIN_ROWS);
    CHECK_INT(mine, >, theirs);
    /* who sends the same words by himself does not see that they are there */
    struct chat_part system = {.type = CHAT_PART_TEXT, .text = POLICY, .text_len = strlen(POLICY)};
    struct chat_message messages[2] = {{.role = CHAT_SYSTEM, .parts = &system, .n_parts = 1},
                                       q.message};
    q.request.plan.static_prefix = NULL;
    q.request.chat.messages = messages;
    q.request.chat.n_messages = 2;
    CHECK_INT(bill_of(en, &q).cached_rows, ==, 0);
    engine_close(en);
}

#define N_QUESTIONS 4

static void check_crowd(size_t cache_bytes)
{
    static const char *const texts[N_QUESTIONS] = {"Hello?", LONG_QUESTION, "What? " LONG_QUESTION,
                                                   "May I send shoes back?"};
    struct engine *uncached = open_caching(0);
    struct engine *en = open_caching(cache_bytes);
    struct question q[N_QUESTIONS];
    char *alone[N_QUESTIONS];
    struct rng rng;
    rng_init(&rng, test_seed());
    for (int i = 0; i < N_QUESTIONS; i++) {
        ask_with_policy(&q[i], texts[i], (uint8_t)(i / 2), i % 2);
        alone[i] = answer_of(uncached, &q[i]);
    }
    uint64_t submitted = 0;
    for (int round = 0; round < 12; round++) {
        struct job *jobs[N_QUESTIONS];
        int which[N_QUESTIONS];
        for (int i = 0; i < N_QUESTIONS; i++, submitted++) {
            which[i] = (int)rng_below(&rng, N_QUESTIONS);
            jobs[i] = submit(en, &q[which[i]]);
        }
        for (int i = 0; i < N_QUESTIONS; i++) {
            struct buf text;
            CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
            CHECK_STR(buf_str(&text), alone[which[i]]);
            buf_free(&text);
            job_free(jobs[i]);
        }
    }
    check_idle(en, submitted);
    for (int i = 0; i < N_QUESTIONS; i++) {
        mem_free(alone[i]);
    }
    engine_close(uncached);
    engine_close(en);
}

TEST(engine_static_crowd, "answers are those without any cache, in any order and company")
{
    check_crowd((size_t)8 << 20);
}

TEST(engine_static_tight, "the same with hardly room for the prefix")
{
    check_crowd((size_t)160 << 10);
}
