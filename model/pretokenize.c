/* Pre-tokenizers as a table of regular expressions.
 *
 * The expressions are those the vocabularies were trained with, written so that PCRE2
 * gives the same words as the engines they come from: \s is spelled out as Unicode's
 * White_Space, because PCRE2's \s has one character more (U+180E).
 *
 * No expression nests one repeat in another, so a match is linear in the run it looks
 * at, and every run is consumed by the match that looked at it; the match limit is the
 * second line of defence. Memory of PCRE2 comes from base/alloc.h, so that running out of
 * it can be tested. */
#include "model/pretokenize.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

/* Steps of one match; the longest useful run (a request body of one character) needs
 * one for each byte. */
#define MATCH_LIMIT 64000000u

#define WS                                                                                         \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
/* Letters and numbers of Unicode 15.1 that PCRE2 10.42 (Unicode 14) takes for unassigned:
 * with them the words are the same whatever release of PCRE2 is installed. */
#define LETTER                                                                                     \
    "\\p{L}\\x{1123f}\\x{11240}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"     \
    "\\x{13441}-\\x{13446}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"          \
    "\\x{1e4d0}-\\x{1e4eb}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBER "\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"

#define NO_BLANK_AFTER "(?![^" WS "])"
#define MARKS          " ?[^" WS LETTER NUMBER "]+"
#define GPT2_WORDS                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?[" LETTER "]+| ?[" NUMBER "]+|" MARKS "|[" WS "]+" NO_BLANK_AFTER   \
    "|[" WS "]+"
#define CONTRACTIONS "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"
#define LLAMA3_WORDS(digits)                                                                       \
    CONTRACTIONS "|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]+|" digits "|" MARKS "[\\r\\n]*|[" WS    \
                 "]*[\\r\\n]+|[" WS "]+" NO_BLANK_AFTER "|[" WS "]+"

struct rule {
    const char *name;
    const char *aliases[10]; /* other values of tokenizer.ggml.pre with the same words */
    const char *cut;         /* first pass: what stands apart; NULL = no first pass */
    const char *words;
    bool whole_words;
    bool adds_bos;
};

