/* Opening, closing, and the worker thread that alone owns sequences and KV. */
#include "engine/engine_impl.h"
#include "engine/thread_count.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/huge_pages.h"
#include "base/log.h"
#include "tensor/blas.h"
#include "tensor/gguf.h"
#include "tensor/kernels.h"
#include "tensor/vector_ops.h"
#include "vision/image.h"

#include <string.h>

#define DEFAULT_CTX_SIZE 8192
/* A worker that did not finish a step for so long, although it has work, is stuck. */
#define ALIVE_LIMIT_NS 10000000000ull

static void *worker_main(void *arg)
{
    struct engine *en = arg;
    pool_pin_caller(en->compute.pool);
    for (;;) {
        pthread_mutex_lock(&en->lock);
        while (!en->stopping && en->n_running == 0 && !en->queue_head && !shadow_waits(en)) {
            pthread_cond_wait(&en->wake, &en->lock);
        }
        struct job *admitted[ENGINE_MAX_PARALLEL];
        int n_admitted = 0;
        while (!en->stopping && en->queue_head && en->n_running < en->params.n_parallel) {
            struct job *j = queue_take(en);
            en->running[en->n_running++] = j;
            admitted[n_admitted++] = j;
        }
        bool stop = en->stopping;
        /* under the lock: engine_stats must not see work without a fresh time */
        atomic_store(&en->last_step_ns, clock_ns());
        pthread_mutex_unlock(&en->lock);
        if (stop) {
            return NULL;
        }
        if (n_admitted > 0) {
            shadow_abandon(en);
        }
        for (int i = 0; i < n_admitted; i++) {
            batch_admit(en, admitted[i]);
        }
        atomic_store(&en->last_step_ns, clock_ns());
        if (en->n_running > 0) {
            step_run(en);
        } else {
            shadow_step(en);
        }
        pthread_mutex_lock(&en->lock);
        queue_charge_answers(en);
        en->kv_used_bytes = en->kv_pool.running_bytes;
        en->image_cache_bytes = image_cache_bytes(en->image_cache);
        en->prefix_cache_bytes = prefix_cache_bytes(en->prefix_cache);
        en->passes_seen = en->passes;
        pthread_mutex_unlock(&en->lock);
    }
}

static int check_params(const struct engine_params *p, struct err *e)
{
    if (!p->model_path || !p->model_path[0]) {
        return err_set(e, ERR_INVALID, "no model file: give --model FILE (make models brings one)");
    }
    if (p->n_parallel < 1 || p->n_parallel > ENGINE_MAX_PARALLEL) {
        return err_set(e, ERR_RANGE, "parallel must be 1 to %d, not %d", ENGINE_MAX_PARALLEL,
                       p->n_parallel);
    }
    if (p->max_queue < 0 || p->max_images < 0 || p->ctx_size < 0 || p->n_threads < 0) {
        return err_set(e, ERR_RANGE, "max_queue, max_images, ctx_size and threads must be >= 0");
    }
    if (!(p->shadow_share >= 0 && p->shadow_share <= 1) ||
        !(p->shadow_target >= 0 && p->shadow_target <= 1)) {
        return err_set(e, ERR_RANGE, "shadow_share and shadow_target must be from 0 to 1");
    }
    if (p->rollout_progressive && p->shadow_share <= 0) {
        return err_set(e, ERR_INVALID,
                       "a progressive roll-out climbs on what shadows say: set --shadow to the "
                       "percentage of requests that get one");
    }
    return 0;
}

