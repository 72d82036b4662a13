/* engine/step.c: requests drawn at random run beside each other, and each answer has the
 * tokens and the bits of the log-probabilities that it has alone. Drawn are prompts, their
 * lengths and messages, pictures, plans, sampling, choices; then who comes when, who leaves,
 * who uses caches, who speculates, which adapters with which scales, and how much of a pass
 * prompts may take. */
#include "base/alloc.h"
#include "base/rng.h"
#include "engine/lookup.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/vision_fixture.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MB            ((size_t)1 << 20)
#define N_QUESTIONS   12 /* of one engine */
#define MOST_AT_ONCE  7
#define MOST_MESSAGES 3
#define LORA          "tests/golden/lora/llama-bpe.gguf" /* fits the first two models */

/* Matrices: halves throughout; 4, 5 and 8 bits; some in fp32, which are not packed. */
static const char *const models[] = {"llama-bpe", "smollm-legacy-quants", "llama-spm"};
#define N_MODELS (sizeof models / sizeof *models)

struct drawn {
    struct question q;
    struct chat_message messages[MOST_MESSAGES];
    struct chat_part parts[MOST_MESSAGES + 1];
    char *texts[MOST_MESSAGES];
    float lora_scale;
    char *alone; /* its transcript */
};

struct mix {
    struct rng rng;
    struct engine *en;
    char *pictures[2];
    struct image_bytes images[2];
    struct drawn drawn[N_QUESTIONS];
    struct engine_passes passes; /* of all engines so far */
    int n_cancelled, n_drafts_right, n_rows_cached, n_redone;
};

static int below(struct mix *m, int n)
{
    return (int)rng_below(&m->rng, (uint64_t)n);
}

static bool one_in(struct mix *m, int n)
{
    return below(m, n) == 0;
}

/* ---- drawing ------------------------------------------------------------------------------ */

/* Words that come again, so that prompts begin alike, merge, and can be drafted from. */
static char *draw_text(struct mix *m, int n_words)
{
    static const char *const words[] = {"the",  "order", "jacket", "red",  "shoes",    "where is ",
                                        "12",   "and",   "return", "size", "a blue ",  "hello",
                                        "free", "of",    "box",    "?",    "tomorrow", "in"};
    struct buf text;
    buf_init(&text, 1 << 16);
    for (int i = 0; i < n_words; i++) {
        int word = i < 8 ? i : below(m, (int)(sizeof words / sizeof *words));
        buf_printf(&text, "%s ", words[word]);
    }
    return buf_take(&text, NULL);
}

static void draw_plan(struct mix *m, struct plan *p)
{
    struct err e = ERR_INIT;
    p->protect_system = false;
    p->protect_tail = below(m, 9);
    if (one_in(m, 3)) {
        CHECK_OK(plan_set_method(p, MODALITY_TEXT, "cosine", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_TEXT, "threshold", 0.05, &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_TEXT, "log_mass", below(m, 2), &e), e);
    } else if (one_in(m, 6)) {
        plan_allow_baselines(true);
        CHECK_OK(plan_set_method(p, MODALITY_TEXT, one_in(m, 2) ? "random" : "truncate", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_TEXT, "ratio", 1.5, &e), e);
    }
    if (one_in(m, 3)) {
        CHECK_OK(plan_set_method(p, MODALITY_LM, "cosine", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "threshold", 0.3, &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "cutoff", below(m, 2), &e), e);
    } else if (one_in(m, 4)) {
        CHECK_OK(plan_set_method(p, MODALITY_LM, "query", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "ratio", 2 + below(m, 3), &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "cutoff", below(m, 2), &e), e);
    }
    if (p->step[MODALITY_LM].method != compressors[0]) {
        CHECK_OK(plan_set_number(p, MODALITY_LM, "steps", 1 + below(m, 3), &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "log_mass", below(m, 2), &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_LM, "reweight", below(m, 2), &e), e);
    }
}

/* Some answers of a model with random weights are in doubt, and some are not. */
static void draw_guard(struct mix *m, struct plan *p, bool shows)
{
    static const double margins[] = {0, 0.03, 0.2, 1};
    struct err e = ERR_INIT;
    if (shows && one_in(m, 2)) {
        CHECK_OK(plan_set_method(p, MODALITY_IMAGE, "cascade", &e), e);
        CHECK_OK(plan_set_number(p, MODALITY_IMAGE, "margin", margins[below(m, 4)], &e), e);
    }
    if (one_in(m, 3)) {
        CHECK_OK(plan_set_guard(p, "margin", margins[below(m, 4)], &e), e);
        CHECK_OK(plan_set_guard(p, "tokens", 1 + below(m, 4), &e), e);
        p->min_text_rows = 8;
    }
}

