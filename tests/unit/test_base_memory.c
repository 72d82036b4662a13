/* The allocator with its fault injection, arenas, and buffers with a ceiling. */
#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/checked.h"
#include "tests/test.h"

#include <stdint.h>
#include <string.h>

TEST(alloc_refuses_overflow, "n * size that wraps is NULL, not a small block")
{
    size_t half = SIZE_MAX / 2 + 2;
    CHECK(mem_alloc(half, 2) == NULL);
    CHECK(mem_zalloc(half, 2) == NULL);
    CHECK(mem_alloc_aligned(half, 2) == NULL);
    CHECK(mem_alloc_aligned(SIZE_MAX - 10, 1) == NULL);
    char *p = mem_alloc(4, 1);
    CHECK(p != NULL);
    memcpy(p, "abc", 4);
    CHECK(mem_realloc(p, half, 2) == NULL);
    CHECK_STR(p, "abc");
    mem_free(p);
}

TEST(alloc_zeroes_and_aligns, "mem_zalloc zeroes; mem_alloc_aligned starts a cache line")
{
    unsigned char *z = mem_zalloc(1000, 3);
    unsigned char any = 0;
    for (int i = 0; i < 3000; i++) {
        any |= z[i];
    }
    CHECK_INT(any, ==, 0);
    for (size_t n = 1; n < 300; n += 37) {
        void *p = mem_alloc_aligned(n, 1);
        CHECK_INT((uintptr_t)p % 64, ==, 0);
        mem_free(p);
    }
    mem_free(z);
    mem_free(NULL);
}

TEST(alloc_fails_at_the_nth, "exactly the n-th allocation fails, once")
{
    alloc_fail_at(2);
    void *a = mem_alloc(1, 1);
    void *b = mem_alloc(1, 1);
    void *c = mem_alloc(1, 1);
    CHECK(a && !b && c);
    CHECK_INT(alloc_count(), ==, 3);
    alloc_fail_at(1);
    CHECK(mem_strdup("x") == NULL);
    alloc_fail_at(1);
    CHECK(mem_realloc(a, 100, 1) == NULL);
    alloc_fail_at(0);
    mem_free(a);
    mem_free(c);
}

TEST(alloc_copies_strings, "mem_strndup stops at n and terminates")
{
    char *s = mem_strndup("tamper", 4);
    CHECK_STR(s, "tamp");
    mem_free(s);
    s = mem_strdup("");
    CHECK_STR(s, "");
    mem_free(s);
}

TEST(arena_counts_and_aligns, "64-byte alignment, used and peak bytes, zeroing")
{
    struct arena a;
    arena_init(&a, 1 << 20);
    for (size_t n = 1; n < 200; n += 17) {
        unsigned char *p = arena_zalloc(&a, n, 1);
        CHECK(p != NULL);
        CHECK_INT((uintptr_t)p % 64, ==, 0);
        CHECK_INT(p[n - 1], ==, 0);
        memset(p, 0xff, n);
    }
    size_t used = a.used_bytes;
    CHECK_INT(used, >, 0);
    arena_clear(&a);
    CHECK_INT(a.used_bytes, ==, 0);
    CHECK_INT(a.peak_bytes, ==, used);
}

TEST(arena_keeps_its_ceiling, "one byte over is NULL, and the arena stays usable")
{
    struct arena a;
    arena_init(&a, 256);
    CHECK(arena_alloc(&a, 192, 1) != NULL);
    CHECK(arena_alloc(&a, 65, 1) == NULL);
    CHECK(arena_alloc(&a, 64, 1) != NULL);
    CHECK(arena_alloc(&a, 1, 1) == NULL);
    CHECK(arena_alloc(&a, SIZE_MAX, 2) == NULL);
    CHECK(arena_alloc(&a, SIZE_MAX, 1) == NULL);
    CHECK(arena_strndup(&a, "x", SIZE_MAX) == NULL);
    arena_clear(&a);
    CHECK(arena_alloc(&a, 256, 1) != NULL);
    arena_clear(&a);
}

TEST(arena_rewinds_over_blocks, "a mark gives back all blocks made since, older data stays")
{
    struct arena a;
    arena_init(&a, 64 << 20);
    char *kept = arena_strndup(&a, "kept", 4);
    struct arena_mark mark = arena_mark(&a);
    size_t used = a.used_bytes;
    for (int i = 0; i < 5; i++) {
        char *big = arena_alloc(&a, 1 << 20, 1);
        CHECK(big != NULL);
        memset(big, i, 1 << 20);
    }
    arena_rewind(&a, mark);
    CHECK_INT(a.used_bytes, ==, used);
    CHECK_STR(kept, "kept");
    char *next = arena_alloc(&a, 1, 1);
    CHECK_INT(next - kept, ==, 64);
    arena_clear(&a);
}