static int open_model(struct engine *en, struct err *e)
{
    const struct engine_params *p = &en->params;
    en->model_file = gguf_open(p->model_path, e);
    if (!en->model_file) {
        return -1;
    }
    en->decoder = decoder_open(en->model_file, e);
    if (!en->decoder) {
        return -1;
    }
    en->tokenizer = tokenizer_open(en->model_file, e);
    if (!en->tokenizer) {
        return -1;
    }
    const struct decoder_info *d = decoder_info(en->decoder);
    if (tokenizer_n_vocab(en->tokenizer) != d->n_vocab) {
        return err_set(e, ERR_FORMAT, "%s: the tokenizer has %d tokens and the embedding %d rows",
                       p->model_path, tokenizer_n_vocab(en->tokenizer), d->n_vocab);
    }
    const char *name = p->chat_template && p->chat_template[0] ? p->chat_template : NULL;
    en->chat_template = chat_template_choose(en->model_file, name, e);
    return en->chat_template ? 0 : -1;
}

static int open_vision(struct engine *en, struct err *e)
{
    const char *path = en->params.mmproj_path;
    if (!path || !path[0]) {
        return 0;
    }
    en->vision = vision_open(path, e);
    if (!en->vision) {
        return -1;
    }
    int out = vision_info(en->vision)->n_embd_out;
    int want = decoder_info(en->decoder)->n_embd;
    if (out != want) {
        return err_set(e, ERR_FORMAT,
                       "%s makes rows of width %d and %s takes %d: they are not a pair", path, out,
                       en->params.model_path, want);
    }
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void fill_info(struct engine *en)
{
    const struct decoder_info *d = decoder_info(en->decoder);
    const struct vision_info *v = en->vision ? vision_info(en->vision) : NULL;
    int n_ctx = en->params.ctx_size;
    if (n_ctx == 0) {
        n_ctx = d->n_ctx_train < DEFAULT_CTX_SIZE ? d->n_ctx_train : DEFAULT_CTX_SIZE;
    }
    en->info = (struct engine_info){
        .model_name = d->name && d->name[0] ? d->name : base_name(en->params.model_path),
        .model_file = base_name(en->params.model_path),
        .family = d->family,
        .tokenizer = tokenizer_kind(en->tokenizer),
        .chat_template = chat_template_name(en->chat_template),
        .tools = chat_template_tool_format(en->chat_template),
        .default_system = chat_template_default_system(en->chat_template),
        .projector = v ? v->projector : NULL,
        .mmproj_name = v ? v->name : NULL,
        .kernel = en->compute.kernels->name,
        .precision = en->params.full_precision ? "f32" : "int8",
        .pooling = embed_pooling_name(en),
        .cache_type = en->params.cache_q8 ? "q8_0" : "f16",
        .blas_core = blas_core_name(),
        .blas_correction = blas_correction(),
        .bos = tokenizer_bos(en->tokenizer),
        .eos = tokenizer_eos(en->tokenizer),
        .n_vocab = d->n_vocab,
        .n_embd = d->n_embd,
        .n_layer = d->n_layer,
        .n_ctx = n_ctx,
        .n_ctx_train = d->n_ctx_train,
        .n_threads = pool_size(en->compute.pool),
        .n_parallel = en->params.n_parallel,
        .image_rows = v ? v->n_rows : 0,
        .weight_bytes = d->weight_bytes,
    };
}

/* The caller's strings may go after engine_open. */
static int copy_params(struct engine *en, const struct engine_params *p, struct err *e)
{
    en->params = *p;
    const char **fields[] = {&en->params.model_path, &en->params.mmproj_path,
                             &en->params.chat_template, &en->params.kernel, &en->params.pooling};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (*fields[i]) {
            en->owned_strings[i] = mem_strdup(*fields[i]);
            if (!en->owned_strings[i]) {
                return err_no_memory(e, strlen(*fields[i]));
            }
            *fields[i] = en->owned_strings[i];
        }
    }
    return 0;
}

/* The packed copies are what is read from now on; the pages of the file that they came
 * from need not stay in memory. */
static int pack_weights(struct engine *en, struct err *e)
{
    if (en->params.full_precision) {
        return 0;
    }
    if (decoder_pack(en->decoder, &en->compute, e) ||
        (en->vision && vision_pack(en->vision, &en->compute, e))) {
        return -1;
    }
    gguf_release_pages(en->model_file);
    return 0;
}

