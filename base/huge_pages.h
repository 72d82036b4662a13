/* Memory for what is large and read from end to end again and again: packed weights, keys
 * and values. On huge pages such a pass needs one address translation for 2 MiB in place of
 * 512. Where the system has none, or they are switched off, it is memory like any other. */
#ifndef TAMP_BASE_HUGE_PAGES_H
#define TAMP_BASE_HUGE_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/* For the whole process, before the first allocation; on until then. */
void huge_pages_use(bool on);

/* `bytes` from an address that is a multiple of HUGE_PAGE_BYTES, so that huge pages fit;
 * below that size simply mem_alloc_aligned. Not zeroed. NULL: no memory; a limit that only
 * the alignment would break costs the alignment, not the memory. */
void *huge_pages_alloc(size_t bytes) __attribute__((warn_unused_result));
/* Ask for huge pages where they lie in whole inside [p, p + bytes), which huge_pages_alloc
 * made: before it is written, and only when all of it will be, for a huge page is resident
 * as a whole. That the system refuses, or gives some only, is no error. */
void huge_pages_advise(void *p, size_t bytes);
/* bytes: as allocated. NULL is fine. */
void huge_pages_free(void *p, size_t bytes);

#endif
