/* The boundary between those who talk to people (server, cmd) and those who compute.
 *
 *   engine    one model + one projector, immutable once open, and one worker thread
 *             that alone owns sequences, KV and the numeric work
 *   job       one request on its way: prepared by the caller's thread (template,
 *             tokenise, decode pictures), queued, run by the engine thread, read back
 *             as events by the caller
 * Callers may use every function below from any thread; a job belongs to one caller.
 * Nothing here blocks on computation except engine_open, engine_close and
 * job_wait. */
#ifndef TAMP_ENGINE_ENGINE_H
#define TAMP_ENGINE_ENGINE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "compress/chat.h"
#include "compress/plan.h"
#include "compress/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct grammar; /* grammar/grammar.h */
struct job;

/* LoRA adapters beside the model. */
#define ENGINE_MAX_LORAS      8
#define ENGINE_LORA_MAX_SCALE 100 /* far beyond what means anything, far from overflow */

struct engine_lora {
    const char *path;
    float scale;        /* for requests that name no scales */
    bool pictures_only; /* of these only the ones with pictures use it */
};

struct engine_params {
    const char *model_path;
    const char *mmproj_path;         /* NULL or "" = text only */
    const struct engine_lora *loras; /* [n_loras] GGUF files of adapters */
    int n_loras;
    const char *chat_template; /* NULL = as the file says */
    const char *kernel;        /* NULL = auto */
    bool no_huge_pages;        /* for the whole process */
    bool cache_q8;             /* keys and values in 8 bits, not in halves */
    bool full_precision;       /* fp32 activations on the file's own weights: slow */
    int ctx_size;              /* rows a sequence may hold; 0 = the model's own, at most 8192 */
    int n_threads;             /* 0 = what the machine offers */
    int n_parallel;            /* sequences that run at the same time, 1..64 */
    int max_queue;             /* jobs waiting beyond those; more is ERR_BUSY */
    int max_images;            /* in one request */
    size_t image_cache_bytes;  /* rows of pictures kept for the next request; 0 = none */
    size_t prefix_cache_bytes; /* keys and values of prompts kept for the next; 0 = none */
    bool speculation;          /* draft tokens by prompt look-up; same answers, sooner */
    const char *pooling;       /* of embeddings: "mean", "last", "cls"; NULL = as the file says, and
                                  "last" where it says nothing */
    double shadow_share;       /* of compressed requests that run once more uncompressed, while
                                  nobody waits (shadow.c): 0..1 */
    double shadow_target;      /* agreement that a plan must keep, 0..1 */
    bool rollout_progressive;  /* plans begin as shadows and climb (rollout.h), not in full */
    double itl_target_ms;      /* time between two tokens of an answer that prompts beside it should
                                  leave; 0 = prompts are not held back */
};

struct engine_info {
    const char *model_name; /* general.name, or the file's name */
    const char *model_file; /* base name of the file: the id in /v1/models */
    const char *family;
    const char *tokenizer;
    const char *chat_template;
    const struct chat_tool_format *tools; /* how its chats tell of functions */
    const char *default_system; /* what chats without a system message begin with, or NULL */
    const char *projector;      /* NULL = text only */
    const char *mmproj_name;    /* NULL = text only */
    const char *kernel;         /* kernel set in use */
    const char *precision;      /* "int8" or "f32" */
    const char *pooling;        /* of embeddings */
    const char *cache_type;     /* of keys and values: "f16" or "q8_0" */
    const char *blas_core;
    const char *blas_correction; /* "" = nothing to correct */
    int32_t bos, eos;            /* -1 = none */
    int n_vocab, n_embd, n_layer, n_ctx, n_ctx_train;
    int n_threads, n_parallel;
    int image_rows; /* rows of one picture, uncompressed; 0 = text only */
    int n_loras;
    size_t weight_bytes;
};

/* Maps, checks and warms up (one real forward pass). Blocks until ready. */
struct engine *engine_open(const struct engine_params *p, struct err *e);
/* Cancels what still runs, joins the worker, frees everything. NULL is fine. */
void engine_close(struct engine *en);
const struct engine_info *engine_info(const struct engine *en);

struct engine_lora_state {
    const char *path, *name; /* name: general.name or ""; both live as long as the engine */
    float scale;
    bool pictures_only;
};
/* The adapters in order, out[ENGINE_MAX_LORAS]; returns engine_info.n_loras. */
int engine_loras(struct engine *en, struct engine_lora_state *out);
/* scales[n_loras], each within ENGINE_LORA_MAX_SCALE, for jobs prepared from now on. */
void engine_set_lora_scales(struct engine *en, const float *scales);

