/* engine/pace.c: rows that fit into a time, from passes whose cost is known. */
#include "base/rng.h"
#include "engine/pace.h"
#include "tests/test.h"

#include <math.h>

/* A machine: fixed ms, ms for each row, and a share of noise either way. */
struct machine {
    double fixed, each, noise;
    struct rng rng;
};

static double takes(struct machine *m, int rows)
{
    double wobble = 1 + m->noise * (2 * (double)rng_below(&m->rng, 1001) / 1000 - 1);
    return (m->fixed + m->each * rows) * wobble;
}

static struct machine machine_of(double fixed, double each, double noise)
{
    struct machine m = {.fixed = fixed, .each = each, .noise = noise};
    rng_init(&m.rng, test_seed());
    return m;
}

TEST(pace_finds_line, "after passes of both kinds the rows fit, whatever the machine")
{
    static const double machines[][2] = {{7, 0.4}, {30, 3.5}, {0.1, 0.01}, {0, 1}};
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct machine m = machine_of(machines[i][0], machines[i][1], 0);
        struct pace p = {0};
        for (int k = 0; k < 40; k++) {
            int rows = k % 4 ? 1 + k % 8 : 64 + k;
            pace_add(&p, rows, takes(&m, rows));
        }
        for (int rows = 20; rows < 400; rows += 19) {
            int got = pace_rows(&p, m.fixed + m.each * (rows + 0.5), 1000);
            CHECK_INT(got, >=, rows - 1);
            CHECK_INT(got, <=, rows + 1);
        }
        CHECK_INT(pace_rows(&p, m.fixed, 1000), <=, 1);
        double three = 3 * m.fixed + m.each * 600;
        CHECK_DOUBLE(fabs(pace_ms(&p, 3, 600) - three), <=, 0.01 * three);
        CHECK_INT(pace_rows(&p, -5, 1000), ==, 0);
        CHECK_INT(pace_rows(&p, 1e9, 256), ==, 256);
    }
}

TEST(pace_without_passes, "nothing known: no limit; one kind known: all is the cost of rows")
{
    struct pace p = {0};
    CHECK_INT(pace_rows(&p, 1, 256), ==, 256);
    CHECK_DOUBLE(pace_ms(&p, 1, 256), ==, 0);
    pace_add(&p, 200, 100);
    CHECK_INT(pace_rows(&p, 50, 256), ==, 100);
    struct pace answers = {0};
    pace_add(&answers, 2, 10);
    CHECK_INT(pace_rows(&answers, 100, 256), ==, 20);
}

TEST(pace_remembers_prompts, "a thousand passes of answers alone do not spoil what rows cost")
{
    struct machine m = machine_of(8, 0.5, 0.1);
    struct pace p = {0};
    pace_add(&p, 200, takes(&m, 200));
    for (int k = 0; k < 1000; k++) {
        pace_add(&p, 1 + k % 3, takes(&m, 1 + k % 3));
    }
    int rows = pace_rows(&p, 58, 256);
    CHECK_INT(rows, >, 70); /* 100, give or take the noise of one pass */
    CHECK_INT(rows, <, 130);
}

/* What the engine does: each pass has the rows that should take the target. */
static double settle(struct machine *m, struct pace *p, double target, int n_passes)
{
    double ms = 0;
    for (int k = 0; k < n_passes; k++) {
        int rows = 2 + pace_rows(p, target, 256);
        double took = takes(m, rows);
        pace_add(p, rows, took);
        ms += (k >= n_passes / 2) * took;
    }
    int n_last = n_passes - n_passes / 2;
    return ms / n_last;
}

TEST(pace_follows, "passes settle at the target, and again when the machine becomes slower")
{
    struct machine m = machine_of(10, 0.8, 0.1);
    struct pace p = {0};
    pace_add(&p, 300, takes(&m, 300));
    pace_add(&p, 1, takes(&m, 1));
    CHECK_DOUBLE(fabs(settle(&m, &p, 100, 60) - 100), <=, 8);
    m.each = 2.4; /* a context three times as dear */
    CHECK_DOUBLE(fabs(settle(&m, &p, 100, 60) - 100), <=, 8);
    m.each = 0.6;
    CHECK_DOUBLE(fabs(settle(&m, &p, 100, 60) - 100), <=, 8);
    pace_add(&p, 80, 3000); /* held up once by another process */
    CHECK_DOUBLE(fabs(settle(&m, &p, 100, 60) - 100), <=, 8);
}
