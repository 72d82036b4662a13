/* From a GGUF file to a decoder: which tensor plays which role, of which shape. */
#include "base/alloc.h"
#include "model/decoder_impl.h"

#include <math.h>
#include <string.h>

/* What the binding functions pass around. */
struct binder {
    struct decoder *d;
    const struct gguf *g;
    struct err *e;
    int layer;
};

static int bind_matrix(const struct binder *b, enum tensor_role role, bool bias_required,
                       struct weight *w, int n_in, int n_out)
{
    char name[65];
    char bias[65];
    family_tensor_name(role, b->layer, "weight", name);
    family_tensor_name(role, b->layer, "bias", bias);
    bool has_bias = bias_required || gguf_find_tensor(b->g, bias);
    return weight_bind(w, b->g, name, has_bias ? bias : NULL, n_in, n_out, b->e);
}

static int bind_vector(const struct binder *b, enum tensor_role role, bool wanted, float **v, int n)
{
    char name[65];
    if (!wanted) {
        return 0;
    }
    family_tensor_name(role, b->layer, "weight", name);
    *v = weight_vector(b->g, name, (size_t)n, b->e);
    return *v ? 0 : -1;
}

static int bind_norms(const struct binder *b, struct decoder_layer *l)
{
    const struct family *f = b->d->family;
    const struct hparams *h = &b->d->hp;
    return bind_vector(b, ROLE_ATTN_NORM, true, &l->attn_norm, h->n_embd) ||
                   bind_vector(b, ROLE_ATTN_Q_NORM, f->qk_norm, &l->q_norm, h->head_dim) ||
                   bind_vector(b, ROLE_ATTN_K_NORM, f->qk_norm, &l->k_norm, h->head_dim) ||
                   bind_vector(b, ROLE_ATTN_POST_NORM, f->post_norms, &l->attn_post_norm,
                               h->n_embd) ||
                   bind_vector(b, ROLE_FFN_NORM, true, &l->ffn_norm, h->n_embd) ||
                   bind_vector(b, ROLE_FFN_POST_NORM, f->post_norms, &l->ffn_post_norm, h->n_embd)
               ? -1
               : 0;
}

static int bind_matrices(const struct binder *b, struct decoder_layer *l)
{
    const struct hparams *h = &b->d->hp;
    bool qkv_bias = b->d->family->qkv_bias;
    int n_q = h->n_head * h->head_dim;
    int n_kv = h->n_head_kv * h->head_dim;
    return bind_matrix(b, ROLE_ATTN_Q, qkv_bias, &l->q, h->n_embd, n_q) ||
                   bind_matrix(b, ROLE_ATTN_K, qkv_bias, &l->k, h->n_embd, n_kv) ||
                   bind_matrix(b, ROLE_ATTN_V, qkv_bias, &l->v, h->n_embd, n_kv) ||
                   bind_matrix(b, ROLE_ATTN_OUT, false, &l->attn_out, n_q, h->n_embd) ||
                   bind_matrix(b, ROLE_FFN_GATE, false, &l->gate, h->n_embd, h->n_ff) ||
                   bind_matrix(b, ROLE_FFN_UP, false, &l->up, h->n_embd, h->n_ff) ||
                   bind_matrix(b, ROLE_FFN_DOWN, false, &l->down, h->n_ff, h->n_embd)
               ? -1
               : 0;
}

static int bind_ends(const struct binder *b)
{
    struct decoder *d = b->d;
    const struct hparams *h = &d->hp;
    char name[65];
    family_tensor_name(ROLE_OUTPUT, 0, "weight", name);
    if (bind_matrix(b, ROLE_TOKEN_EMBD, false, &d->token_embd, h->n_embd, h->n_vocab) ||
        bind_vector(b, ROLE_OUTPUT_NORM, true, &d->output_norm, h->n_embd)) {
        return -1;
    }
    enum tensor_role role = gguf_find_tensor(b->g, name) ? ROLE_OUTPUT : ROLE_TOKEN_EMBD;
    return bind_matrix(b, role, false, &d->output, h->n_embd, h->n_vocab);
}

static int bind_rope(const struct binder *b)
{
    struct decoder *d = b->d;
    const struct hparams *h = &d->hp;
    char name[65];
    float *factors = NULL;
    family_tensor_name(ROLE_ROPE_FREQS, 0, "weight", name);
    bool wanted = d->family->rope_factors && gguf_find_tensor(b->g, name);
    if (bind_vector(b, ROLE_ROPE_FREQS, wanted, &factors, h->n_rot / 2)) {
        return -1;
    }
    for (int i = 0; wanted && i < h->n_rot / 2; i++) {
        if (!(factors[i] >= 1e-6f && factors[i] <= 1e6f)) {
            err_set(b->e, ERR_FORMAT, "%.200s: %s[%d] = %g is not in [1e-6, 1e6]", gguf_path(b->g),
                    name, i, (double)factors[i]);
            mem_free(factors);
            return -1;
        }
    }
    rope_init(&d->rope_global, h->n_rot, d->family->rope_neox, h->rope_base, h->rope_scale,
              factors);
    rope_init(&d->rope_local, h->n_rot, d->family->rope_neox, h->rope_base_local,
              h->rope_scale_local, NULL);
    mem_free(factors);
    return 0;
}

