/* grammar/gbnf.c, builder.c, inline.c, automaton*.c: GBNF texts against what they mean. */
#include "base/alloc.h"
#include "grammar/grammar_impl.h"
#include "tests/test.h"
#include "tests/unit/grammar_fixture.h"

#include <stdio.h>
#include <string.h>

TEST(gbnf_items, "texts, classes, groups, repetition, escapes and rules take what they say")
{
    static const struct {
        const char *grammar, *text;
        enum fit fit;
    } cases[] = {
        {"root ::= \"ab\"", "ab", WHOLE},
        {"root ::= \"ab\"", "a", PREFIX},
        {"root ::= \"ab\"", "ac", NO_FIT},
        {"root ::= \"ab\"", "abc", NO_FIT},
        {"root ::= \"\"", "", WHOLE},
        {"root ::= [a-c_-]+", "a_-b", WHOLE},
        {"root ::= [^a-c]", "a", NO_FIT},
        {"root ::= [^a-c]", "d", WHOLE},
        {"root ::= [^a-c]", "\xe2\x82\xac", WHOLE},
        {"root ::= [^a-c]", "\xe2\x82", PREFIX},
        {"root ::= [^a-c]", "\xff", NO_FIT},
        {"root ::= [^a-c]", "\xed\xa0\x80", NO_FIT}, /* a surrogate is no character */
        {"root ::= [\\u4e00-\\u9fff]", "\xe4\xb8\x80", WHOLE},
        {"root ::= [\\u4e00-\\u9fff]", "\xe4\xb7\xbf", NO_FIT},
        {"root ::= [\\U0001f600-\\U0001f64f]", "\xf0\x9f\x98\x80", WHOLE},
        {"root ::= \"\\x41\\n\\\"\\\\\"", "A\n\"\\", WHOLE},
        {"root ::= .", "\xf0\x9f\x98\x80", WHOLE},
        {"root ::= \"a\"? \"b\"* \"c\"+", "bbc", WHOLE},
        {"root ::= \"a\"? \"b\"* \"c\"+", "ab", PREFIX},
        {"root ::= \"a\"{3}", "aaa", WHOLE},
        {"root ::= \"a\"{3}", "aa", PREFIX},
        {"root ::= \"a\"{2,}", "a", PREFIX},
        {"root ::= \"a\"{2,}", "aaaaaa", WHOLE},
        {"root ::= \"a\"{1,3} \"b\"", "aaab", WHOLE},
        {"root ::= \"a\"{1,3} \"b\"", "aaaa", NO_FIT},
        {"root ::= \"a\"{0,0} \"b\"", "b", WHOLE},
        {"root ::= (\"ab\" | \"cd\"){2}", "abcd", WHOLE},
        {"root ::= (\"ab\" | \"cd\"){2}", "ab", PREFIX},
        {"root ::= a | b\na ::= \"x\" a | \"y\"\nb ::= \"x\" b | \"z\"", "xxxz", WHOLE},
        {"root ::= a | b\na ::= \"x\" a | \"y\"\nb ::= \"x\" b | \"z\"", "xxy", WHOLE},
        {"root ::= \"(\" root \")\" | \"\"", "((()))", WHOLE},
        {"root ::= \"(\" root \")\" | \"\"", "(()", PREFIX},
        {"root ::= \"(\" root \")\" | \"\"", "())", NO_FIT},
        {"root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"x\"", "aaaxbcb", WHOLE},
        {"root ::= (a b)*\na ::= \"x\"?\nb ::= \"y\"?", "yxxy", WHOLE},
        {"# a comment\n\nroot ::= # here, too\n  \"a\" |\n  \"b\" # end\n\n", "b", WHOLE},
        {"root ::= (\n \"a\"\n \"b\"\n)", "ab", WHOLE},
        {"dead ::= \"x\" dead\nroot ::= \"x\" dead | \"xy\"", "x", PREFIX},
        {"dead ::= \"x\" dead\nroot ::= \"x\" dead | \"xy\"", "xx", NO_FIT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct grammar *g = gbnf(cases[i].grammar);
        enum fit got = fit_text(g, cases[i].text);
        if (got != cases[i].fit) {
            FAIL("%s and \"%s\": %d, not %d", cases[i].grammar, cases[i].text, (int)got,
                 (int)cases[i].fit);
        }
        grammar_unref(g);
    }
}

TEST(gbnf_refused, "what is no grammar is refused with the line and the reason")
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no rule \"root\""},
        {"a ::= \"x\"", "no rule \"root\""},
        {"root ::= \"x", "no end"},
        {"root ::= [a", "no end"},
        {"root ::= [z-a]", "ends before"},
        {"root ::= (\"a\"", "')'"},
        {"root ::= \"a\" )", "no item"},
        {"root ::= \"a\"{2,1}", "{n}"},
        {"root ::= \"a\"{x}", "{n}"},
        {"root ::= \"a\"{9999}", "too large"},
        {"root ::= \"\\q\"", "escape"},
        {"root ::= \"\\ud800\"", "not a character"},
        {"root ::= \"\\x4\"", "hexadecimal"},
        {"root ::= \"a\"\n\nroot ::= \"b\"", "line 3"},
        {"root ::= a\n", "not defined"},
        {"root = \"a\"", "::="},
        {"root ::= \"a\"\n= \"b\"", "name of a rule"},
        {"root ::= \"\xc3\"", "UTF-8"},
        {"root ::= root \"a\" | \"b\"", "left-recursive"},
        {"root ::= a\na ::= b? a \"x\" | \"y\"\nb ::= \"z\"", "left-recursive"},
        {"root ::= \"a\" root", "no text at all"},
        {"root ::= (a | \"b\")*{8000}{8000}\na ::= \"c\"", "no item"},
        {"root ::= ((((\"a\"{99}){99}){99}){99})", "too large"},
        {"root ::= [ab]* \"a\" [ab]{24}", "too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e;
        refused_gbnf(cases[i].text, &e);
        if (!strstr(e.msg, cases[i].says)) {
            FAIL("%s: \"%s\", without \"%s\"", cases[i].text, e.msg, cases[i].says);
        }
    }
    char deep[400];
    size_t n = (size_t)snprintf(deep, sizeof deep, "root ::= ");
    memset(deep + n, '(', 200);
    deep[n + 200] = '\0';
    struct err e;
    refused_gbnf(deep, &e);
    CHECK(strstr(e.msg, "too deeply"));
}