static void draw_sampling(struct mix *m, struct generation_params *g)
{
    static const struct logit_bias_entry few[] = {{40, 100}, {41, 100}, {42, 100}};
    g->seed = rng_below(&m->rng, 1000);
    g->temperature = one_in(m, 2) ? 0 : 0.2f + 0.3f * (float)below(m, 5);
    g->top_k = one_in(m, 4) ? 5 : 0;
    g->top_p = one_in(m, 4) ? 0.9f : 1;
    g->repeat_penalty = one_in(m, 5) ? 1.2f : 1;
    g->presence_penalty = one_in(m, 5) ? 0.4f : 0;
    g->n_choices = one_in(m, 5) ? 2 : 1;
    g->n_top_logprobs = below(m, 4);
    if (one_in(m, 3)) { /* soon repeats itself: drafts are right */
        g->logit_bias = few;
        g->n_logit_bias = 2 + below(m, 2);
    }
}

static void draw_question(struct mix *m, struct drawn *d, bool may_show)
{
    static const int most_words[] = {3, 20, 40, 60};
    memset(d, 0, sizeof *d);
    int n = 1 + below(m, MOST_MESSAGES);
    d->lora_scale = one_in(m, 2) ? 0 : one_in(m, 2) ? 1 : -0.5f;
    ask(&d->q, "", one_in(m, 3) ? "balanced" : "off", 1 + below(m, 24));
    for (int i = 0; i < n; i++) {
        d->texts[i] = draw_text(m, 1 + below(m, most_words[below(m, 4)]));
        d->parts[i] = (struct chat_part){
            .type = CHAT_PART_TEXT, .text = d->texts[i], .text_len = strlen(d->texts[i])};
        d->messages[i] = (struct chat_message){
            .role = i % 2 ? CHAT_ASSISTANT : CHAT_USER, .parts = &d->parts[i], .n_parts = 1};
    }
    if (may_show && one_in(m, 3)) {
        d->parts[n] = (struct chat_part){.type = CHAT_PART_IMAGE, .image = 0};
        d->messages[n - 1].n_parts = 2;
        d->messages[n - 1].role = CHAT_USER;
        d->q.request.chat.n_images = 1;
        d->q.request.images = &m->images[below(m, 2)];
    }
    d->q.request.chat.messages = d->messages;
    d->q.request.chat.n_messages = n;
    draw_plan(m, &d->q.request.plan);
    draw_guard(m, &d->q.request.plan, d->q.request.chat.n_images > 0);
    draw_sampling(m, &d->q.request.gen);
}

/* ---- asking ------------------------------------------------------------------------------- */

/* What a client sees of an answer, bits included, once it has ended. */
static char *transcript(struct mix *m, struct job *j)
{
    struct buf out;
    struct job_event ev;
    buf_init(&out, 1 << 22);
    do {
        CHECK(job_wait(j, 60000));
        job_next(j, &ev);
        for (int i = 0; i < ev.n_tokens; i++) {
            const struct token_info *t = &ev.tokens[i];
            buf_printf(&out, "\n%d %d:%a", ev.choice, t->token, (double)t->logprob);
            for (int k = 0; k < t->n_top; k++) {
                buf_printf(&out, " %d:%a", t->top[k].token, (double)t->top[k].logprob);
            }
        }
        if (ev.type == JOB_EVENT_ERROR) {
            FAIL("job failed: %s", job_error(j)->msg);
        }
    } while (ev.type != JOB_EVENT_END);
    const struct job_result *r = job_result(j);
    buf_printf(&out, "\n%d rows, %zu bytes, %d tokens", r->prompt_rows, r->kv_bytes,
               r->completion_tokens);
    for (int k = 0; k < MODALITY_COUNT; k++) {
        buf_printf(&out, ", %d -> %d", r->report.modality[k].rows_in,
                   r->report.modality[k].rows_out);
    }
    for (int k = 0; k < r->n_attempts; k++) {
        const struct job_attempt *at = &r->attempts[k];
        buf_printf(&out, ", attempt of %d rows, %a", at->rows, at->looked ? at->margin : 0);
    }
    m->n_redone += r->n_attempts - 1;
    m->n_drafts_right += r->draft_tokens_accepted;
    m->n_rows_cached += r->cached_rows;
    return buf_take(&out, NULL);
}

static struct job *ask_drawn(struct mix *m, const struct drawn *d, bool cache, bool draft)
{
    struct question q = d->q;
    q.request.cache_prompt = cache;
    q.request.lora_scales = &d->lora_scale;
    q.request.scope[0] = (uint8_t)below(m, 2);
    q.request.gen.max_draft = draft ? LOOKUP_MAX_DRAFT : 0;
    return submit(m->en, &q);
}