/* -- a request ------------------------------------------------------------------ */

struct image_bytes {
    const uint8_t *data; /* JPEG or PNG, as it came */
    size_t n;
};

struct logit_bias_entry {
    int32_t token;
    float bias;
};

struct generation_params {
    int max_tokens; /* 0 = until the context is full */
    float temperature, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
    int top_k, penalty_last_n;
    uint64_t seed; /* drawn by the caller when the client gave none */
    bool ignore_eos;
    int max_draft;      /* tokens that speculation may try at once, >= 0; 0 = none */
    int n_choices;      /* `n`: answers to one prompt, 1..128 */
    int n_top_logprobs; /* -1 = no logprobs, 0..20 */
    const struct logit_bias_entry *logit_bias;
    int n_logit_bias;
    const char *const *stop; /* [n_stop], UTF-8, not empty; not part of the answer */
    int n_stop;
    struct grammar *grammar; /* what each answer must be; NULL = anything. The job has its own
                                reference */
};
extern const struct generation_params generation_params_default;

/* Who asks, as far as caches are concerned: one scope never profits from another's
 * requests, so none can find out what another sent. The SHA-256 of an API key. */
#define ENGINE_SCOPE_BYTES 32

enum job_purpose {
    JOB_ANSWER,
    JOB_PREVIEW, /* what the plan makes of the prompt (job_result.preview); no answer: the first
                   and last event is END. Neither uses nor feeds the prefix cache */
    JOB_EMBED    /* the prompt as one vector (job_result.embedding); otherwise the same */
};

/* What the prompt is made of. */
enum prompt_form {
    PROMPT_CHAT,  /* chat, through the template */
    PROMPT_TEXT,  /* the text of the chat's one part as it stands, special tokens included */
    PROMPT_PLAIN, /* the same, and what reads like a special token is text */
    PROMPT_TOKENS /* prompt_ids, and nothing added; chat is not looked at */
};

struct engine_request {
    const char *id; /* for the log */
    enum job_purpose purpose;
    uint8_t scope[ENGINE_SCOPE_BYTES]; /* zeros: everybody without a key */
    bool overlay;                      /* draw the groups of the pictures (job_result.overlays) */
    bool cache_prompt; /* may use what earlier requests left and leave something behind */
    enum prompt_form form;
    struct chat chat;
    const int32_t *prompt_ids; /* [n_prompt_ids] */
    int n_prompt_ids;
    const struct image_bytes *images; /* [chat.n_images] */
    struct plan plan;
    struct generation_params gen;
    const float *lora_scales; /* [n_loras], 0 = not this one; NULL = the server's own choice */
    bool add_generation_prompt;
};

/* Template, tokenise, scan and decode pictures, route, check the context length: the
 * cheap half, on the caller's thread. The job copies what it needs; the request may go.
 * NULL with *e set (param names the field). The job must be freed with job_free. */
struct job *job_prepare(struct engine *en, const struct engine_request *r, struct err *e);

/* Rows of the prompt before any merge, for counting without running. */
int job_prompt_rows(const struct job *j, int *text_rows, int *image_rows);
/* At most so many rows of it will enter the decoder, as its plan stands. */
int job_prompt_bound(const struct job *j);
/* The tokens of its text, the template's included; pictures have none. From the arena. */
int job_prompt_tokens(const struct job *j, struct arena *a, int32_t **ids, int *n_ids,
                      struct err *e);

/* `notify(ctx)` is called from the engine thread whenever events may be waiting: it must
 * only wake somebody up. May be NULL when the caller uses job_wait. */
void job_on_event(struct job *j, void (*notify)(void *ctx), void *ctx);

/* Queue it. ERR_BUSY when the queue is full, ERR_UNAVAILABLE when stopping. A full queue takes
 * the request of a key that has fewer waiting, and ends the newest of the key with the most:
 * that job gets JOB_EVENT_ERROR with ERR_BUSY. */
int job_submit(struct job *j, struct err *e);
/* Whether a request of this scope would be told to come back, before it is prepared. */
bool engine_is_full_for(struct engine *en, const uint8_t scope[ENGINE_SCOPE_BYTES]);

/* Rough seconds until a job submitted now would start: for Retry-After (>= 1). */
int engine_retry_after(struct engine *en);

/* -- what comes back -------------------------------------------------------------- */

