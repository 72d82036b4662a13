/* static_prefix against the definition: after each step all neighbours are compared anew. */
#include "compress/compressor.h"
#include "tests/test.h"
#include "tests/unit/random_rows.h"

#define ARENA_MAX ((size_t)64 << 20)
#define WIDTH     6
#define N         40

static double cosine(const double *a, const double *b)
{
    double dot = 0;
    double aa = 0;
    double bb = 0;
    for (int d = 0; d < WIDTH; d++) {
        dot += a[d] * b[d];
        aa += a[d] * a[d];
        bb += b[d] * b[d];
    }
    return dot / sqrt(aa * bb);
}

static bool may_join(const struct rows *r, int i)
{
    return !(r->flags[i - 1] & ROW_PROTECTED) && !(r->flags[i] & (ROW_PROTECTED | ROW_BREAK));
}

/* group[i]: the first row of row i's group. */
static void naive(const struct rows *r, int surplus, int max_group, int *group)
{
    for (int i = 0; i < N; i++) {
        group[i] = i;
    }
    for (; surplus > 0; surplus--) {
        int best = 0; /* the row before which two groups join; none yet */
        double most = -2;
        for (int i = 1; i < N; i++) {
            double sum[2][WIDTH] = {{0}};
            int n = 0;
            for (int k = 0; k < N; k++) {
                bool left = group[k] == group[i - 1];
                bool right = group[k] == group[i];
                n += left || right;
                for (int d = 0; d < WIDTH && (left || right); d++) {
                    sum[right][d] += (double)r->x[k * WIDTH + d];
                }
            }
            if (group[i] == i && may_join(r, i) && n <= max_group &&
                cosine(sum[0], sum[1]) > most) {
                most = cosine(sum[0], sum[1]);
                best = i;
            }
        }
        for (int k = N - 1; k >= best && best > 0; k--) {
            group[k] = group[k] == best ? group[best - 1] : group[k];
        }
    }
}

TEST(static_prefix_reference, "the most alike neighbours become one until the budget is met")
{
    const struct compressor *c = compressor_find("static_prefix");
    struct rng g;
    rng_init(&g, test_seed());
    for (int round = 0; round < 60; round++) {
        struct arena a;
        struct rows r;
        struct rows before;
        struct err e = ERR_INIT;
        struct compress_outcome out = {0};
        double options[COMPRESSOR_MAX_OPTIONS];
        int group[N];
        int n_free = 0;
        arena_init(&a, ARENA_MAX);
        random_rows(&r, &a, N, WIDTH, SHAPE_NEIGHBOURS, &g);
        for (int i = 0; i < N; i++) {
            r.flags[i] = (uint8_t)(rng_below(&g, 7) == 0   ? ROW_PROTECTED
                                   : rng_below(&g, 9) == 0 ? ROW_BREAK
                                                           : 0);
            n_free += !(r.flags[i] & ROW_PROTECTED);
        }
        compressor_defaults(c, options);
        options[compressor_option_index(c, "ratio")] = 1 + (double)rng_below(&g, 30) / 10;
        int max_group = 2 + (int)rng_below(&g, 6);
        options[compressor_option_index(c, "max_group")] = max_group;
        int surplus = n_free - (int)lround(n_free / options[0]);
        copy_rows(&before, &a, &r);
        struct compress_call call = {
            .stage = STAGE_LM_LAYER, .layer = 24, .n_layer = 30, .options = options};
        CHECK_OK(c->ops.apply(&call, &r, &a, &out, &e), e);
        CHECK_OK(rows_check(&r, &e), e);
        naive(&before, surplus, max_group, group);
        for (int i = 1; i < N; i++) {
            CHECK_INT(r.owner[i] == r.owner[i - 1], ==, group[i] == group[i - 1]);
        }
        arena_clear(&a);
    }
}
