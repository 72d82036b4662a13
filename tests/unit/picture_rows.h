/* Rows of a picture for the tests of methods that act on whole pictures. */
#ifndef TAMP_TESTS_UNIT_PICTURE_ROWS_H
#define TAMP_TESTS_UNIT_PICTURE_ROWS_H

#include "compress/plan.h"
#include "tests/unit/random_rows.h"

#define PICTURE_WIDTH 12

/* width x height random rows with random attention, and facts about them. */
static inline void picture_rows(struct rows *r, struct picture_facts *facts, struct arena *a,
                                int width, int height, struct rng *g)
{
    int n = width * height;
    random_rows(r, a, n, PICTURE_WIDTH, SHAPE_UNIFORM, g);
    r->attention = arena_alloc(a, (size_t)n, sizeof *r->attention);
    CHECK(r->attention);
    for (int i = 0; i < n; i++) {
        r->attention[i] = (float)rng_double(g) / (float)n;
        r->kind[i] = ROW_IMAGE;
    }
    *facts = (struct picture_facts){.width = width, .height = height};
}

static inline void picture_apply(const char *method, const double *options,
                                 const struct picture_facts *facts, struct rows *r,
                                 struct arena *scratch, const char **skipped)
{
    struct err e = ERR_INIT;
    struct compress_outcome out = {0};
    const struct compressor *c = compressor_find(method);
    struct compress_call call = {
        .stage = STAGE_IMAGE_ROWS, .layer = -1, .options = options, .picture = facts};
    struct arena_mark mark = arena_mark(scratch);
    CHECK_OK(c->ops.apply(&call, r, scratch, &out, &e), e);
    CHECK_OK(rows_check(r, &e), e);
    arena_rewind(scratch, mark);
    if (skipped) {
        *skipped = out.skipped;
    }
}

static inline void picture_option(const char *method, double *options, const char *name, double v)
{
    int i = compressor_option_index(compressor_find(method), name);
    CHECK_INT(i, >=, 0);
    options[i] = v;
}

#endif
