/* What the tests of the decoder share: a model file opened with everything a pass needs,
 * and the golden files of the families. */
#ifndef TAMP_TESTS_DECODER_FIXTURE_H
#define TAMP_TESTS_DECODER_FIXTURE_H

#include "base/threads.h"
#include "model/decoder.h"
#include "tensor/compute.h"
#include "tensor/gguf.h"

struct fixture {
    struct gguf *g;
    struct decoder *d;
    struct pool *pool;
    struct compute compute;
    struct arena rows;    /* rows of the sequences under test */
    struct arena scratch; /* of the passes */
    const struct decoder_info *info;
    bool exact_kv; /* see fixture_exact_kv */
};

void fixture_open(struct fixture *f, const char *path, int n_threads);
void fixture_close(struct fixture *f);

/* Swaps the half-precision kernels for ones that keep what the caches hold in fp32 beside
 * them, so that two computations of the same thing can be compared to 1e-4: otherwise a
 * difference of 1e-6 now and then rounds a key the other way, which is 5e-4 of it. The
 * code under test is the same. */
void fixture_exact_kv(struct fixture *f);

/* A cache for this model, empty; with fixture_exact_kv only these may be used. */
struct kv_cache fixture_kv(const struct fixture *f, const int *cutoffs, int n_cutoffs,
                           int capacity);
void fixture_kv_clear(struct kv_cache *kv);
/* The same lengths, and rows of the same bytes. */
bool fixture_same_kv(const struct kv_cache *a, const struct kv_cache *b);
/* Embedded rows of ids at positions first, first + 1, ... */
struct rows fixture_rows(struct fixture *f, const token_id *ids, int n, int first);
/* One slice in one pass; the test fails when the pass does. */
void fixture_run(struct fixture *f, struct decoder_slice slice);
/* ids[n] in one pass behind what kv holds; logits of all rows or of the last one. */
void fixture_ids(struct fixture *f, struct kv_cache *kv, const token_id *ids, int n, bool all,
                 float *logits);
float *fixture_logits(const struct fixture *f, int n_rows);

/* "tiny/<name>.gguf" of the golden folder with its sequence and llama.cpp's logits. */
struct tiny {
    struct fixture f;
    token_id ids[128]; /* prompt, then greedy tokens */
    int n_prompt, n_greedy;
    float *logits; /* [n_prompt + n_greedy, n_vocab] */
};
extern const char *const tiny_names[]; /* NULL-terminated */

void tiny_open(struct tiny *t, const char *name, int n_threads);
void tiny_close(struct tiny *t);

#endif
