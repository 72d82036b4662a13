#include "base/huge_pages.h"

#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

static atomic_bool off;

void huge_pages_use(bool on)
{
    atomic_store(&off, !on);
}

#if defined(MADV_HUGEPAGE)

/* Mapped by itself and given back by itself: advice belongs to addresses, and those of the
 * heap would come back as small things that a huge page is no help for. */
static bool is_mapped(size_t bytes)
{
    return bytes >= HUGE_PAGE_BYTES;
}

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* A multiple of 4 KiB is one of the page size on every machine with 2 MiB huge pages. */
static size_t whole_pages(size_t bytes)
{
    return (bytes + 4095) & ~(size_t)4095;
}

void *huge_pages_alloc(size_t bytes)
{
    if (!is_mapped(bytes)) {
        return mem_alloc_aligned(bytes, 1);
    }
    if (bytes > SIZE_MAX / 2 || alloc_must_fail()) {
        return NULL;
    }
    size_t size = whole_pages(bytes);
    char *p = map(size + HUGE_PAGE_BYTES);
    if (!p) {
        return map(size);
    }
    size_t before = (HUGE_PAGE_BYTES - (uintptr_t)p % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (before > 0) {
        munmap(p, before);
    }
    munmap(p + before + size, HUGE_PAGE_BYTES - before);
    return p + before;
}

void huge_pages_advise(void *p, size_t bytes)
{
    size_t skip = (HUGE_PAGE_BYTES - (uintptr_t)p % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (is_mapped(bytes) && bytes >= skip + HUGE_PAGE_BYTES && !atomic_load(&off)) {
        size_t whole = (bytes - skip) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        (void)madvise((char *)p + skip, whole, MADV_HUGEPAGE);
    }
}

void huge_pages_free(void *p, size_t bytes)
{
    if (p && is_mapped(bytes)) {
        munmap(p, whole_pages(bytes));
    } else {
        mem_free(p);
    }
}

#else

void *huge_pages_alloc(size_t bytes)
{
    return mem_alloc_aligned(bytes, 1);
}

void huge_pages_advise(void *p, size_t bytes)
{
    (void)p;
    (void)bytes;
}

void huge_pages_free(void *p, size_t bytes)
{
    (void)bytes;
    mem_free(p);
}

#endif