/* Room for as many whole contexts as there are slots, so that whoever is let in can finish;
 * each layer group has block headers of its own. */
static int open_kv(struct engine *en, struct err *e)
{
    struct kv_shape shape = decoder_kv_shape(en->decoder);
    shape.type = en->params.cache_q8 ? KV_Q8_0 : KV_F16;
    size_t blocks = (size_t)kv_blocks_for(en->info.n_ctx) * (size_t)en->params.n_parallel;
    size_t header;
    size_t bytes;
    if (!kv_block_bytes(&shape, 0, &header) || !kv_block_bytes(&shape, shape.n_layer, &bytes) ||
        !ck_add(bytes, (KV_MAX_GROUPS - 1) * header, &bytes) || !ck_mul(bytes, blocks, &bytes)) {
        return err_set(e, ERR_TOO_LARGE,
                       "keys and values of %d sequences of %d rows are too many bytes: lower "
                       "--ctx-size or --parallel",
                       en->params.n_parallel, en->info.n_ctx);
    }
    kv_pool_init(&en->kv_pool, &shape, bytes);
    en->kv_total_bytes = bytes;
    return 0;
}

static int start(struct engine *en, struct err *e)
{
    huge_pages_use(!en->params.no_huge_pages);
    en->compute.kernels = kernels_choose(en->params.kernel, e);
    if (!en->compute.kernels) {
        return -1;
    }
    vector_ops_use(vector_ops_for(en->compute.kernels));
    int n_threads = en->params.n_threads;
    n_threads = n_threads ? n_threads : thread_count_default(en->compute.kernels, e);
    en->compute.pool = n_threads > 0 ? pool_new(n_threads, e) : NULL;
    if (!en->compute.pool || open_model(en, e) || open_vision(en, e) || pack_weights(en, e)) {
        return -1;
    }
    if (embed_open(en, e)) {
        return -1;
    }
    fill_info(en);
    if (adapters_open(en, e) || constrain_open(en, e) || open_kv(en, e) ||
        engine_calibrate(en, e) ||
        fair_init(&en->turns, en->params.n_parallel + en->params.max_queue, e) ||
        fair_init(&en->prompt_turns, ENGINE_MAX_PARALLEL, e)) {
        return -1;
    }
    if (en->params.prefix_cache_bytes > 0) {
        en->prefix_cache = prefix_cache_new(&en->kv_pool, en->params.prefix_cache_bytes, e);
        if (!en->prefix_cache) {
            return -1;
        }
    }
    if (en->vision && en->params.image_cache_bytes > 0) {
        en->image_cache = image_cache_new(en->params.image_cache_bytes, e);
        if (!en->image_cache) {
            return -1;
        }
    }
    en->accepting = true;
    if (pthread_create(&en->worker, NULL, worker_main, en)) {
        return err_set(e, ERR_IO, "cannot start the engine thread");
    }
    en->worker_started = true;
    return 0;
}

struct engine *engine_open(const struct engine_params *p, struct err *e)
{
    if (check_params(p, e)) {
        return NULL;
    }
    struct engine *en = mem_zalloc(1, sizeof *en);
    if (!en) {
        err_no_memory(e, sizeof *en);
        return NULL;
    }
    pthread_mutex_init(&en->lock, NULL);
    pthread_cond_init(&en->wake, NULL);
    arena_init(&en->scratch, SCRATCH_ARENA_BYTES);
    rollout_init(&en->rollout, p->rollout_progressive ? ROLLOUT_SHADOW : ROLLOUT_FULL,
                 p->shadow_target);
    if (copy_params(en, p, e) || start(en, e)) {
        engine_close(en);
        return NULL;
    }
    return en;
}

