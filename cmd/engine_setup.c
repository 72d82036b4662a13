#include "cmd/engine_setup.h"

#include "base/alloc.h"
#include "cmd/lora_list.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

/* `path` if it is there or was asked for, else the installed twin if that is there;
 * always a copy. */
static char *find_model(const struct config *c, const char *option, const char *path)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (!*path || access(path, R_OK) == 0 || config_given(c, option) || n <= 0) {
        return mem_strdup(path);
    }
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    struct buf at;
    buf_init(&at, 2 * PATH_MAX);
    buf_printf(&at, "%.*s/../share/tamp/%s", (int)(slash - self), self, path);
    if (!buf_failed(&at) && access(buf_str(&at), R_OK) == 0) {
        return buf_take(&at, NULL);
    }
    buf_free(&at);
    return mem_strdup(path);
}

static const char *const poolings[] = {
    [POOL_AUTO] = NULL, [POOL_MEAN] = "mean", [POOL_LAST] = "last", [POOL_CLS] = "cls"};

struct engine *engine_setup(const struct config *c, struct err *e)
{
    bool default_model = !config_given(c, "model");
    char *model = find_model(c, "model", c->model);
    char *mmproj = find_model(c, "mmproj", c->mmproj);
    char *mmproj_lora = find_model(c, "mmproj-lora", c->mmproj_lora);
    struct lora_list loras = {.n = 0};
    struct engine *en = NULL;
    if (!model || !mmproj || !mmproj_lora) {
        err_no_memory(e, PATH_MAX);
    } else if (lora_list_parse(&loras, c->lora, e) ||
               lora_list_add_for_pictures(&loras, mmproj_lora, e)) {
        en = NULL;
    } else if (default_model && access(model, R_OK)) {
        err_reason(e, ERR_NOT_FOUND, "model_not_found",
                   "%s is not there; run `make models`, or name a GGUF file with --model", model);
    } else {
        const struct engine_params p = {
            .model_path = model,
            .mmproj_path = mmproj,
            .loras = loras.at,
            .n_loras = loras.n,
            .chat_template = *c->chat_template ? c->chat_template : NULL,
            .kernel = strcmp(c->kernel, "auto") == 0 ? NULL : c->kernel,
            .no_huge_pages = !c->huge_pages,
            .pooling = poolings[c->pooling],
            .cache_q8 = c->cache_type == CACHE_TYPE_Q8_0,
            .full_precision = c->precision == PRECISION_F32,
            .ctx_size = (int)c->ctx_size,
            .n_threads = (int)c->threads,
            .n_parallel = (int)c->parallel,
            .max_queue = (int)c->max_queue,
            .max_images = (int)c->max_images,
            .image_cache_bytes = (size_t)c->image_cache_mb << 20,
            .prefix_cache_bytes = c->prefix_cache ? (size_t)c->prefix_cache_mb << 20 : 0,
            .speculation = c->speculation,
            .shadow_share = c->shadow / 100,
            .shadow_target = c->shadow_target / 100,
            .rollout_progressive = c->rollout == CONFIG_ROLLOUT_PROGRESSIVE,
            .itl_target_ms = (double)c->itl_target_ms,
        };
        en = engine_open(&p, e);
    }
    mem_free(model);
    mem_free(mmproj);
    mem_free(mmproj_lora);
    lora_list_clear(&loras);
    return en;
}
