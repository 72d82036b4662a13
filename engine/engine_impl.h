/* Inside the engine: what engine.c, job.c, prepare.c, pictures.c, pipeline.c, batch.c and
 * step.c share.
 *
 * Locks, in the order in which they may be taken: engine.lock (queue, set of running
 * jobs, counters) -> job.lock (its events). job.notify_lock is taken alone.
 * Everything under "engine thread only" needs no lock. */
#ifndef TAMP_ENGINE_ENGINE_IMPL_H
#define TAMP_ENGINE_ENGINE_IMPL_H

#include "compress/calibration.h"
#include "engine/answer.h"
#include "engine/engine.h"
#include "engine/fair.h"
#include "engine/heads.h"
#include "engine/image_cache.h"
#include "engine/lookup.h"
#include "engine/pace.h"
#include "engine/prefix_cache.h"
#include "engine/rollout.h"
#include "grammar/token_mask.h"
#include "model/chat_template.h"
#include "model/decoder.h"
#include "model/sampler.h"
#include "model/tokenizer.h"
#include "vision/vision.h"

#include <pthread.h>
#include <stdatomic.h>

#define ENGINE_MAX_PARALLEL 64
#define JOB_ARENA_BYTES     ((size_t)1 << 30)
#define SCRATCH_ARENA_BYTES ((size_t)4 << 30)

/* What of a message's text a token stands for; message < 0: the template wrote it. */
struct prompt_words {
    const char *text;
    size_t len;
    int message, part;
};

/* A stretch of one modality inside a prompt. */
struct prompt_run {
    enum row_kind kind;
    token_id *ids;  /* [n] text */
    uint8_t *flags; /* [n] enum row_flag, text */
    int n;
    const struct prompt_words *words; /* [n] of a preview, else NULL */
    int image;                        /* index into prompt.images */
    struct rows rows;                 /* text, after pipeline_text */
};

struct prompt_image {
    struct plan_step planned; /* `step` is what the attempt under way does */
    float *pixels;            /* preprocessed, at the size that is encoded */
    float *whole;             /* the same at full size; NULL: it is not needed */
    float *small;             /* the same at small_side patches a side; NULL: not planned */
    int small_side;
    uint8_t plain_key[IMAGE_KEY_BYTES]; /* of its rows at full size, when a cache may be used */
    struct rows full; /* the rows behind the tower, before any merge, when another attempt may
                         follow; n == 0: not known yet */
    uint8_t *protect; /* [rows of the grid] cells that must not merge, or NULL */
    int n_protected;
    uint64_t *digest;             /* [rows of the grid], for methods that compare cells */
    int n_side;                   /* patches a side of a smaller picture, 0 = full size */
    struct rows grid;             /* then: which of its cells stand for which of the full grid */
    struct report grid_report;    /* and what that step said */
    uint8_t key[IMAGE_KEY_BYTES]; /* when a cache may be used */
    struct plan_step step;
    int width, height;          /* of the file */
    bool in_prefix;             /* its keys and values are there: it is not encoded */
    bool looked_up;             /* in the image cache: counted once */
    bool has_rows;              /* `rows` is what the tower made, now or for an earlier request */
    struct report layers;       /* times and reasons of the stages so far; its
                                   mean_rows_per_layer is over the tower's blocks */
    struct prefix_picture info; /* what the prefix cache must know of it */
    struct rows rows;           /* after the tower, and what merges behind it */
};

/* What job_prepare makes: everything the engine thread needs, in the job's arena. */
struct prompt {
    struct prompt_run *runs;
    int n_runs;
    struct prompt_image *images;
    int n_images;
    int text_rows;  /* before any merge */
    int image_rows; /* before any merge */
    int rows_bound; /* at most so many rows enter the decoder */
};

/* attempt.c: how often this prompt is run. */
struct attempt {
    int rung, n_rungs; /* of a cascade; 0 of 1 without */
    bool plain;        /* nothing is merged */
    bool looked;       /* the answer's first tokens are judged, and `seen` says how they were: */
    struct guard_signal seen; /* the least margin, the most entropy */
    struct report prepared;   /* what job_prepare said: every attempt begins with it */
    struct arena_mark begin;  /* of job.arena: what lies behind it belongs to the attempt */
    struct arena kept;        /* what the next attempt needs of this one */
    double layer_rows;        /* rows times layers of the attempts before */
    int n_discarded;          /* tokens of theirs that nobody saw */
};