enum job_event_type {
    JOB_EVENT_NONE,     /* nothing yet */
    JOB_EVENT_STARTED,  /* left the queue */
    JOB_EVENT_PROGRESS, /* prefill went on (prompt_done of prompt_total rows) */
    JOB_EVENT_TEXT,     /* more of the answer; whole characters only */
    JOB_EVENT_DONE,     /* one choice is finished (finish is set) */
    JOB_EVENT_END,      /* all choices finished: job_result is complete. Last event. */
    JOB_EVENT_ERROR     /* job_error says why. Last event. */
};

/* TOOL_CALLS: no job ends so by itself; whoever reads calls in its text says so. */
enum job_finish { JOB_FINISH_NONE, JOB_FINISH_STOP, JOB_FINISH_LENGTH, JOB_FINISH_TOOL_CALLS };

struct token_info { /* logprobs of one generated token */
    int32_t token;
    float logprob;
    size_t begin, len; /* bytes in job_event.text */
    int n_top;
    struct {
        int32_t token;
        float logprob;
    } top[20];
};

struct job_event {
    enum job_event_type type;
    int choice;
    const char *text; /* [text_len] UTF-8; valid until the next job_next / job_free */
    size_t text_len;
    const struct token_info *tokens; /* [n_tokens] when logprobs were asked for */
    int n_tokens;
    enum job_finish finish;
    int prompt_done, prompt_total;
};

/* The next event without waiting; JOB_EVENT_NONE if there is none. */
void job_next(struct job *j, struct job_event *out);
/* Wait up to timeout_ms (-1 = for ever) for an event; false on time-out. */
bool job_wait(struct job *j, int timeout_ms);

/* What became of one picture's grid of side x side cells. */
struct picture_overlay {
    const char *method;
    int side, n_rows;
    const int32_t *owner;   /* [side^2] row that stands for the cell now; negative = dropped */
    const uint8_t *protect; /* [side^2] 1 = must not merge; NULL = none */
    const uint8_t *png;     /* [png_bytes] the picture as the tower sees it, drawn over */
    size_t png_bytes;
};

/* A stretch of a message's text and the row that stands for it. A token is one, unless the
 * border of two of them lies inside a character: then it is both. */
struct preview_piece {
    const char *text; /* [len] UTF-8 */
    size_t len;
    int message, part;
    int n_tokens;
    int row; /* of the prompt where it is shortest; -1 = none stands for it any more */
    bool fixed;
};

struct preview_picture {
    int width, height;   /* of the file */
    int n_rows, n_whole; /* rows for the decoder, and without compression */
};

/* What the plan made of a prompt, and what running it would take: times from what passes of
 * the decoder and the tower took in this process, with all of its threads and no queue. */
struct job_preview {
    const struct preview_piece *pieces; /* [n_pieces] in the order of the prompt, without the
                                           template's words */
    int n_pieces;
    const struct preview_picture *pictures; /* [n_pictures] */
    int n_pictures;
    double first_token_ms;
    double cpu_ms;     /* processor time before the first token, of all threads together */
    double cost_ratio; /* that of the same request uncompressed, divided by cpu_ms */
    size_t kv_bytes;   /* keys and values of the prompt */
};

/* A prompt may be run more than once: a cascade climbs, the guard doubts (compress/guard.h). */
#define JOB_MAX_ATTEMPTS (COMPRESSOR_MAX_RUNGS + 1)
struct job_attempt {
    int rows;    /* of the prompt that entered the decoder */
    int rung;    /* of the cascade, from 0 */
    bool plain;  /* nothing was merged */
    bool looked; /* margin and entropy (guard.h) were looked at: the worst of the tokens */
    double margin, entropy;
    const char *doubt; /* static word: why its answer was not sent; NULL: it was */
};

