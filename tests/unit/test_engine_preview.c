/* engine/preview.c: a preview says what a run of the same plan does, text and rows belong
 * together, and nothing is left behind. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"

#include <string.h>

#define POLICY                                                                                     \
    "Returns are free within thirty days. Orders of more than 50 are sent for nothing. All "       \
    "others cost 4.90 to send. We are a small family business near the river. Ask for the "        \
    "number of the order before you promise anything. \xF0\x9F\x8E\x89 \xE6\xBC\xA2\xE5\xAD\x97 "  \
    "gr\xC3\xBC\xC3\x9F"                                                                           \
    "e. Never give an address to anybody who asks for one. The hotline is open until eight. "      \
    "Which orders are sent for nothing, and what do the others cost to send to me at home?"

/* One slot of the plan, so that each case is another way through the engine. */
struct planned {
    enum modality modality;
    const char *method, *option;
    double value;
};

static const struct planned plans[] = {
    {MODALITY_TEXT, "off", NULL, 0},       {MODALITY_TEXT, "cosine", "threshold", 0.05},
    {MODALITY_LM, "slerp", "cutoff", 1},   {MODALITY_LM, "query", "cutoff", 1},
    {MODALITY_LM, "slerp", "cutoff", 500},
};

static void ask_planned(struct question *q, const struct planned *p)
{
    struct err e = ERR_INIT;
    ask(q, POLICY, "off", 3);
    q->request.plan.protect_tail = 8;
    CHECK_OK(plan_set_method(&q->request.plan, p->modality, p->method, &e), e);
    if (p->option) {
        CHECK_OK(plan_set_number(&q->request.plan, p->modality, p->option, p->value, &e), e);
    }
}

static struct job *finished(struct engine *en, const struct question *q)
{
    struct buf text;
    struct job *j = submit(en, q);
    if (read_all(j, &text) != JOB_EVENT_END) {
        FAIL("%s", job_error(j)->msg);
    }
    buf_free(&text);
    return j;
}

static void check_same_counts(const struct report *a, const struct report *b)
{
    CHECK_INT(a->original_rows, ==, b->original_rows);
    CHECK_INT(a->compressed_rows, ==, b->compressed_rows);
    CHECK_DOUBLE(a->mean_rows_per_layer, ==, b->mean_rows_per_layer);
    for (int m = 0; m < MODALITY_COUNT; m++) {
        CHECK(a->modality[m].method == b->modality[m].method);
        CHECK_INT(a->modality[m].rows_in, ==, b->modality[m].rows_in);
        CHECK_INT(a->modality[m].rows_out, ==, b->modality[m].rows_out);
    }
    CHECK_INT(a->n_skipped, ==, b->n_skipped);
    for (int i = 0; i < a->n_skipped; i++) {
        CHECK_STR(a->skipped[i].reason, b->skipped[i].reason);
    }
}

TEST(engine_preview_counts, "rows per stage, bytes and reasons are those of a run, for every stage")
{
    struct engine *en = open_tiny_engine(2, 4, 2);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct question q;
        ask_planned(&q, &plans[i]);
        struct job *run = finished(en, &q);
        q.request.purpose = JOB_PREVIEW;
        struct job *seen = finished(en, &q);
        const struct job_result *r = job_result(seen);
        CHECK(!job_result(run)->preview && r->preview);
        check_same_counts(&r->report, &job_result(run)->report);
        CHECK_INT(r->kv_bytes_saved, ==, job_result(run)->kv_bytes_saved);
        CHECK_INT(r->completion_tokens, ==, 0);
        CHECK_INT(r->looked_up_rows, ==, 0);
        job_free(run);
        job_free(seen);
    }
    check_idle(en, 2 * sizeof plans / sizeof *plans);
    engine_close(en);
}

/* Distinct rows that the pieces name, counted without the engine's numbers. */
static int distinct_rows(const struct job_preview *p)
{
    int n = 0;
    for (int i = 0; i < p->n_pieces; i++) {
        bool seen = p->pieces[i].row < 0;
        for (int k = 0; k < i && !seen; k++) {
            seen = p->pieces[k].row == p->pieces[i].row;
        }
        n += !seen;
    }
    return n;
}

