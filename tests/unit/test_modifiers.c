/* norm, reweight and residual: against their formulas, for every method of pictures. */
#include "base/arena.h"
#include "compress/modifiers.h"
#include "compress/report.h"
#include "tests/test.h"
#include "tests/unit/picture_rows.h"

#define ARENA_MAX ((size_t)64 << 20)
#define SIDE      8
#define N         (SIDE * SIDE)

static struct plan_step step_of(const struct compressor *c)
{
    struct plan_step step = {.method = c, .stage = (enum stage)__builtin_ctz(c->info.stages)};
    compressor_defaults(c, step.options);
    return step;
}

static void set(struct plan_step *step, enum modifier m, double v)
{
    step->options[step->method->info.n_options + (int)m] = v;
}

static double length(const struct rows *r, int i)
{
    double square = 0;
    for (int d = 0; d < r->n_embd; d++) {
        square += (double)r->x[i * r->n_embd + d] * (double)r->x[i * r->n_embd + d];
    }
    return sqrt(square);
}

/* One pass of the step; of a tower the last of its blocks, with all that may merge. */
static void run(const struct plan_step *step, const struct picture_facts *facts, struct rows *r,
                struct arena *a)
{
    struct plan p;
    struct report report;
    struct err e = ERR_INIT;
    CHECK_OK(plan_from_profile(&p, "off", &e), e);
    report_init(&report, &p);
    if (step->stage == STAGE_VIT_LAYER) {
        CHECK_OK(compress_apply(step, MODALITY_IMAGE, 0, 1, r, NULL, 0, a, &report, &e), e);
    } else {
        CHECK_OK(compress_apply_picture(step, facts, r, a, &report, &e), e);
    }
}

TEST(modifiers_norm, "a merged row is as long as its members on average: every method")
{
    for (int c = 1; compressors[c]; c++) {
        if (!(compressors[c]->info.modalities & 1u << MODALITY_IMAGE)) {
            continue;
        }
        struct arena a;
        struct rng g;
        struct rows before;
        struct rows plain;
        struct rows r;
        struct picture_facts facts;
        struct plan_step step = step_of(compressors[c]);
        arena_init(&a, ARENA_MAX);
        rng_init(&g, test_seed());
        picture_rows(&before, &facts, &a, SIDE, SIDE, &g);
        memcpy(before.x + 5 * PICTURE_WIDTH, before.x, PICTURE_WIDTH * sizeof(float));
        before.flags[9] = ROW_PROTECTED;
        before.flags[9] = step.stage == STAGE_PIXELS ? 0 : ROW_PROTECTED;
        copy_rows(&plain, &a, &before);
        copy_rows(&r, &a, &before);
        run(&step, &facts, &plain, &a);
        set(&step, MODIFIER_NORM, NORM_DIRECTION);
        run(&step, &facts, &r, &a);
        CHECK_INT(r.n, ==, plain.n);
        CHECK(memcmp(r.owner, plain.owner, N * sizeof *r.owner) == 0);
        for (int row = 0; row < r.n; row++) {
            double sum = 0;
            for (int s = 0; s < N; s++) {
                sum += r.owner[s] == row ? length(&before, s) : 0;
            }
            CHECK_DOUBLE(fabs(length(&r, row) - sum / (double)r.mass[row]), <, 1e-5);
        }
        arena_clear(&a);
    }
}

/* 64 sources in m rows of the same mass, one of them protected. */
static void make_groups(struct rows *r, struct arena *a, int m, struct rng *g)
{
    struct picture_facts facts;
    struct err e = ERR_INIT;
    int32_t map[N];
    picture_rows(r, &facts, a, SIDE, SIDE, g);
    for (int i = 0; i < N; i++) {
        map[i] = i * m / N;
    }
    CHECK_OK(rows_merge(r, map, m, a, &e), e);
    r->flags[2] = ROW_PROTECTED;
}

static void finish(struct plan_step *step, struct rows *r, struct arena *a)
{
    struct err e = ERR_INIT;
    CHECK_OK(modifiers_finish(step, r, a, &e), e);
}

TEST(modifiers_reweight, "lengths follow the attention, within a half and twice, from 8x on")
{
    struct arena a;
    struct rng g;
    struct rows before;
    struct rows r;
    struct plan_step step = step_of(compressor_find("pool"));
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    set(&step, MODIFIER_REWEIGHT, 1);
    make_groups(&r, &a, 9, &g);
    copy_rows(&before, &a, &r);
    finish(&step, &r, &a);
    CHECK(same_rows(&r, &before));

    make_groups(&r, &a, 8, &g);
    copy_rows(&before, &a, &r);
    finish(&step, &r, &a);
    double z[8] = {0};
    double mean = 0;
    double variance = 0;
    double total = 0;
    for (int s = 0; s < N; s++) {
        z[r.owner[s]] += (double)r.attention[s];
    }
    for (int i = 0; i < 8; i++) { /* all of one mass: its root cancels out */
        mean += i == 2 ? 0 : z[i] / 7;
    }
    for (int i = 0; i < 8; i++) {
        variance += i == 2 ? 0 : (z[i] - mean) * (z[i] - mean) / 7;
    }
    for (int i = 0; i < 8; i++) {
        total += i == 2 ? 0 : exp((z[i] - mean) / sqrt(variance));
    }
    for (int i = 0; i < 8; i++) {
        double w = 7 * exp((z[i] - mean) / sqrt(variance)) / total;
        double want = i == 2 ? 1 : fmin(fmax(w, 0.5), 2);
        CHECK_DOUBLE(fabs(length(&r, i) / length(&before, i) - want), <, 1e-4);
    }
    CHECK(test_same_bits(r.x + 2 * PICTURE_WIDTH, before.x + 2 * PICTURE_WIDTH, PICTURE_WIDTH));
    arena_clear(&a);
}

