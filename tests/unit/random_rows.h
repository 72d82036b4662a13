/* Random rows for the tests of compress/: shared by the tests of single methods and by
 * the property test over the whole table. */
#ifndef TAMP_TESTS_UNIT_RANDOM_ROWS_H
#define TAMP_TESTS_UNIT_RANDOM_ROWS_H

#include "base/rng.h"
#include "compress/rows.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

enum row_shape {
    SHAPE_UNIFORM,   /* independent values */
    SHAPE_TIES,      /* entries +1 and -1 of a small code book: exact ties, exact cosines */
    SHAPE_NEIGHBOURS /* each row near the one before */
};

static inline float random_signed(struct rng *g)
{
    return (float)(2 * rng_double(g) - 1);
}

static inline void random_values(float *x, int n, int width, enum row_shape shape, struct rng *g)
{
    for (int i = 0; i < n; i++) {
        float *row = x + (size_t)i * (size_t)width;
        uint64_t word = rng_below(g, 6);
        for (int d = 0; d < width; d++) {
            if (shape == SHAPE_TIES) {
                row[d] = (word * 0x9e3779b97f4a7c15u >> (d % 60)) & 1 ? 1.0f : -1.0f;
            } else if (shape == SHAPE_NEIGHBOURS && i > 0) {
                row[d] = row[d - width] + 0.6f * random_signed(g);
            } else {
                row[d] = random_signed(g);
            }
        }
    }
}

static inline void random_rows(struct rows *r, struct arena *a, int n, int width,
                               enum row_shape shape, struct rng *g)
{
    struct err e = ERR_INIT;
    CHECK_OK(rows_init(r, a, n, width, ROW_TEXT, 0, &e), e);
    random_values(r->x, n, width, shape, g);
}

/* A deep copy in the arena. */
static inline void copy_rows(struct rows *to, struct arena *a, const struct rows *from)
{
    struct err e = ERR_INIT;
    size_t n = (size_t)from->n;
    CHECK_OK(rows_init(to, a, from->n_source > from->n ? from->n_source : from->n, from->n_embd,
                       ROW_TEXT, 0, &e),
             e);
    to->n = from->n;
    to->n_source = from->n_source;
    memcpy(to->x, from->x, n * (size_t)from->n_embd * sizeof *to->x);
    memcpy(to->mass, from->mass, n * sizeof *to->mass);
    memcpy(to->position, from->position, n * sizeof *to->position);
    memcpy(to->kind, from->kind, n);
    memcpy(to->flags, from->flags, n);
    memcpy(to->owner, from->owner, (size_t)from->n_source * sizeof *to->owner);
    to->attention = from->attention;
}

static inline int same_rows(const struct rows *a, const struct rows *b)
{
    size_t n = (size_t)a->n;
    return a->n == b->n && a->n_source == b->n_source && a->n_embd == b->n_embd &&
           memcmp(a->x, b->x, n * (size_t)a->n_embd * sizeof *a->x) == 0 &&
           memcmp(a->mass, b->mass, n * sizeof *a->mass) == 0 &&
           memcmp(a->position, b->position, n * sizeof *a->position) == 0 &&
           memcmp(a->kind, b->kind, n) == 0 && memcmp(a->flags, b->flags, n) == 0 &&
           memcmp(a->owner, b->owner, (size_t)a->n_source * sizeof *a->owner) == 0;
}

#endif
