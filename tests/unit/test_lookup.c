/* engine/lookup.h against a plain search, and how the drafts adapt. */
#include "base/alloc.h"
#include "base/rng.h"
#include "engine/lookup.h"
#include "tests/test.h"

#include <string.h>

static void open_lookup(struct lookup *l, struct arena *a, int capacity)
{
    struct err e = ERR_INIT;
    arena_init(a, 1 << 24);
    CHECK_OK(lookup_init(l, capacity, a, &e), e);
}

/* 'a' to 'z' are tokens, '|' is a break. */
static void add_text(struct lookup *l, const char *text)
{
    for (; *text; text++) {
        lookup_add(l, *text == '|' ? LOOKUP_BREAK : *text);
    }
}

static void check_draft(struct lookup *l, int max, const char *want)
{
    token_id draft[LOOKUP_MAX_DRAFT];
    char got[LOOKUP_MAX_DRAFT + 1] = "";
    int n = lookup_propose(l, max, draft);
    for (int i = 0; i < n; i++) {
        got[i] = (char)draft[i];
    }
    CHECK_STR(got, want);
}

TEST(lookup_proposes, "the longest match leads, of equals the newest; periods go on; breaks stop")
{
    static const struct {
        const char *text;
        int max;
        const char *draft;
    } cases[] = {
        {"", 4, ""},
        {"a", 4, ""},
        {"abcd", 4, ""},
        {"abxyab", 4, "xy"},            /* two tokens agree: two are drafted */
        {"abcxyzabc", 4, "xyz"},        /* three */
        {"qabcxyzwrqabc", 4, "xyzw"},   /* four */
        {"qabcxyzwrqabc", 2, "xy"},     /* at most what was asked for */
        {"qabcxyzwrqabc", 0, ""},       /* that is none */
        {"dabcx.abcy.dabc", 4, "x.ab"}, /* the longer match is older */
        {"abcx.abcy-abc", 4, "y-a"},    /* equally long: the newer one */
        {"ababab", 4, "abab"},          /* a period of two */
        {"aaaa", 4, "aaa"},             /* a period of one */
        {"abcx|yzabc", 4, "x"},         /* nothing is copied across a break */
        {"abc|abc", 4, ""},             /* and it is never proposed itself */
        {"ab|cxyzab|c", 4, ""},         /* no n-gram has one inside */
        {"abc|", 4, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lookup l;
        struct arena a;
        open_lookup(&l, &a, 32);
        add_text(&l, cases[i].text);
        check_draft(&l, cases[i].max, cases[i].draft);
        arena_clear(&a);
    }
}

static int agreement(const token_id *ids, int n, int at)
{
    int length = 0;
    while (length < 32 && length <= at && ids[at - length] == ids[n - 1 - length]) {
        length++;
    }
    return length;
}

/* All earlier places, the newest last. */
static int plain_search(const token_id *ids, int n, int max, token_id *draft)
{
    int best = -1;
    int best_length = 1;
    for (int at = 0; at < n - 1; at++) {
        int length = agreement(ids, n, at);
        if (length > 1 && length >= best_length) {
            best_length = length;
            best = at;
        }
    }
    int n_draft = 0;
    for (; best >= 0 && n_draft < max && n_draft < best_length; n_draft++) {
        int from = best + 1 + n_draft;
        draft[n_draft] = from < n ? ids[from] : draft[from - n];
    }
    return n_draft;
}

TEST(lookup_plain_search,
     "random texts, taken back and written anew, give what a plain search does")
{
    enum { CAPACITY = 160 };
    struct rng r;
    rng_init(&r, test_seed());
    int n_drafts = 0;
    for (int round = 0; round < 200; round++) {
        struct lookup l;
        struct arena a;
        token_id ids[CAPACITY] = {0};
        open_lookup(&l, &a, CAPACITY);
        /* few letters repeat much; so few places are left that all of them are looked at */
        uint64_t letters = 8 + rng_below(&r, 40);
        for (int step = 0; step < 300; step++) {
            if (l.n == CAPACITY || rng_below(&r, 50) == 0) {
                lookup_rewind(&l, (int)rng_below(&r, (uint64_t)l.n + 1));
            }
            /* now and then a stretch is quoted */
            int quote = l.n > 20 && rng_below(&r, 4) == 0 ? (int)rng_below(&r, 10) : 0;
            int from = l.n > 20 ? (int)rng_below(&r, (uint64_t)l.n - 10) : 0;
            for (int i = 0; i <= quote && l.n < CAPACITY; i++) {
                ids[l.n] = i < quote ? ids[from + i] : (token_id)rng_below(&r, letters);
                lookup_add(&l, ids[l.n]);
            }
            token_id got[LOOKUP_MAX_DRAFT];
            token_id want[LOOKUP_MAX_DRAFT];
            int n = lookup_propose(&l, 4, got);
            CHECK_INT(n, ==, plain_search(ids, l.n, 4, want));
            CHECK(memcmp(got, want, (size_t)n * sizeof *got) == 0);
            n_drafts += n > 0;
        }
        arena_clear(&a);
    }
    CHECK_INT(n_drafts, >, 1000);
}

TEST(lookup_full, "beyond its capacity nothing is written and nothing is lost")
{
    struct lookup l;
    struct arena a;
    open_lookup(&l, &a, 9);
    add_text(&l, "abcxyzabcdefgh");
    CHECK_INT(l.n, ==, 9);
    check_draft(&l, 4, "xyz");
    arena_clear(&a);
    open_lookup(&l, &a, 0);
    add_text(&l, "abab");
    check_draft(&l, 4, "");
    arena_clear(&a);
}

/* Calls until something is proposed. */
static int wait_for_draft(struct lookup *l)
{
    token_id draft[LOOKUP_MAX_DRAFT];
    int calls = 0;
    while (lookup_propose(l, LOOKUP_MAX_DRAFT, draft) == 0) {
        CHECK_INT(++calls, <, 1000);
    }
    return calls;
}

TEST(lookup_adapts,
     "drafts grow while they are right, shrink when not, and pause when they do not pay")
{
    struct lookup l;
    struct arena a;
    token_id draft[LOOKUP_MAX_DRAFT];
    open_lookup(&l, &a, 128);
    for (int i = 0; i < 64; i++) {
        lookup_add(&l, i % 32);
    }
    int last = 0;
    for (int i = 0; i < 10; i++) {
        int n = lookup_propose(&l, LOOKUP_MAX_DRAFT, draft);
        CHECK(n > last || n == LOOKUP_MAX_DRAFT);
        lookup_result(&l, n, n);
        last = n;
    }
    CHECK_INT(last, ==, LOOKUP_MAX_DRAFT);
    lookup_result(&l, LOOKUP_MAX_DRAFT, 5);
    CHECK_INT(lookup_propose(&l, LOOKUP_MAX_DRAFT, draft), ==, 6);
    lookup_result(&l, 6, 0);
    CHECK_INT(lookup_propose(&l, LOOKUP_MAX_DRAFT, draft), ==, 1);

    /* One of two right pays for ever. */
    for (int i = 0; i < 200; i++) {
        CHECK_INT(wait_for_draft(&l), ==, 0);
        lookup_result(&l, 1, i & 1);
    }
    /* Nothing right: pauses come and grow to a bound; in all, few rows are lost. */
    int longest = 0;
    int lost = 0;
    for (int calls = 0; calls < 2000; lost++) {
        int pause = wait_for_draft(&l);
        calls += pause + 1;
        longest = pause > longest ? pause : longest;
        lookup_result(&l, 1, 0);
    }
    CHECK_INT(longest, ==, 128);
    CHECK_INT(lost, <, 200);
    /* And it comes back. */
    wait_for_draft(&l);
    lookup_result(&l, 1, 1);
    CHECK_INT(wait_for_draft(&l), ==, 0);
    arena_clear(&a);
}

TEST(lookup_no_memory, "an arena that is too small is an error")
{
    struct err e = ERR_INIT;
    struct lookup l;
    struct arena a;
    arena_init(&a, 2000);
    CHECK_INT(lookup_init(&l, 100, &a, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    arena_clear(&a);
}
