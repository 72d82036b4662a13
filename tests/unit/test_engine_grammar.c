/* engine/constrain.c: answers of a model with random weights keep to their grammar, whatever
 * else is asked for. */
#include "base/alloc.h"
#include "engine/lookup.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/grammar_fixture.h"

#include <string.h>

#define JSON_LIKE                                                                                  \
    "root ::= \"{\" member (\",\" member){0,3} \"}\"\n"                                            \
    "member ::= \"\\\"\" [a-z]{1,6} \"\\\":\" ([0-9]{1,3} | root)\n"

/* Temperature 1 unless told otherwise. */
static void ask_in(struct question *q, struct grammar *g, uint64_t seed, int max_tokens)
{
    ask(q, "order 12, order 13: a red jacket and a blue jacket", "off", max_tokens);
    q->request.gen.grammar = g;
    q->request.gen.temperature = 1;
    q->request.gen.seed = seed;
    q->request.gen.ignore_eos = false;
}

TEST(engine_grammar_answers, "answers are texts of the grammar, or their beginnings when cut")
{
    struct engine *en = open_tiny_engine(2, 8, 1);
    struct grammar *g = gbnf(JSON_LIKE);
    int n_whole = 0;
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct question q;
        ask_in(&q, g, seed, 60);
        q.request.gen.n_choices = seed % 4 == 3 ? 3 : 1;
        q.request.gen.temperature = seed % 3 ? 1 : 0;
        q.request.gen.ignore_eos = seed % 5 == 1;
        q.request.gen.repeat_penalty = seed % 2 ? 1.3f : 1;
        q.request.gen.n_top_logprobs = seed % 6 == 0 ? 2 : -1;
        char *text = answer_of(en, &q);
        char *rest = text;
        for (char *one; (one = strsep(&rest, "|")) && rest;) {
            enum fit f = fit_text(g, one);
            if (f == NO_FIT) {
                FAIL("seed %d: %s", (int)seed, one);
            }
            n_whole += f == WHOLE;
        }
        mem_free(text);
    }
    CHECK_INT(n_whole, >, 8);
    grammar_unref(g);
    engine_close(en);
}

static enum job_finish finish_of(struct engine *en, const struct question *q, struct buf *text)
{
    struct job *j = submit(en, q);
    enum job_finish finish = JOB_FINISH_NONE;
    struct job_event ev;
    buf_init(text, 1 << 16);
    do {
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        if (ev.type == JOB_EVENT_TEXT) {
            buf_append(text, ev.text, ev.text_len);
        }
        finish = ev.type == JOB_EVENT_DONE ? ev.finish : finish;
    } while (ev.type != JOB_EVENT_END && ev.type != JOB_EVENT_ERROR);
    if (ev.type == JOB_EVENT_ERROR) {
        FAIL("job failed: %s", job_error(j)->msg);
    }
    job_free(j);
    return finish;
}

TEST(engine_grammar_ends, "the end comes where the grammar ends, max_tokens and stop cut before")
{
    struct engine *en = open_tiny_engine(1, 8, 1);
    struct grammar *g = gbnf("root ::= \"yes, indeed\" | \"no, never\"");
    struct question q;
    struct buf text;
    ask_in(&q, g, 1, 60);
    q.request.gen.ignore_eos = true; /* even so: nothing can follow */
    CHECK_INT(finish_of(en, &q, &text), ==, JOB_FINISH_STOP);
    CHECK(fit(g, text.data, text.len) == WHOLE);
    buf_free(&text);
    q.request.gen.max_tokens = 1;
    CHECK_INT(finish_of(en, &q, &text), ==, JOB_FINISH_LENGTH);
    CHECK(fit(g, buf_str(&text), text.len) == PREFIX);
    buf_free(&text);
    static const char *const stop[] = {", "};
    q.request.gen.max_tokens = 60;
    q.request.gen.stop = stop;
    q.request.gen.n_stop = 1;
    CHECK_INT(finish_of(en, &q, &text), ==, JOB_FINISH_STOP);
    CHECK(strcmp(buf_str(&text), "yes") == 0 || strcmp(buf_str(&text), "no") == 0);
    buf_free(&text);
    grammar_unref(g);
    g = gbnf("root ::= \"\"");
    ask_in(&q, g, 1, 60);
    CHECK_INT(finish_of(en, &q, &text), ==, JOB_FINISH_STOP);
    CHECK_INT(text.len, ==, 0);
    grammar_unref(g);
    engine_close(en);
}

