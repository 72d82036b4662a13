/* From a GGUF file to pairs of matrices: each must belong to a matrix of the decoder. */
#include "model/lora.h"

#include "base/alloc.h"
#include "model/decoder_impl.h"
#include "model/lora_impl.h"
#include "tensor/ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define HALF_MAX 65504.0f

static const enum tensor_role roles[LORA_PARTS] = {
    [LORA_Q] = ROLE_ATTN_Q,          [LORA_K] = ROLE_ATTN_K,      [LORA_V] = ROLE_ATTN_V,
    [LORA_ATTN_OUT] = ROLE_ATTN_OUT, [LORA_GATE] = ROLE_FFN_GATE, [LORA_UP] = ROLE_FFN_UP,
    [LORA_DOWN] = ROLE_FFN_DOWN,
};

static const struct weight *matrix_of(const struct decoder_layer *l, enum lora_part part)
{
    const struct weight *const matrices[LORA_PARTS] = {
        [LORA_Q] = &l->q,       [LORA_K] = &l->k,
        [LORA_V] = &l->v,       [LORA_ATTN_OUT] = &l->attn_out,
        [LORA_GATE] = &l->gate, [LORA_UP] = &l->up,
        [LORA_DOWN] = &l->down,
    };
    return matrices[part];
}

/* "blk.3.attn_q.weight.lora_a"; longer names than a GGUF tensor may have do not occur. */
static void tensor_name(enum lora_part part, int layer, char which, char name[65])
{
    char base[65];
    family_tensor_name(roles[part], layer, "weight", base);
    snprintf(name, 65, "%.56s.lora_%c", base, which);
}

static int is_string(const struct gguf *g, const char *key, const char *want, struct err *e)
{
    struct gguf_string have = {"", 0};
    if (gguf_get_string(g, key, &have, e) < 0) {
        return -1;
    }
    if (have.len == strlen(want) && memcmp(have.ptr, want, have.len) == 0) {
        return 0;
    }
    return err_set(e, ERR_FORMAT,
                   "%.200s: %s is \"%.*s\", and must be \"%s\" for a LoRA adapter of this model",
                   gguf_path(g), key, have.len < 64 ? (int)have.len : 64, have.ptr, want);
}

static int check_keys(const struct lora *l, const struct decoder *d, double *alpha, struct err *e)
{
    const struct gguf *g = l->file;
    if (is_string(g, "general.type", "adapter", e) || is_string(g, "adapter.type", "lora", e) ||
        is_string(g, "general.architecture", d->family->name, e)) {
        return -1;
    }
    int rc = gguf_get_float(g, "adapter.lora.alpha", 0, 1e6, alpha, e);
    if (rc == GGUF_ABSENT) {
        return err_set(e, ERR_FORMAT, "%.200s: there is no adapter.lora.alpha", gguf_path(g));
    }
    /* Such adapters begin to act only behind certain tokens. */
    struct gguf_array tokens;
    int when = gguf_get_array(g, "adapter.alora.invocation_tokens", GGUF_U32, &tokens, e);
    if (rc == GGUF_FOUND && when == GGUF_FOUND) {
        return err_set(e, ERR_UNSUPPORTED,
                       "%.200s: adapters with invocation tokens (aLoRA) are not "
                       "supported",
                       gguf_path(g));
    }
    return rc < 0 || when < 0 ? -1 : 0;
}

/* alpha 0 is llama.cpp's word for a scale of 1. */
static int bind_pair(struct lora *l, const struct weight *w, enum lora_part part, int layer,
                     double alpha, struct err *e)
{
    char name_a[65];
    char name_b[65];
    tensor_name(part, layer, 'a', name_a);
    tensor_name(part, layer, 'b', name_b);
    const struct gguf_tensor *a = gguf_find_tensor(l->file, name_a);
    const struct gguf_tensor *b = gguf_find_tensor(l->file, name_b);
    if (!a && !b) {
        return 0;
    }
    if (!a || !b) {
        return err_set(e, ERR_FORMAT, "%.200s: there is %s, but no %s", gguf_path(l->file),
                       a ? name_a : name_b, a ? name_b : name_a);
    }
    int64_t rank = a->n_dims > 1 ? a->ne[1] : 1;
    if (rank < 1 || rank > LORA_MAX_RANK) {
        return err_set(e, ERR_FORMAT, "%.200s: %s has rank %lld; it must be 1 to %d",
                       gguf_path(l->file), name_a, (long long)rank, LORA_MAX_RANK);
    }
    struct lora_pair *pair = &l->layers[layer][part];
    if (weight_bind(&pair->a, l->file, name_a, NULL, w->n_in, (int)rank, e) ||
        weight_bind(&pair->b, l->file, name_b, NULL, (int)rank, w->n_out, e)) {
        return -1;
    }
    pair->scale = alpha > 0 ? (float)(alpha / (double)rank) : 1;
    l->info.n_pairs++;
    l->info.rank = (int)rank > l->info.rank ? (int)rank : l->info.rank;
    l->info.weight_bytes += a->n_bytes + b->n_bytes;
    return 0;
}

/* Names are unique in a file, so its tensors are those of the pairs or there is another. */
static int check_names(const struct lora *l, struct err *e)
{
    if (gguf_n_tensors(l->file) == 2 * (size_t)l->info.n_pairs) {
        return 0;
    }
    for (size_t i = 0; i < gguf_n_tensors(l->file); i++) {
        const char *name = gguf_tensor_at(l->file, i)->name;
        bool known = false;
        for (int at = 0; at < l->n_layer * LORA_PARTS && !known; at++) {
            char a[65];
            char b[65];
            tensor_name(at % LORA_PARTS, at / LORA_PARTS, 'a', a);
            tensor_name(at % LORA_PARTS, at / LORA_PARTS, 'b', b);
            known = strcmp(name, a) == 0 || strcmp(name, b) == 0;
        }
        if (!known) {
            return err_set(
                e, ERR_UNSUPPORTED,
                "%.200s: %s belongs to no matrix of attention or FFN in the %d layers of "
                "this model",
                gguf_path(l->file), name, l->n_layer);
        }
    }
    return 0;
}

