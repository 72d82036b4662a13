/* A prompt as one vector of length 1: the states behind the decoder's last norm, pooled as
 * the model was made for.
 *
 *   mean   over the tokens: a merged row counts for as many as it stands for, so that with
 *          nothing merged this is the plain mean
 *   last   the last row's, which alone has seen everything: decoders that were not made for
 *          embeddings do best with it
 *   cls    the first row's
 * Engine thread only, but for embed_open. */
#include "engine/engine_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* As the number <architecture>.pooling_type in a GGUF file. */
enum pooling { POOLING_NONE, POOLING_MEAN, POOLING_CLS, POOLING_LAST, POOLING_COUNT };

static const char *const names[POOLING_COUNT] = {"none", "mean", "cls", "last"};

static int from_file(const struct gguf *g, int64_t *pooling, struct err *e)
{
    struct gguf_string arch;
    char key[128];
    if (gguf_get_string(g, "general.architecture", &arch, e) != GGUF_FOUND || arch.len > 64) {
        return -1;
    }
    snprintf(key, sizeof key, "%.*s.pooling_type", (int)arch.len, arch.ptr);
    return gguf_get_int(g, key, POOLING_NONE, POOLING_COUNT - 1, pooling, e) < 0 ? -1 : 0;
}

int embed_open(struct engine *en, struct err *e)
{
    int64_t pooling = POOLING_NONE;
    for (int i = POOLING_MEAN; en->params.pooling && i < POOLING_COUNT; i++) {
        pooling = strcmp(names[i], en->params.pooling) == 0 ? i : pooling;
    }
    if (en->params.pooling && pooling == POOLING_NONE) {
        return err_set(e, ERR_INVALID, "pooling must be mean, last or cls, not \"%.32s\"",
                       en->params.pooling);
    }
    if (!en->params.pooling && from_file(en->model_file, &pooling, e)) {
        return -1;
    }
    en->pooling = pooling == POOLING_NONE ? POOLING_LAST : (int)pooling;
    return 0;
}

const char *embed_pooling_name(const struct engine *en)
{
    return names[en->pooling];
}

int embed_begin(struct engine *en, struct job *j, struct err *e)
{
    size_t n = (size_t)en->info.n_embd;
    j->pooled = arena_zalloc(&j->arena, n, sizeof *j->pooled);
    return j->pooled ? 0 : err_no_memory(e, n * sizeof *j->pooled);
}

static void set(double *pooled, const float *row, int n_embd)
{
    for (int c = 0; c < n_embd; c++) {
        pooled[c] = (double)row[c];
    }
}

void embed_add(struct engine *en, struct job *j, const struct rows *rows, const float *states)
{
    int n_embd = en->info.n_embd;
    const float *last = states + (size_t)(rows->n - 1) * (size_t)n_embd;
    if (en->pooling == POOLING_LAST) {
        set(j->pooled, last, n_embd);
        return;
    }
    if (en->pooling == POOLING_CLS) {
        if (!j->pooled_any) {
            set(j->pooled, states, n_embd);
        }
        j->pooled_any = true;
        return;
    }
    for (int i = 0; i < rows->n; i++) {
        const float *row = states + (size_t)i * (size_t)n_embd;
        for (int c = 0; c < n_embd; c++) {
            j->pooled[c] += (double)rows->mass[i] * (double)row[c];
        }
    }
}

/* Dividing by the mass would change the length alone, and that becomes 1. */
int embed_end(struct engine *en, struct job *j, struct err *e)
{
    int n_embd = en->info.n_embd;
    double square = 0;
    float *out = arena_alloc(&j->arena, (size_t)n_embd, sizeof *out);
    if (!out) {
        return err_no_memory(e, (size_t)n_embd * sizeof *out);
    }
    for (int c = 0; c < n_embd; c++) {
        square += j->pooled[c] * j->pooled[c];
    }
    if (!(square > 0)) {
        return err_set(e, ERR_NUMERICAL, "the embedding has no direction: every state is zero");
    }
    for (int c = 0; c < n_embd; c++) {
        out[c] = (float)(j->pooled[c] / sqrt(square));
    }
    j->result.embedding = out;
    return 0;
}
