/* Memory for huge pages: aligned, asked for where it helps, given back whole; limits and
 * want of memory are met as by any other memory. */
#include "base/alloc.h"
#include "base/huge_pages.h"
#include "model/kv_cache.h"
#include "tests/test.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Whether huge pages were asked for at this address: the flag "hg" of its mapping. */
static bool is_advised(const void *p)
{
    FILE *in = fopen("/proc/self/smaps", "r");
    char line[512];
    bool here = false;
    bool found = false;
    if (!in) {
        SKIP("/proc/self/smaps cannot be read");
    }
    while (fgets(line, sizeof line, in)) {
        unsigned long begin;
        unsigned long end;
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
            here = (uintptr_t)p >= begin && (uintptr_t)p < end;
        } else if (here && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, " hg") != NULL;
        }
    }
    fclose(in);
    return found;
}

static void need_huge_pages(void)
{
    if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK)) {
        SKIP("this system has no huge pages");
    }
}

TEST(huge_pages_sizes, "any size is writable to its last byte; large ones begin on a huge page")
{
    static const size_t sizes[] = {1,
                                   4096,
                                   HUGE_PAGE_BYTES - 1,
                                   HUGE_PAGE_BYTES,
                                   HUGE_PAGE_BYTES + 1,
                                   3 * HUGE_PAGE_BYTES + 4097};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = huge_pages_alloc(sizes[i]);
        CHECK(p);
        CHECK_INT((uintptr_t)p % 64, ==, 0);
        CHECK(sizes[i] < HUGE_PAGE_BYTES || (uintptr_t)p % HUGE_PAGE_BYTES == 0);
        huge_pages_advise(p, sizes[i]);
        memset(p, 1, sizes[i]);
        huge_pages_free(p, sizes[i]);
    }
    huge_pages_free(NULL, HUGE_PAGE_BYTES);
    CHECK(!huge_pages_alloc(SIZE_MAX));
    CHECK(!huge_pages_alloc(SIZE_MAX / 2));
}

TEST(huge_pages_advice, "asked for inside large memory only, not behind its end, and not when off")
{
    need_huge_pages();
    for (int on = 1; on >= 0; on--) {
        size_t bytes = 2 * HUGE_PAGE_BYTES + 8192;
        huge_pages_use(on);
        char *p = huge_pages_alloc(bytes);
        char *small = huge_pages_alloc(8192);
        CHECK(p && small);
        CHECK(!is_advised(p));
        huge_pages_advise(p, bytes);
        huge_pages_advise(small, 8192);
        CHECK(is_advised(p) == on);
        CHECK(is_advised(p + 2 * HUGE_PAGE_BYTES - 1) == on);
        CHECK(!is_advised(p + 2 * HUGE_PAGE_BYTES)); /* a part of a page would be resident whole */
        CHECK(!is_advised(small));
        huge_pages_free(p, bytes);
        huge_pages_free(small, 8192);
    }
}

TEST(huge_pages_limit,
     "a limit that leaves room for the memory, but not for aligning it, is enough")
{
    char *first = huge_pages_alloc(4 * HUGE_PAGE_BYTES);
    CHECK(first);
    huge_pages_free(first, 4 * HUGE_PAGE_BYTES);
    unsigned long pages;
    FILE *in = fopen("/proc/self/statm", "r");
    if (!in || fscanf(in, "%lu", &pages) != 1) {
        SKIP("/proc/self/statm cannot be read");
    }
    fclose(in);
    rlim_t used = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
    struct rlimit limit = {used + 5 * HUGE_PAGE_BYTES, RLIM_INFINITY};
    if (setrlimit(RLIMIT_AS, &limit)) {
        SKIP("the address space cannot be limited");
    }
    char *p = huge_pages_alloc(9 * HUGE_PAGE_BYTES / 2);
    CHECK(p);
    huge_pages_advise(p, 9 * HUGE_PAGE_BYTES / 2);
    memset(p, 1, 9 * HUGE_PAGE_BYTES / 2);
    CHECK(!huge_pages_alloc(4 * HUGE_PAGE_BYTES));
    huge_pages_free(p, 9 * HUGE_PAGE_BYTES / 2);
    p = huge_pages_alloc(4 * HUGE_PAGE_BYTES); /* it was given back */
    CHECK(p);
    huge_pages_free(p, 4 * HUGE_PAGE_BYTES);
}

TEST(huge_pages_out_of_memory, "the n-th allocation fails here as everywhere")
{
    alloc_fail_at(2);
    char *p = huge_pages_alloc(HUGE_PAGE_BYTES);
    CHECK(p);
    CHECK(!huge_pages_alloc(HUGE_PAGE_BYTES));
    CHECK_INT(alloc_count(), ==, 2);
    huge_pages_free(p, HUGE_PAGE_BYTES);
}

TEST(huge_pages_kv, "blocks that a pass fills get huge pages; one that it only begins does not")
{
    need_huge_pages();
    const struct kv_shape shape = {.n_layer = 32, .n_head_kv = 4, .head_dim = 64};
    struct err e = ERR_INIT;
    struct kv_cache kv;
    CHECK_OK(kv_init(&kv, &shape, NULL, 0, 1024, &e), e);
    CHECK_OK(kv_prepare(&kv, 2 * KV_BLOCK_ROWS + 1, &e), e);
    struct kv_group *g = &kv.group[0];
    CHECK_INT(g->blocks[0]->bytes, >, HUGE_PAGE_BYTES);
    CHECK(is_advised(g->blocks[0]) && is_advised(g->blocks[1]));
    CHECK(!is_advised(g->blocks[2]));
    g->n = 2 * KV_BLOCK_ROWS + 1;
    CHECK_OK(kv_prepare(&kv, KV_BLOCK_ROWS - 1, &e), e); /* it is there already */
    CHECK(!is_advised(g->blocks[2]));
    kv_clear(&kv);
}