static int bind_all(struct binder *b)
{
    struct decoder *d = b->d;
    if (family_read(b->g, &d->family, &d->hp, b->e) ||
        family_check_tensors(b->g, d->family, &d->hp, b->e)) {
        return -1;
    }
    d->layers = mem_zalloc((size_t)d->hp.n_layer, sizeof *d->layers);
    if (!d->layers) {
        return err_no_memory(b->e, (size_t)d->hp.n_layer * sizeof *d->layers);
    }
    if (bind_ends(b) || bind_rope(b)) {
        return -1;
    }
    for (b->layer = 0; b->layer < d->hp.n_layer; b->layer++) {
        struct decoder_layer *l = &d->layers[b->layer];
        if (bind_norms(b, l) || bind_matrices(b, l)) {
            return -1;
        }
    }
    return 0;
}

static int fill_info(struct decoder *d, const struct gguf *g, struct err *e)
{
    const struct hparams *h = &d->hp;
    struct gguf_string name = {"", 0};
    if (gguf_get_string(g, "general.name", &name, e) < 0) {
        return -1;
    }
    d->name = mem_strndup(name.ptr, name.len);
    if (!d->name) {
        return err_no_memory(e, name.len + 1);
    }
    d->info = (struct decoder_info){.family = d->family->name,
                                    .name = d->name,
                                    .n_layer = h->n_layer,
                                    .n_embd = h->n_embd,
                                    .n_head = h->n_head,
                                    .n_head_kv = h->n_head_kv,
                                    .head_dim = h->head_dim,
                                    .n_vocab = h->n_vocab,
                                    .n_ctx_train = h->n_ctx_train};
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        d->info.weight_bytes += gguf_tensor_at(g, i)->n_bytes;
    }
    return 0;
}

struct decoder *decoder_open(const struct gguf *g, struct err *e)
{
    struct decoder *d = mem_zalloc(1, sizeof *d);
    if (!d) {
        err_no_memory(e, sizeof *d);
        return NULL;
    }
    struct binder b = {.d = d, .g = g, .e = e};
    if (bind_all(&b) || fill_info(d, g, e)) {
        decoder_close(d);
        return NULL;
    }
    return d;
}

bool decoder_rows_independent(const struct decoder *d)
{
    return d->all_packed;
}

enum { LAYER_MATRICES = 7 };

/* In the order in which a pass reads them. */
static void layer_matrices(struct decoder_layer *l, struct weight *m[LAYER_MATRICES])
{
    struct weight *const in_order[LAYER_MATRICES] = {&l->k,    &l->v,  &l->q,   &l->attn_out,
                                                     &l->gate, &l->up, &l->down};
    memcpy(m, in_order, sizeof in_order);
}

/* What the first blocks round goes through all others: three of thirty made more than half
 * of the error of a prompt's logits, a tenth of the blocks are therefore sensitive. */
int decoder_pack(struct decoder *d, const struct compute *c, struct err *e)
{
    int n_sensitive = (d->hp.n_layer + 9) / 10;
    int n = d->hp.n_layer * LAYER_MATRICES + 1;
    struct weight **all = mem_alloc((size_t)n, sizeof(struct weight *));
    if (!all) {
        return err_no_memory(e, (size_t)n * sizeof(struct weight *));
    }
    for (int i = 0; i < d->hp.n_layer; i++) {
        layer_matrices(&d->layers[i], all + (size_t)i * LAYER_MATRICES);
    }
    all[n - 1] = &d->output;
    int failed = weights_pack(all, n, c, e);
    d->all_packed = !failed;
    for (int i = 0; i < n; i++) {
        all[i]->is_sensitive = i < n_sensitive * LAYER_MATRICES;
        d->all_packed &= all[i]->packed.data != NULL;
    }
    mem_free(all);
    return failed;
}

static void clear_layer(struct decoder_layer *l)
{
    float *vectors[] = {l->attn_norm,      l->q_norm,   l->k_norm,
                        l->attn_post_norm, l->ffn_norm, l->ffn_post_norm};
    struct weight *matrices[LAYER_MATRICES];
    layer_matrices(l, matrices);
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        mem_free(vectors[i]);
    }
    for (int i = 0; i < LAYER_MATRICES; i++) {
        weight_clear(matrices[i]);
    }
}

void decoder_close(struct decoder *d)
{
    if (!d) {
        return;
    }
    for (int i = 0; d->layers && i < d->hp.n_layer; i++) {
        clear_layer(&d->layers[i]);
    }
    weight_clear(&d->token_embd);
    weight_clear(&d->output);
    mem_free(d->output_norm);
    mem_free(d->layers);
    mem_free(d->name);
    mem_free(d);
}

const struct decoder_info *decoder_info(const struct decoder *d)
{
    return &d->info;
}

struct kv_shape decoder_kv_shape(const struct decoder *d)
{
    return (struct kv_shape){
        .n_layer = d->hp.n_layer, .n_head_kv = d->hp.n_head_kv, .head_dim = d->hp.head_dim};
}