/* Choosing: the lower blocks run on all of the prompt, before some of its rows go on. Seen:
 * a preview has all that it is for. */
enum job_state { JOB_ENCODING, JOB_CHOOSING, JOB_PREFILL, JOB_DECODE, JOB_SEEN };

struct event_node;
_Static_assert(ENGINE_MAX_LORAS <= LORA_MAX, "a mix may have all adapters");

/* adapters.c */
int adapters_open(struct engine *en, struct err *e); /* after open_model and the kernels */
void adapters_close(struct engine *en);
/* What a request uses; any thread. */
void adapters_mix(struct engine *en, const struct engine_request *r, struct lora_mix *mix);

/* job.c */

/* First tokens of a served answer that its shadow looks at, and requests that wait for one. */
#define SHADOW_TOKENS  32
#define SHADOW_PENDING 2

struct job {
    struct engine *engine;
    atomic_int n_refs; /* the caller's, and the engine's from submit to finish */
    atomic_bool cancelled;
    char id[64];
    struct arena arena;
    struct prompt prompt;
    struct plan asked; /* by the request; `plan` is what the attempt under way does */
    struct plan plan;
    enum job_purpose purpose;
    bool overlay;                     /* pictures of the groups are wanted */
    struct picture_overlay *overlays; /* [n_images] then; result.n_overlays are done */
    struct generation_params gen;     /* deep copy in the arena */
    struct lora_mix lora;             /* adapters of all its rows */
    uint8_t scope[ENGINE_SCOPE_BYTES];
    bool cache_prompt;

    unsigned long long rollout_id; /* plan_id, when the plan is followed */
    enum rollout_level level;
    bool is_sampled; /* a shadow is wanted */
    bool is_shadow;  /* this is one: it stops for everybody */
    struct {
        token_id token, likely; /* what was sent, what the logits liked most */
    } tape[SHADOW_TOKENS];      /* [n_tape] of the answer, when is_sampled */
    int n_tape;
    float *tape_logits; /* [n_vocab] of the first token */

    /* under engine.lock */
    struct job *next; /* queue */
    bool submitted, queued;
    int turn;      /* number of its key in engine.turns, once submitted */
    int n_charged; /* tokens of the answer that the key was charged for */

    /* engine thread only, from admission to finish */
    struct attempt attempt;
    enum job_state state;
    struct kv_cache kv;
    bool has_kv;
    struct prefix_piece *pieces; /* [n_pieces] the prompt as the prefix cache sees it */
    int n_pieces;
    struct prefix_chunk *chunks; /* [n_chunks] done: found or run */
    int n_chunks, max_chunks;
    struct report chunk_report; /* of the lm slot, in the pass under way */
    const char *text_skipped;   /* why its text stays as it is although the plan merges it */
    bool leaves_nothing;        /* a stage had no memory: another time the rows would differ */
    struct rows sequence;       /* the prompt as the decoder gets it */
    int n_rows_found;           /* rows of `sequence` that the prefix cache had */
    float *states_found;        /* [n_rows_found, n_embd] behind the first cutoff; NULL: nothing
                                   is chosen there */
    int n_rows_done;            /* rows of `sequence` whose keys and values are there */
    int n_chunk_rows;           /* of these, in a chunk that has not ended */
    int prompt_turn;            /* number of its key in engine.prompt_turns */
    bool wants_prompt_turn;
    bool merges_inside;      /* the decoder: chunk by chunk or all at once, so none may be cut */
    bool whole_chunks;       /* bits depend on where the prompt is cut: only where chunks end */
    double *pooled;          /* [n_embd] embed.c: the rows so far, */
    bool pooled_any;         /* if there are any */
    struct preview *preview; /* preview.c; NULL: not one, or not begun */
    struct chooser *chooser; /* choose.c; NULL: nothing acts on the whole prompt */
    int first_block;         /* where the rows of `sequence` enter the decoder */
    bool log_mass;           /* attention counts rows for as many as they stand for, */
    int log_mass_from;       /* from this block on */
    int prompt_group_rows[KV_MAX_GROUPS];
    int max_new; /* tokens that each choice may have */
    struct sampler *sampler;
    struct constraint *constraint; /* arena; NULL: no grammar, or not begun */
    struct token_masks *masks;     /* of the grammar, as long as the job runs */
    float *logits;                 /* [n_vocab] of the last row */
    float *first_logits;           /* [n_vocab] after the prompt; kept when n_choices > 1 */
    token_id next_token;
    int choice;
    int n_generated; /* of this choice */
    struct answer answer;
    struct lookup lookup; /* capacity 0: this job does not speculate */
    int n_lookup_prompt;  /* its length after the prompt */
    double submitted_ms, admitted_ms, first_token_at_ms;

