/* LoRA adapters beside the model: opened with it, and mixed for each request. */
#include "engine/engine_impl.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

static int open_one(struct engine *en, struct engine_lora *own, const struct engine_lora *want,
                    struct err *e)
{
    if (!(fabsf(want->scale) <= ENGINE_LORA_MAX_SCALE)) {
        return err_set(e, ERR_RANGE, "the scale of %.200s is %g and must be from -%d to %d",
                       want->path, (double)want->scale, ENGINE_LORA_MAX_SCALE,
                       ENGINE_LORA_MAX_SCALE);
    }
    *own = *want;
    own->path = mem_strdup(want->path);
    if (!own->path) {
        return err_no_memory(e, strlen(want->path));
    }
    struct lora **l = &en->loras[en->n_loras++];
    *l = lora_open(own->path, en->decoder, e);
    if (!*l || (!en->params.full_precision && lora_pack(*l, &en->compute, e))) {
        return -1;
    }
    en->info.weight_bytes += lora_info(*l).weight_bytes;
    return 0;
}

int adapters_open(struct engine *en, struct err *e)
{
    int n = en->params.n_loras;
    if (n < 0 || n > ENGINE_MAX_LORAS) {
        return err_set(e, ERR_RANGE, "%d LoRA adapters, at most %d", n, ENGINE_MAX_LORAS);
    }
    for (int i = 0; i < n; i++) {
        if (open_one(en, &en->lora_params[i], &en->params.loras[i], e)) {
            return -1;
        }
    }
    en->params.loras = en->lora_params;
    en->info.n_loras = n;
    return 0;
}

void adapters_close(struct engine *en)
{
    for (int i = 0; i < ENGINE_MAX_LORAS; i++) {
        lora_close(en->loras[i]);
        mem_free((void *)(uintptr_t)en->lora_params[i].path); /* ours since open_one */
    }
}

int engine_loras(struct engine *en, struct engine_lora_state *out)
{
    pthread_mutex_lock(&en->lock);
    for (int i = 0; i < en->n_loras; i++) {
        out[i] = (struct engine_lora_state){.path = en->lora_params[i].path,
                                            .name = lora_info(en->loras[i]).name,
                                            .scale = en->lora_params[i].scale,
                                            .pictures_only = en->lora_params[i].pictures_only};
    }
    pthread_mutex_unlock(&en->lock);
    return en->n_loras;
}

void engine_set_lora_scales(struct engine *en, const float *scales)
{
    pthread_mutex_lock(&en->lock);
    for (int i = 0; i < en->n_loras; i++) {
        en->lora_params[i].scale = scales[i];
    }
    pthread_mutex_unlock(&en->lock);
}

void adapters_mix(struct engine *en, const struct engine_request *r, struct lora_mix *mix)
{
    struct engine_lora_state state[ENGINE_MAX_LORAS] = {{.path = NULL}};
    int n = engine_loras(en, state);
    mix->n = 0;
    for (int i = 0; i < n; i++) {
        bool wanted = r->lora_scales || !state[i].pictures_only || r->chat.n_images > 0;
        float scale = r->lora_scales ? r->lora_scales[i] : state[i].scale;
        if (wanted && fabsf(scale) > 0) {
            mix->use[mix->n].lora = en->loras[i];
            mix->use[mix->n++].scale = scale;
        }
    }
}