struct job_result {
    int prompt_rows;                  /* rows really run, of all attempts: usage.prompt_tokens */
    int rerun_rows, rerun_image_rows; /* of these, in attempts whose answer was not sent */
    int text_rows, image_rows;
    int looked_up_rows; /* in the prefix cache: prompt_rows, or 0 when it was not asked */
    int cached_rows;    /* of those, found: their keys and values were there */
    int images_queried, images_cached;       /* looked up in the image cache, and found */
    int completion_tokens;                   /* all choices */
    int draft_tokens, draft_tokens_accepted; /* tried by speculation, and found right */
    double queue_ms, image_decode_ms, vision_ms, compress_ms, prompt_ms, predicted_ms;
    double first_token_ms; /* from submit to the first token */
    double total_ms;
    size_t kv_bytes;       /* stored by this request at its end */
    size_t kv_bytes_saved; /* against the same request uncompressed */
    size_t peak_bytes;     /* memory of this request: KV, activations, pictures */
    struct report report;  /* of the attempt whose answer was sent, but compressed_rows and
                              mean_rows_per_layer are of all */
    struct job_attempt attempts[JOB_MAX_ATTEMPTS];
    int n_attempts;
    double budget_ms;          /* of the plan; 0 = none. Otherwise also: */
    double budget_expected_ms; /* to the first token, when the request left the queue */
    double budget_cap; /* so many times at most was enough; 0: it took all that the plan may do */
    double cascade_ratio; /* rows of pictures in full for each row that cascades of this engine have
                             run so far, all rungs counted; 0: this request had none */
    const struct picture_overlay *overlays; /* [n_overlays] when asked for, until job_free */
    int n_overlays;
    const struct job_preview *preview; /* of JOB_PREVIEW, until job_free */
    const float *embedding;            /* [n_embd] of length 1; of JOB_EMBED, until job_free */
};
/* Complete after JOB_EVENT_END; after an error what was known until then. */
const struct job_result *job_result(const struct job *j);
const struct err *job_error(const struct job *j);
/* Text of a token for logprobs (bytes may be part of a character). */
const char *engine_token_text(const struct engine *en, int32_t token, size_t *len);

/* A text as tokens, by itself. add_special: behind the token that the model's prompts begin
 * with, if they do; parse_special: what reads like a special token is one. From the arena. */
int engine_tokenize(const struct engine *en, const char *text, size_t len, bool add_special,
                    bool parse_special, struct arena *a, int32_t **ids, int *n_ids, struct err *e);
/* Appends the chat as the template writes it, a picture as <__media__>. Temporaries in `a`. */
int engine_render_chat(const struct engine *en, const struct chat *chat, bool add_generation_prompt,
                       struct arena *a, struct buf *out, struct err *e);

/* The client left: frees its slot within one step. Idempotent, any state. */
void job_cancel(struct job *j);
/* Cancels if needed and gives the job back; does not wait for the engine thread. */
void job_free(struct job *j);

/* -- the state for /health and /metrics -------------------------------------------- */

/* Passes through the decoder since the start. */
#define ENGINE_PASS_BOUNDS 8
extern const int engine_pass_bounds[ENGINE_PASS_BOUNDS]; /* 1, 8, 16, ... 512 rows */
struct engine_passes {
    uint64_t n;
    uint64_t n_mixed;                         /* with rows of answers and of prompts */
    uint64_t n_rows;                          /* of all passes together */
    uint64_t by_rows[ENGINE_PASS_BOUNDS + 1]; /* of at most so many rows, and of more than the
                                                 bound before; the last: of more than all */
};

/* Comparisons of served answers with what the other prompt leads to. */
struct engine_shadow {
    uint64_t n_done, n_abandoned; /* requests; given up when others came, or never begun */
    uint64_t n_tokens, n_agreed;  /* compared, and most likely to both */
    double
        divergence; /* sum over n_done: KL(uncompressed || compressed) of the first token, nats */
    uint64_t n_falls, n_climbs; /* changes of a plan's level */
};
struct engine_rollout {
    char profile[32];
    int level;        /* 0 shadow, 1 1.3x, 2 2x, 3 4x, 4 full: the lowest of the profile's plans */
    double agreement; /* mean on that level; NaN: nothing was compared yet */
};
/* Levels of profiles that are followed, at most `max`; returns how many. */
int engine_rollout(struct engine *en, struct engine_rollout *out, int max);

struct engine_stats {
    struct engine_shadow shadow;
    int n_running, n_waiting;
    size_t kv_used_bytes;      /* blocks of sequences that run, what they share once */
    size_t kv_total_bytes;     /* most that all blocks together may take */
    bool alive;                /* false: the worker has not moved for 10 s while it had work */
    size_t image_cache_bytes;  /* taken now */
    size_t prefix_cache_bytes; /* the same, blocks of kv_total_bytes included */
    uint64_t n_done, n_cancelled, n_failed;
    uint64_t n_displaced;        /* of those that waited, for another key's request */
    uint64_t n_picture_passes;   /* of the vision tower, */
    uint64_t n_pictures_encoded; /* and pictures in them */
    uint64_t image_worker_restarts;
    struct engine_passes passes;
};
void engine_stats(struct engine *en, struct engine_stats *out);

/* No new jobs from now on (job_submit: ERR_UNAVAILABLE); running ones go on. */
void engine_stop_accepting(struct engine *en);

#endif