/* Some come, a few leave in the middle, the others must say what they say alone. */
static void run_mix(struct mix *m)
{
    struct job *jobs[MOST_AT_ONCE];
    struct drawn *asked[MOST_AT_ONCE];
    int n = 2 + below(m, MOST_AT_ONCE - 1);
    bool hurry = one_in(m, 3);
    for (int i = 0; i < n; i++) {
        asked[i] = &m->drawn[below(m, N_QUESTIONS)];
        jobs[i] = ask_drawn(m, asked[i], one_in(m, 2), one_in(m, 2));
        if (!hurry) {
            usleep((useconds_t)below(m, 1500));
        }
    }
    for (int i = 0; i < n; i++) {
        if (one_in(m, 6)) {
            job_cancel(jobs[i]);
            m->n_cancelled++;
        } else {
            char *text = transcript(m, jobs[i]);
            CHECK_STR(text, asked[i]->alone);
            mem_free(text);
        }
        job_free(jobs[i]);
    }
}

/* ---- engines ------------------------------------------------------------------------------ */

static void open_mix(struct mix *m, int number)
{
    char path[64];
    char mmproj[64];
    struct tiny_clip clip = tiny_clip_default;
    clip.n_out = 64; /* the tiny language models' width */
    tiny_clip_write(&clip, mmproj);
    snprintf(path, sizeof path, "tests/golden/tiny/%s.gguf", models[(size_t)number % N_MODELS]);
    const struct engine_lora lora = {.path = LORA};
    const struct engine_params p = {.model_path = path,
                                    .mmproj_path = mmproj,
                                    .loras = &lora,
                                    .n_loras = (size_t)number % N_MODELS < 2,
                                    .chat_template = "chatml",
                                    .full_precision = one_in(m, 8),
                                    .n_parallel = 2 + below(m, 6),
                                    .max_queue = 64,
                                    .max_images = 1,
                                    .n_threads = 1 + below(m, 2),
                                    .image_cache_bytes = one_in(m, 2) ? MB : 8192,
                                    .prefix_cache_bytes = one_in(m, 4) ? 0 : MB,
                                    .speculation = true,
                                    .itl_target_ms = one_in(m, 3)   ? 0
                                                     : one_in(m, 2) ? 1e-3
                                                                    : 1};
    m->en = open_engine(&p);
    unlink(mmproj);
    for (int i = 0; i < N_QUESTIONS; i++) {
        draw_question(m, &m->drawn[i], true);
        struct job *j = ask_drawn(m, &m->drawn[i], false, false);
        m->drawn[i].alone = transcript(m, j);
        job_free(j);
    }
}

static void close_mix(struct mix *m)
{
    struct engine_stats s;
    engine_stats(m->en, &s);
    m->passes.n += s.passes.n;
    m->passes.n_mixed += s.passes.n_mixed;
    engine_close(m->en);
    for (int i = 0; i < N_QUESTIONS; i++) {
        mem_free(m->drawn[i].alone);
        for (int k = 0; k < MOST_MESSAGES; k++) {
            mem_free(m->drawn[i].texts[k]);
        }
    }
}

static void run_mixes(int n_engines, int n_mixes)
{
    static const char *const names[] = {"picture_224.png", "picture_448.png"};
    struct mix *m = mem_zalloc(1, sizeof *m);
    CHECK(m);
    rng_init(&m->rng, test_seed());
    for (int i = 0; i < 2; i++) {
        char *path = test_golden_path(names[i]);
        m->pictures[i] = test_read_file(path, &m->images[i].n);
        m->images[i].data = (const uint8_t *)m->pictures[i];
        mem_free(path);
    }
    for (int i = 0; i < n_engines; i++) {
        open_mix(m, i);
        for (int k = 0; k < n_mixes; k++) {
            run_mix(m);
        }
        close_mix(m);
    }
    printf(
        "      %d mixes in %llu passes, %llu of them with prompts and answers; %d requests "
        "left, %d drafted tokens were right, %d rows came from the prefix cache, %d prompts were "
        "run again\n",
        n_engines * n_mixes, (unsigned long long)m->passes.n, (unsigned long long)m->passes.n_mixed,
        m->n_cancelled, m->n_drafts_right, m->n_rows_cached, m->n_redone);
    CHECK_INT(m->n_redone, >, 0);
    CHECK_INT(m->passes.n_mixed, >, 0);
    CHECK_INT(m->n_cancelled, >, 0);
    CHECK_INT(m->n_drafts_right, >, 0);
    CHECK_INT(m->n_rows_cached, >, 0);
    mem_free(m->pictures[0]);
    mem_free(m->pictures[1]);
    mem_free(m);
}

TEST(engine_mixes, "random requests beside each other: tokens and bits as alone, 48 mixes")
{
    run_mixes(6, 8);
}

SLOW_TEST(engine_mixes_many, "the same, 1,000 mixes")
{
    run_mixes(40, 25);
}
