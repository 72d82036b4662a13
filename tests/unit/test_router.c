/* Spans of a chat, and the scanner: what it protects is written between « and » in the
 * test texts; hostile and random bytes are pushed against a guard page. */
#include "base/rng.h"
#include "compress/router.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_MAX ((size_t)256 << 20)

/* Takes the marks out of `marked`, scans the rest and compares the ranges. */
static void check_marked(const char *marked)
{
    struct arena a;
    struct err e = ERR_INIT;
    static char text[4096];
    struct text_range want[64];
    int n_want = 0;
    size_t n = 0;
    for (const char *p = marked; *p;) {
        if (strncmp(p, "«", 2) == 0) {
            want[n_want].begin = n;
            p += 2;
        } else if (strncmp(p, "»", 2) == 0) {
            want[n_want++].end = n;
            p += 2;
        } else {
            text[n++] = *p++;
        }
    }
    arena_init(&a, ARENA_MAX);
    struct text_range *got;
    int n_got;
    char *guarded = test_guarded(text, n);
    CHECK_OK(router_protected_ranges(guarded, n, &a, &got, &n_got, &e), e);
    for (int i = 0; i < n_got && i < n_want; i++) {
        if (got[i].begin != want[i].begin || got[i].end != want[i].end) {
            FAIL("range %d of \"%s\" is %zu..%zu, not %zu..%zu", i, marked, got[i].begin,
                 got[i].end, want[i].begin, want[i].end);
        }
    }
    if (n_got != n_want) {
        FAIL("%d ranges instead of %d in \"%s\"", n_got, n_want, marked);
    }
    arena_clear(&a);
}

TEST(router_protects_words, "digits, article codes, URLs and addresses, and only those")
{
    check_marked("");
    check_marked("Nothing here is exact, so all of it may merge.");
    check_marked("It costs «$12.99», not «1,299.00» or «7».");
    check_marked("Order «AB-1234» (size «XL-M») from «2024-05-21»!");
    check_marked("I like it, and/or not; A B C; OK-ish; a-b; TCP or «TCP/IP».");
    check_marked("See «https://shop.example/p?id=7&x=a_b», «www.shop.example» or <«ftp://a.b/c»>.");
    check_marked("Mail «help@shop.example» now; @handle is not one.");
    check_marked("«iPhone15», is a word");
    check_marked("a,b,c and «3,4» and '«5»'");
    check_marked("-XL- _A_ / - --");
}

TEST(router_protects_code, "fences, inline code and JSON, closed or not")
{
    check_marked("Run «`ls -l`» or «``a`b``» please");
    check_marked("one ` alone\nand a second ` on the next line");
    check_marked("text\n«```c\nint x;\n```»\ntext");
    check_marked("text «```\nnever closed, to the end»");
    check_marked("thanks~~~ nice\n«~~~\ncode\n~~~» after");
    check_marked("answer «{\"a\": [1, \"}\", {\"b\\\"\": {}}]}» and {not json} here");
    check_marked("«[{\"id\": 1}]» «[ \"x\" ]» [see] [«1»]");
    check_marked("broken «{\"a\": to the end»");
    check_marked("«{}» «{ }» {");
}

TEST(router_protects_scripts, "digits of any script; sentences without spaces stay free")
{
    check_marked("这件商品的价格是«128»元，质量非常好。");
    check_marked("全角«１２»个 और «४२» हिन्दी");
    check_marked("café «au-lait-2» emoji 😀«5»😀 ©");
    check_marked("网址«https://a.example/b»。谢谢");
}

static void scan_only(const char *text, size_t n)
{
    struct arena a;
    struct err e = ERR_INIT;
    struct text_range *r;
    int n_ranges;
    arena_init(&a, ARENA_MAX);
    CHECK_OK(router_protected_ranges(text, n, &a, &r, &n_ranges, &e), e);
    size_t last = 0;
    for (int i = 0; i < n_ranges; i++) {
        CHECK(r[i].begin < r[i].end && r[i].end <= n);
        CHECK(i == 0 || r[i].begin > last);
        last = r[i].end;
    }
    arena_clear(&a);
}

