#include "model/family.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct family families[] = {
    /* SmolLM2, Mistral and Llama 2/3 are all this one. */
    {.name = "llama", .rope_factors = true},
    {.name = "qwen2", .rope_neox = true, .qkv_bias = true},
    {.name = "qwen3", .rope_neox = true, .qk_norm = true},
    {.name = "gemma3",
     .activation = ACTIVATION_GELU_TANH,
     .rope_neox = true,
     .qk_norm = true,
     .post_norms = true,
     .scale_embedding = true,
     .window_pattern = 6,
     .wide_scale_n_layer = 62},
};
#define N_FAMILIES ((int)(sizeof families / sizeof families[0]))

const char *const *family_names(void)
{
    static const char *const names[] = {"llama", "qwen2", "qwen3", "gemma3", NULL};
    _Static_assert(sizeof names / sizeof names[0] == N_FAMILIES + 1, "one name for each row");
    return names;
}

/* The hyper-parameters: the key after "<family>.", the range, and the default for files
 * that leave it out. The upper ends are several times the largest model known: their
 * job is that no product of two of them overflows, and that a damaged file is noticed. */
enum hparam {
    HP_N_LAYER,
    HP_N_EMBD,
    HP_N_FF,
    HP_N_HEAD,
    HP_N_HEAD_KV,
    HP_KEY_LENGTH,
    HP_VALUE_LENGTH,
    HP_N_ROT,
    HP_N_CTX,
    HP_N_VOCAB,
    HP_RMS_EPS,
    HP_ROPE_BASE,
    HP_ROPE_BASE_LOCAL,
    HP_ROPE_FACTOR,
    HP_ROPE_FACTOR_OLD,
    HP_WINDOW,
    HP_ATTENTION_SCALE,
    HP_ATTENTION_SOFTCAP,
    HP_FINAL_SOFTCAP,
    HP_COUNT
};

struct hparam_range {
    const char *key;
    double min, max;
    bool integer;
    bool required;
    double def; /* when absent; NAN = derived from the others */
};

static const struct hparam_range ranges[HP_COUNT] = {
    [HP_N_LAYER] = {"block_count", 1, FAMILY_MAX_LAYERS, true, true, 0},
    [HP_N_EMBD] = {"embedding_length", 1, 65536, true, true, 0},
    [HP_N_FF] = {"feed_forward_length", 1, 1048576, true, true, 0},
    [HP_N_HEAD] = {"attention.head_count", 1, 1024, true, true, 0},
    [HP_N_HEAD_KV] = {"attention.head_count_kv", 1, 1024, true, false, NAN},
    [HP_KEY_LENGTH] = {"attention.key_length", 2, 1024, true, false, NAN},
    [HP_VALUE_LENGTH] = {"attention.value_length", 2, 1024, true, false, NAN},
    [HP_N_ROT] = {"rope.dimension_count", 2, 1024, true, false, NAN},
    [HP_N_CTX] = {"context_length", 1, 1 << 24, true, true, 0},
    [HP_N_VOCAB] = {"vocab_size", 1, 1 << 22, true, false, NAN},
    [HP_RMS_EPS] = {"attention.layer_norm_rms_epsilon", 1e-12, 0.1, false, true, 0},
    [HP_ROPE_BASE] = {"rope.freq_base", 1, 1e12, false, false, 10000},
    [HP_ROPE_BASE_LOCAL] = {"rope.freq_base_swa", 1, 1e12, false, false, 10000},
    [HP_ROPE_FACTOR] = {"rope.scaling.factor", 0, 1e6, false, false, NAN},
    [HP_ROPE_FACTOR_OLD] = {"rope.scale_linear", 0, 1e6, false, false, 0},
    [HP_WINDOW] = {"attention.sliding_window", 0, 1 << 24, true, false, 0},
    [HP_ATTENTION_SCALE] = {"attention.scale", 0, 1e3, false, false, 0},
    [HP_ATTENTION_SOFTCAP] = {"attn_logit_softcapping", 0, 1e6, false, false, 0},
    [HP_FINAL_SOFTCAP] = {"final_logit_softcapping", 0, 1e6, false, false, 0},
};