    /* under job.lock */
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct event_node *events_head, *events_tail;
    struct event_node *held_head, *held_tail; /* engine thread: not in the list yet */
    bool holds;                               /* engine thread: events go there */
    bool ended;                               /* END or ERROR was pushed */
    struct job_result result;
    struct err error;

    struct event_node *current; /* caller's thread: what job_next handed out last */

    pthread_mutex_t notify_lock;
    void (*notify)(void *ctx);
    void *notify_ctx;
};

struct shadow {
    atomic_uint drawn; /* millionths of requests drawn so far, round the clock */
    struct job *pending[SHADOW_PENDING];
    int n_pending;
    struct job *served, *job;   /* under way: the request and its shadow */
    struct engine_shadow stats; /* under engine.lock */
};

struct engine {
    struct engine_params params;
    struct engine_info info;
    char *owned_strings[8];
    struct gguf *model_file;
    struct decoder *decoder;
    struct lora *loras[ENGINE_MAX_LORAS];             /* [n_loras] */
    struct engine_lora lora_params[ENGINE_MAX_LORAS]; /* scales: under engine.lock */
    int n_loras;
    struct tokenizer *tokenizer;
    const struct chat_template *chat_template;
    struct vision *vision; /* NULL = text only */
    struct compute compute;
    struct calibration calibration;
    struct lookup_heads heads;
    struct arena scratch; /* engine thread only: one pass */
    struct vocabulary *vocabulary;
    struct mask_cache *mask_cache;            /* engine thread only */
    struct image_cache *image_cache;          /* engine thread only; NULL = none */
    struct kv_pool kv_pool;                   /* engine thread only */
    struct prefix_cache *prefix_cache;        /* the same; NULL = none */
    struct fair prompt_turns;                 /* the same: of jobs before their first token */
    struct pace pace;                         /* the same */
    struct pace first_pass;                   /* the one of engine_open: until there are others */
    int pooling;                              /* enum pooling of embed.c */
    double tower_ms_per_row;                  /* engine thread only; 0: nothing was encoded yet */
    struct shadow shadow;                     /* the same, but for what it says */
    struct rollout rollout;                   /* any thread */
    double cascade_rows_in, cascade_rows_out; /* the same: of cascades that answered */
    struct engine_passes passes;              /* the same; stats have a copy */

    pthread_t worker;
    bool worker_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *queue_head, *queue_tail;
    struct fair turns; /* of those that wait */
    int n_waiting;
    struct job *running[ENGINE_MAX_PARALLEL];
    int n_running;
    bool accepting, stopping;
    double mean_service_ms; /* of finished jobs, smoothed: for Retry-After */
    uint64_t n_done, n_cancelled, n_failed, n_displaced;
    uint64_t n_picture_passes, n_pictures_encoded;
    size_t kv_used_bytes, kv_total_bytes, image_cache_bytes, prefix_cache_bytes;
    struct engine_passes passes_seen;
    atomic_ullong last_step_ns;
};

/* job.c */
struct job *job_new(struct engine *en, struct err *e);
void job_unref(struct job *j);
/* Push an event and wake the caller. text is copied. -1: out of memory. */
int job_push(struct job *j, enum job_event_type type, int choice, const char *text, size_t len,
             const struct token_info *tokens, int n_tokens, enum job_finish finish);
