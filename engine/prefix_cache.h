/* Keys and values of beginnings of prompts that were computed before.
 *
 * A tree: a path from the top is a beginning of a prompt, a node one of its chunks
 * (engine/chunk.h). A node knows everything that the rows of its chunk came from, and
 * looking up compares all of it, never a hash alone:
 *
 *   scope     who asks: a hit is faster than a miss, so one API key must not see what
 *             another left. Nodes of different scopes are in different trees, but that a static
 *             prefix of the operator's (plan.static_prefix) has a scope of its own, and what
 *             each key put behind it hangs there, for that key alone
 *   adapters  which LoRA with which scales
 *   way       through all blocks, or up to where rows are chosen by the question
 *   plan      what merges inside the decoder, as resolved for the prompt at hand. Rows
 *             merged at a cutoff layer are as good as any other: a chunk closes their
 *             groups, and a node has the length of each layer group
 *   text      for each row the tokens it stands for, where it stands, its flags where
 *             these matter, and a checksum of its vector when it stands for several
 *   pictures  the SHA-256 of pixels, tower and plan (image_rows_key), and which of its rows
 *
 * How many rows a picture has is not known before it went through the tower; the nodes
 * know, so a prompt is followed through its pictures without touching them.
 *
 * Nodes of a static prefix are given up last.
 *
 * A node holds the blocks of its rows (model/kv_block.h); it needs no memory for keys and
 * values beyond those that were computed. Engine thread only. */
#ifndef TAMP_ENGINE_PREFIX_CACHE_H
#define TAMP_ENGINE_PREFIX_CACHE_H

#include "compress/plan.h"
#include "compress/report.h"
#include "compress/rows.h"
#include "engine/image_cache.h"
#include "model/kv_cache.h"
#include "model/lora.h"
#include "model/tokenizer.h"

#define PREFIX_SCOPE_BYTES 32

struct prefix_key {
    uint8_t scope[PREFIX_SCOPE_BYTES];
    bool is_operators; /* the static prefix: not `scope`'s but the operator's */
    struct lora_mix lora;
    int last_block; /* that rows went through when they may be chosen behind it, whatever
                       chooses; -1: all of them */
    int n_embd;
    struct plan_step lm; /* resolved; `off` when nothing merges there */
    bool log_mass;       /* as in decoder_slice.use_log_mass */
    int log_mass_from;
};

struct prefix_picture {
    uint8_t key[IMAGE_KEY_BYTES];
    int n_rows, n_source; /* 0 until it is encoded or found */
    struct report report; /* the reasons of the stages that did not act */
};

/* A row of text, or a picture. */
struct prefix_piece {
    struct prefix_picture *picture; /* NULL: text */
    int first, n;                   /* inside a node: which rows of the picture */
    const token_id *ids;            /* [n_ids] what the row of text stands for */
    int n_ids;
    uint8_t flags;   /* enum row_flag: of the row, or of a picture's first row */
    float position;  /* counted from the start of its run */
    uint64_t vector; /* checksum of a merged row */
};

/* One chunk as it went through the decoder. */
struct prefix_chunk {
    int n_rows;             /* of the sequence, before merging inside the decoder */
    int end[KV_MAX_GROUPS]; /* rows in each layer group of the cache behind it */
    struct report report;   /* of the lm slot: rows in and out, reasons */
    const float *states;    /* [n_rows, n_embd] behind key.last_block, or NULL. What was found
                               is valid until the cache is used again */
};

struct prefix_cache;

/* max_bytes: what nodes and the blocks they hold may take. The pool must outlive the cache,
 * which becomes the one that makes room in it. */
struct prefix_cache *prefix_cache_new(struct kv_pool *pool, size_t max_bytes, struct err *e);
void prefix_cache_free(struct prefix_cache *c); /* NULL is fine */

/* The longest kept beginning of the prompt that leaves at least its last row: its rows
 * enter kv, which is empty, its chunks go to chunks[max], and pictures on its way get
 * their sizes and reasons. Returns the number of chunks; a lack of memory is a miss. */
int prefix_cache_find(struct prefix_cache *c, const struct prefix_key *key,
                      const struct prefix_piece *pieces, int n_pieces, struct kv_cache *kv,
                      struct prefix_chunk *chunks, int max);

/* Keep the chunks of a prompt whose rows are in kv, all pictures being known; those that
 * are there already are used again. Gives up what was not used for longest. When several
 * scopes share the cache, one that has more than its share gives up its own first. */
void prefix_cache_put(struct prefix_cache *c, const struct prefix_key *key,
                      const struct prefix_piece *pieces, int n_pieces, const struct kv_cache *kv,
                      const struct prefix_chunk *chunks, int n_chunks);

size_t prefix_cache_bytes(const struct prefix_cache *c); /* taken now; NULL = 0 */

#endif