static int template_rows(const struct job_preview *p, int text_rows)
{
    for (int i = 0; i < p->n_pieces; i++) {
        text_rows -= p->pieces[i].n_tokens;
    }
    return text_rows;
}

TEST(engine_preview_pieces, "pieces are the text, whole characters, and name the rows there are")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct question q;
        ask_planned(&q, &plans[i]);
        q.request.purpose = JOB_PREVIEW;
        struct job *j = finished(en, &q);
        const struct job_preview *p = job_result(j)->preview;
        const struct report *r = &job_result(j)->report;
        const struct report_stage *lm = &r->modality[MODALITY_LM];
        int left = lm->method ? lm->rows_out : r->compressed_rows;
        size_t at = 0;
        for (int k = 0; k < p->n_pieces; k++) {
            const struct preview_piece *piece = &p->pieces[k];
            CHECK(at + piece->len <= strlen(POLICY));
            CHECK(memcmp(&POLICY[at], piece->text, piece->len) == 0);
            CHECK_INT(utf8_valid_prefix(piece->text, piece->len), ==, piece->len);
            CHECK_INT(piece->row, <, left);
            at += piece->len;
        }
        CHECK_INT(at, ==, strlen(POLICY));
        /* tokens that share a character are one piece, so a row may go unnamed for each */
        int shared = 0;
        for (int k = 0; k < p->n_pieces; k++) {
            shared += p->pieces[k].n_tokens - 1;
        }
        CHECK_INT(shared, >, 0);
        int named = distinct_rows(p) + template_rows(p, r->original_rows);
        CHECK_INT(named, <=, left);
        CHECK_INT(named, >=, left - shared);
        job_free(j);
    }
    engine_close(en);
}

TEST(engine_preview_estimate, "costs follow the rows: none saved is 1, and fewer rows cost less")
{
    struct engine *en = open_tiny_engine(1, 4, 1);
    struct job *jobs[2];
    for (int i = 0; i < 2; i++) {
        struct question q;
        ask_planned(&q, &plans[i]);
        q.request.purpose = JOB_PREVIEW;
        jobs[i] = finished(en, &q);
    }
    const struct job_preview *off = job_result(jobs[0])->preview;
    const struct job_preview *less = job_result(jobs[1])->preview;
    CHECK_DOUBLE(off->cost_ratio, ==, 1);
    CHECK_DOUBLE(off->first_token_ms, >, 0);
    CHECK_DOUBLE(off->cpu_ms, >=, off->first_token_ms);
    CHECK_INT(less->kv_bytes, <, off->kv_bytes);
    /* keys and values are counted per row, in all layers alike */
    CHECK_INT(less->kv_bytes * (size_t)job_result(jobs[0])->prompt_rows, ==,
              off->kv_bytes * (size_t)job_result(jobs[1])->prompt_rows);
    CHECK_DOUBLE(less->first_token_ms - job_result(jobs[1])->compress_ms, <, off->first_token_ms);
    job_free(jobs[0]);
    job_free(jobs[1]);
    engine_close(en);
}

TEST(engine_preview_beside, "previews beside an answer change no token of it")
{
    struct engine *en = open_tiny_engine(4, 8, 2);
    struct question q;
    ask(&q, POLICY, "off", 24);
    char *want = answer_of(en, &q);
    struct job *answer = submit(en, &q);
    struct job *previews[3];
    for (int i = 0; i < 3; i++) {
        struct question p;
        ask_planned(&p, &plans[i + 1]);
        p.request.purpose = JOB_PREVIEW;
        previews[i] = submit(en, &p);
    }
    struct buf text;
    CHECK_INT(read_all(answer, &text), ==, JOB_EVENT_END);
    CHECK_STR(buf_str(&text), want);
    buf_free(&text);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(read_all(previews[i], &text), ==, JOB_EVENT_END);
        buf_free(&text);
        job_free(previews[i]);
    }
    job_free(answer);
    mem_free(want);
    check_idle(en, 5);
    engine_close(en);
}