TEST(router_any_bytes, "random bytes and half characters: ranges ascend, nothing is overrun")
{
    static const char *const pieces[] = {"`",    "```",      "~~~",  "{\"", "[{", "\\", "\"", "\n",
                                         " ",    "A-",       "9",    "://", "@a", "}",  "]",  "é",
                                         "\xe5", "\xf0\x9f", "\xff", ",",   "",   "４"};
    struct rng g;
    rng_init(&g, test_seed());
    for (int trial = 0; trial < 2000; trial++) {
        char text[256];
        size_t n = 0;
        while (n < 200) {
            const char *p = pieces[rng_below(&g, sizeof pieces / sizeof *pieces)];
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", p);
            if (rng_below(&g, 4) == 0) {
                text[n++] = (char)rng_below(&g, 256);
            }
            if (rng_below(&g, 40) == 0) {
                break;
            }
        }
        static char *edge;
        static size_t edge_n = 4096;
        edge = edge ? edge : test_guarded(NULL, edge_n);
        memcpy(edge + edge_n - n, text, n);
        scan_only(edge + edge_n - n, n);
    }
}

TEST(router_linear, "repetitions that would be quadratic for a scan that looks ahead again")
{
    static const char *const units[] = {"`",   "` ", "``a`", "{",  "{ ", "{\"", "[",  "[{\"a",
                                        "~~~", "1,", "A-",   "a@", "w",  "://", "\\", "`\n"};
    size_t n = 1u << 20;
    char *text = malloc(n + 8);
    CHECK(text);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t length = strlen(units[u]);
        for (size_t i = 0; i < n; i += length) {
            memcpy(text + i, units[u], length);
        }
        scan_only(text, n);
    }
    free(text);
}

TEST(router_out_of_memory, "no memory is an error, not a crash")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct text_range *r;
    int n;
    arena_init(&a, 0);
    CHECK_INT(router_protected_ranges("7", 1, &a, &r, &n, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    arena_clear(&a);
}

static struct chat_part text_part(const char *s)
{
    return (struct chat_part){.type = CHAT_PART_TEXT, .text = s, .text_len = strlen(s)};
}

TEST(router_spans, "one span for each part, in order, with step and protection")
{
    struct arena a;
    struct err e = ERR_INIT;
    struct plan plan;
    arena_init(&a, ARENA_MAX);
    const struct chat_part system[] = {text_part("You answer for shop 7.")};
    const struct chat_part user[] = {
        text_part("What is"), {.type = CHAT_PART_IMAGE, .image = 0}, text_part("AB-1234?")};
    const struct chat_message messages[] = {
        {CHAT_SYSTEM, system, 1}, {CHAT_ASSISTANT, NULL, 0}, {CHAT_USER, user, 3}};
    const struct chat chat = {messages, 3, 1, false};
    struct span *s;
    int n;
    CHECK_OK(plan_from_profile(&plan, "balanced", &e), e);
    CHECK_OK(router_split(&chat, &plan, &a, &s, &n, &e), e);
    CHECK_INT(n, ==, 4);
    CHECK(s[0].protect_all && s[0].step.method == compressors[0] && s[0].n_protect == 0);
    CHECK_INT(s[1].message, ==, 2);
    CHECK_INT(s[1].part, ==, 0);
    CHECK(!s[1].protect_all && s[1].n_protect == 0);
    CHECK_STR(s[1].step.method->info.name, "cosine");
    CHECK_INT(s[2].kind, ==, ROW_IMAGE);
    CHECK_STR(s[2].step.method->info.name, "tome");
    CHECK_INT(s[3].part, ==, 2);
    CHECK_INT(s[3].n_protect, ==, 1);
    CHECK_INT(s[3].protect[0].end, ==, 7);

    plan.protect_system = false;
    CHECK_OK(router_split(&chat, &plan, &a, &s, &n, &e), e);
    CHECK(!s[0].protect_all);
    CHECK_INT(s[0].n_protect, ==, 1);
    CHECK_STR(s[0].step.method->info.name, "cosine");

    CHECK_OK(plan_from_profile(&plan, "off", &e), e);
    CHECK_OK(router_split(&chat, &plan, &a, &s, &n, &e), e);
    CHECK_INT(n, ==, 4);
    CHECK(s[3].step.method == compressors[0] && s[2].step.method == compressors[0]);
    CHECK_INT(s[3].n_protect, ==, 0);

    const struct chat nobody = {NULL, 0, 0, false};
    CHECK_OK(router_split(&nobody, &plan, &a, &s, &n, &e), e);
    CHECK_INT(n, ==, 0);
    struct arena none;
    arena_init(&none, 0);
    CHECK_INT(router_split(&chat, &plan, &none, &s, &n, &e), ==, -1);
    CHECK_STR(chat_role_name(CHAT_ASSISTANT), "assistant");
    arena_clear(&a);
}