static int bind(struct lora *l, const struct decoder *d, struct err *e)
{
    double alpha = 0;
    if (check_keys(l, d, &alpha, e)) {
        return -1;
    }
    l->info.alpha = (float)alpha;
    struct gguf_string name = {"", 0};
    if (gguf_get_string(l->file, "general.name", &name, e) < 0) {
        return -1;
    }
    l->name = mem_strndup(name.ptr, name.len);
    l->layers = mem_zalloc((size_t)d->hp.n_layer, sizeof *l->layers);
    if (!l->name || !l->layers) {
        return err_no_memory(e, (size_t)d->hp.n_layer * sizeof *l->layers);
    }
    l->info.name = l->name;
    l->n_layer = d->hp.n_layer;
    for (int layer = 0; layer < l->n_layer; layer++) {
        for (int part = 0; part < LORA_PARTS; part++) {
            if (bind_pair(l, matrix_of(&d->layers[layer], part), part, layer, alpha, e)) {
                return -1;
            }
        }
    }
    if (l->info.n_pairs == 0) {
        return err_set(e, ERR_FORMAT, "%.200s: there is no pair of matrices for this model",
                       gguf_path(l->file));
    }
    return check_names(l, e);
}

struct lora *lora_open(const char *path, const struct decoder *d, struct err *e)
{
    struct lora *l = mem_zalloc(1, sizeof *l);
    if (!l) {
        err_no_memory(e, sizeof *l);
        return NULL;
    }
    l->file = gguf_open(path, e);
    if (!l->file || bind(l, d, e)) {
        lora_close(l);
        return NULL;
    }
    return l;
}

/* F32 has no packed layout, and rows of a product that is not packed may depend on others. */
static int round_to_halves(struct weight *w, const struct gguf *g, struct err *e)
{
    size_t n = (size_t)w->n_out * (size_t)w->n_in;
    const float *x = w->data;
    uint16_t *halves = mem_alloc_aligned(n, sizeof *halves);
    if (!halves) {
        return err_no_memory(e, n * sizeof *halves);
    }
    w->type = TENSOR_F16;
    w->data = halves;
    w->row_bytes = (size_t)w->n_in * sizeof *halves;
    for (size_t i = 0; i < n; i++) {
        halves[i] = op_f32_to_f16(x[i]);
        if (!(fabsf(x[i]) <= HALF_MAX)) {
            return err_set(e, ERR_FORMAT, "%.200s: %g is too large for a weight", gguf_path(g),
                           (double)x[i]);
        }
    }
    return 0;
}

/* Layer after layer, as they are used. */
static int collect(struct lora *l, struct weight **all)
{
    int n = 0;
    for (int layer = 0; layer < l->n_layer; layer++) {
        for (int part = 0; part < LORA_PARTS; part++) {
            struct lora_pair *pair = &l->layers[layer][part];
            if (pair->a.n_out > 0) {
                all[n++] = &pair->a;
                all[n++] = &pair->b;
            }
        }
    }
    return n;
}

int lora_pack(struct lora *l, const struct compute *c, struct err *e)
{
    struct weight **all = mem_alloc(2 * (size_t)l->info.n_pairs, sizeof(struct weight *));
    const void **rounded = mem_zalloc(2 * (size_t)l->info.n_pairs, sizeof *rounded);
    int rc = -1;
    int n = 0;
    if (!all || !rounded) {
        err_no_memory(e, 2 * (size_t)l->info.n_pairs * sizeof(struct weight *));
    } else {
        n = collect(l, all);
        rc = 0;
    }
    for (int i = 0; i < n && rc == 0; i++) {
        const void *file = all[i]->data;
        if (all[i]->type == TENSOR_F32) {
            rc = round_to_halves(all[i], l->file, e);
            rounded[i] = all[i]->data != file ? all[i]->data : NULL;
        }
    }
    rc = rc == 0 ? weights_pack(all, n, c, e) : rc;
    for (int i = 0; i < n; i++) {
        if (rounded[i]) { /* only the packed copy is read from now on */
            mem_free((void *)(uintptr_t)rounded[i]);
            all[i]->data = NULL;
        }
    }
    mem_free(all);
    mem_free(rounded);
    gguf_release_pages(l->file);
    return rc;
}

void lora_close(struct lora *l)
{
    if (!l) {
        return;
    }
    for (int layer = 0; l->layers && layer < l->n_layer; layer++) {
        for (int part = 0; part < LORA_PARTS; part++) {
            weight_clear(&l->layers[layer][part].a);
            weight_clear(&l->layers[layer][part].b);
        }
    }
    mem_free(l->layers);
    mem_free(l->name);
    gguf_close(l->file);
    mem_free(l);
}

struct lora_info lora_info(const struct lora *l)
{
    return l->info;
}

bool lora_mix_equal(const struct lora_mix *a, const struct lora_mix *b)
{
    bool equal = a->n == b->n;
    for (int i = 0; i < a->n && equal; i++) {
        /* no scale is NaN: engine/adapters.c and the server check the range */
        float difference = a->use[i].scale - b->use[i].scale;
        equal = a->use[i].lora == b->use[i].lora && !(fabsf(difference) > 0);
    }
    return equal;
}