/* Keys that change the graph in a way that is not built. They may be there with the
 * value that changes nothing. */
static const struct {
    const char *key;
    double neutral;
    const char *what;
} refused[] = {
    {"expert_count", 0, "a mixture of experts"},
    {"nextn_predict_layers", 0, "extra prediction layers"},
    {"rope.scaling.attn_factor", 1, "a RoPE attention factor"},
    {"rope.scaling.alpha", 0, "NTK-alpha RoPE scaling"},
    {"logit_scale", 1, "scaled logits"},
    {"residual_scale", 1, "scaled residuals"},
    {"embedding_scale", 1, "scaled embeddings"},
};

struct reader {
    const struct gguf *g;
    const struct family *f;
    double value[HP_COUNT];
    char key[128];
};

static const char *full_key(struct reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->f->name, suffix);
    return r->key;
}

/* Any number, whatever its type in the file; GGUF_ABSENT when the key is not there. */
static int get_number(const struct gguf *g, const char *key, bool integer, double min, double max,
                      double *out, struct err *e)
{
    if (!integer) {
        return gguf_get_float(g, key, min, max, out, e);
    }
    int64_t v;
    int rc = gguf_get_int(g, key, (int64_t)min, (int64_t)max, &v, e);
    if (rc == GGUF_FOUND) {
        *out = (double)v;
    }
    return rc;
}

static int read_ranges(struct reader *r, struct err *e)
{
    for (int i = 0; i < HP_COUNT; i++) {
        const struct hparam_range *p = &ranges[i];
        const char *key = full_key(r, p->key);
        int rc = get_number(r->g, key, p->integer, p->min, p->max, &r->value[i], e);
        if (rc < 0) {
            return -1;
        }
        if (rc == GGUF_ABSENT && p->required) {
            return err_set(e, ERR_FORMAT, "%.200s: the key %s is missing", gguf_path(r->g), key);
        }
        if (rc == GGUF_ABSENT) {
            r->value[i] = p->def;
        }
        if (!p->integer && rc == GGUF_FOUND && !isfinite(r->value[i])) {
            return err_set(e, ERR_FORMAT, "%.200s: %s is not a finite number", gguf_path(r->g),
                           key);
        }
    }
    return 0;
}

static bool key_type(const struct gguf *g, const char *key, enum gguf_value_type *type)
{
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        if (strcmp(gguf_key_at(g, i, type), key) == 0) {
            return true;
        }
    }
    return false;
}

static int check_refused(struct reader *r, struct err *e)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *key = full_key(r, refused[i].key);
        enum gguf_value_type type;
        double v = refused[i].neutral;
        if (!key_type(r->g, key, &type)) {
            continue;
        }
        bool integer = type != GGUF_F32 && type != GGUF_F64;
        if (get_number(r->g, key, integer, -1e15, 1e15, &v, e) < 0) {
            return -1;
        }
        if (v != refused[i].neutral) {
            return err_set(e, ERR_UNSUPPORTED,
                           "%.200s: %s = %g asks for %s, which tamp does not do", gguf_path(r->g),
                           key, v, refused[i].what);
        }
    }
    bool causal = true;
    const char *key = full_key(r, "attention.causal");
    if (gguf_get_bool(r->g, key, &causal, e) < 0) {
        return -1;
    }
    if (!causal) {
        return err_set(e, ERR_UNSUPPORTED, "%.200s: %s is false: not a decoder", gguf_path(r->g),
                       key);
    }
    return 0;
}

/* Wrong together although each is in its range. */
static int mismatch(struct reader *r, const char *suffix, double value, const char *why,
                    struct err *e)
{
    return err_set(e, ERR_FORMAT, "%.200s: %s = %g: %s", gguf_path(r->g), full_key(r, suffix),
                   value, why);
}

