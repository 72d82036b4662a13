/* Words of each rule. The expected cuts follow from the published expressions of the
 * vocabularies; test_tokenizer.c compares whole token sequences with llama.cpp. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/utf8.h"
#include "model/pretokenize.h"
#include "tests/test.h"

#include <string.h>

static struct pretokenizer *open_rule(const char *name)
{
    struct err e = ERR_INIT;
    struct pretokenizer *p = pretokenizer_open(name, strlen(name), &e);
    if (!p) {
        FAIL("%s", e.msg);
    }
    return p;
}

/* The words of a text, put together with '/' between them. */
static void check_words(const char *rule, const char *text, size_t len, const char *want)
{
    struct pretokenizer *p = open_rule(rule);
    struct pretokenize_cursor c;
    struct err e = ERR_INIT;
    CHECK_OK(pretokenize_begin(&c, p, &e), e);
    const char *guarded = test_guarded(text, len);
    pretokenize_text(&c, guarded, len);
    struct buf got;
    buf_init(&got, 4096);
    size_t begin;
    size_t end;
    size_t at = 0;
    while (pretokenize_next(&c, &begin, &end, &e) > 0) {
        CHECK_INT(begin, ==, at);
        CHECK_INT(end, >, begin);
        buf_printf(&got, "%s", at ? "/" : "");
        buf_append(&got, guarded + begin, end - begin);
        at = end;
    }
    CHECK_INT(at, ==, len);
    CHECK_STR(buf_str(&got), want);
    buf_free(&got);
    pretokenize_end(&c);
    pretokenizer_close(p);
}

TEST(pretokenize_words, "each rule cuts words, digits, blanks and contractions its own way")
{
    static const struct {
        const char *rule, *text, *want;
    } rows[] = {
        {"gpt-2", "Hello world's  end 123\n\nx", "Hello/ world/'s/ / end/ 123/\n/\n/x"},
        {"smollm", "Hello 123 's", "Hello/ /1/2/3/ '/s"},
        {"smollm", "a   1", "a/   /1"},
        {"llama-bpe", "I'LL pay 12345!!\n\n  ok", "I/'LL/ pay/ /123/45/!!\n\n/ / ok"},
        {"qwen2", "I'LL pay 123.\n ok", "I/'LL/ pay/ /1/2/3/.\n/ ok"},
        {"gpt-2", "I'LL", "I/'/LL"},
        {"llama-bpe", "  \n \n  x", "  \n \n/ / x"},
        {"llama-bpe", "-x (y) \xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x81",
         "-x/ (/y/)/ \xe4\xbd\xa0\xe5\xa5\xbd/\xef\xbc\x81"},
        {"gpt-2", "end  ", "end/  "},
        {"gpt-2", "", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_words(rows[i].rule, rows[i].text, strlen(rows[i].text), rows[i].want);
    }
}

TEST(pretokenize_white_space, "blanks are Unicode's White_Space: U+0085 and U+3000, not U+180E")
{
    check_words("gpt-2",
                "a\xc2\x85"
                "b",
                4, "a/\xc2\x85/b");
    check_words("gpt-2",
                "a\xe3\x80\x80"
                "b",
                5, "a/\xe3\x80\x80/b");
    check_words("gpt-2", "? \xe1\xa0\x8e?", 6, "?/ \xe1\xa0\x8e?");
}

TEST(pretokenize_new_letters, "letters and digits of Unicode 15 are known to every PCRE2")
{
    check_words("qwen2",
                "a\xf0\xb1\x8d\x90"
                "1",
                6, "a\xf0\xb1\x8d\x90/1");
    check_words("llama-bpe", "1\xf0\x91\xbd\x90!", 6, "1\xf0\x91\xbd\x90/!");
}

TEST(pretokenize_invalid_utf8, "a byte that is not UTF-8 is a word of its own")
{
    check_words("llama-bpe", "ab\xff\xfe cd", 7, "ab/\xff/\xfe/ cd");
    check_words("smollm", "1\xe4\xbd", 3, "1/\xe4/\xbd");
    check_words("gpt-2", "\xed\xa0\x80", 3, "\xed/\xa0/\x80");
}

TEST(pretokenize_names, "files name rules and aliases; an unknown one is refused with the list")
{
    struct pretokenizer *p = open_rule("llama-v3");
    CHECK_STR(pretokenizer_name(p), "llama-bpe");
    CHECK(pretokenizer_whole_words(p) && pretokenizer_adds_bos(p));
    pretokenizer_close(p);
    struct err e = ERR_INIT;
    CHECK(!pretokenizer_open("tekken", 6, &e));
    CHECK_INT(e.code, ==, ERR_UNSUPPORTED);
    CHECK(strstr(e.msg, "tekken") && strstr(e.msg, "smollm, llama-bpe, qwen2, gpt-2"));
}

static size_t count_words(const struct pretokenizer *p, const char *text, size_t len)
{
    struct pretokenize_cursor c;
    struct err e = ERR_INIT;
    CHECK_OK(pretokenize_begin(&c, p, &e), e);
    pretokenize_text(&c, text, len);
    size_t n = 0;
    size_t begin;
    size_t end;
    int more;
    while ((more = pretokenize_next(&c, &begin, &end, &e)) > 0) {
        n++;
    }
    CHECK_OK(more, e);
    pretokenize_end(&c);
    return n;
}

TEST(pretokenize_long_runs, "a megabyte of one kind of character is one walk for every rule")
{
    static const char *const names[] = {"smollm", "llama-bpe", "qwen2", "gpt-2"};
    static const struct {
        const char *unit;
        size_t per_word[4]; /* characters of one word, 0 = all */
    } runs[] = {
        {"a", {0, 0, 0, 0}},    {" ", {0, 0, 0, 0}}, {"\n", {0, 0, 0, 0}},
        {"7", {1, 3, 1, 0}},    {"!", {0, 0, 0, 0}}, {"\xe4\xbd\xa0", {0, 0, 0, 0}},
        {"\xff", {1, 1, 1, 1}},
    };
    size_t n = 1 << 20;
    for (size_t k = 0; k < sizeof runs / sizeof runs[0]; k++) {
        size_t unit = strlen(runs[k].unit);
        char *text = mem_alloc(n, unit);
        CHECK(text);
        for (size_t i = 0; i < n; i++) {
            memcpy(text + i * unit, runs[k].unit, unit);
        }
        for (size_t r = 0; r < 4; r++) {
            struct pretokenizer *p = open_rule(names[r]);
            size_t per = runs[k].per_word[r];
            CHECK_INT(count_words(p, text, n * unit), ==, per ? (n + per - 1) / per : 1);
            pretokenizer_close(p);
        }
        mem_free(text);
    }
}

TEST(pretokenize_no_memory, "every allocation that fails is an error, and nothing leaks")
{
    for (long fail = 1;; fail++) {
        struct err e = ERR_INIT;
        alloc_fail_at(fail);
        struct pretokenizer *p = pretokenizer_open("smollm", 6, &e);
        long made = alloc_count();
        alloc_fail_at(0);
        if (!p) {
            CHECK_INT(e.code, ==, ERR_NO_MEMORY);
        }
        pretokenizer_close(p);
        if (p && made < fail) {
            break;
        }
        CHECK_INT(fail, <, 1000);
    }
}