void job_push_progress(struct job *j, int done, int total);
/* Events that job_push held back (job.holds): into the list, or away. */
void job_release_held(struct job *j);
void job_drop_held(struct job *j);
/* The last event: END with the result, or ERROR. Never fails (uses a reserved node). */
void job_push_end(struct job *j, const struct err *error);

/* queue.c, under engine.lock */
/* A request that waits beside a free slot is on its way into it and takes no place. */
bool queue_is_full(const struct engine *en);
/* Who has to leave a full queue for a request of this scope: the newest of the key that waits
 * with the most. NULL: nobody, the request itself is refused. */
struct job *queue_to_displace(const struct engine *en, const uint8_t *scope);
void queue_add(struct engine *en, struct job *j);
void queue_remove(struct engine *en, struct job *j); /* one that waits and will not run */
/* The next one to run, out of the queue and charged for its prompt; NULL: none waits. */
struct job *queue_take(struct engine *en);
void queue_charge_answers(struct engine *en); /* what running answers got */
void queue_job_ended(struct engine *en, struct job *j);

/* What the tower makes depends on it. */
static inline bool step_in_tower(const struct plan_step *step)
{
    return step->method != compressors[0] && step->stage <= STAGE_VIT_LAYER;
}

static inline bool job_uses_image_cache(const struct job *j)
{
    return j->cache_prompt && j->engine->image_cache;
}

static inline bool job_uses_prefix_cache(const struct job *j)
{
    return j->cache_prompt && j->engine->prefix_cache && j->purpose == JOB_ANSWER;
}

/* Whether its rows enter and leave the decoder at blocks of their own: in no other's pass. */
static inline bool job_goes_alone(const struct job *j)
{
    return j->chooser || j->purpose == JOB_PREVIEW;
}

/* pipeline.c, engine thread */
/* All text of the prompt as rows, merged as planned. */
int pipeline_text(struct engine *en, struct job *j, struct err *e);
int pipeline_assemble(struct engine *en, struct job *j, struct err *e);
/* How long the chunk is in which the next row lies. */
int pipeline_chunk_rows(const struct job *j);
/* The next n rows of the prompt as rows of their own; memory from `a`. */
int pipeline_next_rows(struct job *j, int n, struct arena *a, struct rows *chunk, struct err *e);
/* They have been merged by their own method: inside the decoder they stay as they are. */
void pipeline_protect_pictures(struct rows *rows);
/* One of these steps, the `first` of its rows or a later one, reported to the job. */
int pipeline_lm_apply(struct job *j, const struct plan_step *step, bool first, int layer,
                      struct rows *rows, const float *metric, int n_metric, struct err *e);
/* The lm-layer hook of this job; ctx memory from `a`. hook->run == NULL: nothing to do. */
int pipeline_lm_hook(struct engine *en, struct job *j, struct arena *a, struct stage_hook *hook,
                     struct err *e);
/* What is done inside the decoder (plan_lm_steps), and after which blocks: ascending. Returns
 * how many there are. skipped may be NULL. */
int pipeline_lm_steps(const struct engine *en, const struct job *j,
                      struct plan_step steps[PLAN_MAX_LM_STEPS], int cutoffs[PLAN_MAX_LM_STEPS],
                      const char **skipped);

/* The reasons of a part become the job's. */
void job_take_skips(struct job *j, const struct report *from);

/* choose.c, engine thread. Sets j->chooser when the plan's method for the lm slot acts on
 * whole prompts. */
int choose_begin(struct engine *en, struct job *j, struct err *e);
/* JOB_CHOOSING: the next chunk through the blocks before the next choice; after the last chunk
 * and choice `sequence` is what goes on, and the job's state JOB_PREFILL. */
int choose_step(struct engine *en, struct job *j, struct err *e);

/* raw_prompt.c: a prompt that is no chat. For PROMPT_TOKENS: what the ids read like as a chat
 * of one text, and its tokens; *chat and *tokens from the job's arena. */
int raw_prompt_chat(struct job *j, const struct engine_request *r, struct chat *chat,
                    struct token **tokens, struct err *e);