/* Every job that is left hears that the server stops. The worker is gone by now. */
static void end_all_jobs(struct engine *en)
{
    struct err e = ERR_INIT;
    err_reason(&e, ERR_UNAVAILABLE, "shutting_down", "the server stopped before the answer ended");
    while (en->n_running > 0) {
        batch_finish(en, en->running[0], &e);
    }
    while (en->queue_head) {
        struct job *j = en->queue_head;
        queue_remove(en, j);
        job_push_end(j, &e);
        job_unref(j);
    }
}

void engine_close(struct engine *en)
{
    if (!en) {
        return;
    }
    pthread_mutex_lock(&en->lock);
    en->stopping = true;
    en->accepting = false;
    pthread_cond_signal(&en->wake);
    pthread_mutex_unlock(&en->lock);
    if (en->worker_started) {
        pthread_join(en->worker, NULL);
        end_all_jobs(en);
        shadow_clear(en);
    }
    prefix_cache_free(en->prefix_cache);
    image_cache_free(en->image_cache);
    constrain_close(en);
    vision_close(en->vision);
    tokenizer_close(en->tokenizer);
    adapters_close(en);
    decoder_close(en->decoder);
    gguf_close(en->model_file);
    pool_free(en->compute.pool);
    calibration_clear(&en->calibration);
    heads_clear(&en->heads);
    arena_clear(&en->scratch);
    fair_clear(&en->turns);
    fair_clear(&en->prompt_turns);
    rollout_clear(&en->rollout);
    pthread_cond_destroy(&en->wake);
    pthread_mutex_destroy(&en->lock);
    for (size_t i = 0; i < sizeof en->owned_strings / sizeof *en->owned_strings; i++) {
        mem_free(en->owned_strings[i]);
    }
    mem_free(en);
}

const struct engine_info *engine_info(const struct engine *en)
{
    return &en->info;
}

const char *engine_token_text(const struct engine *en, int32_t token, size_t *len)
{
    return tokenizer_piece(en->tokenizer, token, true, len);
}

int engine_retry_after(struct engine *en)
{
    pthread_mutex_lock(&en->lock);
    double service = en->mean_service_ms > 0 ? en->mean_service_ms : 1000;
    double waves = (double)(en->n_waiting + 1) / en->params.n_parallel;
    pthread_mutex_unlock(&en->lock);
    double seconds = service * waves / 1000;
    return seconds < 1 ? 1 : seconds > 60 ? 60 : (int)seconds;
}

bool engine_is_full_for(struct engine *en, const uint8_t scope[ENGINE_SCOPE_BYTES])
{
    pthread_mutex_lock(&en->lock);
    bool full = queue_is_full(en) && !queue_to_displace(en, scope);
    pthread_mutex_unlock(&en->lock);
    return full;
}

void engine_stop_accepting(struct engine *en)
{
    pthread_mutex_lock(&en->lock);
    en->accepting = false;
    pthread_mutex_unlock(&en->lock);
}

void engine_stats(struct engine *en, struct engine_stats *out)
{
    pthread_mutex_lock(&en->lock);
    unsigned long long last = atomic_load(&en->last_step_ns);
    *out = (struct engine_stats){
        .shadow = en->shadow.stats,
        .n_running = en->n_running,
        .n_waiting = en->n_waiting,
        .kv_used_bytes = en->kv_used_bytes,
        .kv_total_bytes = en->kv_total_bytes,
        .image_cache_bytes = en->image_cache_bytes,
        .prefix_cache_bytes = en->prefix_cache_bytes,
        .alive = en->n_running == 0 || clock_ns() - last < ALIVE_LIMIT_NS,
        .n_done = en->n_done,
        .n_cancelled = en->n_cancelled,
        .n_failed = en->n_failed,
        .n_displaced = en->n_displaced,
        .n_picture_passes = en->n_picture_passes,
        .n_pictures_encoded = en->n_pictures_encoded,
        .image_worker_restarts = image_worker_restarts(),
        .passes = en->passes_seen,
    };
    pthread_mutex_unlock(&en->lock);
}
