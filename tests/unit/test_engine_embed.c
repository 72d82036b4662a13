/* engine/embed.c: one vector of length 1 for a prompt, with the bits that it has alone. That
 * it is the right one is compared with llama.cpp's by http/test_embeddings.py. */
#include "base/alloc.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <math.h>
#include <string.h>

#define POLICY                                                                                     \
    "Returns are free within thirty days. Orders of more than 50 are sent for nothing. All "       \
    "others cost 4.90 to send. We are a small family business near the river. Ask for the "        \
    "number of the order before you promise anything. Never give an address to anybody who asks "

static struct engine *open_pooling(const char *pooling, int n_parallel)
{
    const struct engine_params p = {.model_path = TINY,
                                    .chat_template = "chatml",
                                    .pooling = pooling,
                                    .n_parallel = n_parallel,
                                    .max_queue = 8,
                                    .n_threads = 2};
    return open_engine(&p);
}

static void ask_vector(struct question *q, const char *text)
{
    ask(q, text, "off", 1);
    q->request.purpose = JOB_EMBED;
    q->request.form = PROMPT_PLAIN;
}

static struct job *finished(struct job *j, int n_embd)
{
    struct buf text;
    if (read_all(j, &text) != JOB_EVENT_END) {
        FAIL("%s", job_error(j)->msg);
    }
    CHECK_INT(text.len, ==, 0);
    buf_free(&text);
    double square = 0;
    const float *x = job_result(j)->embedding;
    CHECK(x);
    for (int i = 0; i < n_embd; i++) {
        square += (double)x[i] * (double)x[i];
    }
    CHECK_DOUBLE(fabs(square - 1), <, 1e-5);
    return j;
}

static double cosine(const struct job *a, const struct job *b, int n)
{
    double dot = 0;
    for (int i = 0; i < n; i++) {
        dot += (double)job_result(a)->embedding[i] * (double)job_result(b)->embedding[i];
    }
    return dot;
}

TEST(engine_embed_company, "beside others and answers a vector has the bits that it has alone")
{
    static const char *const texts[] = {"one", POLICY POLICY, "a third text", POLICY};
    static const char *const poolings[] = {"mean", "last", "cls"};
    for (int p = 0; p < 3; p++) {
        struct engine *en = open_pooling(poolings[p], 4);
        size_t bytes = (size_t)engine_info(en)->n_embd * sizeof(float);
        struct question q[4];
        struct question answer;
        struct job *alone[4];
        struct job *together[4];
        CHECK_STR(engine_info(en)->pooling, poolings[p]);
        for (int i = 0; i < 4; i++) {
            ask_vector(&q[i], texts[i]);
            alone[i] = finished(submit(en, &q[i]), engine_info(en)->n_embd);
        }
        ask(&answer, POLICY, "off", 20);
        struct job *beside = submit(en, &answer);
        for (int i = 0; i < 4; i++) {
            together[i] = submit(en, &q[i]);
        }
        for (int i = 0; i < 4; i++) {
            finished(together[i], engine_info(en)->n_embd);
            CHECK(memcmp(job_result(alone[i])->embedding, job_result(together[i])->embedding,
                         bytes) == 0);
        }
        /* a first row has seen only itself, the same token of all texts */
        double alike = cosine(alone[0], alone[1], engine_info(en)->n_embd);
        CHECK((alike < 0.999) == (strcmp(poolings[p], "cls") != 0));
        for (int i = 0; i < 4; i++) {
            job_free(alone[i]);
            job_free(together[i]);
        }
        struct buf text;
        CHECK_INT(read_all(beside, &text), ==, JOB_EVENT_END);
        buf_free(&text);
        job_free(beside);
        check_idle(en, 9);
        engine_close(en);
    }
}

TEST(engine_embed_compressed, "merged rows count for what they stand for: the bill and the vector")
{
    struct engine *en = open_pooling("mean", 1);
    int n = engine_info(en)->n_embd;
    struct question q;
    struct err e = ERR_INIT;
    ask_vector(&q, POLICY POLICY);
    struct job *off = finished(submit(en, &q), n);
    CHECK_OK(plan_set_method(&q.request.plan, MODALITY_TEXT, "cosine", &e), e);
    CHECK_OK(plan_set_number(&q.request.plan, MODALITY_TEXT, "threshold", 1, &e), e);
    struct job *nothing = finished(submit(en, &q), n);
    CHECK(memcmp(job_result(off)->embedding, job_result(nothing)->embedding,
                 (size_t)n * sizeof(float)) == 0);
    CHECK_OK(plan_set_number(&q.request.plan, MODALITY_TEXT, "threshold", 0.05, &e), e);
    struct job *merged = finished(submit(en, &q), n);
    CHECK_INT(job_result(merged)->prompt_rows, <, job_result(off)->prompt_rows);
    CHECK_DOUBLE(cosine(off, merged, n), >, 0.5);
    struct plan_step *lm = &q.request.plan.step[MODALITY_LM];
    CHECK_OK(plan_set_method(&q.request.plan, MODALITY_LM, "query", &e), e);
    CHECK_OK(plan_set_number(&q.request.plan, MODALITY_LM, "cutoff", 1, &e), e);
    struct job *chosen = finished(submit(en, &q), n);
    CHECK_INT(job_result(chosen)->report.modality[MODALITY_LM].rows_out, >, 0);
    CHECK(lm->method != compressors[0]);
    job_free(off);
    job_free(nothing);
    job_free(merged);
    job_free(chosen);
    check_idle(en, 4);
    engine_close(en);
}

TEST(engine_embed_plain, "what reads like a special token is text, in a raw prompt it is one token")
{
    struct engine *en = open_pooling(NULL, 1);
    struct err e = ERR_INIT;
    struct question q;
    CHECK_STR(engine_info(en)->pooling, "last");
    size_t len = 0;
    const char *eos = engine_token_text(en, engine_info(en)->eos, &len);
    char *text = mem_strndup(eos, len);
    ask_vector(&q, text);
    struct job *plain = job_prepare(en, &q.request, &e);
    CHECK_OK(!plain, e);
    q.request.form = PROMPT_TEXT;
    struct job *special = job_prepare(en, &q.request, &e);
    CHECK_OK(!special, e);
    CHECK_INT(job_prompt_rows(special, NULL, NULL), <, job_prompt_rows(plain, NULL, NULL));
    const int32_t bad = engine_info(en)->n_vocab;
    q.request.form = PROMPT_TOKENS;
    q.request.prompt_ids = &bad;
    q.request.n_prompt_ids = 1;
    CHECK(!job_prepare(en, &q.request, &e));
    CHECK_INT(e.code, ==, ERR_RANGE);
    q.request.n_prompt_ids = 0;
    struct err empty = ERR_INIT;
    CHECK(!job_prepare(en, &q.request, &empty));
    CHECK_STR(empty.reason, "empty_prompt");
    job_free(plain);
    job_free(special);
    mem_free(text);
    engine_close(en);
}
