#include "engine/heads.h"

#include "base/alloc.h"
#include "model/attention_share.h"

#include <math.h>
#include <string.h>

/* The first sentence takes the attention that beginnings draw; it is not looked at. */
static const char *const sentences[] = {
    "Welcome to the town library, dear reader.",
    " The reading room on the first floor opens at nine.",
    " A lost membership card is replaced for six euros.",
    " The old maps are kept in the cellar.",
    " Children under twelve pay nothing.",
    " Mrs. Tanner looks after the newspapers.",
    " Novels may be borrowed for four weeks.",
    " The next book sale takes place in November.",
    " Coffee is served in the garden behind the house.",
    " Films must be brought back after three days.",
    " The copy machine stands beside the stairs.",
    " A late book costs twenty cents a day.",
    " The chess club meets every Thursday.",
    " Mr. Ferris repairs damaged bindings.",
    " Laptops can be charged at the round tables.",
    " The piano was a gift from the mayor.",
};
#define N_SENTENCES ((int)(sizeof sentences / sizeof *sentences))

static const struct {
    int sentence;
    const char *text;
} questions[] = {
    {1, "\nQuestion: When does the reading room open?\nAnswer:"},
    {2, "\nQuestion: How much does a new membership card cost if I lost mine?\nAnswer:"},
    {3, "\nQuestion: Where are the old maps?\nAnswer:"},
    {5, "\nQuestion: Who looks after the newspapers?\nAnswer:"},
    {6, "\nQuestion: For how long may I borrow novels?\nAnswer:"},
    {7, "\nQuestion: In which month is the next book sale?\nAnswer:"},
    {9, "\nQuestion: After how many days must I bring back films?\nAnswer:"},
    {11, "\nQuestion: What do I pay when a book is late?\nAnswer:"},
    {12, "\nQuestion: On which day does the chess club meet?\nAnswer:"},
    {13, "\nQuestion: Who repairs damaged bindings?\nAnswer:"},
};
#define N_QUESTIONS ((int)(sizeof questions / sizeof *questions))
#define MOST_ROWS   512

struct asking {
    struct lookup_heads *h;
    int first[N_SENTENCES + 1]; /* rows of the sentences */
    int sentence;               /* that answers */
    float *share;               /* [MOST_ROWS] */
    struct arena *scratch;
    bool no_memory;
};

/* Standard deviations by which the right sentence's mean share is above all sentences'. */
static float standing_out(const struct asking *a)
{
    double mean[N_SENTENCES];
    double sum = 0;
    double squares = 0;
    int n = N_SENTENCES - 1;
    for (int s = 1; s < N_SENTENCES; s++) {
        mean[s] = 0;
        for (int i = a->first[s]; i < a->first[s + 1]; i++) {
            mean[s] += (double)a->share[i] / (a->first[s + 1] - a->first[s]);
        }
        sum += mean[s];
        squares += mean[s] * mean[s];
    }
    double variance = squares / n - sum / n * (sum / n);
    return variance > 0 ? (float)((mean[a->sentence] - sum / n) / sqrt(variance)) : 0;
}

static void see(void *ctx, int layer, const struct attention_shape *shape, const float *q, int n,
                const struct kv_group *kv, int n_keys)
{
    struct asking *a = ctx;
    for (int head = 0; head < shape->n_head && !a->no_memory; head++) {
        struct err no_memory = ERR_INIT;
        memset(a->share, 0, (size_t)n_keys * sizeof *a->share);
        a->no_memory |= attention_share(shape, q, n, kv, layer, head, n_keys, a->share, a->scratch,
                                        &no_memory) != 0;
        a->h->score[layer * shape->n_head + head] += standing_out(a) / N_QUESTIONS;
    }
}

/* The tokens of one text behind what ids holds already; 0 or -1. */
static int append(const struct tokenizer *t, const char *text, struct arena *scratch, token_id *ids,
                  int *n, struct err *e)
{
    struct token *tokens = NULL;
    int count = 0;
    if (tokenizer_encode(t, text, strlen(text), NULL, 0, false, scratch, &tokens, &count, e)) {
        return -1;
    }
    for (int i = 0; i < count && *n < MOST_ROWS; i++) {
        ids[(*n)++] = tokens[i].id;
    }
    return 0;
}

struct session {
    const struct decoder *d;
    const struct tokenizer *t;
    const struct compute *c;
    struct arena *scratch;
    struct kv_cache kv;
};