/* The one piece of a prompt of one text: nothing in it is the template's. plain: special
 * tokens are not looked for. */
int raw_prompt_piece(struct job *j, const struct chat *chat, bool plain,
                     struct prompt_piece **piece, struct err *e);

/* embed.c. How rows become one vector; from the parameters and the file. */
int embed_open(struct engine *en, struct err *e);
const char *embed_pooling_name(const struct engine *en);
/* Engine thread. When the sequence is assembled. */
int embed_begin(struct engine *en, struct job *j, struct err *e);
/* The rows of a pass and what the decoder made of each; states [rows->n, n_embd]. */
void embed_add(struct engine *en, struct job *j, const struct rows *rows, const float *states);
/* After the last of them: the vector is the job's result. -1: the rows cancel out. */
int embed_end(struct engine *en, struct job *j, struct err *e);

/* preview.c. Caller's thread: run->words of the last n tokens of a run, which are those of
 * the piece; piece may be NULL. */
int preview_words(struct job *j, const struct prompt_piece *piece, const struct token *tokens,
                  int n, struct prompt_run *run, struct err *e);
/* Engine thread, when the sequence is assembled: the state becomes JOB_SEEN, or rows must go
 * through the lower blocks first. */
int preview_begin(struct engine *en, struct job *j, struct err *e);
/* The next chunk through the lower blocks; JOB_SEEN after the last one. */
int preview_step(struct engine *en, struct job *j, struct err *e);

/* attempt.c. At the end of job_prepare, and when the job goes: */
void attempt_prepare(struct job *j);
void attempt_clear(struct job *j);
/* Whether the prompt may be run once more after this attempt. */
bool attempt_may_follow(const struct job *j);
/* Engine thread, before a token is chosen from these logits. True: the answer is in doubt and
 * the prompt begins from its pictures again, with more rows; the job is then JOB_ENCODING. */
bool attempt_look(struct engine *en, struct job *j, const float *logits);
/* The answer goes out as it is: what was held back is sent. */
void attempt_accept(struct job *j);
/* The attempt is over; `why` its answer was not sent, or NULL. */
void attempt_close(struct job *j, const char *why);
/* The request was answered: what cascades cost so far. */
void attempt_count(struct engine *en, struct job *j);

/* budget.c, engine thread, when the job leaves the queue: its plan becomes as mild as the
 * budget allows. */
void budget_apply(struct engine *en, struct job *j);

/* shadow.c. Caller's thread, before steps are planned: the plan's level, and whether this
 * request gets a shadow. */
void shadow_prepare(struct engine *en, struct job *j);
/* Engine thread: what led to a token of the answer; the request was answered. */
void shadow_saw(const struct engine *en, struct job *j, const float *logits, token_id token);
void shadow_offer(struct engine *en, struct job *j);
/* There is something to do while nobody runs: a step of it. */
bool shadow_waits(const struct engine *en);
void shadow_step(struct engine *en);
/* Somebody came: the shadow under way ends. */
bool shadow_is_disturbed(struct engine *en);
void shadow_abandon(struct engine *en);
void shadow_clear(struct engine *en);

/* picture.c: one picture. Cells of the grid along a side. */
int picture_side(const struct vision_info *v);
/* At most so many of n_rows rows are left by the step. */
int picture_bound(const struct prompt_image *im, const struct plan_step *step, int n_rows);
/* What the attempt does with picture `index`: step, size, keys. */
void picture_begin(struct job *j, int index);
/* Its rows depend on the pictures before it. */
bool picture_looks_back(const struct plan_step *step);
/* Caller's thread: protected cells, size, pixels, keys of picture `index`. */
int picture_prepare(struct job *j, int index, const struct image *picture,
                    const struct chat_part *part, struct err *e);
/* Engine thread: rows of a smaller picture get masses and origins of the full grid. */
int picture_adopt_grid(struct prompt_image *im, struct arena *a, struct err *e);
/* Protected cells as flags of rows; n_class sources come before them. */
void picture_protect(const struct prompt_image *im, struct rows *rows, int n_class);

