/* A tokenizer as the GGUF file describes it: choice of the kind, ids with a meaning, and
 * the walk over one text. The result is never written to after tokenizer_open, so any
 * number of threads may encode at once; each call has its own working memory.
 *
 * Where this differs from llama.cpp, on purpose:
 *   - control, unknown and byte tokens never come out of plain text, not even when merges
 *     happen to spell one ("</s>" typed by a user);
 *   - user-defined tokens that chat templates write, or that look like it ("<|...|>",
 *     "<think>", "<tool_response>"), count as control tokens;
 *   - invalid UTF-8 keeps its bytes instead of becoming U+FFFD;
 *   - a special id outside the vocabulary, and an unknown pre-tokenizer, are refused. */
#include "model/tokenizer.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "model/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

/* Texts that end a turn or the text, whatever type the file gives them. */
static const char *const end_texts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|fim_pad|>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|tool_response>",
    "<turn|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
};

/* The same where the file says that the token is special. In some vocabularies these are
 * words: Qwen2 has "</s>" because it is HTML. */
static const char *const weak_end_texts[] = {
    "</s>",  "<eos>",     "<EOT>",     "_<EOT>",     "[EOT]",      "[EOS]",  "<PAD>",
    "[PAD]", "<fim_pad>", "<fim-pad>", "<fim-repo>", "<reponame>", "<REPO>",
};

/* What the chat templates of ours write: control tokens even if the file calls them
 * user-defined, so that nobody can type a turn or the answer of a tool. */
static const char *const markup_texts[] = {
    "<s>",      "<bos>",           "<start_of_turn>",  "[INST]",           "[/INST]",
    "<think>",  "</think>",        "<tool_response>",  "</tool_response>", "<<SYS>>",
    "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static int get_id(const struct tokenizer *t, const struct gguf *g, const char *key,
                  token_id fallback, token_id *id, struct err *e)
{
    int64_t value = fallback < t->vocab.n ? fallback : -1;
    int got = gguf_get_int(g, key, 0, t->vocab.n - 1, &value, e);
    *id = (token_id)value;
    return got < 0 ? -1 : 0;
}

static void mark_ends(struct tokenizer *t, const char *const *texts, size_t n, bool words_too)
{
    for (size_t i = 0; i < n; i++) {
        token_id id = vocab_find(&t->vocab, texts[i], strlen(texts[i]));
        if (id >= 0 && (words_too || t->vocab.type[id] != TOKEN_NORMAL)) {
            t->is_eog[id] = true;
            t->vocab.type[id] = TOKEN_CONTROL;
        }
    }
}

static int load_ids(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    bool spm = t->model == TOKENIZER_SPM; /* whose ids have been 0, 1, 2 from the start */
    token_id eom;
    t->is_eog = mem_zalloc((size_t)t->vocab.n, sizeof *t->is_eog);
    if (!t->is_eog) {
        return err_no_memory(e, (size_t)t->vocab.n);
    }
    if (get_id(t, g, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, &t->bos, e) ||
        get_id(t, g, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, &t->eos, e) ||
        get_id(t, g, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, &t->unk, e) ||
        get_id(t, g, "tokenizer.ggml.eot_token_id", -1, &t->eot, e) ||
        get_id(t, g, "tokenizer.ggml.eom_token_id", -1, &eom, e)) {
        return -1;
    }
    mark_ends(t, end_texts, COUNT(end_texts), true);
    mark_ends(t, weak_end_texts, COUNT(weak_end_texts), false);
    const token_id named[] = {t->eos, t->eot, eom};
    for (size_t i = 0; i < COUNT(named); i++) {
        if (named[i] >= 0) {
            t->is_eog[named[i]] = true;
        }
    }
    return 0;
}

static bool looks_like_markup(const struct token_text *t)
{
    return t->len >= 5 && memcmp(t->ptr, "<|", 2) == 0 && memcmp(t->ptr + t->len - 2, "|>", 2) == 0;
}

