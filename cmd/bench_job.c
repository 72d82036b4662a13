#include "cmd/bench_job.h"

#include <stdio.h>
#include <string.h>

void bench_words(struct buf *out, int n, int run)
{
    enum { N_WORDS = 7, DIGITS = 4 };
    static const char *const words[N_WORDS] = {"red",   "shoe", "paper", "tea",
                                               "glass", "coat", "lamp"};
    buf_clear(out);
    buf_puts(out, "Words:");
    int left = run;
    for (int i = 0; i < n; i++) {
        buf_printf(out, " %s", words[(i < DIGITS ? left : i * 5 + run * 3 + i / 7) % N_WORDS]);
        left /= N_WORDS;
    }
}

/* Ready to submit; NULL with the reason on stderr. */
static struct job *prepare(struct engine *en, const struct plan *plan, const char *prompt,
                           const struct image_bytes *picture, int n_tokens)
{
    struct err e = ERR_INIT;
    const struct chat_part parts[] = {
        {.type = CHAT_PART_TEXT, .text = prompt, .text_len = strlen(prompt)},
        {.type = CHAT_PART_IMAGE, .image = 0},
    };
    const struct chat_message message = {
        .role = CHAT_USER, .parts = parts, .n_parts = picture ? 2 : 1};
    struct engine_request r = {
        .id = "bench",
        .chat = {.messages = &message, .n_messages = 1, .n_images = picture ? 1 : 0},
        .images = picture,
        .plan = *plan,
        .gen = generation_params_default,
        .add_generation_prompt = true,
    };
    r.gen.max_tokens = n_tokens;
    r.gen.temperature = 0;
    r.gen.ignore_eos = true;
    struct job *job = job_prepare(en, &r, &e);
    if (!job) {
        fprintf(stderr, "bench: %s\n", e.msg);
    }
    return job;
}

bool bench_job(struct engine *en, const struct plan *plan, const char *prompt,
               const struct image_bytes *picture, int n_tokens, struct job_result *result)
{
    struct err e = ERR_INIT;
    struct job *job = prepare(en, plan, prompt, picture, n_tokens);
    if (!job) {
        return false;
    }
    bool ok = !job_submit(job, &e);
    for (struct job_event event = {0}; ok && event.type != JOB_EVENT_END;) {
        job_next(job, &event);
        if (event.type == JOB_EVENT_NONE) {
            job_wait(job, -1);
        } else if (event.type == JOB_EVENT_ERROR) {
            e = *job_error(job);
            ok = false;
        }
    }
    if (ok) {
        *result = *job_result(job);
    } else {
        fprintf(stderr, "bench: %s\n", e.msg);
    }
    job_free(job);
    return ok;
}

/* Rows of a prompt of so many words; -1 after an error. */
static int rows_of_words(struct engine *en, const struct plan *plan, struct buf *scratch, int words)
{
    bench_words(scratch, words, 0);
    struct job *job = prepare(en, plan, buf_str(scratch), NULL, 1);
    if (!job) {
        return -1;
    }
    int text = 0;
    int image = 0;
    int rows = job_prompt_rows(job, &text, &image);
    job_free(job);
    return rows;
}

static int words_for(struct engine *en, const struct plan *plan, struct buf *scratch, int n)
{
    enum { SAMPLE = 16, TRIES = 4 };
    int least = rows_of_words(en, plan, scratch, 0);
    int sample = rows_of_words(en, plan, scratch, SAMPLE);
    if (least < 0 || sample < 0) {
        return -1;
    }
    if (n < least) {
        fprintf(stderr, "bench: a prompt takes at least %d rows\n", least);
        return -1;
    }
    double a_word = (double)(sample - least) / SAMPLE;
    int words = (int)((n - least) / a_word);
    for (int i = 0; i < TRIES; i++) {
        int rows = rows_of_words(en, plan, scratch, words);
        if (rows < 0) {
            return -1;
        }
        int more = (int)((n - rows) / a_word);
        if (more == 0) {
            break;
        }
        words += words + more > 0 ? more : -words;
    }
    return words;
}

int bench_prompt_words(struct engine *en, const struct plan *plan, int n)
{
    struct buf scratch;
    buf_init(&scratch, BENCH_PROMPT_BYTES);
    int words = words_for(en, plan, &scratch, n);
    buf_free(&scratch);
    return words;
}

bool bench_picture(const char *path, struct image_bytes *out, struct buf *b)
{
    char chunk[65536];
    size_t got;
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "bench: cannot open %s; name a picture with --image\n", path);
        return false;
    }
    while ((got = fread(chunk, 1, sizeof chunk, f)) > 0) {
        buf_append(b, chunk, got);
    }
    fclose(f);
    *out = (struct image_bytes){.data = (const uint8_t *)buf_str(b), .n = b->len};
    return !buf_failed(b);
}