/* Into result.overlays: its groups, drawn. */
int picture_draw(struct engine *en, struct job *j, const struct prompt_image *im, struct err *e);

/* pictures.c, engine thread. Rows of the job's pictures, as many as go into one pass of the
 * tower; *done: there are all of them; *encoded: there was a pass. -1: this job failed. */
int pictures_advance(struct engine *en, struct job *j, bool *done, bool *encoded, struct err *e);

/* prefix.c, engine thread. After pipeline_text: what others left of this prompt enters its
 * KV cache, and the pictures in it need no tower. Of a prompt whose rows are chosen that is its
 * way through the blocks before the first choice. */
int prefix_begin(struct engine *en, struct job *j, struct err *e);
/* When `sequence` is assembled: states of the rows that were found, if they go on from there. */
void prefix_give_states(struct job *j);
/* Whether `b`, not begun yet, would find in the prefix cache what `a` is about to leave. */
bool prefix_is_shared(const struct job *a, const struct job *b);
/* A chunk of n_rows rows went through the decoder, and n_behind rows behind it; if there are
 * any, nothing merges inside the decoder. */
void prefix_chunk_done(struct job *j, int n_rows, int n_behind);
/* The whole prompt did: leave it for others. */
void prefix_keep(struct engine *en, struct job *j);

/* Tokens to try after a running answer's last one. */
struct draft {
    token_id ids[LOOKUP_MAX_DRAFT];
    int n;
};

/* draft.c, engine thread */
/* Look-up over the prompt, where speculation is wanted; max_new is set. */
int draft_begin(struct engine *en, struct job *j, struct err *e);
/* drafts [n] for jobs that decode, so that their rows cost a pass hardly more than without. */
void draft_plan(struct job *const *jobs, int n, struct draft *drafts);

/* constrain.c. Opens the vocabulary as grammars see it. */
int constrain_open(struct engine *en, struct err *e);
void constrain_close(struct engine *en);
/* Engine thread. A choice begins; nothing to do for a job without a grammar. */
int constrain_begin(struct engine *en, struct job *j, struct err *e);
/* *allowed: bits of the tokens that may come next, NULL = all. */
int constrain_mask(struct job *j, const uint32_t **allowed, struct err *e);
/* The token that came; *over: nothing can follow it. */
int constrain_accept(struct job *j, token_id id, bool *over, struct err *e);
void constrain_end(struct job *j); /* gives the masks back */

/* step.c, engine thread: one step for everything that runs. */
void step_run(struct engine *en);

/* batch.c, engine thread. A job leaves the queue: its clock and its answer start. */
void batch_admit(struct engine *en, struct job *j);
/* Everything of the engine thread's back, but the job stays: its prompt is run from the start,
 * or never. */
void batch_restart(struct engine *en, struct job *j);
void batch_let_go(struct engine *en, struct job *j);
/* Pictures up to one that had to be encoded (*encoded), or the change from pictures to rows:
 * the state is then JOB_PREFILL. -1: the job failed. */
int batch_advance_encoding(struct engine *en, struct job *j, bool *encoded, struct err *e);
/* The next n_rows rows of the prompt went through the decoder in a pass of so many ms. After
 * these two the job may have ended and be gone. -1: it failed. */
int batch_prompt_went(struct engine *en, struct job *j, int n_rows, double ms, struct err *e);
/* The answer's last token and its draft did; logits [1 + draft->n, n_vocab]. */
int batch_answer_went(struct engine *en, struct job *j, const struct draft *draft,
                      const float *logits, struct err *e);
/* Give everything of the engine thread's back and send the last event. */
void batch_finish(struct engine *en, struct job *j, const struct err *error);

/* calibrate.c: a forward pass over a built-in text: proves that the model works (a
 * truncated file fails here, not at the first user) and fills en->calibration. */
int engine_calibrate(struct engine *en, struct err *e);
/* calibrate_pictures.c, engine thread: thresholds[blocks of the tower] for a step with
 * adaptive counts. The first time for its ratio some pictures go through the tower. */
int engine_calibrate_pictures(struct engine *en, const struct plan_step *step, float *thresholds,
                              struct err *e);

#endif
