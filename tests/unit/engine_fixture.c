#include "tests/unit/engine_fixture.h"

#include "base/alloc.h"
#include "tests/test.h"

#include <string.h>
#include <unistd.h>

struct engine *open_engine(const struct engine_params *p)
{
    struct err e = ERR_INIT;
    struct engine *en = engine_open(p, &e);
    if (!en) {
        FAIL("engine_open: %s", e.msg);
    }
    return en;
}

struct engine *open_tiny_engine(int n_parallel, int max_queue, int n_threads)
{
    struct engine_params p = {.model_path = TINY,
                              .chat_template = "chatml",
                              .n_parallel = n_parallel,
                              .max_queue = max_queue,
                              .n_threads = n_threads,
                              .speculation = true};
    return open_engine(&p);
}

void ask(struct question *q, const char *text, const char *profile, int max_tokens)
{
    struct err e = ERR_INIT;
    memset(q, 0, sizeof *q);
    q->part = (struct chat_part){.type = CHAT_PART_TEXT, .text = text, .text_len = strlen(text)};
    q->message = (struct chat_message){.role = CHAT_USER, .parts = &q->part, .n_parts = 1};
    q->request = (struct engine_request){.id = "test",
                                         .chat = {.messages = &q->message, .n_messages = 1},
                                         .gen = generation_params_default,
                                         .add_generation_prompt = true};
    q->request.gen.max_tokens = max_tokens;
    q->request.gen.temperature = 0;
    q->request.gen.ignore_eos = true;
    CHECK_OK(plan_from_profile(&q->request.plan, profile, &e), e);
}

struct job *submit(struct engine *en, const struct question *q)
{
    struct err e = ERR_INIT;
    struct job *j = job_prepare(en, &q->request, &e);
    if (!j) {
        FAIL("job_prepare: %s", e.msg);
    }
    CHECK_OK(job_submit(j, &e), e);
    return j;
}

enum job_event_type read_all(struct job *j, struct buf *text)
{
    buf_init(text, 1 << 20);
    for (;;) {
        struct job_event ev;
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        if (ev.type == JOB_EVENT_TEXT) {
            for (size_t i = 0; i < ev.text_len; i++) { /* a random model writes NUL, too */
                buf_putc(text, ev.text[i] ? ev.text[i] : '?');
            }
        } else if (ev.type == JOB_EVENT_DONE) {
            CHECK(ev.finish != JOB_FINISH_NONE);
            buf_putc(text, '|');
        } else if (ev.type == JOB_EVENT_END || ev.type == JOB_EVENT_ERROR) {
            return ev.type;
        }
    }
}

char *answer_of(struct engine *en, const struct question *q)
{
    struct buf text;
    struct job *j = submit(en, q);
    if (read_all(j, &text) != JOB_EVENT_END) {
        FAIL("job failed: %s", job_error(j)->msg);
    }
    job_free(j);
    buf_append(&text, "", 0);
    return buf_take(&text, NULL);
}

void check_idle(struct engine *en, uint64_t submitted)
{
    struct engine_stats s;
    for (int i = 0; i < 2000; i++) {
        engine_stats(en, &s);
        if (s.n_running == 0 && s.n_waiting == 0 && s.kv_used_bytes == 0) {
            break;
        }
        usleep(1000);
    }
    CHECK_INT(s.n_running + s.n_waiting, ==, 0);
    CHECK_INT(s.kv_used_bytes, ==, 0);
    CHECK_INT(s.n_done + s.n_cancelled + s.n_failed, ==, submitted);
    CHECK_INT(s.n_failed, ==, 0);
    CHECK(s.alive);
}
