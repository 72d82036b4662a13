/* Requests with pictures for a tiny tower and a tiny language model. */
#ifndef TAMP_TESTS_UNIT_ALBUM_FIXTURE_H
#define TAMP_TESTS_UNIT_ALBUM_FIXTURE_H

#include "tests/unit/engine_fixture.h"

#define ALBUM_MB   ((size_t)1 << 20)
#define ALBUM_SIDE 8 /* patches along a side of the tower's pictures */
#define ALBUM_MOST 3

struct album {
    struct engine *en;
    char *files[2];
    struct image_bytes bytes[2], pictures[ALBUM_MOST];
    struct question q;
    struct chat_part parts[ALBUM_MOST + 1];
};

/* ctx_size 0 = the model's own. */
void album_open(struct album *a, size_t cache_bytes, int n_threads, int ctx_size);
/* With shadows of a share of requests. */
void album_open_shadow(struct album *a, double share, double target, bool progressive);
void album_close(struct album *a);
/* Pictures 0, 1, 0 and a question, with a method at its defaults. */
void album_ask(struct album *a, const char *method);
/* The answer (mem_free); the bill stays readable until job_free(*job). */
char *album_run(struct album *a, struct job **job);

#endif