static void mark_markup(struct tokenizer *t)
{
    struct vocab *v = &t->vocab;
    for (size_t i = 0; i < COUNT(markup_texts); i++) {
        token_id id = vocab_find(v, markup_texts[i], strlen(markup_texts[i]));
        if (id >= 0 && v->type[id] == TOKEN_USER_DEFINED) {
            v->type[id] = TOKEN_CONTROL;
        }
    }
    for (token_id id = 0; id < v->n; id++) {
        if (v->type[id] == TOKEN_USER_DEFINED && looks_like_markup(&v->text[id])) {
            v->type[id] = TOKEN_CONTROL;
        }
    }
}

static int load_add_bos(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    t->add_bos = t->model == TOKENIZER_SPM || pretokenizer_adds_bos(t->bpe.pre);
    if (gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, e) < 0) {
        return -1;
    }
    if (t->add_bos && t->bos < 0) {
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.bos_token_id: missing, but texts must begin with it");
    }
    return 0;
}

static int choose_model(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct gguf_string s = {"", 0};
    if (gguf_get_string(g, "tokenizer.ggml.model", &s, e) < 0) {
        return -1;
    }
    if (s.len == 4 && memcmp(s.ptr, "gpt2", 4) == 0) {
        t->model = TOKENIZER_BPE;
    } else if (s.len == 5 && memcmp(s.ptr, "llama", 5) == 0) {
        t->model = TOKENIZER_SPM;
    } else {
        return err_set(e, ERR_UNSUPPORTED,
                       "tokenizer.ggml.model: \"%.*s\" is not supported; supported: gpt2 "
                       "(byte-pair encoding), llama (SentencePiece)",
                       (int)(s.len < 60 ? s.len : 60), s.ptr);
    }
    return 0;
}

static int load_model(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    if (t->model == TOKENIZER_SPM) {
        snprintf(t->kind, sizeof t->kind, "spm");
        return spm_load(&t->spm, &t->vocab, g, e);
    }
    if (bpe_load(&t->bpe, &t->vocab, g, e)) {
        return -1;
    }
    snprintf(t->kind, sizeof t->kind, "bpe/%s", pretokenizer_name(t->bpe.pre));
    return 0;
}

/* The order matters: ids decide types, types decide what merges and texts may become. */
static int load(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    if (choose_model(t, g, e) || vocab_load(&t->vocab, g, t->model == TOKENIZER_SPM, e) ||
        load_ids(t, g, e)) {
        return -1;
    }
    mark_markup(t);
    if (load_model(t, g, e) || load_add_bos(t, g, e) || special_load(t, e)) {
        return -1;
    }
    return vocab_make_pieces(&t->vocab, t->model == TOKENIZER_BPE, e);
}

struct tokenizer *tokenizer_open(const struct gguf *g, struct err *e)
{
    struct tokenizer *t = mem_zalloc(1, sizeof *t);
    if (!t) {
        err_no_memory(e, sizeof *t);
        return NULL;
    }
    if (load(t, g, e)) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t) {
        vocab_clear(&t->vocab);
        bpe_clear(&t->bpe);
        mem_free(t->is_eog);
        mem_free(t->special);
        mem_free(t);
    }
}

int tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->vocab.n;
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    return t->kind;
}

token_id tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

token_id tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_add_bos(const struct tokenizer *t)
{
    return t->add_bos;
}

static bool in_vocab(const struct tokenizer *t, token_id id)
{
    return id >= 0 && id < t->vocab.n;
}

bool tokenizer_is_eog(const struct tokenizer *t, token_id id)
{
    return in_vocab(t, id) && t->is_eog[id];
}

bool tokenizer_is_special(const struct tokenizer *t, token_id id)
{
    return in_vocab(t, id) &&
           (t->vocab.type[id] == TOKEN_CONTROL || t->vocab.type[id] == TOKEN_USER_DEFINED);
}

const char *tokenizer_piece(const struct tokenizer *t, token_id id, bool special, size_t *len)
{
    *len = 0;
    if (!in_vocab(t, id)) {
        return "";
    }
    unsigned char type = t->vocab.type[id];
    if (special || (type != TOKEN_CONTROL && type != TOKEN_UNKNOWN)) {
        *len = t->vocab.piece[id].len;
    }
    return t->vocab.piece[id].ptr;
}