static int read_heads(struct reader *r, struct hparams *h, struct err *e)
{
    const double *v = r->value;
    h->n_head = (int)v[HP_N_HEAD];
    h->n_head_kv = isnan(v[HP_N_HEAD_KV]) ? h->n_head : (int)v[HP_N_HEAD_KV];
    if (h->n_head > h->n_embd) {
        return mismatch(r, ranges[HP_N_HEAD].key, h->n_head, "must not exceed embedding_length", e);
    }
    if (h->n_head % h->n_head_kv != 0) {
        return mismatch(r, ranges[HP_N_HEAD_KV].key, h->n_head_kv,
                        "must divide attention.head_count", e);
    }
    if (isnan(v[HP_KEY_LENGTH]) && h->n_embd % h->n_head != 0) {
        return mismatch(r, ranges[HP_N_EMBD].key, h->n_embd,
                        "must be a multiple of attention.head_count", e);
    }
    h->head_dim = isnan(v[HP_KEY_LENGTH]) ? h->n_embd / h->n_head : (int)v[HP_KEY_LENGTH];
    if (h->head_dim % 2 != 0 || h->head_dim > ranges[HP_KEY_LENGTH].max) {
        return mismatch(r, ranges[HP_KEY_LENGTH].key, h->head_dim,
                        "the head dimension must be even and at most 1024", e);
    }
    int value_length = isnan(v[HP_VALUE_LENGTH]) ? h->n_embd / h->n_head : (int)v[HP_VALUE_LENGTH];
    if (value_length != h->head_dim) {
        return mismatch(r, ranges[HP_VALUE_LENGTH].key, value_length,
                        "must equal attention.key_length", e);
    }
    h->n_rot = isnan(v[HP_N_ROT]) ? h->head_dim : (int)v[HP_N_ROT];
    if (h->n_rot > h->head_dim || h->n_rot % 2 != 0) {
        return mismatch(r, ranges[HP_N_ROT].key, h->n_rot,
                        "must be even and at most attention.key_length", e);
    }
    return 0;
}

static int read_rope(struct reader *r, struct hparams *h, struct err *e)
{
    const double *v = r->value;
    double factor = isnan(v[HP_ROPE_FACTOR]) ? v[HP_ROPE_FACTOR_OLD] : v[HP_ROPE_FACTOR];
    struct gguf_string type = {"linear", 6};
    const char *key = full_key(r, "rope.scaling.type");
    if (gguf_get_string(r->g, key, &type, e) < 0) {
        return -1;
    }
    bool none = type.len == 4 && memcmp(type.ptr, "none", 4) == 0;
    if (!none && !(type.len == 6 && memcmp(type.ptr, "linear", 6) == 0)) {
        return err_set(e, ERR_UNSUPPORTED,
                       "%.200s: %s is \"%.*s\"; tamp supports \"none\" and \"linear\"",
                       gguf_path(r->g), key, (int)(type.len < 64 ? type.len : 64), type.ptr);
    }
    h->rope_base = (float)v[HP_ROPE_BASE];
    h->rope_scale = none || factor == 0 ? 1.0f : (float)(1.0 / factor);
    h->rope_base_local = (float)v[HP_ROPE_BASE_LOCAL];
    h->rope_scale_local = 1.0f;
    if (!isfinite(h->rope_scale)) {
        return mismatch(r, ranges[HP_ROPE_FACTOR].key, factor, "is too small", e);
    }
    return 0;
}

/* The pattern in the file is a period or one boolean a layer; without it the family's. */
static int read_window(struct reader *r, struct hparams *h, struct err *e)
{
    int64_t period = r->f->window_pattern;
    h->window = period > 0 ? (int)r->value[HP_WINDOW] : 0;
    if (h->window == 0) {
        return 0;
    }
    const char *key = full_key(r, "attention.sliding_window_pattern");
    enum gguf_value_type type;
    if (key_type(r->g, key, &type) && type == GGUF_ARRAY) {
        struct gguf_array a;
        if (gguf_get_array(r->g, key, GGUF_BOOL, &a, e) < 0) {
            return -1;
        }
        if (a.n < (size_t)h->n_layer) {
            return err_set(e, ERR_FORMAT, "%.200s: %s has %zu entries for %d layers",
                           gguf_path(r->g), key, a.n, h->n_layer);
        }
        for (int i = 0; i < h->n_layer; i++) {
            h->local[i] = ((const unsigned char *)a.data)[i] != 0;
        }
        return 0;
    }
    if (gguf_get_int(r->g, key, 0, FAMILY_MAX_LAYERS, &period, e) < 0) {
        return -1;
    }
    for (int i = 0; i < h->n_layer; i++) {
        h->local[i] = period == 0 || i % period < period - 1;
    }
    return 0;
}