TEST(modifiers_residual, "rows move towards the picture's mean, from 8x on; protected ones do not")
{
    struct arena a;
    struct rng g;
    struct rows before;
    struct rows r;
    struct plan_step step = step_of(compressor_find("pool"));
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    set(&step, MODIFIER_RESIDUAL, 0.1);
    make_groups(&r, &a, 4, &g);
    copy_rows(&before, &a, &r);
    finish(&step, &r, &a);
    for (int d = 0; d < PICTURE_WIDTH; d++) {
        double mean = 0;
        for (int i = 0; i < 4; i++) {
            mean += (double)before.x[i * PICTURE_WIDTH + d] / 4;
        }
        for (int i = 0; i < 4; i++) {
            double x = (double)before.x[i * PICTURE_WIDTH + d];
            double want = i == 2 ? x : x + 0.1 * (mean - x);
            CHECK_DOUBLE(fabs((double)r.x[i * PICTURE_WIDTH + d] - want), <, 1e-6);
        }
    }
    make_groups(&r, &a, 9, &g);
    copy_rows(&before, &a, &r);
    finish(&step, &r, &a);
    CHECK(same_rows(&r, &before));
    arena_clear(&a);
}

/* Two messages of three groups of eight rows, a template's row before each. */
static void make_messages(struct rows *r, struct arena *a, struct rng *g)
{
    struct err e = ERR_INIT;
    int32_t map[50];
    random_rows(r, a, 50, PICTURE_WIDTH, SHAPE_UNIFORM, g);
    for (int i = 0; i < 50; i++) {
        int in_message = i % 25;
        map[i] = i / 25 * 4 + (in_message + 7) / 8;
    }
    CHECK_OK(rows_merge(r, map, 8, a, &e), e);
    r->flags[0] = r->flags[4] = ROW_PROTECTED;
    r->flags[1] = r->flags[5] = ROW_BREAK;
}

TEST(modifiers_text, "of a text: the mean of the message, equal looks unless they are known")
{
    struct arena a;
    struct rng g;
    struct rows before;
    struct rows r;
    struct plan_step step = step_of(compressor_find("cosine"));
    arena_init(&a, ARENA_MAX);
    rng_init(&g, test_seed());
    set(&step, MODIFIER_RESIDUAL, 0.1);
    make_messages(&r, &a, &g);
    copy_rows(&before, &a, &r);
    finish(&step, &r, &a);
    for (int i = 0; i < 8; i++) {
        for (int d = 0; d < PICTURE_WIDTH; d++) {
            const float *x = before.x + d;
            int first = i / 4 * 4 + 1;
            double mean =
                ((double)x[first * PICTURE_WIDTH] + (double)x[(first + 1) * PICTURE_WIDTH] +
                 (double)x[(first + 2) * PICTURE_WIDTH]) /
                3;
            double was = (double)x[i * PICTURE_WIDTH];
            double want = i % 4 == 0 ? was : was + 0.1 * (mean - was);
            CHECK_DOUBLE(fabs((double)r.x[i * PICTURE_WIDTH + d] - want), <, 1e-6);
        }
    }
    set(&step, MODIFIER_RESIDUAL, 0);
    set(&step, MODIFIER_REWEIGHT, 1);
    make_messages(&r, &a, &g);
    copy_rows(&before, &a, &r);
    finish(&step, &r, &a); /* all stand for eight: none is looked at more */
    CHECK(same_rows(&r, &before));
    arena_clear(&a);
}

TEST(modifiers_no_memory, "without memory for them the rows stay as they are")
{
    struct arena a;
    struct arena none;
    struct rng g;
    struct rows before;
    struct rows r;
    struct err e = ERR_INIT;
    struct plan_step step = step_of(compressor_find("pool"));
    arena_init(&a, ARENA_MAX);
    arena_init(&none, 0);
    rng_init(&g, test_seed());
    set(&step, MODIFIER_RESIDUAL, 0.1);
    set(&step, MODIFIER_REWEIGHT, 1);
    make_groups(&r, &a, 4, &g);
    copy_rows(&before, &a, &r);
    CHECK_INT(modifiers_finish(&step, &r, &none, &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    CHECK(same_rows(&r, &before));
    arena_clear(&none);
    arena_clear(&a);
}