/* ids [n] behind what the cache holds. */
static int run(struct session *s, const token_id *ids, int n, const struct decoder_tap *tap,
               struct err *e)
{
    struct rows rows;
    int n_embd = decoder_info(s->d)->n_embd;
    if (rows_init(&rows, s->scratch, n, n_embd, ROW_TEXT, (float)s->kv.group[0].n, e)) {
        return -1;
    }
    decoder_embed(s->d, ids, n, rows.x, s->c);
    struct decoder_slice slice = {.kv = &s->kv, .rows = &rows, .tap = tap, .is_prompt = true};
    return decoder_run(s->d, &slice, 1, s->c, s->scratch, e);
}

static int ask(struct session *s, struct asking *a, int question, token_id *ids, struct err *e)
{
    const struct decoder_tap tap = {see, a};
    struct arena_mark mark = arena_mark(s->scratch);
    int n_text = s->kv.group[0].n;
    int n = 0;
    a->sentence = questions[question].sentence;
    if (append(s->t, questions[question].text, s->scratch, ids, &n, e)) {
        return -1;
    }
    if (n_text + n <= s->kv.group[0].capacity && run(s, ids, n, &tap, e)) {
        return -1;
    }
    s->kv.group[0].n = n_text;
    arena_rewind(s->scratch, mark);
    return 0;
}

static int ask_all(struct session *s, struct asking *a, int n_ctx, struct err *e)
{
    const struct kv_shape shape = decoder_kv_shape(s->d);
    int n = 0;
    int capacity = n_ctx < MOST_ROWS ? n_ctx : MOST_ROWS;
    token_id *ids = arena_alloc(s->scratch, MOST_ROWS, sizeof *ids);
    a->share = arena_alloc(s->scratch, MOST_ROWS, sizeof *a->share);
    if (!ids || !a->share) {
        return err_no_memory(e, MOST_ROWS * sizeof *ids);
    }
    if (tokenizer_add_bos(s->t) && tokenizer_bos(s->t) >= 0) {
        ids[n++] = tokenizer_bos(s->t);
    }
    for (int i = 0; i < N_SENTENCES; i++) {
        a->first[i] = n;
        if (append(s->t, sentences[i], s->scratch, ids, &n, e)) {
            return -1;
        }
    }
    a->first[N_SENTENCES] = n;
    if (n >= capacity) {
        return 0;
    }
    if (kv_init(&s->kv, &shape, NULL, 0, capacity, e) || run(s, ids, n, NULL, e)) {
        return -1;
    }
    for (int q = 0; q < N_QUESTIONS; q++) {
        if (ask(s, a, q, ids, e)) {
            return -1;
        }
    }
    return a->no_memory ? err_set(e, ERR_NO_MEMORY, "no scratch memory for attention") : 0;
}

int heads_measure(struct lookup_heads *h, const struct decoder *d, const struct tokenizer *t,
                  int n_ctx, const struct compute *c, struct arena *scratch, struct err *e)
{
    const struct decoder_info *info = decoder_info(d);
    size_t n = (size_t)info->n_layer * (size_t)info->n_head;
    *h = (struct lookup_heads){.n_layer = info->n_layer, .n_head = info->n_head};
    h->score = mem_zalloc(n, sizeof *h->score);
    if (!h->score) {
        return err_no_memory(e, n * sizeof *h->score);
    }
    struct session s = {.d = d, .t = t, .c = c, .scratch = scratch};
    struct asking a = {.h = h, .scratch = scratch};
    struct arena_mark mark = arena_mark(scratch);
    int rc = ask_all(&s, &a, n_ctx, e);
    kv_clear(&s.kv);
    arena_rewind(scratch, mark);
    if (rc) {
        heads_clear(h);
    }
    return rc;
}

void heads_clear(struct lookup_heads *h)
{
    mem_free(h->score);
    *h = (struct lookup_heads){0};
}

int heads_best(const struct lookup_heads *h, int first, int last, int most, struct lookup_head *out)
{
    int n = 0;
    for (int i = h->n_head * first;
         h->score && i < h->n_head * (last + 1) && i < h->n_head * h->n_layer; i++) {
        float weight = h->score[i] > 0 ? h->score[i] * h->score[i] : 0;
        int at = n < most ? n : most;
        while (at > 0 && out[at - 1].weight < weight) {
            at--;
        }
        if (weight <= 0 || at == most) {
            continue;
        }
        n = n < most ? n + 1 : most;
        memmove(out + at + 1, out + at, (size_t)(n - 1 - at) * sizeof *out);
        out[at] = (struct lookup_head){i / h->n_head, i % h->n_head, weight};
    }
    return n;
}