static int read_vocab(struct reader *r, struct hparams *h, struct err *e)
{
    char name[65];
    family_tensor_name(ROLE_TOKEN_EMBD, 0, "weight", name);
    const struct gguf_tensor *t = gguf_find_tensor(r->g, name);
    if (!t || t->n_dims != 2) {
        return err_set(e, ERR_FORMAT, "%.200s: the tensor %s of two dimensions is missing",
                       gguf_path(r->g), name);
    }
    if (t->ne[1] < 1 || t->ne[1] > (int64_t)ranges[HP_N_VOCAB].max) {
        return err_set(e, ERR_FORMAT, "%.200s: %s has %lld rows; a vocabulary has 1 to %.0f",
                       gguf_path(r->g), name, (long long)t->ne[1], ranges[HP_N_VOCAB].max);
    }
    h->n_vocab = (int)t->ne[1];
    double said = r->value[HP_N_VOCAB];
    if (!isnan(said) && (int)said != h->n_vocab) {
        return mismatch(r, ranges[HP_N_VOCAB].key, said, "must equal the rows of token_embd.weight",
                        e);
    }
    struct gguf_array tokens;
    int rc = gguf_get_array(r->g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, e);
    if (rc < 0) {
        return -1;
    }
    if (rc == GGUF_FOUND && tokens.n != (size_t)h->n_vocab) {
        return err_set(e, ERR_FORMAT, "%.200s: tokenizer.ggml.tokens has %zu entries, %s %d rows",
                       gguf_path(r->g), tokens.n, name, h->n_vocab);
    }
    return 0;
}

static int read_hparams(struct reader *r, struct hparams *h, struct err *e)
{
    const double *v = r->value;
    *h = (struct hparams){0};
    if (read_ranges(r, e) || check_refused(r, e)) {
        return -1;
    }
    h->n_layer = (int)v[HP_N_LAYER];
    h->n_embd = (int)v[HP_N_EMBD];
    h->n_ff = (int)v[HP_N_FF];
    h->n_ctx_train = (int)v[HP_N_CTX];
    h->rms_eps = (float)v[HP_RMS_EPS];
    h->attention_softcap = (float)v[HP_ATTENTION_SOFTCAP];
    h->final_softcap = (float)v[HP_FINAL_SOFTCAP];
    if (read_heads(r, h, e) || read_rope(r, h, e) || read_window(r, h, e) || read_vocab(r, h, e)) {
        return -1;
    }
    int scale_dim = r->f->wide_scale_n_layer == h->n_layer ? h->n_embd / h->n_head : h->head_dim;
    h->attention_scale =
        v[HP_ATTENTION_SCALE] > 0 ? (float)v[HP_ATTENTION_SCALE] : 1.0f / sqrtf((float)scale_dim);
    h->embedding_scale = r->f->scale_embedding ? sqrtf((float)h->n_embd) : 1.0f;
    return 0;
}

static int unknown_family(const struct gguf *g, struct gguf_string name, struct err *e)
{
    char list[128] = "";
    for (int i = 0; i < N_FAMILIES; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i > 0 ? ", " : "", families[i].name);
    }
    return err_set(e, ERR_UNSUPPORTED, "%.200s: general.architecture is \"%.*s\"; tamp supports %s",
                   gguf_path(g), (int)(name.len < 64 ? name.len : 64), name.ptr, list);
}