TEST(engine_grammar_bias, "a bias or a penalty chooses among allowed tokens only")
{
    struct engine *en = open_tiny_engine(1, 8, 1);
    struct grammar *g = gbnf("root ::= [ab]{8}");
    struct logit_bias_entry bias[600];
    int n_vocab = engine_info(en)->n_vocab;
    for (int greedy = 0; greedy < 2; greedy++) {
        struct question q;
        ask_in(&q, g, 3, 20);
        q.request.gen.temperature = greedy ? 0 : 1;
        q.request.gen.logit_bias = bias;
        q.request.gen.n_logit_bias = n_vocab < 600 ? n_vocab : 600;
        for (int i = 0; i < q.request.gen.n_logit_bias; i++) {
            bias[i] = (struct logit_bias_entry){.token = i, .bias = -100}; /* all banned */
        }
        struct buf text;
        CHECK_INT(finish_of(en, &q, &text), ==, JOB_FINISH_STOP);
        CHECK(fit(g, text.data, text.len) == WHOLE);
        buf_free(&text);
    }
    grammar_unref(g);
    engine_close(en);
}

/* The same text with drafts and without: the grammar runs with the sampler, row by row. */
TEST(engine_grammar_drafts, "drafts change nothing in an answer that has a grammar")
{
    struct engine *en = open_tiny_engine(1, 8, 1);
    struct grammar *g = gbnf("root ::= (\"order 12, \" | \"order 13: \" | \"a red \" | [a-c])+");
    int accepted = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct question q;
        struct buf text[2];
        for (int drafts = 0; drafts < 2; drafts++) {
            ask_in(&q, g, seed, 40);
            q.request.gen.temperature = seed % 2 ? 1 : 0;
            q.request.gen.max_draft = drafts ? LOOKUP_MAX_DRAFT : 0;
            struct job *j = submit(en, &q);
            CHECK_INT(read_all(j, &text[drafts]), ==, JOB_EVENT_END);
            accepted += job_result(j)->draft_tokens_accepted;
            job_free(j);
        }
        CHECK_STR(buf_str(&text[1]), buf_str(&text[0]));
        buf_free(&text[0]);
        buf_free(&text[1]);
    }
    CHECK_INT(accepted, >, 20);
    grammar_unref(g);
    engine_close(en);
}

TEST(engine_grammar_together, "answers with grammars beside others are as they are alone")
{
    struct engine *en = open_tiny_engine(4, 16, 2);
    struct grammar *g[2] = {gbnf(JSON_LIKE), gbnf("root ::= [a-z]{3,9} (\", \" [a-z]{3,9})*")};
    char *alone[6];
    struct question q[6];
    for (int i = 0; i < 6; i++) {
        ask_in(&q[i], i < 4 ? g[i % 2] : NULL, (uint64_t)i, 30);
        q[i].message.parts = &q[i].part;
        alone[i] = answer_of(en, &q[i]);
    }
    struct job *jobs[6];
    for (int i = 0; i < 6; i++) {
        jobs[i] = submit(en, &q[i]);
    }
    for (int i = 0; i < 6; i++) {
        struct buf text;
        CHECK_INT(read_all(jobs[i], &text), ==, JOB_EVENT_END);
        CHECK_STR(buf_str(&text), alone[i]);
        buf_free(&text);
        job_free(jobs[i]);
        mem_free(alone[i]);
    }
    check_idle(en, 12);
    grammar_unref(g[0]);
    grammar_unref(g[1]);
    engine_close(en);
}

TEST(engine_grammar_no_memory, "whichever allocation fails, an answer that comes keeps to it")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct grammar *g = gbnf(JSON_LIKE);
    int survived = 0;
    for (long n = 1; n < 400; n += 3) {
        struct question q;
        struct err e = ERR_INIT;
        ask_in(&q, g, 5, 10);
        alloc_fail_at(n);
        struct job *j = job_prepare(en, &q.request, &e);
        if (!j || job_submit(j, &e)) {
            alloc_fail_at(0);
            job_free(j);
            continue;
        }
        struct buf text;
        enum job_event_type end = read_all(j, &text);
        alloc_fail_at(0);
        if (end == JOB_EVENT_END && !buf_failed(&text)) {
            char *bar = strchr(text.data, '|');
            CHECK(bar && fit(g, text.data, (size_t)(bar - text.data)) != NO_FIT);
            survived++;
        }
        buf_free(&text);
        job_free(j);
    }
    CHECK_INT(survived, >, 0);
    grammar_unref(g);
    engine_close(en);
}