int encoding_push(struct encoding *enc, token_id id, size_t end)
{
    struct token_list *l = &enc->out;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        struct token *items = mem_realloc(l->items, cap, sizeof *items);
        if (!items) {
            return err_no_memory(enc->e, cap * sizeof *items);
        }
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n++] = (struct token){id, (uint32_t)l->covered, (uint32_t)end};
    l->covered = end;
    return 0;
}

void encoding_skip(struct encoding *enc, size_t end)
{
    struct token_list *l = &enc->out;
    if (l->n) {
        l->items[l->n - 1].end = (uint32_t)end;
        l->covered = end;
    }
}

void *encoding_scratch(struct encoding *enc, int which, size_t n, size_t size)
{
    size_t bytes;
    if (!ck_mul(n, size, &bytes)) {
        err_no_memory(enc->e, (size_t)-1);
        return NULL;
    }
    if (enc->scratch[which] && bytes <= enc->scratch_bytes[which]) {
        return enc->scratch[which];
    }
    bytes = bytes < 4096 ? 4096 : bytes;
    mem_free(enc->scratch[which]);
    enc->scratch[which] = mem_alloc(bytes, 1);
    enc->scratch_bytes[which] = enc->scratch[which] ? bytes : 0;
    if (!enc->scratch[which]) {
        err_no_memory(enc->e, bytes);
    }
    return enc->scratch[which];
}

static void encoding_clear(struct encoding *enc)
{
    for (size_t i = 0; i < COUNT(enc->scratch); i++) {
        mem_free(enc->scratch[i]);
    }
    mem_free(enc->out.items);
    if (enc->cursor.match) {
        pretokenize_end(&enc->cursor);
    }
}

static int encode_plain(struct encoding *enc, size_t begin, size_t end, bool after_special)
{
    if (begin == end) {
        return 0;
    }
    if (enc->t->model == TOKENIZER_BPE) {
        return bpe_encode(enc, begin, end);
    }
    return spm_encode(enc, begin, end, after_special && enc->t->spm.add_space_prefix);
}

static int encode_between(struct encoding *enc, size_t len, const struct special_match *m, size_t n,
                          bool first_fragment)
{
    size_t at = 0;
    bool after_special = first_fragment;
    for (size_t i = 0; i < n; i++) {
        if (encode_plain(enc, at, m[i].begin, after_special)) {
            return -1;
        }
        at = m[i].begin + m[i].len;
        if (encoding_push(enc, m[i].id, at)) {
            return -1;
        }
        after_special = true;
    }
    return encode_plain(enc, at, len, after_special);
}

static int check_ranges(size_t len, const struct text_range *r, int n, struct err *e)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        if (r[i].begin < at || r[i].end < r[i].begin || r[i].end > len) {
            return err_set(e, ERR_INTERNAL, "special range %d of a text is out of order", i);
        }
        at = r[i].end;
    }
    return 0;
}

static int give(struct encoding *enc, size_t len, struct arena *a, struct token **out, int *n_out)
{
    struct token_list *l = &enc->out;
    encoding_skip(enc, len);
    *out = arena_alloc(a, l->n ? l->n : 1, sizeof **out);
    if (!*out) {
        return err_no_memory(enc->e, l->n * sizeof **out);
    }
    if (l->n) {
        memcpy(*out, l->items, l->n * sizeof **out);
    }
    *n_out = (int)l->n;
    return 0;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                     const struct text_range *special, int n_special, bool first_fragment,
                     struct arena *a, struct token **out, int *n_out, struct err *e)
{
    if (len > TOKENIZE_MAX_BYTES) {
        return err_reason(e, ERR_TOO_LARGE, "text_too_long",
                          "the text has %zu bytes, the limit is %zu", len, TOKENIZE_MAX_BYTES);
    }
    struct special_match *matches;
    size_t n_matches;
    if (check_ranges(len, special, n_special, e) ||
        special_find(t, text, len, special, n_special, &matches, &n_matches, e)) {
        return -1;
    }
    struct encoding enc = {.t = t, .text = text, .e = e};
    int failed = encode_between(&enc, len, matches, n_matches, first_fragment) ||
                 give(&enc, len, a, out, n_out);
    encoding_clear(&enc);
    mem_free(matches);
    return failed ? -1 : 0;
}