int family_read(const struct gguf *g, const struct family **family, struct hparams *h,
                struct err *e)
{
    struct gguf_string name;
    int rc = gguf_get_string(g, "general.architecture", &name, e);
    if (rc < 0) {
        return -1;
    }
    if (rc == GGUF_ABSENT) {
        return err_set(e, ERR_FORMAT, "%.200s: the key general.architecture is missing",
                       gguf_path(g));
    }
    for (int i = 0; i < N_FAMILIES; i++) {
        const struct family *f = &families[i];
        if (strlen(f->name) == name.len && memcmp(f->name, name.ptr, name.len) == 0) {
            struct reader r = {.g = g, .f = f};
            *family = f;
            return read_hparams(&r, h, e);
        }
    }
    return unknown_family(g, name, e);
}

/* ---- tensor names ---- */

struct role_info {
    const char *stem;
    bool per_layer;
    bool weight_only; /* norms and tables have no bias */
};

static const struct role_info roles[ROLE_COUNT] = {
    [ROLE_TOKEN_EMBD] = {"token_embd", false, true},
    [ROLE_OUTPUT_NORM] = {"output_norm", false, true},
    [ROLE_OUTPUT] = {"output", false, false},
    [ROLE_ROPE_FREQS] = {"rope_freqs", false, true},
    [ROLE_ATTN_NORM] = {"attn_norm", true, true},
    [ROLE_ATTN_Q] = {"attn_q", true, false},
    [ROLE_ATTN_K] = {"attn_k", true, false},
    [ROLE_ATTN_V] = {"attn_v", true, false},
    [ROLE_ATTN_OUT] = {"attn_output", true, false},
    [ROLE_ATTN_Q_NORM] = {"attn_q_norm", true, true},
    [ROLE_ATTN_K_NORM] = {"attn_k_norm", true, true},
    [ROLE_ATTN_POST_NORM] = {"post_attention_norm", true, true},
    [ROLE_FFN_NORM] = {"ffn_norm", true, true},
    [ROLE_FFN_GATE] = {"ffn_gate", true, false},
    [ROLE_FFN_UP] = {"ffn_up", true, false},
    [ROLE_FFN_DOWN] = {"ffn_down", true, false},
    [ROLE_FFN_POST_NORM] = {"post_ffw_norm", true, true},
};

void family_tensor_name(enum tensor_role role, int layer, const char *kind, char name[65])
{
    if (roles[role].per_layer) {
        snprintf(name, 65, "blk.%d.%s.%s", layer, roles[role].stem, kind);
    } else {
        snprintf(name, 65, "%s.%s", roles[role].stem, kind);
    }
}

static bool family_has(const struct family *f, enum tensor_role role)
{
    switch (role) {
    case ROLE_ROPE_FREQS:
        return f->rope_factors;
    case ROLE_ATTN_Q_NORM:
    case ROLE_ATTN_K_NORM:
        return f->qk_norm;
    case ROLE_ATTN_POST_NORM:
    case ROLE_FFN_POST_NORM:
        return f->post_norms;
    default:
        return true;
    }
}

static bool matches(const char *rest, const struct role_info *role)
{
    size_t n = strlen(role->stem);
    if (strncmp(rest, role->stem, n) != 0 || rest[n] != '.') {
        return false;
    }
    const char *kind = rest + n + 1;
    return strcmp(kind, "weight") == 0 || (!role->weight_only && strcmp(kind, "bias") == 0);
}

static bool has_place(const char *name, const struct family *f, const struct hparams *h)
{
    bool per_layer = strncmp(name, "blk.", 4) == 0;
    if (per_layer) {
        char *end;
        long layer = strtol(name + 4, &end, 10);
        if (end == name + 4 || *end != '.' || layer < 0 || layer >= h->n_layer) {
            return false;
        }
        name = end + 1;
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (roles[role].per_layer == per_layer && family_has(f, role) &&
            matches(name, &roles[role])) {
            return true;
        }
    }
    return false;
}

int family_check_tensors(const struct gguf *g, const struct family *f, const struct hparams *h,
                         struct err *e)
{
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (!has_place(t->name, f, h)) {
            return err_set(
                e, ERR_UNSUPPORTED,
                "%.200s: the tensor %s has no place in the graph of family %s (%d layers)",
                gguf_path(g), t->name, f->name, h->n_layer);
        }
    }
    return 0;
}