static const struct rule rules[] = {
    {
        .name = "smollm",
        .aliases = {"starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
        .cut = "[" NUMBER "]",
        .words = GPT2_WORDS,
    },
    {
        .name = "llama-bpe",
        .aliases = {"llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
        .words = LLAMA3_WORDS("[" NUMBER "]{1,3}"),
        .whole_words = true,
        .adds_bos = true,
    },
    {
        .name = "qwen2",
        .aliases = {"deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2"},
        .words = LLAMA3_WORDS("[" NUMBER "]"),
    },
    {
        .name = "gpt-2",
        .aliases = {"phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat",
                    "exaone4", "mellum"},
        .words = GPT2_WORDS,
    },
};
#define N_RULES (sizeof rules / sizeof rules[0])

struct pretokenizer {
    const struct rule *rule;
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *cut; /* NULL = no first pass */
    pcre2_code *words;
};

static void *pcre_alloc(size_t n, void *unused)
{
    (void)unused;
    return mem_alloc(n, 1);
}

static void pcre_free(void *p, void *unused)
{
    (void)unused;
    mem_free(p);
}

static bool same(const char *name, const char *s, size_t len)
{
    return strlen(name) == len && memcmp(name, s, len) == 0;
}

static const struct rule *find_rule(const char *pre, size_t len)
{
    for (size_t i = 0; i < N_RULES; i++) {
        if (same(rules[i].name, pre, len)) {
            return &rules[i];
        }
        for (const char *const *a = rules[i].aliases; *a; a++) {
            if (same(*a, pre, len)) {
                return &rules[i];
            }
        }
    }
    return NULL;
}

static void unknown_rule(const char *pre, size_t len, struct err *e)
{
    struct buf list;
    buf_init(&list, 400);
    for (size_t i = 0; i < N_RULES; i++) {
        buf_printf(&list, "%s%s", i ? ", " : "", rules[i].name);
    }
    err_set(e, ERR_UNSUPPORTED,
            "tokenizer.ggml.pre: pre-tokenizer \"%.*s\" is not supported; supported: %s",
            (int)(len < 60 ? len : 60), pre, buf_str(&list));
    buf_free(&list);
}

static pcre2_code *compile(const struct pretokenizer *p, const char *pattern, struct err *e)
{
    pcre2_compile_context *how = pcre2_compile_context_create(p->memory);
    if (!how) {
        err_no_memory(e, 0);
        return NULL;
    }
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_UCP, &code, &at, how);
    pcre2_compile_context_free(how);
    if (!re && code == PCRE2_ERROR_HEAP_FAILED) {
        err_no_memory(e, 0);
    } else if (!re) {
        err_set(e, ERR_INTERNAL, "pre-tokenizer %s: PCRE2 error %d at %zu", p->rule->name, code,
                (size_t)at);
    } else {
        /* Without just-in-time compilation the same words come out, more slowly. */
        (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    }
    return re;
}

static int set_limits(struct pretokenizer *p, struct err *e)
{
    p->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    p->limits = p->memory ? pcre2_match_context_create(p->memory) : NULL;
    if (!p->limits) {
        return err_no_memory(e, sizeof *p);
    }
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    return 0;
}

struct pretokenizer *pretokenizer_open(const char *pre, size_t pre_len, struct err *e)
{
    const struct rule *rule = find_rule(pre, pre_len);
    if (!rule) {
        unknown_rule(pre, pre_len, e);
        return NULL;
    }
    struct pretokenizer *p = mem_zalloc(1, sizeof *p);
    if (!p) {
        err_no_memory(e, sizeof *p);
        return NULL;
    }
    p->rule = rule;
    if (set_limits(p, e) || (rule->cut && !(p->cut = compile(p, rule->cut, e))) ||
        !(p->words = compile(p, rule->words, e))) {
        pretokenizer_close(p);
        return NULL;
    }
    return p;
}

void pretokenizer_close(struct pretokenizer *p)
{
    if (p) {
        pcre2_code_free(p->words);
        pcre2_code_free(p->cut);
        pcre2_match_context_free(p->limits);
        pcre2_general_context_free(p->memory);
        mem_free(p);
    }
}

const char *pretokenizer_name(const struct pretokenizer *p)
{
    return p->rule->name;
}

bool pretokenizer_whole_words(const struct pretokenizer *p)
{
    return p->rule->whole_words;
}

bool pretokenizer_adds_bos(const struct pretokenizer *p)
{
    return p->rule->adds_bos;
}

int pretokenize_begin(struct pretokenize_cursor *c, const struct pretokenizer *p, struct err *e)
{
    *c = (struct pretokenize_cursor){.rule = p};
    c->match = pcre2_match_data_create(1, p->memory);
    return c->match ? 0 : err_no_memory(e, 0);
}

void pretokenize_end(struct pretokenize_cursor *c)
{
    pcre2_match_data_free(c->match);
    c->match = NULL;
}

void pretokenize_text(struct pretokenize_cursor *c, const char *text, size_t len)
{
    c->text = text;
    c->len = len;
    c->next = c->stretch = c->stretch_end = c->section = c->section_end = 0;
}

/* The next piece of text[begin..end) under one expression: what lies before its first
 * match, or else that match, or all of it when there is none. */
static int next_piece(struct pretokenize_cursor *c, const pcre2_code *re, size_t begin, size_t end,
                      size_t *piece_end, struct err *e)
{
    const struct pretokenizer *p = c->rule;
    PCRE2_SPTR subject = (PCRE2_SPTR)(c->text + begin);
    uint32_t how = PCRE2_NO_UTF_CHECK;
    int n = pcre2_match(re, subject, end - begin, 0, how, c->match, p->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) {
        n = pcre2_match(re, subject, end - begin, 0, how | PCRE2_NO_JIT, c->match, p->limits);
    }
    if (n == PCRE2_ERROR_NOMATCH) {
        *piece_end = end;
        return 0;
    }
    if (n == PCRE2_ERROR_NOMEMORY) {
        return err_no_memory(e, 0);
    }
    if (n == PCRE2_ERROR_MATCHLIMIT || n == PCRE2_ERROR_HEAPLIMIT ||
        n == PCRE2_ERROR_JIT_STACKLIMIT) {
        return err_reason(
            e, ERR_TOO_LARGE, "text_run_too_long",
            "the text holds a run of one kind of character that is too long to split");
    }
    const PCRE2_SIZE *at = n < 0 ? NULL : pcre2_get_ovector_pointer(c->match);
    if (!at || at[1] == 0) {
        return err_set(e, ERR_INTERNAL, "pre-tokenizer %s: PCRE2 error %d", p->rule->name, n);
    }
    *piece_end = begin + (at[0] ? at[0] : at[1]);
    return 0;
}

/* Sets the next section; 1 when there is one, 0 when the stretch is used up. */
static int next_section(struct pretokenize_cursor *c, struct err *e)
{
    if (c->stretch == c->stretch_end) {
        return 0;
    }
    c->section = c->stretch;
    c->section_end = c->stretch_end;
    if (c->rule->cut &&
        next_piece(c, c->rule->cut, c->stretch, c->stretch_end, &c->section_end, e)) {
        return -1;
    }
    c->stretch = c->section_end;
    return 1;
}

int pretokenize_next(struct pretokenize_cursor *c, size_t *begin, size_t *end, struct err *e)
{
    while (c->section == c->section_end) {
        int more = next_section(c, e);
        if (more < 0) {
            return -1;
        }
        if (more) {
            continue;
        }
        if (c->next == c->len) {
            return 0;
        }
        size_t valid = utf8_valid_prefix(c->text + c->next, c->len - c->next);
        if (valid == 0) {
            *begin = c->next++;
            *end = c->next;
            return 1;
        }
        c->stretch = c->next;
        c->next += valid;
        c->stretch_end = c->next;
    }
    if (next_piece(c, c->rule->words, c->section, c->section_end, end, e)) {
        return -1;
    }
    *begin = c->section;
    c->section = *end;
    return 1;
}