TEST(arena_survives_no_memory, "a failed block leaves the arena as it was")
{
    struct arena a;
    arena_init(&a, 1 << 20);
    for (int n = 1; n <= 2; n++) {
        alloc_fail_at(n);
        CHECK(arena_alloc(&a, 10, 1) == NULL);
        CHECK_INT(a.used_bytes, ==, 0);
    }
    alloc_fail_at(0);
    CHECK(arena_alloc(&a, 10, 1) != NULL);
    arena_clear(&a);
}

TEST(buf_appends_and_terminates, "every way of adding, always a NUL after the last byte")
{
    struct buf b;
    buf_init(&b, 1000);
    CHECK_STR(buf_str(&b), "");
    CHECK_INT(buf_puts(&b, "ab"), ==, 0);
    CHECK_INT(buf_putc(&b, 'c'), ==, 0);
    CHECK_INT(buf_append(&b, "d\0e", 3), ==, 0);
    CHECK_INT(buf_printf(&b, "%d%s", 12, "!"), ==, 0);
    CHECK_INT(b.len, ==, 9);
    CHECK(memcmp(b.data, "abcd\0e12!", 10) == 0);
    size_t len;
    char *taken = buf_take(&b, &len);
    CHECK_INT(len, ==, 9);
    CHECK(b.data == NULL && b.len == 0);
    mem_free(taken);
}

TEST(buf_drops_its_front,
     "what is dropped counts no longer; the rest moves up and stays terminated")
{
    struct buf b;
    buf_init(&b, 8);
    buf_drop(&b, 0);
    CHECK_STR(buf_str(&b), "");
    for (int i = 0; i < 100; i++) { /* far more than the ceiling, never more than it at once */
        CHECK_INT(buf_puts(&b, "abcde"), ==, 0);
        CHECK_STR(buf_str(&b) + b.len - 5, "abcde");
        buf_drop(&b, i == 0 ? 3 : 5);
        CHECK_STR(buf_str(&b), "de");
    }
    buf_drop(&b, 2);
    CHECK_INT(b.len, ==, 0);
    CHECK_STR(buf_str(&b), "");
    buf_free(&b);
}

TEST(buf_keeps_its_ceiling, "exactly max_bytes fit; one more fails, sticks, and changes nothing")
{
    struct buf b;
    buf_init(&b, 600);
    for (int i = 0; i < 600; i++) {
        CHECK_INT(buf_putc(&b, 'x'), ==, 0);
    }
    CHECK(!buf_failed(&b));
    CHECK_INT(buf_putc(&b, 'y'), ==, -1);
    CHECK(buf_failed(&b));
    CHECK_INT(b.len, ==, 600);
    CHECK_INT(buf_append(&b, "", 0), ==, -1);
    buf_clear(&b);
    CHECK(!buf_failed(&b));
    CHECK_INT(buf_printf(&b, "%*d", 601, 1), ==, -1);
    CHECK_INT(b.len, ==, 0);
    buf_free(&b);
}

TEST(buf_survives_no_memory, "a failed append keeps what was there")
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "first");
    alloc_fail_at(1);
    for (int i = 0; i < 100; i++) {
        buf_puts(&b, "0123456789");
    }
    CHECK(buf_failed(&b));
    CHECK(strncmp(buf_str(&b), "first", 5) == 0);
    CHECK_INT(strlen(buf_str(&b)), ==, b.len);
    alloc_fail_at(0);
    buf_free(&b);
}

TEST(checked_arithmetic, "the last value that fits and the first that does not")
{
    size_t s;
    uint64_t u;
    CHECK(ck_add(SIZE_MAX - 1, 1, &s) && s == SIZE_MAX);
    CHECK(!ck_add(SIZE_MAX, 1, &s));
    CHECK(ck_mul(SIZE_MAX / 3, 3, &s) && !ck_mul(SIZE_MAX / 3 + 1, 3, &s));
    CHECK(ck_add_u64(UINT64_MAX, 0, &u) && !ck_add_u64(UINT64_MAX, 1, &u));
    CHECK(ck_mul_u64(UINT64_MAX, 1, &u) && !ck_mul_u64(UINT64_MAX, 2, &u));
    CHECK(ck_align(0, 64, &s) && s == 0);
    CHECK(ck_align(65, 64, &s) && s == 128);
    CHECK(!ck_align(SIZE_MAX - 62, 64, &s));
}