TEST(gbnf_fuzz, "damaged texts and noise against a guard page: refused or compiled, never worse")
{
    static const char good[] = "root ::= object | [^\\x00-\\x1f\"]{1,4} (\"\\u20ac\" | ws)+ # end\n"
                               "object ::= \"{\" ws (member (\",\" ws member)*)? \"}\"\n"
                               "member ::= \"\\\"\" [a-z]* \"\\\":\" ws (object | \"1\"?)\n"
                               "ws ::= | \" \" | \"\\n\" [ \\t]{0,4}\n";
    static const char signs[] = "\"[]()|*+?{},.\\-^:=#\n \trootxu09";
    struct rng r;
    rng_init(&r, test_seed());
    int n_good = 0;
    for (int round = 0; round < 4000; round++) {
        char text[sizeof good + 8];
        size_t n = sizeof good - 1;
        if (round % 4 == 3) {
            n = rng_below(&r, 60);
            for (size_t i = 0; i < n; i++) {
                text[i] = signs[rng_below(&r, sizeof signs - 1)];
            }
        } else {
            memcpy(text, good, n);
            n = round % 4 == 2 ? rng_below(&r, n) : n;
            for (uint64_t k = rng_below(&r, 4); k > 0 && n > 0; k--) {
                text[rng_below(&r, n)] =
                    round & 1 ? (char)rng_below(&r, 256) : signs[rng_below(&r, sizeof signs - 1)];
            }
        }
        struct err e = ERR_INIT;
        char *guarded = test_guarded(text, n);
        struct grammar *g = grammar_from_gbnf(guarded, n, &e);
        if (g) {
            char out[64];
            bool whole;
            size_t len = random_text(g, &r, out, sizeof out, &whole);
            CHECK(fit(g, out, len) == (whole ? WHOLE : PREFIX));
            n_good++;
        } else {
            CHECK(e.code != ERR_NONE);
        }
        grammar_unref(g);
    }
    CHECK_INT(n_good, >, 100);
}

TEST(gbnf_classes, "states that differ only beyond a token share their class")
{
    struct grammar *g = gbnf("root ::= \"\\\"\" char{0,2000} \"\\\"\"\nchar ::= [^\"\\x00-\\x1f]");
    CHECK_INT(grammar_n_states(g), >, 2000);
    CHECK_INT(g->n_classes, <, 20 * GRAMMAR_MAX_TOKEN);
    struct grammar *same =
        gbnf("root ::= \"\\\"\" char{0,2000} \"\\\"\"\nchar ::= [^\"\\x00-\\x1f]");
    struct grammar *other =
        gbnf("root ::= \"\\\"\" char{0,1999} \"\\\"\"\nchar ::= [^\"\\x00-\\x1f]");
    CHECK(grammar_equal(g, same));
    CHECK(!grammar_equal(g, other));
    grammar_unref(g);
    grammar_unref(same);
    grammar_unref(other);
}

TEST(gbnf_no_memory, "whichever allocation fails, there is a grammar or an error")
{
    static const char text[] = "root ::= (\"a\" [b-\\u20ac]* root \"c\" | d){1,3}\nd ::= \"x\"";
    int survived = 0;
    for (long n = 1; n < 400 && survived < 3; n++) {
        struct err e = ERR_INIT;
        alloc_fail_at(n);
        struct grammar *g = grammar_from_gbnf(text, sizeof text - 1, &e);
        alloc_fail_at(0);
        CHECK(g ? fit_text(g, "abxcx") == WHOLE : e.code == ERR_NO_MEMORY);
        survived += g != NULL;
        grammar_unref(g);
    }
    CHECK_INT(survived, ==, 3);
}
