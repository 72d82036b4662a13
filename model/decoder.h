/* The shared backbone: one decoder for rows, wherever they come from. */
#ifndef TAMP_MODEL_DECODER_H
#define TAMP_MODEL_DECODER_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/compressor.h"
#include "compress/rows.h"
#include "model/kv_cache.h"
#include "model/lora.h"
#include "model/tokenizer.h"
#include "tensor/compute.h"
#include "tensor/gguf.h"

struct decoder;

struct decoder_info {
    const char *family; /* "llama", "qwen2", ... */
    const char *name;   /* general.name */
    int n_layer, n_embd, n_head, n_head_kv, head_dim, n_vocab;
    int n_ctx_train;
    size_t weight_bytes;
};

/* The mapping stays the caller's and must outlive the decoder. */
struct decoder *decoder_open(const struct gguf *g, struct err *e);
void decoder_close(struct decoder *d);
/* Make the int8 copies of all matrices (weights_pack): several times faster, activations
 * rounded to 8 bits. Before the first pass, by one thread. */
int decoder_pack(struct decoder *d, const struct compute *c, struct err *e);
const struct decoder_info *decoder_info(const struct decoder *d);
/* A row of an answer has the bits that it has alone, whatever else is in its pass. Whether
 * the same is true of a prompt's rows; if not (weights that are not packed go through BLAS),
 * they depend on where the prompt is cut and on other prompts in the pass. */
bool decoder_rows_independent(const struct decoder *d);
struct kv_shape decoder_kv_shape(const struct decoder *d);

/* Token ids -> x [n, n_embd], embedding scale of the family applied. Pictures' rows are
 * not scaled (as llama.cpp does). Every id must be in [0, n_vocab). */
void decoder_embed(const struct decoder *d, const token_id *ids, int n, float *x,
                   const struct compute *c);

/* Looks at the queries and keys of one slice in each block of a pass, before they are used:
 * q [n, n_head * head_dim] with RoPE applied; the last of them sees n_keys rows of kv, each
 * one before it one fewer. */
struct attention_shape;
struct decoder_tap {
    void (*see)(void *ctx, int layer, const struct attention_shape *shape, const float *q, int n,
                const struct kv_group *kv, int n_keys);
    void *ctx;
};

/* A slice of one sequence in a pass: rows that continue it. */
struct decoder_slice {
    struct kv_cache *kv; /* gets the new rows appended; its groups' lengths grow */
    struct rows *rows;   /* consumed: x is overwritten layer by layer, n may shrink at a hook */
    const struct stage_hook *hook; /* lm-layer stage; may be NULL. it may merge rows only
                                      after the cutoffs the kv cache was made for */
    const struct decoder_tap *tap; /* may be NULL */
    const struct lora_mix *lora;   /* adapters of these rows; NULL: the model as it is */
    bool is_prompt;                /* rows of a prompt, else of an answer: which arithmetic they
                                      go through (compute.bulk) depends on this alone */
    bool use_log_mass;             /* add log(mass) of each key row to the attention logits, */
    int log_mass_from;             /* in this block and those behind it */
    bool all_logits;               /* logits of every row that is left; else of the last row only */
    float *logits;                 /* out: [1 or rows left, n_vocab], or NULL = none wanted */
    float *states;                 /* out: [rows left, n_embd] what the logits of a row are made of,
                                      behind the last norm; NULL = not wanted */
};

/* One pass: all slices' rows go through the linear layers together, attention runs
 * per slice. Slices of answers come before those of prompts. On failure the kv caches are as
 * before. ERR_NUMERICAL when logits are not finite. Positions: rows->position; the caller sets
 * kv->n_positions. */
int decoder_run(const struct decoder *d, struct decoder_slice *slices, int n_slices,
                const struct compute *c, struct arena *scratch, struct err *e);

/* The same through blocks [first, end) alone, a whole number of the kv caches' groups. Rows
 * come as block first - 1 left them. Before the last block there are no logits: each
 * slice's rows->x gets what block end - 1 leaves. */
int decoder_run_blocks(const struct decoder *d, int first, int end, struct decoder_slice *slices,
                       int n_slices, const struct compute *c, struct arena *scratch, struct err *e);

#endif
