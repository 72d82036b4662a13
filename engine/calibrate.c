/* The first forward pass of a model: over a text of our own that reads like a shop's
 * prompt. It proves that the file is whole and computes before /health says ready, and
 * it measures how alike neighbouring rows are at every layer (compression.md section 6:
 * a threshold means something only for one model and one layer). */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "tensor/ops.h"

#include <string.h>

static const char calibration_text[] =
    "Returns and exchanges. You may return any unworn item within thirty days of delivery. "
    "Shoes must come back in their box, and the box must not carry a shipping label. We refund "
    "the price of the item to the card that was used for the order, usually within five working "
    "days after the parcel has reached our warehouse. Shipping costs are refunded only when the "
    "item was damaged or when we sent the wrong one. Gift cards, underwear and opened cosmetics "
    "cannot be returned.\n\n"
    "Customer: Hello, I ordered a blue rain jacket last week and it still has not arrived. The "
    "tracking page says that it left the depot, but nothing has changed since then. Could you "
    "please check where it is? I need it before the weekend, because we are going hiking.\n"
    "Assistant: I am sorry for the delay. I have looked at your parcel and it is with the "
    "carrier in your town. It should be delivered tomorrow before noon. If it does not arrive, "
    "please write to us again and we will send a new jacket by express, free of charge.\n"
    "Customer: Thank you. One more question: the photo shows a hood, but the description says "
    "nothing about it. Does this model have a hood, and can it be taken off?\n";

struct measuring {
    struct calibration *calibration;
    float *cosines; /* [n rows] */
};

static bool measure_everywhere(void *ctx, int layer)
{
    (void)ctx;
    (void)layer;
    return true;
}

/* The first row is left out: as an attention sink it is unlike everything. */
static void measure_layer(struct measuring *m, int layer, const struct rows *rows)
{
    for (int i = 2; i < rows->n; i++) {
        const float *x = rows->x + (size_t)i * (size_t)rows->n_embd;
        m->cosines[i - 2] = op_cosine(x - rows->n_embd, x, rows->n_embd);
    }
    calibration_set(m->calibration, layer, m->cosines, rows->n > 2 ? rows->n - 2 : 0);
}

static int measure(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
                   int n_metric, struct err *e)
{
    (void)n_layer;
    (void)metric;
    (void)n_metric;
    (void)e;
    measure_layer(ctx, layer, rows);
    return 0;
}

static int run_text(struct engine *en, struct kv_cache *kv, struct err *e)
{
    struct arena *a = &en->scratch;
    struct token *tokens = NULL;
    int n = 0;
    if (tokenizer_encode(en->tokenizer, calibration_text, strlen(calibration_text), NULL, 0, true,
                         a, &tokens, &n, e)) {
        return -1;
    }
    n = n < en->info.n_ctx ? n : en->info.n_ctx;
    struct rows rows;
    token_id *ids = arena_alloc(a, (size_t)n, sizeof *ids);
    float *logits = arena_alloc(a, (size_t)en->info.n_vocab, sizeof *logits);
    struct measuring m = {&en->calibration, arena_alloc(a, (size_t)n, sizeof(float))};
    if (!ids || !logits || !m.cosines) {
        return err_no_memory(e, (size_t)en->info.n_vocab * sizeof *logits);
    }
    for (int i = 0; i < n; i++) {
        ids[i] = tokens[i].id;
    }
    struct kv_shape shape = decoder_kv_shape(en->decoder);
    if (rows_init(&rows, a, n, en->info.n_embd, ROW_TEXT, 0, e) ||
        kv_init(kv, &shape, NULL, 0, n, e)) {
        return -1;
    }
    decoder_embed(en->decoder, ids, n, rows.x, &en->compute);
    measure_layer(&m, -1, &rows);
    struct stage_hook hook = {measure_everywhere, measure, &m};
    struct decoder_slice slice = {
        .kv = kv, .rows = &rows, .hook = &hook, .is_prompt = true, .logits = logits};
    double begin = clock_ms();
    if (decoder_run(en->decoder, &slice, 1, &en->compute, a, e)) {
        return -1;
    }
    pace_add(&en->first_pass, n, clock_ms() - begin);
    return 0;
}

int engine_calibrate(struct engine *en, struct err *e)
{
    if (calibration_init(&en->calibration, en->info.n_layer, e)) {
        return -1;
    }
    struct kv_cache kv = {0};
    struct arena_mark mark = arena_mark(&en->scratch);
    int rc = run_text(en, &kv, e);
    kv_clear(&kv);
    arena_rewind(&en->scratch, mark);
    return rc ? err_prefix(e, "first pass through %s", en->params.model_path) : 0;
}
