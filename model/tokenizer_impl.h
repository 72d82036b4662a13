/* The inside of a tokenizer, shared by its files and their tests.
 *
 *   tokenizer.c          open, ids with a meaning, the walk over one text
 *   tokenizer_vocab.c    texts, types and scores of the file; text -> id
 *   tokenizer_special.c  where special tokens stand in a text
 *   tokenizer_bpe.c      byte-level byte-pair encoding
 *   tokenizer_spm.c      SentencePiece unigrams merged by score
 *   merge_heap.h         the queue of candidate merges of both */
#ifndef TAMP_MODEL_TOKENIZER_IMPL_H
#define TAMP_MODEL_TOKENIZER_IMPL_H

#include "base/err.h"
#include "model/pretokenize.h"
#include "model/tokenizer.h"
#include "tensor/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_TEXT_MAX_BYTES 65536u
#define VOCAB_MAX_TOKENS     (1 << 24)
/* Positions are 32 bits, and SentencePiece turns a blank into three bytes. */
#define TOKENIZE_MAX_BYTES ((size_t)256 << 20)

/* tokenizer.ggml.token_type, numbers as in the file. */
enum token_type {
    TOKEN_UNDEFINED = 0,
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
    TOKEN_TYPE_COUNT
};

struct token_text {
    const char *ptr;
    uint32_t len;
};

struct vocab {
    int n;
    struct token_text *text;  /* [n], as in the file */
    struct token_text *piece; /* [n], as in output text */
    unsigned char *type;      /* [n], enum token_type */
    float *score;             /* [n], SentencePiece only */
    char *text_bytes, *piece_bytes;
    uint32_t *slot; /* [n_slots], id + 1, 0 = free */
    uint32_t n_slots;
    uint32_t longest; /* bytes of the longest text */
};

int vocab_load(struct vocab *v, const struct gguf *g, bool scores, struct err *e);
void vocab_clear(struct vocab *v);
/* -1 when no token has that text. */
token_id vocab_find(const struct vocab *v, const char *text, size_t len);
/* The same, and never a token that plain text must not become: control, unknown, byte. */
token_id vocab_find_plain(const struct vocab *v, const char *text, size_t len);
bool vocab_is(const struct vocab *v, token_id id, const char *text);
/* Bytes of output text; called once the types are final. `byte_level`: texts are written
 * in the byte-level alphabet of GPT-2. */
int vocab_make_pieces(struct vocab *v, bool byte_level, struct err *e);

/* The byte-level alphabet: every byte as one printable character of up to two bytes. */
size_t byte_level_put(unsigned char byte, char out[2]);

struct bpe_merge {
    token_id left, right, result;
};

struct bpe {
    struct pretokenizer *pre;
    struct bpe_merge *merge; /* [n_merges], by rank */
    uint32_t n_merges;
    uint32_t *slot; /* [n_slots], rank + 1, 0 = free; key: (left, right) */
    uint32_t n_slots;
    token_id byte[256]; /* -1 = the vocabulary lacks it */
};

struct spm {
    token_id byte[256];
    bool add_space_prefix;
};

enum tokenizer_model { TOKENIZER_BPE, TOKENIZER_SPM };

struct tokenizer {
    enum tokenizer_model model;
    char kind[64];
    struct vocab vocab;
    struct bpe bpe;
    struct spm spm;
    token_id bos, eos, eot, unk; /* -1 = none */
    bool add_bos;
    bool *is_eog;      /* [n] */
    token_id *special; /* control and user-defined, sorted by text */
    size_t n_special;
    bool starts_special[256]; /* first bytes of their texts */
};

struct token_list {
    struct token *items;
    size_t n, cap;
    size_t covered; /* input bytes before this belong to a token */
};

/* One call of tokenizer_encode. */
struct encoding {
    const struct tokenizer *t;
    const char *text;
    struct token_list out;
    struct pretokenize_cursor cursor;
    void *scratch[4]; /* growing blocks of the merge loop; freed with the encoding */
    size_t scratch_bytes[4];
    struct err *e;
};

/* The next token, reaching up to input byte `end`. */
int encoding_push(struct encoding *enc, token_id id, size_t end);
/* No token stands for the bytes up to `end`: the token before takes them in. */
void encoding_skip(struct encoding *enc, size_t end);
/* At least n * size bytes, content not kept. NULL with the error set. */
void *encoding_scratch(struct encoding *enc, int which, size_t n, size_t size);

/* A stretch of text without special tokens. */
int bpe_encode(struct encoding *enc, size_t begin, size_t end);
int spm_encode(struct encoding *enc, size_t begin, size_t end, bool space_prefix);

int bpe_load(struct bpe *b, const struct vocab *v, const struct gguf *g, struct err *e);
void bpe_clear(struct bpe *b);
int spm_load(struct spm *s, const struct vocab *v, const struct gguf *g, struct err *e);

int special_load(struct tokenizer *t, struct err *e);

struct special_match {
    size_t begin;
    uint32_t len;
    token_id id;
};
/* Special tokens of text[0..len), ascending, not overlapping; *out is freed with mem_free. */
int special_find(const struct tokenizer *t, const char *text, size_t len,
                 const struct text_range *allowed, int n_allowed, struct special_match **out,
                 size_t *n_out, struct err *e);

#endif
